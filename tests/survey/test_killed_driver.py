"""A run on workers of its own whose driver is killed, alone or with them, and started again at once."""

import os
import signal

import psutil
import pytest
from disturbed.results import files_below, leftovers, n_committed, promised
from waiting import LIMIT_S, wait_for

from scanner.config import StorageConfig

INCOMPLETE = 3
LOCAL = StorageConfig()


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
