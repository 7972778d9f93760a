import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import TileError
from scanner.evaluation.images import Plate, duplicate, read_plate, resample, stamp
from scanner.records import ImageRef


def _plate(pixels, scale):
    height, width = pixels.shape
    return Plate(pixels, ((width - 1) / 2, (height - 1) / 2), np.eye(2) / scale)


def test_a_grid_that_fits_is_kept_to_the_bit():
    image = np.random.default_rng(0).normal(size=(100, 100))
    found = resample(_plate(image, 0.1), 200, 0.1)
    np.testing.assert_array_equal(found[50:150, 50:150], image.astype(np.float32))
    assert np.isnan(found[:50]).all()
    assert np.isnan(found[:, 150:]).all()


@pytest.mark.parametrize(("scale", "factor"), [(0.05, 2), (0.02, 5)])
def test_finer_pixels_are_added_up(scale, factor):
    image = np.random.default_rng(1).normal(size=(200 * factor, 200 * factor))
    found = resample(_plate(image, scale), 200, 0.1)
    np.testing.assert_allclose(found, image.reshape(200, factor, 200, factor).sum(axis=(1, 3)), rtol=1e-4, atol=1e-4)


@settings(max_examples=12)
@given(st.floats(0.03, 0.28), st.floats(0, 6.28), st.floats(-2, 2), st.floats(-2, 2))
def test_flux_is_conserved_and_stays_in_place(scale, angle, dx, dy):
    """A Gaussian, 0.5 arcsec wide, at (dx, dy) arcsec in the cutout, on pixels of any scale and orientation."""
    n = int(26 / scale)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    centre = ((n - 1) / 2, (n - 1) / 2)
    x0, y0 = np.array(centre) + turn @ (dx, dy)
    y, x = np.mgrid[:n, :n]
    image = np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) * (scale / 0.5) ** 2)
    found = resample(Plate(image, centre, turn), 200, 0.1)
    good = np.nan_to_num(found)
    assert good.sum() == pytest.approx(image.sum(), rel=0.01)
    right, up = np.meshgrid(*(2 * [(np.arange(200) - 99.5) * 0.1]))
    assert (good * right).sum() / good.sum() == pytest.approx(dx, abs=0.02)
    assert (good * up).sum() / good.sum() == pytest.approx(dy, abs=0.02)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"VIS"}, {"VIS": "VIS", "Y": "VIS", "J": "VIS", "H": "VIS"}),
        ({"VIS", "H"}, {"VIS": "VIS", "Y": "VIS", "J": "H", "H": "H"}),
        ({"VIS", "J"}, {"VIS": "VIS", "Y": "VIS", "J": "J", "H": "J"}),
        ({"Y", "H"}, {"VIS": "Y", "Y": "Y", "J": "Y", "H": "H"}),
    ],
)
def test_missing_bands_are_those_beside_them(given, expected):
    assert duplicate(given) == expected


def test_no_band_is_refused():
    with pytest.raises(ValueError, match="no band"):
        duplicate(set())


def _write(path, wcs=None):
    image = np.random.default_rng(2).normal(10, 1, (300, 320)).astype(np.float32)
    image[5, 5] = np.nan
    fits.writeto(path, image, None if wcs is None else wcs.to_header())
    return ImageRef(path=str(path))


@pytest.fixture
def turned_wcs():
    """0.04 arcsec, rotated by 30 degrees, with east on the right."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [100.0, 120.0]
    angle = np.deg2rad(30)
    wcs.wcs.cd = 0.04 / 3600 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return wcs


def test_a_position_is_found_and_north_put_up(tmp_path, turned_wcs):
    ref = _write(tmp_path / "a.fits", turned_wcs)
    ra, dec = (float(v) for v in turned_wcs.all_pix2world(200.0, 150.0, 0))
    plate = read_plate(ref, None, (ra, dec))
    assert plate.centre == pytest.approx((200.0, 150.0), abs=1e-3)
    north = np.array(turned_wcs.all_world2pix(ra, dec + 2 / 3600, 0)) - plate.centre
    np.testing.assert_allclose(plate.matrix @ (0, 2), north, atol=1e-3)
    east = np.array(turned_wcs.all_world2pix(ra + 2 / 3600 / np.cos(np.deg2rad(dec)), dec, 0)) - plate.centre
    np.testing.assert_allclose(plate.matrix @ (-2, 0), east, atol=1e-2)
    assert np.isnan(plate.pixels[5, 5])


def test_what_cannot_be_placed_is_told(tmp_path, turned_wcs):
    bare, placed = _write(tmp_path / "bare.fits"), _write(tmp_path / "placed.fits", turned_wcs)
    assert read_plate(bare, 0.05, None).centre == (159.5, 149.5)
    with pytest.raises(TileError, match=r"bare.fits: has no WCS; state scale=ARCSEC"):
        read_plate(bare, None, None)
    with pytest.raises(TileError, match="leave out ra and dec"):
        read_plate(bare, 0.05, (150.0, 2.0))
    with pytest.raises(TileError, match="not on the image"):
        read_plate(placed, None, (151.0, 2.0))


def test_padding_is_declared():
    image = np.random.default_rng(3).normal(10, 2, (100, 100))
    batch = stamp({"VIS": _plate(image, 0.1)})
    assert batch.vis.shape == (1, 200, 200)
    assert batch.nisp.shape == (1, 3, 66, 66)
    assert batch.bad_fraction[0, 0] == pytest.approx(0.75)
    assert batch.bad_fraction[0, 1:] == pytest.approx(0.75, abs=0.03)
    assert batch.sigma[0, 0] == pytest.approx(2, rel=0.1)
    np.testing.assert_array_equal(batch.nisp[0, 0], batch.nisp[0, 2])
