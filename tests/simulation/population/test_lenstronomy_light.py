import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scanner.errors import UsageError
from scanner.simulation.lensing import deflection
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population import classes
from scanner.simulation.population.galaxies import TRAINING
from scanner.simulation.population.lenses import lensed_light, unlensed_light

pytest.importorskip("lenstronomy.LensModel.lens_model", reason="the referee lenstronomy is not installed")

VIS = ("VIS",)
RASTER = scene.centred_raster(70, 0.1)


def residuals(fast, referee, counted=True):
    """Largest difference of each image over the counted pixels, in units of its brightest pixel."""
    return (np.abs(fast.astype(np.float64) - referee) * counted).max(axis=(1, 2)) / referee.max(axis=(1, 2))


def compound_systems_of(name, count, seed):
    rng = np.random.default_rng(seed)
    return [classes.draw_object(rng, name, TRAINING).systems for _ in range(count)]


def off_centre(sightline):
    """Pixels no ray of which passes a deflector's singular centre."""
    x, y = np.meshgrid(*2 * (RASTER.x0 + RASTER.scale * np.arange(RASTER.nx),))
    front, *behind = sightline.lenses
    alpha_x, alpha_y = deflection(x, y, front)
    far = np.hypot(x - front.x, y - front.y) > 0.15
    for rear, share in zip(behind, sightline.couplings, strict=True):
        far &= np.hypot(x - share * alpha_x - rear.x, y - share * alpha_y - rear.y) > 0.15
    return far


@pytest.mark.parametrize("name", ["compound_arc", "double_ring"])
def test_two_planes_agree_with_lenstronomy_pixel_for_pixel(name):
    # Sources that pixels resolve: what is compared is the way of the light, not the sampling of a cusp.
    everywhere, elsewhere = [], []
    for systems in compound_systems_of(name, 10, 11):
        main = [replace(system.source[0], index=1.0, radius=max(system.source[0].radius, 0.3)) for system in systems]
        smooth = [replace(system, source=(part,)) for system, part in zip(systems, main, strict=True)]
        fast = scene.render([system.source for system in smooth], RASTER, VIS)[:, 0]
        referee = lensed_light(smooth, RASTER, VIS)[:, 0]
        everywhere += residuals(fast, referee).tolist()
        elsewhere += residuals(fast, referee, np.stack([off_centre(system.sightline) for system in smooth])).tolist()
    assert np.median(everywhere) < 5e-4
    assert max(elsewhere) < 1e-3
    assert max(everywhere) < 5e-3  # the pixel on a singular centre holds a whole, tiny image of the source


@pytest.mark.parametrize("name", ["compound_arc", "double_ring"])
def test_drawn_sources_agree_as_vis_sees_them(name):
    seen = []
    for systems in compound_systems_of(name, 5, 12):
        fast = scene.render([system.source for system in systems], RASTER, VIS)[:, 0]
        pair = (gaussian_filter(light, (0, 0.72, 0.72)) for light in (fast, lensed_light(systems, RASTER, VIS)[:, 0]))
        seen += residuals(*pair).tolist()
    assert np.median(seen) < 1e-3
    assert max(seen) < 1e-2


def test_one_plane_and_its_flux_agree():
    for seed in range(5):
        (system,) = classes.draw_object(np.random.default_rng(seed), "lens", TRAINING).systems
        smooth = replace(system, source=(replace(system.source[0], index=1.0, radius=0.4),))
        fast, referee = scene.render([smooth.source], RASTER, VIS)[:, 0], lensed_light([smooth], RASTER, VIS)[0]
        assert residuals(fast, referee, off_centre(smooth.sightline)).max() < 1e-3
        assert fast.sum() == pytest.approx(referee.sum(), rel=1e-3)


def test_unlensed_galaxies_agree_whatever_their_shape():
    raster = scene.centred_raster(100, 0.1)
    rng = np.random.default_rng(13)
    for name in ("elliptical", "spiral", "ring"):
        components = classes.draw_object(rng, name, TRAINING).components
        assert residuals(scene.render([components], raster, VIS)[0], unlensed_light(components, raster, VIS)).max() < 5e-3


def test_flux_per_band_is_the_components_and_stars_are_left_to_the_telescope():
    raster = scene.centred_raster(60, 0.1)
    galaxy = Component(Kind.SERSIC, 0.2, -0.1, (1.0, 20.0, 30.0, 40.0), radius=0.4, index=1.0, q=0.6, angle=0.5)
    star = Component(Kind.POINT, 0.0, 0.0, (5.0, 5.0, 5.0, 5.0))
    pixels = unlensed_light([galaxy, star], raster, ("VIS", "H"))
    assert pixels.shape == (2, 60, 60)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels.sum(axis=(1, 2)), [1.0, 40.0], rtol=2e-3)
    assert unlensed_light([star], raster, VIS).max() == 0.0


def test_a_galaxy_reaches_as_far_along_x_as_its_angle_says():
    raster = scene.centred_raster(60, 0.1)
    flat = Component(Kind.SERSIC, 0.0, 0.0, (1.0, 1.0, 1.0, 1.0), radius=0.8, index=1.0, q=0.3, angle=math.pi / 4)
    image = unlensed_light([flat], raster, VIS)[0]
    grid = raster.x0 + raster.scale * np.arange(60)
    cross = (image * grid[None, :] * grid[:, None]).sum()
    assert cross > 0.0  # along the diagonal, x and y of one sign


def test_a_missing_lenstronomy_is_said_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lenstronomy.LightModel.light_model", None)
    with pytest.raises(UsageError, match=r"pip install '.*\[paper\]'"):
        unlensed_light([Component(Kind.SERSIC, 0.0, 0.0, (1.0,) * 4)], RASTER, VIS)
