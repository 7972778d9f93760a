import math

import numpy as np
import pytest

from scanner.records import BANDS
from scanner.simulation.telescope import noise
from scanner.simulation.telescope import psf as point_spread
from scanner.simulation.telescope.artefacts import add_star

# Mean and azimuthal range of the FWHM measured on real images, arcsec.
FWHM = {"VIS": (0.155, 0.18), "Y": (0.40, 0.44), "J": (0.44, 0.48), "H": (0.44, 0.48)}
AZIMUTHAL = {"VIS": (0.14, 0.20), "Y": (0.34, 0.53), "J": (0.38, 0.58), "H": (0.37, 0.62)}


def fwhm(psf, angle):
    r = np.linspace(0, 6, 3001)
    profile = psf.values(r * math.cos(angle), r * math.sin(angle))
    return 2 * 0.1 * r[np.argmax(profile < 0.5 * profile[0])]


@pytest.mark.parametrize("band", BANDS)
def test_psfs_are_as_wide_as_the_real_ones_in_every_direction(band):
    rng = np.random.default_rng(0)
    means = []
    for _ in range(20):
        psf = point_spread.draw_psf(rng, band, rng.uniform(0, 2 * math.pi))
        widths = [fwhm(psf, angle) for angle in np.linspace(0, 2 * math.pi, 24, endpoint=False)]
        means.append(np.mean(widths))
        assert AZIMUTHAL[band][0] < min(widths)
        assert max(widths) < AZIMUTHAL[band][1]
    assert FWHM[band][0] < np.mean(means) < FWHM[band][1]


@pytest.mark.parametrize("band", BANDS)
def test_psf_holds_all_flux_about_its_centre(band):
    y, x = np.mgrid[-60:61, -60:61]
    values = point_spread.draw_psf(np.random.default_rng(1), band, 0.8).values(x, y).astype(np.float64)
    # VIS is undersampled: its pixel values depend a little on the phase.
    assert values.sum() == pytest.approx(1.0, abs=5e-3)
    assert (values * x).sum() == pytest.approx(0.0, abs=2e-3)
    assert (values * y).sum() == pytest.approx(0.0, abs=2e-3)


@pytest.mark.parametrize("band", ["Y", "H"])
def test_convolving_a_pixel_gives_the_psf_less_the_pixel(band):
    psf = point_spread.draw_psf(np.random.default_rng(2), band, 0.8)
    image = np.zeros((96, 120), dtype=np.float32)
    image[48, 50] = 1.0
    y, x = np.mgrid[:96, :120]
    convolved = point_spread.convolve(image, psf.transfer(96, 120))
    star = psf.values(x - 50.0, y - 48.0)
    assert convolved.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.abs(convolved - star).max() < 0.04 * star.max()
    np.testing.assert_allclose((convolved * x).sum(), 50.0, atol=1e-3)
    np.testing.assert_allclose((convolved * y).sum(), 48.0, atol=1e-3)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("magnitude", [17.0, 22.0])
def test_stars_stand_where_they_should_with_the_flux_they_have(band, magnitude):
    image = np.zeros((601, 601), dtype=np.float32)
    psf = point_spread.draw_psf(np.random.default_rng(3), band, 0.4)
    add_star(image[None], 300.3, 299.8, [1000.0], point_spread.stack([psf]), magnitude, 0.4)
    y, x = np.indices(image.shape)
    total = image.sum(dtype=np.float64)
    # Halo and spikes of bright stars come on top of the core.
    assert total == pytest.approx(1000.0 if magnitude > 20 else 1035.0, rel=0.01)
    assert (image * x).sum(dtype=np.float64) / total == pytest.approx(300.3, abs=0.02)
    assert (image * y).sum(dtype=np.float64) / total == pytest.approx(299.8, abs=0.02)


def test_magnitude_and_flux_are_inverse():
    assert noise.flux(24.6, "VIS") == pytest.approx(1.0)
    assert noise.magnitude(noise.flux(21.3, "H"), "H") == pytest.approx(21.3)
