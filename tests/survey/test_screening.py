"""Runs whose bundle has a screen: some objects are scored by few members, and everything else is as without one."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scans import in_this_process, plain_bundle

from scanner.config import CutoutsConfig, TargetsConfig, load
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Screen, content_of, write_bundle
from scanner.ensemble.preprocessing import ORIENTATIONS, turn
from scanner.ensemble.session import Scorer, open_session
from scanner.errors import ScannerError
from scanner.evaluation.images import known_lens_cutouts, read_images, read_known_lenses
from scanner.records import BANDS, MEMBERS, Flag
from scanner.sky import tile_list
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import open_tile
from scanner.survey.objects import ReplayRequest, replay
from scanner.survey.run import RunRequest, run_survey
from scanner.training.cascade import member_graph

PREFIXES = ("VIS", "NIR_Y", "NIR_J", "NIR_H")
#: Two Euclid images with a lens in the centre, as in a tile list.
REAL_IMAGES = {
    name: " ".join(f"{band}={{0}}/{file}[{prefix}_{suffix}]" for band, prefix in zip(BANDS, PREFIXES, strict=True))
    for name, file, suffix in (
        ("q1", "euclid-q1-102018665/102018665_NEG570040238507752998.fits", "BGSUB"),
        ("group", "euclid-group/group.fits", "FLUX"),
    )
}
SETTINGS = {"targets.magnitude_limit": 21.5, "cutouts.batch_size": 4, "engine.workers": 1}


@pytest.fixture(scope="module")
def one_tile(sky, tmp_path_factory):
    """A sky of one tile."""
    folder = tmp_path_factory.mktemp("screened")
    tile = sorted(path for path in sky.iterdir() if path.is_dir())[0]
    shutil.copytree(tile, folder / tile.name)
    (folder / "tile-list.txt").write_text(f"{tile.name}\n")
    return folder, tile.name


@pytest.fixture(scope="module")
def bundle(one_tile):
    """The bundle that ships without test-time augmentation, with a screen that half the objects of the tile pass."""
    folder, _ = one_tile
    content = content_of(bundles.load(plain_bundle()))
    graph = member_graph(content.model, ("OU-66",))

    def write(name, limit):
        screen = Screen(members=("OU-66",), log_odds_above=limit, share=0.5)
        return write_bundle(folder / name, replace(content, screen=screen, screen_model=graph))

    unset = write("unset", 0.0)
    (tile,) = tile_list.read(str(folder / "tile-list.txt")).tiles.values()
    with open_tile(tile, CutoutsConfig(), folder) as images:
        targets = list_targets(tile, images.vis, TargetsConfig(magnitude_limit=21.5)).targets
        (batch,) = cut(images, targets, len(targets))
    first = open_session(unset, "cpu", screens=True).screen_logits(*fill_bad_pixels(batch), batch.sky, batch.sigma)
    return write("bundle", float(np.median(unset.screening("bundle").calibration.log_odds(first))))


def scan(one_tile, name, bundle, **settings):
    folder, tile_id = one_tile
    config = load(None, SETTINGS | {"scoring.bundle": str(bundle.path)} | settings, {})
    with in_this_process():
        report = run_survey(RunRequest(str(folder / "tile-list.txt"), str(folder / name), config))
    return report, pq.read_table(folder / name / "tiles" / tile_id / "scores.parquet")


@pytest.fixture(scope="module")
def runs(one_tile, bundle):
    """The report and the rows of a run with the screen, and of one without."""
    return scan(one_tile, "with", bundle, **{"scoring.screen": "bundle"}), scan(one_tile, "without", bundle)


def test_rows_that_pass_are_those_of_a_run_without_a_screen(runs):
    (report, rows), (plain_report, plain) = runs
    screened = (rows["flags"].to_numpy() & Flag.SCREENED) > 0
    assert 0 < screened.sum() < len(rows) == len(plain)
    assert rows.filter(~screened).equals(plain.filter(~screened))
    assert report.cost.n_screened == screened.sum()
    assert plain_report.cost.n_screened == 0
    assert (report.n_scored, report.n_targets) == (plain_report.n_scored, plain_report.n_targets)


def test_rows_that_do_not_pass_have_a_probability_and_a_rank(runs, one_tile):
    (report, rows), (_, plain) = runs
    out = (rows["flags"].to_numpy() & Flag.SCREENED) > 0
    assert rows["p_ou_66"].filter(out).equals(plain["p_ou_66"].filter(out))
    for member in MEMBERS:
        name = f"p_{member.lower().replace('-', '_')}"
        assert np.isnan(rows[name].to_numpy()[out]).all() == (member != "OU-66")
    assert (rows["p_calibrated"].to_numpy()[out] > 0).all()
    catalogue = pq.read_table(one_tile[0] / "with" / "catalogue" / "dataset")
    assert sorted(catalogue["rank"].to_pylist()) == list(range(1, report.n_unique + 1))
    order = np.argsort(catalogue["rank"].to_numpy())
    assert (np.diff(catalogue["p_calibrated"].to_numpy()[order]) <= 0).all()


def test_neither_batches_nor_parallel_scores_change_a_byte(runs, one_tile, bundle):
    folder, tile_id = one_tile
    table = f"tiles/{tile_id}/scores.parquet"
    for name, settings in (("batches", {"cutouts.batch_size": 7}), ("parallel", {"engine.parallel_scores": 3})):
        scan(one_tile, name, bundle, **{"scoring.screen": "bundle"} | settings)
        assert (folder / name / table).read_bytes() == (folder / "with" / table).read_bytes()


def test_objects_that_pass_and_that_do_not_are_replayed_to_the_bit(runs, one_tile):
    folder, tile_id = one_tile
    rows = runs[0][1]
    out = (rows["flags"].to_numpy() & Flag.SCREENED) > 0
    for row in (np.argmax(out), np.argmin(out)):
        found = replay(ReplayRequest(str(folder / "with"), f"{tile_id}/{rows['target_id'][int(row)]}"))
        assert found.agreement == "equal"
        values = {value.name: value.now for value in found.values}
        assert (values["p_ou_200"] is None) == out[row]


def test_a_run_goes_on_only_with_the_same_screen(runs, one_tile, bundle):
    with pytest.raises(ScannerError, match="settings"):
        scan(one_tile, "with", bundle, **{"scoring.screen": "none"})


def test_no_real_lens_is_screened_out(real, tmp_path):
    (tmp_path / "images.txt").write_text("\n".join(f"id={name} {bands}" for name, bands in REAL_IMAGES.items()).format(real))
    (tmp_path / "known.txt").write_text(f"id=jackpot VIS={real}/jackpot/slacs0946+1006.fits scale=0.05\n")
    known = known_lens_cutouts(read_known_lenses(tmp_path / "known.txt"))
    shipped = Scorer(bundles.load(None), "cpu", screen="auto")
    assert shipped.screening is not None
    for name, cutout in (read_images(tmp_path / "images.txt") | known).items():
        vis, nisp = fill_bad_pixels(cutout)
        for orientation in range(ORIENTATIONS):
            images = (np.ascontiguousarray(turn(band, orientation)) for band in (vis, nisp))
            if name == "jackpot":
                found = shipped.score(*images, cutout.sky, cutout.sigma, np.float32([[0, 1, 1, 1]]), cutout.flags)
                assert not (found.flags & Flag.SCREENED).any()
                break
            assert shipped.screening.passing(shipped.session.screen_logits(*images, cutout.sky, cutout.sigma)).all(), name
