"""A run on workers of its own whose driver is killed, alone or with them, and started again at once."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from disturbed.results import files_below, leftovers, n_committed, promised
from waiting import LIMIT_S, wait_for

import scanner
from scanner.config import StorageConfig

INCOMPLETE = 3
LOCAL = StorageConfig()
OPENVINO_PYTHON = os.environ.get("OPENVINO_PYTHON")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with its workers"])
def test_a_killed_driver_is_followed_by_another_at_once(few_tiles, tmp_path, alone):
    """Killed alone, it leaves workers that are in the middle of a tile: they end by themselves and spoil nothing."""
    out = str(tmp_path / "out")
    run = (tmp_path / "run", str(few_tiles.listed), out)
    _, driver = few_tiles.run(*run, SCANNER_ENGINE__WORKERS="2")
    wait_for("two tiles", lambda: n_committed(out, LOCAL) >= 2)
    left = psutil.Process(driver.pid).children(recursive=True)
    if alone:
        driver.kill()
    else:
        os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    processes, driver = few_tiles.run(*run, name="again")
    assert driver.wait() == INCOMPLETE, processes.log("again")
    assert promised(out, LOCAL) == few_tiles.expected
    assert leftovers(out, LOCAL) == []
    _, alive = psutil.wait_procs(left, timeout=LIMIT_S)
    assert alive == []
    assert files_below(processes.temporary) == []


@pytest.mark.skipif(OPENVINO_PYTHON is None, reason="OPENVINO_PYTHON names no Python with onnxruntime-openvino")
def test_a_killed_run_in_bfloat16_goes_on_to_the_same_bytes(few_tiles, tmp_path):
    """With the networks that ship, and more workers than before."""
    environment = os.environ | {"PYTHONPATH": str(Path(scanner.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = ("--all", "--keep", "all", "--codec", "exact", "--provider", "openvino-bfloat16")

    def start(out, workers):
        command = [str(OPENVINO_PYTHON), "-m", "scanner", "run", str(few_tiles.listed), "--out", out, *words]
        return subprocess.Popen([*command, "--workers", str(workers)], env=environment, start_new_session=True)

    undisturbed, out = str(tmp_path / "undisturbed"), str(tmp_path / "out")
    assert start(undisturbed, 1).wait() == INCOMPLETE
    driver = start(out, 1)
    wait_for("a tile", lambda: n_committed(out, LOCAL))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert n_committed(out, LOCAL) < few_tiles.n_good
    assert start(out, 2).wait() == INCOMPLETE
    assert n_committed(out, LOCAL) == few_tiles.n_good
    assert promised(out, LOCAL) == promised(undisturbed, LOCAL)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["provider"] == "openvino-bfloat16"
