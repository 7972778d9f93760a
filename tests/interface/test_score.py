"""Own arrays, scored as a scan scores them."""

import numpy as np
import pytest
from scans import in_this_process

import scanner
from scanner.errors import InputMissingError, UsageError
from scanner.records import MEMBERS, Flag
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tile without masks: what holes are filled with depends on the object's id."""
    folder = tmp_path_factory.mktemp("without-masks")
    draw_tiles(TilesRequest(n_tiles=1, size=640, seed=3, lenses_per_tile=6, density=0.5, companions=False), folder / "sky")
    with in_this_process():
        return scanner.scan(folder / "sky" / "tile-list.txt", folder / "out", keep="all", codec="exact", magnitude_limit=22.0)


@pytest.fixture(scope="module")
def rows(run):
    objects = run.query()
    bad = sum(objects[name] for name in objects.colnames if name.startswith("bad_"))
    return objects[np.asarray(bad) == 0][:3]


@pytest.fixture(scope="module")
def cutouts(run, rows):
    return [run.cutout(row) for row in rows]


def test_arrays_of_a_run_get_the_scores_of_the_run(run, rows, cutouts):
    scores = scanner.score(np.stack([one.vis for one in cutouts]), np.stack([one.nisp for one in cutouts]))
    assert not {"ra", "tile_id", "target_id"} & set(scores.colnames)
    members = [f"p_{name.lower().replace('-', '_')}" for name in MEMBERS]
    assert scores.colnames[:7] == members
    for name in (*members, "p_calibrated", "grid_value", "cell_count", "tsne_x"):
        assert np.array_equal(scores[name], rows[name], equal_nan=True), name
    own = scanner.score(cutouts[0].vis, cutouts[0].nisp, beta=run.record.config.scoring.beta)
    assert bool(own["is_candidate"][0]) == bool(rows["is_candidate"][0])


def test_one_object_any_byte_order_and_given_noise(cutouts):
    one = cutouts[0]
    plain = scanner.score(one.vis, one.nisp)
    assert len(plain) == 1
    assert np.array_equal(scanner.score(one.vis.astype(">f8"), one.nisp)["p_ou_200"], plain["p_ou_200"])
    given = scanner.score(one.vis, one.nisp, sky=one.batch.sky[0], sigma=one.batch.sigma[0])
    assert np.array_equal(given["p_calibrated"], plain["p_calibrated"])
    louder = scanner.score(one.vis, one.nisp, sigma=10 * one.batch.sigma[0])
    assert not np.array_equal(louder["p_calibrated"], plain["p_calibrated"])


def test_bad_pixels_are_filled_and_too_many_are_not_scored(cutouts):
    vis, nisp = cutouts[0].vis.copy(), cutouts[0].nisp.copy()
    vis[:20] = np.nan
    scores = scanner.score(vis, nisp)
    assert scores["bad_vis"][0] == pytest.approx(0.1)
    assert scores["flags"][0] & Flag.MASKED_PIXELS
    assert np.isfinite(scores["p_calibrated"][0])
    vis[:100] = np.nan
    scores = scanner.score(vis, nisp)
    assert np.isnan(scores["p_calibrated"][0])
    assert scores["flags"][0] & Flag.TOO_MANY_BAD_PIXELS
    assert not scores["is_candidate"][0]


def test_no_objects_are_no_rows(cutouts):
    assert len(scanner.score(np.empty((0, 200, 200)), np.empty((0, 3, 66, 66)))) == 0


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        (((100, 100), (3, 66, 66)), "vis has the shape (100, 100); give (200, 200) or (N, 200, 200)."),
        (((2, 200, 200), (3, 66, 66)), "nisp has the shape (3, 66, 66); give (3, 66, 66) or (2, 3, 66, 66)."),
        (((200, 200), (66, 66, 3)), "nisp has the shape (66, 66, 3)"),
    ],
)
def test_other_shapes_are_one_sentence(shapes, said):
    with pytest.raises(UsageError) as caught:
        scanner.score(*map(np.zeros, shapes))
    assert said in str(caught.value)


def test_a_bundle_is_loaded_by_name_by_folder_or_by_default(cutouts):
    bundle = scanner.load_bundle()
    assert scanner.load_bundle(bundle.path).fingerprint == bundle.fingerprint
    assert scanner.load_bundle(bundle.path.name).manifest == bundle.manifest
    one = cutouts[0]
    assert np.array_equal(scanner.score(one.vis, one.nisp, bundle=bundle)["p_ou_j"], scanner.score(one.vis, one.nisp)["p_ou_j"])
    with pytest.raises(InputMissingError, match="no such bundle"):
        scanner.score(one.vis, one.nisp, bundle="nowhere")
