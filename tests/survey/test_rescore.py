"""A run whose stored cutouts are scored by another bundle: as a scan by it, and back, whoever is stopped in between."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from scans import in_this_process
from tiny_network import light_bundle

from scanner.config import StorageConfig, load
from scanner.ensemble.bundle import content_of, write_bundle
from scanner.errors import OutputError, UsageError
from scanner.interface.scan import rescore
from scanner.interface.verify import verify
from scanner.records import Flag
from scanner.storage import open_store
from scanner.survey import rescore as stage
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.objects import ReplayRequest, replay
from scanner.survey.run import RunRequest, run_survey
from scanner.survey.scan import output

SETTINGS = {"targets.magnitude_limit": 21.5, "cutouts.batch_size": 4, "engine.workers": 1, "catalogue.sheet_candidates": 1}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles of the same light networks that weigh them differently."""
    folder = tmp_path_factory.mktemp("bundles")
    first = light_bundle(folder / "first")
    content = content_of(first)
    turned = content.calibration.model_copy(update={"coefficients": tuple(reversed(content.calibration.coefficients))})
    second = write_bundle(folder / "second", replace(content, name="second", calibration=turned))
    return first, second


@pytest.fixture(scope="module")
def tiles(sky, tmp_path_factory):
    """A folder of two overlapping tiles and their list."""
    folder = tmp_path_factory.mktemp("tiles")
    for tile in sorted(path for path in sky.iterdir() if path.is_dir())[:2]:
        shutil.copytree(tile, folder / tile.name)
    (folder / "tile-list.txt").write_text("".join(f"{path.name}\n" for path in sorted(folder.iterdir())))
    return folder


def scan(tiles, out, bundle, **settings):
    config = load(None, SETTINGS | {"scoring.bundle": str(bundle.path)} | settings, {})
    with in_this_process():
        return run_survey(RunRequest(f"{tiles}/tile-list.txt", str(out), config))


@pytest.fixture(scope="module")
def runs(tiles, bundles, tmp_path_factory):
    """The same sky scanned by each bundle, every cutout kept as it was."""
    folder = tmp_path_factory.mktemp("rescored")
    for bundle in bundles:
        scan(tiles, folder / bundle.path.name, bundle, **{"cutouts.keep": "all", "cutouts.codec": "exact"})
    return folder


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the run by the first bundle."""
    return shutil.copytree(runs / "first", tmp_path / "run")


def results(run):
    """The bytes of the results that depend on scores; ``run.json`` lists them."""
    listed = json.loads((run / "run.json").read_text())["sha256"]
    return {name: sha256 for name, sha256 in listed.items() if name not in (stage.MOVED, "candidates.html")}


def again(run, bundle):
    with in_this_process():
        return rescore(run, bundle.path, progress=False)


def test_scores_again_are_those_of_a_scan_and_back_are_the_first_ones(runs, run, bundles, monkeypatch):
    first, second = bundles
    report = again(run, second)
    assert results(run) == results(runs / "second")
    assert (report.before, report.after) == (f"light {first.manifest.version}", f"second {second.manifest.version}")
    assert report.n_kept == 0
    assert report.n_rescored == report.run.n_targets
    assert verify(run, deep=True).problems == ()
    table = Table.read(run / stage.MOVED)
    assert table.meta["after"] == report.after
    assert (table["rank_before"] != table["rank_after"]).any()
    before = {row["name"]: row["rank"] for row in Table.read(runs / "first" / "candidates.fits")}
    assert all(row["rank_before"] == before[row["name"]] for row in table if row["name"] in before)
    found = replay(ReplayRequest(str(run), "#1"))
    assert found.agreement == "equal"
    assert found.differences == ()
    # Going back scores nothing.
    monkeypatch.setattr(stage, "run_on_workers", None)
    again(run, first)
    assert results(run) == results(runs / "first")
    assert [one.bundle_name for one in RunFolder(open_store(str(run), StorageConfig())).record().earlier] == ["light", "second"]


def test_stopped_at_any_step_it_goes_on_to_the_same_bytes(runs, run, bundles, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    for step in ("_keep", "finish", "_moved"):
        with monkeypatch.context() as patch:
            patch.setattr(stage, step, stop)
            with pytest.raises(KeyboardInterrupt):
                again(run, bundles[1])
        if step == "_keep":
            assert results(run) == results(runs / "first")
    again(run, bundles[1])
    assert results(run) == results(runs / "second")
    assert len(Table.read(run / stage.MOVED)) > 0


def test_what_was_not_stored_keeps_its_scores_flagged_and_is_no_candidate(tiles, bundles, tmp_path, monkeypatch):
    out, alone = tmp_path / "out", tmp_path / "alone"
    shutil.copytree(tiles, alone)
    # The best that are not sampled are stored too: all that so small a sky has.
    monkeypatch.setattr(output, "LEAST_LISTED", 1)
    scan(alone, out, bundles[0], **{"cutouts.keep": "sample:0.5", "scoring.threshold": 1.0})
    folder = RunFolder(open_store(str(out), StorageConfig()))
    before = {commit.tile_id: folder.scores(commit) for commit in map(folder.commit_of, folder.committed())}
    shutil.rmtree(alone)
    again_report = again(out, bundles[1])
    assert 0 < again_report.n_kept < again_report.run.n_targets
    for tile_id, old in before.items():
        new = folder.scores(folder.commit_of(tile_id))
        kept = (new["flags"].to_numpy() & Flag.NOT_RESCORED) > 0
        assert new["target_id"].equals(old["target_id"])
        assert np.array_equal(new["p_calibrated"].to_numpy()[kept], old["p_calibrated"].to_numpy()[kept], equal_nan=True)
        assert not new["is_candidate"].to_numpy()[kept].any()
        assert (new["p_calibrated"].to_numpy()[~kept] != old["p_calibrated"].to_numpy()[~kept]).any()


def test_a_run_without_cutouts_or_by_this_bundle_already_is_refused_and_stays(tiles, run, bundles, tmp_path):
    with pytest.raises(UsageError, match=r"are those of light .* already"):
        again(run, bundles[0])
    scan(tiles, tmp_path / "none", bundles[0], **{"cutouts.keep": "none"})
    record = (tmp_path / "none" / "run.json").read_bytes()
    with pytest.raises(UsageError, match="no cutouts are stored"):
        again(tmp_path / "none", bundles[1])
    assert (tmp_path / "none" / "run.json").read_bytes() == record
    with open_store(str(run), StorageConfig()).held(), pytest.raises(OutputError, match="is writing to this folder"):
        again(run, bundles[1])
