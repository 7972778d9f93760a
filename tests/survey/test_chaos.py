"""A survey on an object store whose workers and driver are killed at random ends with the bytes of the undisturbed one.

``benchmarks/chaos.py`` does the same with many seeds, on a disk too, and with tiles that are scanned by one task.
"""

import signal
from dataclasses import replace

import pytest
from astropy.table import Table
from disturbed.little_tiles import TRUNCATED, UNREADABLE, write_little_tiles
from disturbed.survey import Survey
from scans import light_bundle

from scanner.config import StorageConfig
from scanner.storage import open_store

N_TILES = 9


@pytest.fixture(scope="module")
def survey(sky, tmp_path_factory):
    """Nine tiles, two of which cannot be scanned, and what their undisturbed run gives."""
    folder = tmp_path_factory.mktemp("chaos")
    listed = write_little_tiles(sky, folder / "tiles", N_TILES)
    return Survey(str(listed), N_TILES - 2, StorageConfig(), str(light_bundle(folder / "bundle").path)), folder


@pytest.fixture(scope="module")
def expected(survey):
    tiles, folder = survey
    return tiles.undisturbed(folder / "calm", str(folder / "calm" / "out"))


def check(run, expected):
    log = run.processes.log("driver")
    assert run.outcome.exit_code == 3, log
    assert "Traceback" not in log
    assert run.outcome.done["worker SIGKILL"] >= 2
    assert run.outcome.done["worker SIGTERM"] >= 2
    assert run.outcome.done["driver SIGKILL"] + run.outcome.done["driver SIGTERM"] == 2
    assert run.promised.keys() == expected.keys()
    assert {name for name in expected if run.promised[name] != expected[name]} == set()
    assert run.leftovers == []
    # One that is asked while it still starts has nothing to lose, and dies of the signal.
    assert {code for code, _ in run.outcome.left} - {-signal.SIGTERM} == {0}
    assert run.codes == [0] * len(run.codes)


def test_a_disturbed_run_ends_with_the_bytes_of_an_undisturbed_one(survey, expected, s3, tmp_path):
    tiles, _ = survey
    out = s3.fresh()
    check(replace(tiles, storage=s3.config).disturbed(20, tmp_path / "run", out, "split"), expected)
    listed = open_store(out, s3.config).read("failed-tiles.ecsv").decode()
    failed = {row["tile_id"]: row["reason"] for row in Table.read(listed, format="ascii.ecsv")}
    assert failed.keys() == {TRUNCATED, UNREADABLE}
    assert "truncated.fits: the file is truncated" in failed[TRUNCATED]
    assert "unreadable.fits" in failed[UNREADABLE]
