import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from mocpy import MOC

from scanner.catalogue.export import vertices
from scanner.sky.mosaic import area_deg2, outline

SHAPE = (1500, 1200)


def tangent(ra, dec, turned=20.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [ra, dec], [SHAPE[1] / 2 + 0.5, SHAPE[0] / 2 + 0.5]
    angle = np.radians(turned)
    wcs.wcs.cd = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1e-3
    return wcs


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.99, 60.0), (52.82, -27.8), (123.0, 90.0), (10.0, -89.7)])
def test_the_outline_encloses_the_pixels_and_no_others(ra, dec) -> None:
    wcs = tangent(ra, dec)
    region = outline(wcs, SHAPE)
    assert region.startswith("POLYGON ICRS ")
    ra_corners, dec_corners = vertices(region)
    assert len(ra_corners) == 4
    assert (ra_corners >= 0).all()
    assert (ra_corners < 360).all()
    corners = SkyCoord(ra_corners, dec_corners, unit="deg")
    expected = SkyCoord(*wcs.all_pix2world([-0.5, 1199.5, 1199.5, -0.5], [-0.5, -0.5, 1499.5, 1499.5], 0), unit="deg")
    assert corners.separation(expected).arcsec.max() < 1e-4
    covered = MOC.from_polygon_skycoord(corners, max_depth=14)
    assert abs(covered.sky_fraction * 41252.96 / area_deg2(wcs, SHAPE) - 1) < 0.02
    x, y = np.random.default_rng(1).uniform(-300, 1800, (2, 2000))
    inside = (x > -0.5) & (x < SHAPE[1] - 0.5) & (y > -0.5) & (y < SHAPE[0] - 0.5)
    # A cell of the map is 3.6 pixels wide.
    far = (x < -12) | (x > SHAPE[1] + 11) | (y < -12) | (y > SHAPE[0] + 11)
    found = covered.contains_skycoords(SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg"))
    assert found[inside].all()
    assert not found[far].any()


def test_a_right_ascension_that_rounds_to_a_whole_turn_is_zero() -> None:
    wcs = tangent(0.0, 0.0, turned=0.0)
    wcs.wcs.crpix = [-0.5 + 1, -0.5 + 1]
    assert "360." not in outline(wcs, SHAPE)
    assert " 0.00000000 " in outline(wcs, SHAPE)
