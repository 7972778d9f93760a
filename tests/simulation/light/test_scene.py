import math

import numpy as np
import pytest

from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind, norm, sersic_b
from scanner.simulation.population import massive_galaxies
from scanner.simulation.population.options import TRAINING
from scanner.simulation.telescope.psf import convolve, mean_psf

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
    scenes = [massive_galaxies.lens(rng, TRAINING).components for _ in range(9)]
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


def random_system(rng):
    """A lens without cusps so steep that the referee's own sampling would decide."""
    shear = rng.uniform(-0.05, 0.05, 2)
    lens = Lens(rng.uniform(0.5, 1.5), rng.uniform(0.5, 0.95), rng.uniform(0, 3.1), 0.03, -0.02, shear[0], shear[1])
    beta, turn = 0.9 * lens.theta_e * math.sqrt(rng.random()), rng.uniform(0, 6.28)
    return [
        Component(
            Kind.SERSIC, 0.03, -0.02, (20.0, 1.0, 1.0, 1.0), radius=rng.uniform(0.4, 1.5), index=rng.uniform(1, 1.7),
            q=rng.uniform(0.5, 1), angle=rng.uniform(0, 3.1),
        ),
        Component(
            Kind.SERSIC, beta * math.cos(turn), beta * math.sin(turn), (2.0, 1.0, 1.0, 1.0), radius=rng.uniform(0.1, 0.6),
            index=rng.uniform(0.7, 2), q=rng.uniform(0.5, 1), angle=rng.uniform(0, 3.1), seen_through=Sightline((lens,)),
        ),
    ]  # fmt: skip


def test_twenty_systems_agree_with_lenstronomy():
    pytest.importorskip("lenstronomy", reason="the referee lenstronomy is not installed")
    rng = np.random.default_rng(7)
    raster = scene.centred_raster(80, 0.1)
    transfer = mean_psf("VIS").transfer(80, 80)
    for _ in range(20):
        components = random_system(rng)
        for part in (components, components[1:]):
            mine = convolve(scene.render([part], raster, ("VIS",))[0, 0], transfer)
            expected = convolve(_lenstronomy(part).astype(np.float32), transfer)
            assert np.abs(mine - expected).max() < 1e-3 * expected.max()


def _lenstronomy(components):
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel

    def ellipticity(q, angle):
        e = (1 - q) / (1 + q)
        return {"e1": e * math.cos(2 * angle), "e2": e * math.sin(2 * angle)}

    def sersic(c):
        # lenstronomy approximates b(n) and averages the radius over the ellipse: the same profile in its parameters.
        b, theirs = sersic_b(c.index), 1.9992 * c.index - 0.3271
        radius = c.radius * math.sqrt(c.q) * (theirs / b) ** c.index
        amplitude = c.flux[0] / norm(c) * math.exp(b - theirs)
        shape = {"R_sersic": radius, "n_sersic": c.index, "center_x": c.x, "center_y": c.y}
        return {"amp": amplitude, **shape, **ellipticity(c.q, c.angle)}

    lens = next(c.seen_through.lenses[0] for c in components if c.seen_through)
    arcs, light = [c for c in components if c.seen_through is not None], [c for c in components if c.seen_through is None]
    data = ImageData(image_data=np.zeros((80, 80)), ra_at_xy_0=-3.95, dec_at_xy_0=-3.95, transform_pix2angle=np.eye(2) * 0.1)
    model = ImageModel(
        data, PSF("NONE"), LensModel(["SIE", "SHEAR"]), LightModel(["SERSIC_ELLIPSE"] * len(arcs)),
        LightModel(["SERSIC_ELLIPSE"] * len(light)),
        kwargs_numerics={"supersampling_factor": 12, "supersampling_convolution": False},
    )  # fmt: skip
    mass = [
        {"theta_E": lens.theta_e, "center_x": lens.x, "center_y": lens.y, **ellipticity(lens.q, lens.angle)},
        {"gamma1": lens.gamma1, "gamma2": lens.gamma2, "ra_0": lens.x, "dec_0": lens.y},
    ]
    # An amplitude is a surface brightness per square arcsec; lenstronomy returns it times the pixel's area.
    image = model.image(mass, [sersic(c) for c in arcs], [sersic(c) for c in light], unconvolved=True)
    return np.asarray(image)


def test_torch_draws_the_same_scene():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    components = massive_galaxies.lens(np.random.default_rng(2), TRAINING).components
    raster = scene.centred_raster(80, 0.1)
    found = scene.render([components], raster, like=torch.zeros(1))
    expected = scene.render([components], raster)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4 * expected.max())
