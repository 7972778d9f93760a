import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

from scanner.errors import ScannerError
from scanner.processes import run_all


def calls_that_note(folder, n):
    """Each leaves the number of its process and what numerical libraries would be told there."""
    return [(["sh", "-c", f'echo $PPID "$OMP_NUM_THREADS" > {folder}/{number}'],) for number in range(n)]


def test_every_call_is_made_once_by_processes_of_one_thread(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert list(run_all(subprocess.check_call, calls_that_note(tmp_path, 5), workers=2)) == [1, 2, 3, 4, 5]
    notes = [(tmp_path / str(number)).read_text(encoding="utf-8").split() for number in range(5)]
    assert {threads for _, threads in notes} == {"1"}
    assert str(os.getpid()) not in {pid for pid, _ in notes}
    assert "OMP_NUM_THREADS" not in os.environ


def test_one_worker_is_this_process(tmp_path):
    assert list(run_all(subprocess.check_call, calls_that_note(tmp_path, 2), workers=1)) == [1, 2]
    assert (tmp_path / "1").read_text(encoding="utf-8").split()[0] == str(os.getpid())


def test_an_error_is_raised_as_it_is():
    with pytest.raises(subprocess.CalledProcessError):
        list(run_all(subprocess.check_call, [(["false"],), (["true"],)], workers=2))


def test_a_killed_process_is_told_in_a_sentence():
    with pytest.raises(ScannerError, match="a worker process was killed"):
        list(run_all(os._exit, [(1,), (1,)], workers=2))


def ended(pid):
    """Whether a process is no more, or waits only for somebody to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_a_parent_that_is_killed_or_interrupted(tmp_path, how):
    busy = (
        "import subprocess, sys; from scanner.processes import run_all; "
        "calls = [(['sh', '-c', f'echo $PPID > {sys.argv[1]}/{n}; sleep 60; touch {sys.argv[1]}/done'],) for n in (0, 1)]; "
        "list(run_all(subprocess.check_call, calls, 2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", busy, str(tmp_path)])
    notes = [tmp_path / "0", tmp_path / "1"]
    wait_for("both workers", lambda: all(note.exists() and note.read_text(encoding="utf-8") for note in notes))
    workers = {int(note.read_text(encoding="utf-8")) for note in notes}
    parent.send_signal(how)
    parent.wait()
    wait_for("their end", lambda: all(map(ended, workers)))
    # Nobody waited for what was in hand.
    assert not (tmp_path / "done").exists()
