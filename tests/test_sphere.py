import numpy as np
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st

from scanner.sphere import chord, healpix_29, nearest, unit_vectors

RA = st.floats(0, 360)
DEC = st.floats(-90, 90)


def test_known_healpix_indices() -> None:
    """Poles and RA 0: from the definition of the scheme, the corners of the base pixels."""
    ra, dec = np.array([45.0, 45.0, 360.0, 0.0]), np.array([90.0, -90.0, 10.0, 10.0])
    north, south, wrapped, zero = healpix_29(ra, dec).tolist()
    assert north == 4**29 - 1
    assert south == 8 * 4**29
    assert wrapped == zero


@given(a=st.tuples(RA, DEC), b=st.tuples(RA, DEC))
def test_chords_are_separations(a: tuple[float, float], b: tuple[float, float]) -> None:
    first, second = unit_vectors(*np.array([a, b]).T)
    separation = SkyCoord(*a, unit="deg").separation(SkyCoord(*b, unit="deg")).arcsec
    np.testing.assert_allclose(np.linalg.norm(first - second), chord(separation), atol=1e-14, rtol=1e-9)


def test_the_nearest_across_ra_0_and_beside_a_pole():
    distance_arcsec, index = nearest(
        np.array([0.0, 10.0, 100.0]),
        np.array([0.0, 90.0, -30.0]),
        np.array([359.999, 200.0, 0.1]),
        np.array([0.0, 89.999, 0.0]),
    )
    np.testing.assert_array_equal(index, [0, 1, 2])
    np.testing.assert_allclose(distance_arcsec[:2], 3.6, rtol=1e-9)
    none = np.empty(0)
    distance_arcsec, index = nearest(np.array([1.0]), np.array([1.0]), none, none)
    assert distance_arcsec[0] == np.inf
    assert index[0] == -1
    assert len(nearest(none, none, np.array([1.0]), np.array([1.0]))[1]) == 0
