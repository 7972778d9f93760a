import numpy as np
import pytest

from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population import classes, lenses
from scanner.simulation.population.galaxies import TRAINING

ONE = (1.0, 2.0, 3.0, 4.0)


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.mark.parametrize(("radius", "index", "q"), [(0.3, 1.0, 0.7), (0.08, 1.0, 1.0), (0.6, 2.0, 0.5), (0.8, 1.0, 0.1)])
@pytest.mark.parametrize("shift", [0.0, 0.031, 0.05])
def test_flux_and_centroid_do_not_depend_on_the_pixel_phase(radius, index, q, shift):
    galaxy = Component(
        Kind.SERSIC, 1.0 + shift, -0.5 - shift, (50.0, 5e4, 5e4, 5e4), radius=radius, index=index, q=q, angle=0.6
    )
    image = scene.render([[galaxy]], scene.centred_raster(240, 0.1))[0].astype(np.float64)
    assert image[0].sum() == pytest.approx(50.0, rel=2e-3)
    x, y = centroid(image[0])
    assert ((x - 119.5) * 0.1, (y - 119.5) * 0.1) == pytest.approx((1.0 + shift, -0.5 - shift), abs=1e-3)


def test_a_steep_cusp_keeps_its_light_at_any_phase():
    raster = scene.centred_raster(240, 0.1)
    inner = []
    for shift in np.linspace(0, 0.1, 6):
        galaxy = Component(Kind.SERSIC, float(shift), 0.02, (1e3, 1e3, 1e3, 1e3), radius=0.8, index=4.0)
        image = scene.render([[galaxy]], raster, ("VIS",))[0, 0].astype(np.float64)
        y, x = np.indices(image.shape)
        r = np.hypot((x - 119.5) * 0.1 - shift, (y - 119.5) * 0.1 - 0.02)
        weight = np.exp(-0.5 * (r / 0.2) ** 2)
        inner.append((image * weight).sum())
    assert np.ptp(inner) / np.mean(inner) < 3e-3


def test_bands_carry_their_own_flux():
    galaxy = Component(Kind.SERSIC, 0, 0, (10.0, 20.0, 40.0, 80.0), radius=0.3)
    image = scene.render([[galaxy]], scene.centred_raster(64, 0.1), ("H", "VIS"))[0]
    np.testing.assert_allclose(image[0], 8.0 * image[1], rtol=1e-6)


def test_a_component_across_the_edge_is_clipped_not_moved():
    galaxy = Component(Kind.SERSIC, 3.1, 0.2, ONE, radius=0.4)
    small = scene.render([[galaxy]], scene.centred_raster(64, 0.1), ("VIS",))[0, 0]
    large = scene.render([[galaxy]], scene.centred_raster(128, 0.1), ("VIS",))[0, 0]
    np.testing.assert_array_equal(small, large[32:96, 32:96])
    assert small.sum() < 0.7


def test_an_image_does_not_depend_on_its_neighbours_in_the_batch():
    rng = np.random.default_rng(5)
    scenes = [lenses.single_lens(rng, TRAINING).components for _ in range(9)]
    raster = scene.centred_raster(100, 0.1)
    together = scene.render(scenes, raster)
    for k in (0, 4, 8):
        np.testing.assert_array_equal(scene.render([scenes[k]], raster)[0], together[k])


def test_lensing_keeps_surface_brightness_and_multiplies_flux():
    lens = Lens(1.2, 0.999, 0.0, 0.0, 0.0, 0.0, 0.0)
    source = Component(Kind.SERSIC, 0.3, 0.0, (10.0, 10.0, 10.0, 10.0), radius=0.05, index=1.0, seen_through=Sightline((lens,)))
    raster = scene.centred_raster(100, 0.1)
    lensed = scene.render([[source]], raster, ("VIS",))[0, 0].astype(np.float64)
    # A source much smaller than its distance from the caustic is magnified like a point: 2 θ_E / β.
    assert lensed.sum() / 10.0 == pytest.approx(2 * 1.2 / 0.3, rel=0.02)
    brightest = np.unravel_index(np.argmax(lensed), lensed.shape)
    assert (brightest[1] - 49.5) * 0.1 == pytest.approx(1.5, abs=0.1)
    assert (brightest[0] - 49.5) * 0.1 == pytest.approx(0.0, abs=0.1)


def test_torch_draws_the_same_scenes():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rng = np.random.default_rng(2)
    scenes = [lenses.single_lens(rng, TRAINING) for _ in range(3)]
    parts = [[*item.components, *item.systems[0].source] for item in scenes] + [
        classes.draw_object(rng, "spiral", TRAINING).components,
        [],
    ]
    raster = scene.centred_raster(80, 0.1)
    found = scene.render(parts, raster, like=torch.zeros(1))
    expected = scene.render(parts, raster)
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float32
    peaks = expected.max(axis=(2, 3), keepdims=True) + 1e-30
    np.testing.assert_allclose(found.numpy() / peaks, expected / peaks, atol=2e-4)


def test_an_image_of_nothing_is_empty():
    star = Component(Kind.POINT, 0.0, 0.0, ONE)
    image = scene.render([[], [star]], scene.centred_raster(20, 0.1))
    assert image.shape == (2, 4, 20, 20)
    assert not image.any()


def test_pixels_do_not_depend_on_how_the_sky_is_cut_into_rasters():
    rng = np.random.default_rng(3)
    components = lenses.single_lens(rng, TRAINING).components
    whole = scene.render([components], scene.Raster(200, 200, -9.95, -9.95, 0.1))[0]
    strip = scene.render([components], scene.Raster(200, 50, -9.95, -0.95, 0.1))[0]
    inner = np.s_[:, 1:-1, 1:-1]
    np.testing.assert_allclose(strip[inner], whole[:, 90:140][inner], atol=1e-5 * whole.max())


@pytest.mark.parametrize("kind", [Kind.SERSIC, Kind.SPIRAL, Kind.ANNULUS])
def test_every_kind_can_be_lensed(kind):
    sightline = Sightline((Lens(1.0, 0.8, 0.3, 0.0, 0.0, 0.0, 0.0),))
    source = Component(
        kind, 0.1, 0.05, (10.0,) * 4, radius=0.2, width=0.05, arms=2, contrast=1.0, winding=2.0, seen_through=sightline
    )
    image = scene.render([[source]], scene.centred_raster(80, 0.1), ("VIS",))[0, 0]
    assert np.isfinite(image).all()
    assert 30.0 < image.sum() < 200.0
