"""A survey whose workers and driver are killed at random ends with the bytes of the undisturbed one.

``benchmarks/chaos.py`` does the same with many seeds.
"""

import signal
from dataclasses import replace

import pytest
from astropy.table import Table
from disturbed.little_tiles import TRUNCATED, UNREADABLE, write_little_tiles
from disturbed.survey import Survey
from scans import write_plain_bundle

from scanner.config import StorageConfig

N_TILES = 12


@pytest.fixture(scope="module")
def survey(sky, tmp_path_factory):
    """Twelve tiles, two of which cannot be scanned, and what their undisturbed run gives."""
    folder = tmp_path_factory.mktemp("chaos")
    listed = write_little_tiles(sky, folder / "tiles", N_TILES)
    return Survey(str(listed), N_TILES - 2, StorageConfig(), str(write_plain_bundle(folder / "bundle"))), folder


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


def test_a_disturbed_run_ends_with_the_bytes_of_an_undisturbed_one(survey, expected, tmp_path):
    tiles, _ = survey
    out = tmp_path / "out"
    check(tiles.disturbed(2, tmp_path / "run", str(out), "whole"), expected)
    failed = {row["tile_id"]: row["reason"] for row in Table.read(out / "failed-tiles.ecsv")}
    assert failed.keys() == {TRUNCATED, UNREADABLE}
    assert "truncated.fits: the file is truncated" in failed[TRUNCATED]
    assert "unreadable.fits" in failed[UNREADABLE]


def test_on_an_object_store_and_with_scoring_apart(survey, expected, s3, tmp_path):
    tiles, _ = survey
    remote = replace(tiles, storage=s3.config)
    check(remote.disturbed(20, tmp_path / "run", s3.fresh(), "split"), expected)
