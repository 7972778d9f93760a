import math

import numpy as np
import pytest

from scanner.records import BANDS, NISP_BANDS
from scanner.simulation.injection.painting import Brush, nisp_grain, paint, painted_scene, tile_exposure, vis_grain
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.galaxies import LabelledObject
from scanner.simulation.telescope.exposure import CANVAS_PIXELS
from scanner.simulation.telescope.noise import VARIANCE_SLOPE

FLUX = (5.0, 900.0, 1000.0, 1100.0)
GALAXY = Component(Kind.SERSIC, 0.0, 0.0, FLUX, radius=0.2, index=1.0, q=0.7, angle=0.4)


def brush(native=False, grain=0.0):
    return Brush({}, dict.fromkeys(BANDS, 1.0), dict.fromkeys(BANDS, grain), dict.fromkeys(NISP_BANDS, native))


def painted_at(x, y, the_brush, component=GALAXY):
    rng = np.random.default_rng(8)
    drawn = LabelledObject("companion", [component])
    return paint([painted_scene(rng, drawn, [], x, y, tile_exposure(rng, the_brush))], [the_brush])


def centroid(image, scale):
    axis = (np.arange(image.shape[-1]) - 0.5 * (image.shape[-1] - 1)) * scale
    return float((image.sum(axis=0) * axis).sum() / image.sum()), float((image.sum(axis=1) * axis).sum() / image.sum())


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.234, -2.345), (-3.96, 3.03)])
def test_flux_and_place_of_painted_light(native, x, y):
    paint_ = painted_at(x, y, brush(native))
    raster = scene.centred_raster(CANVAS_PIXELS, 0.1)
    drawn = scene.render([[GALAXY.moved(x, y)]], raster)[0].sum(axis=(1, 2), dtype=np.float64)
    found = [paint_.vis[0].sum(dtype=np.float64), *paint_.nisp[0].sum(axis=(1, 2), dtype=np.float64)]
    np.testing.assert_allclose(found, drawn, rtol=1e-4)
    np.testing.assert_allclose(found, FLUX, rtol=5e-3)  # profiles end where they sink below the noise
    for image, scale in ((paint_.vis[0], 0.1), *((plane, 0.3) for plane in paint_.nisp[0])):
        assert centroid(image, scale) == pytest.approx((x, y), abs=0.01)  # a tenth of a VIS pixel
    assert not paint_.vis_noise.any()
    assert not paint_.nisp_noise.any()


def test_painted_light_went_through_the_psf():
    point = Component(Kind.SERSIC, 0.0, 0.0, FLUX, radius=0.01, index=1.0)
    wide = Brush({}, {"VIS": 1.3, "Y": 1.0, "J": 1.0, "H": 1.0}, dict.fromkeys(BANDS, 0.0), dict.fromkeys(NISP_BANDS, True))

    def fwhm(image):
        return math.sqrt(4 * math.log(2) / math.pi * image.sum() / image.max()) * 0.1

    narrow = fwhm(painted_at(0.05, 0.05, brush(), point).vis[0])
    assert 0.15 < narrow < 0.24
    assert fwhm(painted_at(0.05, 0.05, wide, point).vis[0]) / narrow == pytest.approx(1.3, abs=0.06)


def test_noise_of_painted_light_has_the_variance_of_its_photons():
    rng = np.random.default_rng(1)
    light = np.full((152, 152), 0.8, dtype=np.float32)
    noise = vis_grain(rng, light)
    # The RMS map states the noise before resampling; pixels of a VIS mosaic scatter by 0.0027 where it says 0.0041.
    assert noise.shape == (150, 150)
    assert 0.40 < noise.var() / (VARIANCE_SLOPE["VIS"] * 0.8) < 0.52
    noise = nisp_grain(rng, np.full((80, 80), 300.0, dtype=np.float32), "J", True, (0.2, 0.4))
    assert noise.var() == pytest.approx(VARIANCE_SLOPE["J"] * 300.0, rel=0.08)
    assert not vis_grain(rng, np.zeros((12, 12), dtype=np.float32)).any()
