import os
from pathlib import Path

import pytest

from scanner.errors import ScannerError
from scanner.simulation.processes import run_all


def _note(folder: Path, number: int) -> None:
    (folder / str(number)).write_text(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}", encoding="utf-8")


def _die(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), 9)


def test_every_call_is_made_once_by_processes_of_one_thread(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(run_all(_note, [(tmp_path, number) for number in range(5)], workers=2)) == [1, 2, 3, 4, 5]
    notes = [(tmp_path / str(number)).read_text(encoding="utf-8").split() for number in range(5)]
    assert {threads for _, threads in notes} == {"1"}
    assert str(os.getpid()) not in {pid for pid, _ in notes}
    assert "OMP_NUM_THREADS" not in os.environ


def test_one_worker_is_this_process(tmp_path):
    assert list(run_all(_note, [(tmp_path, 0), (tmp_path, 1)], workers=1)) == [1, 2]
    assert (tmp_path / "1").read_text(encoding="utf-8").startswith(f"{os.getpid()} ")


def test_a_killed_process_is_told_in_a_sentence():
    with pytest.raises(ScannerError, match="a worker process was killed"):
        list(run_all(_die, [(number,) for number in range(4)], workers=2))
