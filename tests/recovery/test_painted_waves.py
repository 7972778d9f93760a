"""Lenses painted in waves: what is painted, that nothing else changes, and that a wave is scanned as painted mosaics are."""

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scans import in_this_process, plain_bundle

from scanner.catalogue.columns import score_table
from scanner.config import CutoutsConfig, load
from scanner.cutouts.extract import cut
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.errors import ContentError, TileError
from scanner.recovery.paint import (
    APART_PIXELS,
    SKY_CLASSES,
    WAVE_LENSES,
    PaintedWave,
    RecoveryRequest,
    Surveyed,
    Wave,
    lay_waves,
    population_of,
    read_population,
    survey_places,
    tile_brush,
)
from scanner.recovery.scan import scan_wave
from scanner.simulation.injection.inject import PARTS, paint_mosaics
from scanner.simulation.injection.painting import Plan
from scanner.simulation.injection.places import DEFLECTOR, EMPTY, Places
from scanner.sky import tile_list
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import open_tile
from scanner.survey.run import RunRequest, run_survey
from scanner.survey.scan.tile import score_batch

N = 8
SETTINGS = {"targets.source": "detection", "targets.magnitude_limit": 22.5, "cutouts.keep": "none"}


def made_places(n_deflectors, n_empty, side, seed=0):
    rng = np.random.default_rng(seed)
    n = n_deflectors + n_empty
    kind = np.repeat(np.array([DEFLECTOR, EMPTY], dtype=np.int8), [n_deflectors, n_empty])
    x, y = rng.uniform(0, side, (2, n))
    magnitude = np.where(kind == EMPTY, np.nan, 20.0)
    return Places(kind, np.arange(n), x / 36e3, y / 36e3, x, y, magnitude, magnitude, magnitude, magnitude)


def test_no_two_lenses_of_a_wave_are_near_one_another():
    places = made_places(40, 3000, 6000)
    waves = lay_waves("7", places, RecoveryRequest(n_lenses=900, seed=3), 900, first=100)
    plan = waves.plan
    assert len(plan) == 900
    assert list(waves.wave) == sorted(waves.wave)
    for number in np.unique(waves.wave):
        here = np.flatnonzero(waves.wave == number)
        assert len(here) <= WAVE_LENSES
        distance = np.hypot(*(np.subtract.outer(v[here], v[here]) for v in (plan.places.x, plan.places.y)))
        assert distance[~np.eye(len(here), dtype=bool)].min() >= APART_PIXELS
    assert (plan.places.kind == EMPTY).sum() == plan.into_sky.sum()
    assert 0.33 < plan.into_sky.mean() < 0.47
    names = np.array(plan.class_name)
    assert set(names[~plan.into_sky]) == {"lens"}
    shares = {name: np.mean(names[plan.into_sky] == name) for name in SKY_CLASSES}
    assert shares == pytest.approx(SKY_CLASSES, abs=0.08)
    again = lay_waves("7", places, RecoveryRequest(n_lenses=900, seed=3), 900, first=100)
    np.testing.assert_array_equal(again.plan.places.x, plan.places.x)
    assert again.plan.class_name == plan.class_name


def test_a_tile_without_places_says_so():
    places = made_places(0, 50, 3000)
    with pytest.raises(TileError, match=r"tile 7: has no bright early-type galaxy .* another --ground"):
        lay_waves("7", places, RecoveryRequest(n_lenses=5, seed=3, ground="galaxies"), 5, first=0)
    assert lay_waves("7", places, RecoveryRequest(n_lenses=5, seed=3), 5, first=0).plan.into_sky.all()


@pytest.fixture(scope="module", params=[0, 1], ids=["binned", "rotated"])
def painted(request, sky, tmp_path_factory):
    """The first wave of a tile, as a view of its images and as the mosaics that ``simulate inject`` writes."""
    folder = tmp_path_factory.mktemp("painted")
    config = load(None, SETTINGS | {"scoring.bundle": plain_bundle()}, {})
    tiles = tile_list.read(f"{sky}/tile-list.txt", config.storage).tiles
    tile = tiles[sorted(tiles)[request.param]]
    recovery = RecoveryRequest(n_lenses=N, seed=11)
    surveyed = survey_places(tile, config.cutouts, recovery, N, folder)
    assert Surveyed.from_bytes(surveyed.to_bytes()).to_bytes() == surveyed.to_bytes()
    waves = lay_waves(tile.tile_id, surveyed.places, recovery, N, 0)
    first = np.flatnonzero(waves.wave == 0)
    injection = recovery.injection(tile)
    (folder / "mosaics" / PARTS).mkdir(parents=True)
    paint_mosaics(injection, folder / "mosaics", waves.plan.take(range(len(first))), [surveyed.summary], 1, None)
    painted_tile = tile_list.read(f"{folder}/mosaics/tile-list.txt", config.storage).tiles[tile.tile_id]
    with open_tile(tile, config.cutouts, folder) as images, open_tile(painted_tile, CutoutsConfig(), folder) as written:
        wave = PaintedWave(images, tile_brush(tile, surveyed.summary, folder), injection, waves.take(0))
        yield SimpleNamespace(
            folder=folder, config=config, tile=tile, surveyed=surveyed, images=images, written=written, wave=wave, rows=first
        )


def whole(mosaic):
    return mosaic.read(0, mosaic.shape[0], 0, mosaic.shape[1])


def test_the_view_shows_the_pixels_of_the_painted_files(painted):
    pairs = {"VIS": (painted.images.vis, painted.wave.images.vis, painted.written.vis)}
    pairs |= {b: (painted.images.nisp[b], painted.wave.images.nisp[b], painted.written.nisp[b]) for b in ("Y", "J", "H")}
    for band, (real, view, file) in pairs.items():
        np.testing.assert_array_equal(whole(view), whole(file), err_msg=band)
        changed = np.flatnonzero(((whole(view) != whole(real)) & np.isfinite(whole(real))).any(axis=0))
        assert len(changed), band
    # Window by window it is the same, and beyond the stamps not one pixel is another.
    view, real = painted.wave.images.vis, whole(painted.images.vis)
    x, y = painted.wave.places.x, painted.wave.places.y
    rows, columns = np.nonzero((whole(view) != real) & np.isfinite(real))
    nearest = np.min([np.maximum(np.abs(columns - a), np.abs(rows - b)) for a, b in zip(x, y, strict=True)], axis=0)
    assert nearest.max() <= 103
    np.testing.assert_array_equal(view.read(50, 250, 100, 300), whole(view)[50:250, 100:300])


def test_a_wave_is_scanned_as_a_run_scans_the_painted_mosaics(painted):
    scorer = Scorer(bundles.load(plain_bundle()), "cpu")
    found = scan_wave(painted.wave, painted.rows, painted.tile, painted.surveyed, painted.config, scorer)
    exact = painted.images.alignment.case == "bin"
    if exact:
        with in_this_process():
            run_survey(RunRequest(f"{painted.folder}/mosaics/tile-list.txt", str(painted.folder / "out"), painted.config))
        rows = pq.read_table(painted.folder / "out" / "tiles" / painted.tile.tile_id / "scores.parquet").to_pydict()
    else:
        # The same without a run: only the objects that lie near lenses.
        targets = list_targets(painted.tile, painted.written.vis, painted.config.targets).targets
        near = np.hypot(*(np.subtract.outer(vars(targets)[k], vars(painted.wave.places)[k]) for k in "xy")).min(axis=1) < 10.0
        (batch,) = cut(painted.written, targets.take(np.flatnonzero(near)), 64)
        rows = score_table(batch, score_batch(scorer, batch), painted.tile.tile_id).to_pydict()
    x, y = np.array(rows["x"]), np.array(rows["y"])
    scored = 0
    for k, (place_x, place_y) in enumerate(zip(painted.wave.places.x, painted.wave.places.y, strict=True)):
        distance = np.hypot(x - place_x, y - place_y)
        best = int(np.argmin(distance))
        if distance[best] > 10.0:
            assert found["fate"][k] in ("not detected", "masked", "near an edge")
            continue
        assert found["found_id"][k] == rows["target_id"][best]
        assert found["separation_arcsec"][k] == pytest.approx(0.1 * distance[best], abs=1e-6)
        for name, column in (("probability", "p_calibrated"), ("grid_value", "grid_value")):
            # Bands that are resampled come to the rounding of float32, all others to the last bit.
            np.testing.assert_allclose(found[name][k], np.float32(rows[column][best]), rtol=0 if exact else 1e-5)
        assert found["flags"][k] == rows["flags"][best]
        scored += np.isfinite(found["probability"][k])
    assert scored >= 1 + exact


def at(places, population, painted, name):
    """A wave of lenses of a table, whole in the sky at given pixels."""
    x, y = np.array(places, dtype=np.float64).T
    path = painted.folder / f"{name}.csv"
    path.write_text(population)
    n, unknown = len(x), np.full(len(x), np.nan)
    sky = Places(np.full(n, EMPTY, dtype=np.int8), np.arange(n), x, y, x, y, *[unknown] * 4)
    plan = Plan(np.zeros(n, dtype=np.int64), sky, ("lens",) * n, np.ones(n, dtype=bool))
    brush = tile_brush(painted.tile, painted.surveyed.summary, painted.folder)
    table = population_of(read_population(path))
    wave = PaintedWave(painted.images, brush, painted.wave.request, Wave(plan, np.arange(n)), table)
    return wave, np.arange(n)


BRIGHT = """\
theta_e_arcsec,source_magnitude_vis,deflector_magnitude_vis,source_vis_minus_h,source_radius_arcsec
1.2,23.0,19.5,1.5,0.3
"""
FAINT = "theta_e_arcsec,source_magnitude_vis,deflector_magnitude_vis\n0.5,29.5,29.0\n"


def test_lenses_meet_the_fates_that_are_made_for_them(painted):
    scorer = Scorer(bundles.load(plain_bundle()), "cpu")
    arguments = painted.tile, painted.surveyed, painted.config, scorer
    wave, rows = at([(320, 320), (20, 320), (5, 630)], BRIGHT, painted, "bright")
    found = scan_wave(wave, rows, *arguments)
    assert list(found["fate"]) == ["scored", "near an edge", "near an edge"]
    assert found["probability"][0] > 0
    truth = wave.truth([0]).to_pylist()[0]
    wanted = {"theta_e_arcsec": 1.2, "source_magnitude_vis": 23.0, "source_vis_minus_h": 1.5, "source_radius_arcsec": 0.3}
    assert {name: truth[name] for name in wanted} == pytest.approx(wanted, abs=2e-3)
    assert truth["lens_magnitude_vis"] == pytest.approx(19.5, abs=1e-3)
    wave, rows = at([(500, 130)], FAINT, painted, "faint")
    assert scan_wave(wave, rows, *arguments)["fate"][0] == "not detected"
    # A detector's hole where the lens is, and one that leaves its middle alone.
    holed = at([(320, 320)], BRIGHT, painted, "holed")
    holed[0].images.vis = holed[0].images.vis.repainted(lambda image: Holed(image, slice(300, 340)))
    assert scan_wave(*holed, *arguments)["fate"][0] == "masked"
    holed[0].images.vis = wave.images.vis
    screening = Scorer(bundles.load(None), "cpu", screen="auto")
    if screening.screening is not None:
        wave, rows = at([(320, 320)], BRIGHT.replace("1.2,23.0", "0.3,29.9"), painted, "lost")
        assert scan_wave(wave, rows, *arguments[:3], screening)["fate"][0] == "screened out"


@pytest.mark.parametrize("absent", ["Y", "H"])
def test_a_band_that_a_tile_lacks_is_not_painted(painted, absent, tmp_path):
    tile = painted.tile.model_copy(update={"bands": {k: v for k, v in painted.tile.bands.items() if k != absent}})
    request = RecoveryRequest(n_lenses=4, seed=11)
    surveyed = survey_places(tile, painted.config.cutouts, request, 4, tmp_path)
    waves = lay_waves(tile.tile_id, surveyed.places, request, 4, 0)
    # A deflector's colour is VIS - H.
    assert (surveyed.summary.n_deflectors > 0) == (absent == "Y") == (not waves.plan.into_sky.all())
    with open_tile(tile, painted.config.cutouts, tmp_path) as images:
        wave = PaintedWave(images, tile_brush(tile, surveyed.summary, tmp_path), request.injection(tile), waves.take(0))
        assert wave.images.absent == (absent,)
        assert np.nansum(whole(wave.images.vis) - whole(images.vis)) > 0
        assert np.isnan(wave.images.nisp[absent].read(0, 5, 0, 5)).all()
        scorer = Scorer(bundles.load(plain_bundle()), "cpu")
        found = scan_wave(wave, np.arange(len(wave.numbers)), tile, surveyed, painted.config, scorer)
    scored = found["fate"] == "scored"
    assert scored.any()
    assert (np.isfinite(found["probability"]) == scored).all()


class Holed:
    """An image without its pixels in some rows and columns."""

    def __init__(self, image, hole):
        self.shape, self._image, self._hole = image.shape, image, hole

    def window(self, y0, y1, x0, x1):
        pixels = np.array(self._image.window(y0, y1, x0, x1), dtype=np.float32)
        inside = range(*self._hole.indices(max(self.shape)))
        rows, columns = np.isin(np.arange(y0, y1), inside), np.isin(np.arange(x0, x1), inside)
        pixels[np.ix_(rows, columns)] = np.nan
        return pixels

    def close(self):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source_magnitude_vis\n24\n", "has no column theta_e_arcsec"),
        ("theta_e_arcsec\n1.0\n-2\n", "row 2 of theta_e_arcsec is no Einstein radius"),
        ("theta_e_arcsec,weight\n1.0,0\n", "holds no lens to draw"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, text, said):
    path = tmp_path / "lenses.csv"
    path.write_text(text)
    with pytest.raises(ContentError, match=said) as caught:
        read_population(path)
    assert str(caught.value).count(". ") == 0
