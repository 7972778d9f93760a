"""The projections of the sky plot against astropy's."""

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

IMPORT = """const style = document.querySelector('link[rel=stylesheet]').href;
  const projection = await import(style.replace('base.css', 'projection.js'));"""
N = 300


def ask(page, server, body, given):
    """What a function of projection.js says, in the page of the real service."""
    page.goto(f"{server.url}/login")
    return page.evaluate(f"async (given) => {{ {IMPORT} {body} }}", given)


def plane_of(kind, ra, dec):
    """Astropy's projection, in degrees with x growing to the left on the sky."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{kind}", f"DEC--{kind}"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.cdelt = [-1, 1]
    wcs.wcs.crpix = [1, 1]
    return wcs


def random_sky(seed):
    random = np.random.default_rng(seed)
    return random.uniform(0, 360, N), np.degrees(np.arcsin(random.uniform(-1, 1, N)))


@pytest.mark.parametrize(("ra", "dec"), [(10.0, -30.0), (359.9, 0.0), (120.0, 89.5), (200.0, -90.0)])
def test_gnomonic(page, server, ra, dec):
    alpha, delta = random_sky(1)
    near = SkyCoord(ra, dec, unit="deg").separation(SkyCoord(alpha, delta, unit="deg")).deg < 70
    alpha, delta = alpha[near], delta[near]
    body = """const plane = projection.gnomonic(given.ra, given.dec);
      return given.sky.map(([a, d]) => { const at = plane.forward(a, d); return [...at, ...plane.inverse(...at)]; });"""
    found = np.array(ask(page, server, body, {"ra": ra, "dec": dec, "sky": np.stack([alpha, delta], 1).tolist()}))
    expected = np.radians(plane_of("TAN", ra, dec).wcs_world2pix(np.stack([alpha, delta], 1), 0))
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-9)
    back = SkyCoord(found[:, 2], found[:, 3], unit="deg").separation(SkyCoord(alpha, delta, unit="deg"))
    assert back.arcsec.max() < 1e-3


@pytest.mark.parametrize("ra", [0.0, 52.9, 300.0])
def test_mollweide(page, server, ra):
    alpha, delta = random_sky(2)
    body = """const plane = projection.mollweide(given.ra);
      return given.sky.map(([a, d]) => { const at = plane.forward(a, d); return [...at, ...plane.inverse(...at)]; });"""
    found = np.array(ask(page, server, body, {"ra": ra, "sky": np.stack([alpha, delta], 1).tolist()}))
    expected = np.radians(plane_of("MOL", ra, 0.0).wcs_world2pix(np.stack([alpha, delta], 1), 0))
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-7)
    back = SkyCoord(found[:, 2], found[:, 3], unit="deg").separation(SkyCoord(alpha, delta, unit="deg"))
    assert back.arcsec.max() < 1


def test_what_lies_behind_and_beside(page, server):
    body = """return [projection.gnomonic(0, 0).forward(180, 0), projection.gnomonic(0, 0).forward(85, 0),
      projection.mollweide(0).inverse(3, 0), projection.mollweide(0).inverse(0, 1.5)];"""
    assert ask(page, server, body, None) == [None, None, None, None]


def test_the_circle_round_positions_and_their_separation(page, server):
    positions = [[359.5, 10.0], [0.5, 10.0], [0.0, 10.5], [0.0, 9.5]]
    circle = ask(page, server, "return projection.bounds(given);", positions)
    sky = SkyCoord(positions, unit="deg")
    middle = SkyCoord(circle["ra"], circle["dec"], unit="deg")
    assert middle.separation(SkyCoord(0, 10, unit="deg")).deg < 0.01
    assert circle["radius"] == pytest.approx(middle.separation(sky).deg.max(), rel=1e-9)


def test_outlines(page, server):
    body = "return given.map((text) => projection.vertices(text));"
    square = [[1, 2], [1, 3], [2.5, 3], [2.5, -2e-1]]
    given = [
        "POLYGON ICRS 1 2 1 3 2.5 3 2.5 -2e-1",
        "polygon 1 2 1 3 2.5 3 2.5 -0.2",
        "CIRCLE ICRS 1 2 3",
        "",
        "POLYGON ICRS a b",
    ]
    assert ask(page, server, body, given) == [square, square, [], [], []]
