import math

import numpy as np
import pytest
from astropy.io import fits

from scanner.errors import TileError
from scanner.records import ImageRef
from scanner.simulation.injection import measured
from scanner.simulation.telescope.psf import draw_psf, mean_psf
from scanner.sky.local_files import ScratchFolder


def kernel(psf, side=25, dx=0.0, dy=0.0):
    axis = np.arange(side) - 0.5 * (side - 1)
    return psf.values((axis - dx)[None, :], (axis - dy)[:, None]).astype(np.float64)


@pytest.mark.parametrize(("band", "most"), [("VIS", 0.05), ("Y", 0.05), ("H", 0.05)])
def test_our_own_psf_is_fitted_from_its_image(band, most):
    psf = draw_psf(np.random.default_rng(3), band, 0.7, 1.05)
    image = kernel(psf, 33)
    found, miss = measured.fitted(image / image.sum(), band)
    assert miss < most
    assert float(found.values(0.0, 0.0)) == pytest.approx(image.max(), rel=0.03)
    assert float(found.weight.sum()) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(found.weight @ found.dx)) < 1e-6


def test_an_image_of_a_psf_is_centred_on_its_centroid(tmp_path):
    image = kernel(mean_psf("VIS"), 25, dx=0.4, dy=-0.3)
    fits.writeto(tmp_path / "psf.fits", (7.0 * image).astype(np.float32))
    psf = measured.read_psf(ImageRef(path=str(tmp_path / "psf.fits")), "VIS", ScratchFolder(None))
    again = kernel(psf, 25)
    axis = np.arange(25) - 12.0
    assert abs(float((again.sum(axis=0) * axis).sum() / again.sum())) < 0.02
    assert again.max() == pytest.approx(float(mean_psf("VIS").values(0.0, 0.0)), rel=0.05)


@pytest.mark.parametrize("pixels", [np.zeros((9, 9)), np.full((9, 9), np.nan), np.eye(31), np.ones((400, 400))])
def test_what_is_no_psf_is_refused(tmp_path, pixels):
    fits.writeto(tmp_path / "psf.fits", pixels.astype(np.float32))
    with pytest.raises(TileError, match=r"psf\.fits: is no point-spread function"):
        measured.read_psf(ImageRef(path=str(tmp_path / "psf.fits")), "VIS", ScratchFolder(None))


@pytest.mark.parametrize(("band", "scale"), [("VIS", 0.1), ("J", 0.1), ("H", 0.3)])
@pytest.mark.parametrize("width", [0.9, 1.0, 1.15])
def test_the_width_of_stars_is_measured(band, scale, width):
    rng = np.random.default_rng(5)
    fine = round(scale / 0.1)
    n, side = 12, 31
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    axis = np.arange(side * fine) - 0.5 * (side * fine - 1)
    stars = []
    for x, y in zip(dx, dy, strict=True):
        psf = draw_psf(rng, band, rng.uniform(0.0, math.pi), width)
        light = psf.values((axis - fine * x)[None, :], (axis - fine * y)[:, None])
        stars.append(light.reshape(side, fine, side, fine).sum(axis=(1, 3)))
    concentration = measured.concentrations(np.array(stars, dtype=np.float32), scale, band, dx, dy)
    assert measured.measured_width(concentration, scale, band) == pytest.approx(width, rel=0.06)
    assert measured.measured_width(concentration[:3], scale, band) is None


def test_stars_are_the_most_concentrated():
    rng = np.random.default_rng(0)
    galaxies, stars = rng.uniform(0.1, 0.45, 60), rng.normal(0.7, 0.005, 12)
    found = measured.stellar(np.concatenate([galaxies, stars, [np.nan]]))
    assert found[60:72].all()
    assert not found[:60].any()
    assert not found[72]


def test_apertures_count_pixels_by_their_share_and_bad_ones_as_nothing():
    images = np.ones((2, 21, 21), dtype=np.float32)
    images[1, 10, 10] = np.nan
    sums = measured.aperture_sums(images, 4.0, np.array([0.0, 0.0]), np.array([0.3, 0.0]))
    assert sums[0] == pytest.approx(math.pi * 16.0, rel=0.02)
    assert sums[1] == pytest.approx(sums[0] - 1.0, abs=0.5)
