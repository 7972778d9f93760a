import numpy as np
import pytest

from scanner.ensemble.preprocessing import turn
from scanner.ensemble.session import open_session
from scanner.errors import TileError
from scanner.evaluation.images import NonLenses, image_logits, judge_of, read_images, score_image
from scanner.evaluation.scores import dataset_logits
from scanner.labelled_set import LabelledSet


@pytest.fixture(scope="module")
def session(bundle):
    return open_session(bundle, "cpu")


def test_an_image_is_scored_eight_ways_round(bundle, session, sets):
    dataset = LabelledSet(sets["eval"])
    batch, vis, nisp = next(dataset.batches(np.array([2]), 1))
    logits = image_logits(batch, session)
    assert logits.shape == (8, 7)
    np.testing.assert_array_equal(logits[0], dataset_logits(session, dataset, np.array([2]))[0])
    once = session.logits(np.ascontiguousarray(turn(vis, 5)), np.ascontiguousarray(turn(nisp, 5)), batch.sky, batch.sigma)
    np.testing.assert_allclose(logits[5], once[0], atol=1e-5)

    combined = bundle.calibration.ranking_score(logits)[3] + np.arange(-20.0, 20.0)
    others = NonLenses("sky", {None: combined, "OU-VIS": logits[:, 4] - 1.0})
    found = score_image("x", batch, bundle, "b", session, others=others)
    assert found.above == tuple(np.mean(combined > own) for own in bundle.calibration.ranking_score(logits))
    assert (found.compared_with, found.n_compared) == ("sky", 40)
    by_vis = score_image("x", batch, bundle, "b", session, judge="OU-VIS", others=others)
    assert by_vis.judge == "OU-VIS"
    np.testing.assert_allclose(by_vis.log_odds, logits[:, 4])
    assert by_vis.above == tuple(np.mean(logits[:, 4] - 1.0 > own) for own in logits[:, 4])
    alone = score_image("x", batch, bundle, "b", session)
    assert (alone.above, alone.compared_with, alone.n_compared) == (None, None, 0)
    nobody = score_image("x", batch, bundle, "b", session, others=NonLenses("empty", {None: np.empty(0)}))
    assert (nobody.above, nobody.compared_with, nobody.n_compared) == (None, None, 0)


@pytest.mark.parametrize(
    ("bands", "judge"),
    [
        ("VIS Y J H", None),
        ("VIS", "OU-VIS"),
        ("VIS Y", "OU-VIS"),
        ("VIS J H", "OU-VIS"),
        ("Y J H", "OU-JYH"),
        ("J", "OU-J"),
        ("H", "OU-H"),
        ("Y H", "OU-Y"),
    ],
)
def test_an_image_is_judged_by_who_sees_what_is_there(bands, judge):
    assert judge_of(bands.split()) == judge


def test_no_band_is_no_image():
    with pytest.raises(ValueError, match="no band"):
        judge_of([])


def test_real_images_are_cut_in_their_middle(real, tmp_path):
    folder = real / "euclid-q1-102018665"
    path = next(folder.glob("*.fits"))
    bands = " ".join(
        f"{band}={path}[{name}_BGSUB]" for band, name in zip("VYJH", ("VIS", "NIR_Y", "NIR_J", "NIR_H"), strict=True)
    )
    (tmp_path / "tiles.txt").write_text(f"id=q1 {bands.replace('V=', 'VIS=', 1)}\n")
    batch = read_images(tmp_path / "tiles.txt")["q1"]
    # 10 of 20 arcsec; the rest is padding, and not bad.
    assert np.isnan(batch.vis[0]).mean() == pytest.approx(0.75)
    assert batch.bad_fraction[0, 0] == 0
    inner = np.nan_to_num(batch.vis[0, 90:110, 90:110])
    assert inner.max() == np.nanmax(batch.vis[0, 60:140, 60:140])


def test_a_tile_that_lacks_a_band_is_told(tmp_path):
    (tmp_path / "tiles.txt").write_text("id=a VIS=v.fits Y=y.fits J=j.fits\n")
    with pytest.raises(TileError, match=r"tile a: names no H mosaic"):
        read_images(tmp_path / "tiles.txt")
