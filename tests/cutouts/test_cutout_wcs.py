import numpy as np
import pytest
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import pixel_to_skycoord

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.framed import band_wcs, window_wcs
from scanner.records import BANDS
from scanner.sky.tile_images import open_tile


def centroid(image):
    image = image.astype(np.float64)
    at = np.arange(len(image))
    return (image.sum(axis=0) @ at) / image.sum(), (image.sum(axis=1) @ at) / image.sum()


@pytest.mark.parametrize("case", ["bin", "slice", "warp"])
def test_every_band_puts_its_source_where_the_catalogue_has_it(make_tile, case):
    made = make_tile(case, n=9)
    with open_tile(made.tile, CutoutsConfig()) as images:
        batch = next(cut(images, made.targets, 9))
        assert images.alignment.case == case
        for row in range(len(batch)):
            x0, y0 = int(batch.x0[row]), int(batch.y0[row])
            for band, pixels in zip(BANDS, (batch.vis[row], *batch.nisp[row]), strict=True):
                middle = len(pixels) // 2
                inner = slice(middle - 15, middle + 15)
                x, y = centroid(pixels[inner, inner])
                expected = band_wcs(images, band, x0, y0).all_world2pix(batch.targets.ra[row], batch.targets.dec[row], 0)
                np.testing.assert_allclose([x + inner.start, y + inner.start], expected, atol=0.02)


def test_a_window_may_begin_outside_and_takes_cd_cdelt_and_distortion_along(make_tile):
    wcs = make_tile("bin", size=400, n=1).vis_wcs
    with_cd = WCS(naxis=2)
    with_cd.wcs.ctype, with_cd.wcs.crval, with_cd.wcs.crpix = wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix
    with_cd.wcs.cd = wcs.pixel_scale_matrix
    distorted = with_cd.deepcopy()
    distorted.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    coefficients = np.zeros((3, 3))
    coefficients[2, 0] = coefficients[0, 2] = 1e-6
    distorted.sip = Sip(coefficients, coefficients, None, None, distorted.wcs.crpix)
    distorted.wcs.set()
    for mosaic, tolerance_arcsec in ((wcs, 1e-6), (with_cd, 1e-6), (distorted, 5e-3)):
        for step in (1, 3):
            there = window_wcs(mosaic, -40, 300, step)
            for column, row in ((0, 0), (65, 65), (10, 50)):
                cut_out = pixel_to_skycoord(column, row, there)
                whole = pixel_to_skycoord(-40 + step * (column + 0.5) - 0.5, 300 + step * (row + 0.5) - 0.5, mosaic)
                assert cut_out.separation(whole).arcsec < tolerance_arcsec
