import math
from dataclasses import replace

import numpy as np
import pytest

from scanner.records import BANDS
from scanner.simulation.datasets.cutouts import draw, observe
from scanner.simulation.datasets.presets import LENS_CLASSES, PRESETS, CutoutScene, draw_scene, object_generator
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.galaxies import fluxes
from scanner.simulation.population.truth import SystemTruth
from scanner.simulation.telescope.exposure import Background, draw_exposure


@pytest.fixture(scope="module")
def drawn():
    return draw(PRESETS["train"], 11, range(160))


def test_shapes_types_and_finite_pixels(drawn):
    assert drawn.vis.shape == (160, 200, 200)
    assert drawn.nisp.shape == (160, 3, 66, 66)
    assert drawn.vis.dtype == drawn.nisp.dtype == np.float32
    assert np.isfinite(drawn.vis).all()
    assert np.isfinite(drawn.nisp).all()


def test_an_object_is_the_same_in_any_batch(drawn):
    again = draw(PRESETS["train"], 11, [37, 4])
    np.testing.assert_array_equal(again.vis, drawn.vis[[37, 4]])
    np.testing.assert_array_equal(again.nisp, drawn.nisp[[37, 4]])
    assert [repr(row) for row in again.truth] == [repr(drawn.truth[37]), repr(drawn.truth[4])]


def test_presets_and_seeds_share_no_object(drawn):
    for preset, seed in (("eval", 11), ("quick", 11), ("train", 12)):
        other = draw(PRESETS[preset], seed, range(4))
        for k in range(4):
            assert not np.array_equal(other.vis[k], drawn.vis[k])


def test_truth_is_consistent(drawn):
    assert [row.target_id for row in drawn.truth] == list(range(160))
    for row in drawn.truth:
        systems = (row.first, row.second)[: row.n_systems]
        lensed = [s.n_source_im > 0 and s.mag_eff > 1.6 and s.n_pix_source > 20 for s in systems]
        assert row.verdict.is_lens == any(lensed)
        assert row.verdict.is_compound == (len(lensed) == 2 and all(lensed))
        seen = [s.arc_snr > 25 and s.n_pix_source > 100 for s in systems]
        assert row.verdict.visible == any(a and b for a, b in zip(lensed, seen, strict=True))
        if row.verdict.is_lens:
            assert row.class_name in LENS_CLASSES
        if row.class_name == "lens":
            assert row.first.source_offset_arcsec < 0.9 * row.first.theta_e_arcsec
            assert row.first.z_source > row.first.z_lens
        elif row.class_name == "near_lens":
            assert row.first.n_source_im == 0
        elif row.class_name not in LENS_CLASSES:
            assert row.n_systems == 0
            assert repr(row.first) == repr(row.second) == repr(SystemTruth())
    lenses = [row for row in drawn.truth if row.class_name == "lens"]
    assert 0.3 < len(lenses) / 160 < 0.6
    assert np.mean([row.verdict.is_lens for row in lenses]) > 0.85
    assert 0.4 < np.mean([row.verdict.visible for row in lenses]) < 0.85
    assert np.mean([abs(row.x_arcsec) <= 0.2 for row in drawn.truth]) == pytest.approx(0.88, abs=0.1)
    # A candidate stands in the middle of its cutout, as a scan cuts it: what lies farther off is somebody else's.
    assert all(max(abs(row.x_arcsec), abs(row.y_arcsec)) <= 1.0 for row in drawn.truth)
    assert np.mean([row.native_nisp_noise for row in drawn.truth]) == pytest.approx(0.5, abs=0.12)


def test_the_centre_decides_in_the_wide_sky():
    wide = draw(PRESETS["train-wide"], 11, range(120))
    beside = [row for row in wide.truth if row.class_name == "beside_lens"]
    assert beside
    for row in beside:
        assert not row.verdict.is_lens
        assert not row.verdict.visible
        away = math.hypot(row.first.lens_x_arcsec - row.x_arcsec, row.first.lens_y_arcsec - row.y_arcsec)
        assert away >= 3.0
    for row in wide.truth:
        if row.verdict.is_lens:
            assert row.class_name in LENS_CLASSES
            assert max(abs(row.x_arcsec), abs(row.y_arcsec)) <= 1.0
        gone = np.isnan(wide.vis[row.target_id]).all(), *np.isnan(wide.nisp[row.target_id]).all(axis=(1, 2))
        assert row.missing_bands.split() == [band for band, lost in zip(BANDS, gone, strict=True) if lost]
    assert np.mean([row.verdict.is_lens for row in wide.truth if row.class_name in LENS_CLASSES]) > 0.85


def test_sky_is_as_measured_on_real_images(drawn):
    def scatter(images):
        return 1.4826 * np.median(np.abs(images - np.median(images, axis=(1, 2), keepdims=True)), axis=(1, 2))

    native = np.array([row.native_nisp_noise for row in drawn.truth])
    assert 0.0026 < np.median(scatter(drawn.vis)) < 0.0031
    for band in range(3):
        sigma = scatter(drawn.nisp[:, band])
        # Of whole cutouts, galaxies and all: a little above the sky alone.
        assert 3.4 < np.median(sigma[~native]) < 5.7
        assert 5.8 < np.median(sigma[native]) < 8.0


def test_psf_orientation_and_noise_tell_nothing_of_the_class():
    # The random numbers of telescope and noise alone: no image needs to be drawn to compare their distributions.
    rows = []
    for index in range(1500):
        item = draw_scene(PRESETS["train"], object_generator("train", 5, index))
        exposure = item.exposure
        rows.append((item.class_name == "lens", exposure.roll, exposure.native, exposure.level))
    lens, roll, native, level = (np.array(column) for column in zip(*rows, strict=True))
    for part in (lens, ~lens):
        # Mean resultant length of a uniform direction: 1/sqrt(n) on average; above 3.5/sqrt(n) once in 200,000.
        assert abs(np.exp(1j * roll[part]).mean()) < 3.5 / np.sqrt(part.sum())
        assert abs(np.exp(2j * roll[part]).mean()) < 3.5 / np.sqrt(part.sum())
    assert native[lens].mean() == pytest.approx(native[~lens].mean(), abs=0.12)
    assert level[lens].mean() == pytest.approx(level[~lens].mean(), abs=0.02)


@pytest.mark.parametrize("kind", [Kind.SERSIC, Kind.POINT])
def test_vis_and_nisp_share_a_centre_and_the_flux_is_the_magnitude_s(kind):
    light = fluxes(19.6, 0.3, 0.2, 0.1)
    rng = np.random.default_rng(0)
    scenes, places = [], rng.uniform(-1.5, 1.5, (16, 2)).tolist()
    for x, y in places:
        component = Component(kind, x, y, light, radius=0.3, index=1.0, q=0.8, angle=0.5)
        exposure = replace(draw_exposure(rng, 0.5), artefacts=(), background=(Background(0.0, 0.0, 0.0),) * 4)
        scenes.append(CutoutScene(rng, "elliptical", [component], 1, (), x, y, exposure))
    drawn = observe(scenes, range(16))
    for k, (true_x, true_y) in enumerate(places):
        images = [(drawn.vis[k], 0.1), *((image, 0.3) for image in drawn.nisp[k])]
        for (image, scale), expected in zip(images, light, strict=True):
            middle = 0.5 * (image.shape[0] - 1)
            y, x = (scale * (axis - middle) for axis in np.indices(image.shape))
            # A Gaussian window about the true place: its first moment is odd in the error, and noise far out does not count.
            near = np.hypot(x - true_x, y - true_y) < 3.0
            weight = np.exp(-0.5 * ((x - true_x) ** 2 + (y - true_y) ** 2) / 0.6**2) * image
            assert image[near].sum(dtype=np.float64) == pytest.approx(expected, rel=0.05)
            # The limit is 0.05 NISP pixels, 0.015".
            assert (weight * (x - true_x)).sum() / weight.sum() == pytest.approx(0.0, abs=0.008)
            assert (weight * (y - true_y)).sum() / weight.sum() == pytest.approx(0.0, abs=0.008)
