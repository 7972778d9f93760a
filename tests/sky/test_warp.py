import resource

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

from scanner.errors import OutputError
from scanner.records import BandFiles, ImageRef
from scanner.sky.alignment import BandGeometry, map_pixels
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import open_mosaic
from scanner.sky.regrid import WarpGrid, covering_grid, sample_positions, warp

NISP_SIGMA_ARCSEC = 0.48 / 2.3548


def sky(scale, shape, angle=0.0, shift=(0.0, 0.0), sip=False):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [shape[1] / 2 + 0.5 + shift[0], shape[0] / 2 + 0.5 + shift[1]]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.pc = [[cos, -sin], [sin, cos]]
    if not sip:
        return wcs
    header = wcs.to_header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    header.update(A_ORDER=2, B_ORDER=2, A_2_0=2e-6, B_1_1=-3e-6, AP_ORDER=2, BP_ORDER=2)
    return WCS(header)


def stars(wcs, shape, scale, positions, vis_wcs, sigma_arcsec=NISP_SIGMA_ARCSEC, flux=1000.0):
    """Gaussian point sources at VIS pixel positions, integrated over the pixels."""
    image = np.zeros(shape)
    sigma = sigma_arcsec / scale * np.sqrt(2)
    for x, y in zip(*map_pixels(vis_wcs, wcs, *np.array(positions, float).T), strict=True):
        first_x, first_y, size = int(x) - 30, int(y) - 30, 61
        profiles = []
        for centre, first in ((y, first_y), (x, first_x)):
            edges = np.arange(size + 1) + first - 0.5 - centre
            profiles.append(np.diff(0.5 * erf(edges / sigma)))
        image[first_y : first_y + size, first_x : first_x + size] += flux * np.outer(*profiles)
    return image


def opened(tmp_path, image, wcs):
    header = wcs.to_header(relax=True)
    fits.PrimaryHDU(image.astype(np.float32), header=header).writeto(tmp_path / "y.fits", overwrite=True)
    return open_mosaic(BandFiles(image=ImageRef(path=str(tmp_path / "y.fits"))), band="Y")


def warped(mosaic, vis_wcs, grid):
    scratch = ScratchFolder(None)
    band = warp(mosaic, vis_wcs, grid, scratch)
    image = np.empty(grid.shape, np.float32)
    band.read_into(image, 0, 0)
    outer = np.empty((4, 5), np.float32)
    band.read_into(outer, -2, grid.shape[1] - 3)
    np.testing.assert_array_equal(outer[2:, :3], image[:2, -3:])
    assert np.isnan(outer[:2]).all()
    assert np.isnan(outer[:, 3:]).all()
    band.close()
    scratch.close()
    return image


@pytest.mark.parametrize("sip", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_interpolated_coordinates_are_exact_to_a_thousandth_of_a_pixel(samples, sip):
    vis, band = sky(0.1, (19200, 19200)), sky(0.3, (6400, 6400), 1.3, (40.2, -7.7), sip)
    grid = WarpGrid(-2, -1, (6401, 6401))
    top, left, shape = 5888, 100, (512, 470)
    x, y, area = sample_positions(band, vis, grid, top, left, shape, samples)
    fraction = (np.arange(shape[0] * samples) + 0.5) / samples
    vis_y = -1 - 0.5 + 3 * (top + fraction)
    vis_x = -2 - 0.5 + 3 * (left + fraction[: shape[1] * samples])
    exact_x, exact_y = map_pixels(vis, band, *np.meshgrid(vis_x, vis_y))
    assert np.abs(x - exact_x).max() < 1e-3
    assert np.abs(y - exact_y).max() < 1e-3
    np.testing.assert_allclose(area, 1 / samples**2, rtol=0.05 if sip else 1e-3)


@pytest.mark.parametrize("angle", [0.0, 0.7, 20.0, 45.0, 133.0])
@pytest.mark.parametrize("scale", [0.3, 0.1, 0.2, 0.34])
def test_flux_and_centroid_of_point_sources_are_conserved(tmp_path, angle, scale):
    vis, size = sky(0.1, (900, 900)), round(400 * 0.3 / scale)
    band = sky(scale, (size, size), angle, (0.37, -0.21))
    random = np.random.default_rng(5)
    positions = [
        (x + random.uniform(-2, 2), y + random.uniform(-2, 2)) for x in range(190, 720, 88) for y in range(190, 720, 88)
    ]
    grid = WarpGrid(-1, 0, (300, 301))
    with opened(tmp_path, stars(band, (size, size), scale, positions, vis), band) as mosaic:
        image = warped(mosaic, vis, grid)
    for x, y in positions:
        expected = (x + 0.5 + 1) / 3 - 0.5, (y + 0.5) / 3 - 0.5
        first = [round(position) - 12 for position in expected]
        window = image[first[1] : first[1] + 25, first[0] : first[0] + 25].astype(np.float64)
        assert abs(window.sum() / 1000 - 1) < 1e-3
        at = np.arange(25)
        centroid = window.sum(axis=0) @ at / window.sum() + first[0], window.sum(axis=1) @ at / window.sum() + first[1]
        np.testing.assert_allclose(centroid, expected, atol=0.01)


def test_the_width_of_the_psf_is_kept(tmp_path):
    vis, band = sky(0.1, (900, 900)), sky(0.3, (400, 400), 3.0, (0.4, 0.4))
    with opened(tmp_path, stars(band, (400, 400), 0.3, [(450.3, 447.9)], vis), band) as mosaic:
        image = warped(mosaic, vis, WarpGrid(0, 0, (300, 300)))
    ideal = stars(sky(0.3, (300, 300)), (300, 300), 0.3, [(450.3, 447.9)], vis)
    window = (slice(135, 165), slice(135, 165))
    assert np.abs(image - ideal)[window].max() < 0.1 * ideal.max()
    at = np.arange(30)

    def variance(stamp):
        profile = stamp[window].sum(axis=0) / stamp[window].sum()
        return profile @ at**2 - (profile @ at) ** 2

    np.testing.assert_allclose(variance(image.astype(np.float64)), variance(ideal), rtol=0.01)


def test_a_flat_sky_stays_flat_across_blocks_and_scales_by_area(tmp_path):
    vis, band = sky(0.1, (1800, 1650)), sky(0.2, (1600, 1600), 10.0)
    with opened(tmp_path, np.full((1600, 1600), 4.0), band) as mosaic:
        image = warped(mosaic, vis, WarpGrid(0, 0, (600, 550)))
    np.testing.assert_allclose(image, 4.0 * 2.25, rtol=2e-5)


def test_a_hole_spreads_over_the_pixels_that_touch_it_and_does_not_ring(tmp_path):
    vis, band = sky(0.1, (300, 300)), sky(0.3, (110, 110), 2.0, (0.3, 0.1))
    image = np.random.default_rng(1).normal(100, 1, (110, 110))
    with opened(tmp_path, image, band) as mosaic:
        clean = warped(mosaic, vis, WarpGrid(0, 0, (100, 100)))
    image[50, 60] = np.nan
    with opened(tmp_path, image, band) as mosaic:
        single = warped(mosaic, vis, WarpGrid(0, 0, (100, 100)))
    bad = np.argwhere(np.isnan(single))
    assert 1 <= len(bad) <= 5
    assert np.ptp(bad, axis=0).max() <= 2
    assert np.isfinite(clean).all()
    assert np.nanmax(np.abs(single - clean)) < 1.0
    image[40:60, 40:60] = np.nan
    with opened(tmp_path, image, band) as mosaic:
        block = warped(mosaic, vis, WarpGrid(0, 0, (100, 100)))
    assert 19**2 <= np.isnan(block).sum() <= 23**2
    assert np.nanmax(np.abs(block - clean)) < 5.0


def test_beyond_the_band_there_is_nothing(tmp_path):
    vis, band = sky(0.1, (900, 900)), sky(0.3, (100, 100), 5.0)
    with opened(tmp_path, np.ones((100, 100)), band) as mosaic:
        image = warped(mosaic, vis, WarpGrid(0, 0, (300, 300)))
    y, x = np.mgrid[:300, :300]
    band_x, band_y = map_pixels(vis, band, 3 * x + 1.0, 3 * y + 1.0)
    inside = (band_x >= 0) & (band_x <= 99) & (band_y >= 0) & (band_y <= 99)
    assert (np.isfinite(image) == inside).mean() > 0.9995
    np.testing.assert_allclose(image[np.isfinite(image)], 1.0, rtol=1e-4)


def test_the_grid_covers_the_vis_mosaic():
    assert covering_grid(BandGeometry("warp", 0, 0), (600, 601)) == WarpGrid(0, 0, (200, 201))
    assert covering_grid(BandGeometry("warp", -2, -1), (600, 601)) == WarpGrid(-2, -1, (201, 201))


def test_a_full_scratch_folder_is_told(tmp_path):
    vis, band = sky(0.1, (900, 900)), sky(0.3, (300, 300), 5.0)
    with opened(tmp_path, np.ones((300, 300)), band) as mosaic:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OutputError, match="cannot write scratch files"):
                warp(mosaic, vis, WarpGrid(0, 0, (300, 300)), ScratchFolder(tmp_path))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["y.fits"]
