import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import angular_separation
from hypothesis import given, settings
from hypothesis import strategies as st
from mocpy import MOC

from scanner.errors import UsageError
from scanner.query.region import Cone, MocRegion, Polygon, overlapping

LONGITUDES = st.one_of(st.sampled_from([0.0, 360.0, 1e-9, 359.9999999, 90.0, 180.0]), st.floats(0, 360))
LATITUDES = st.one_of(st.sampled_from([90.0, -90.0, 0.0, 89.9999999, -41.8103149]), st.floats(-90, 90))
RADII = st.one_of(st.sampled_from([0.0, 180.0, 90.0, 1e-6]), st.floats(0, 180), st.floats(0, 1))


def around(ra, dec, radius_deg, n=400):
    """Positions of which many lie near a cone's edge, and all over the sky."""
    random = np.random.default_rng(int(ra * 1e3) + int(radius_deg * 1e6))
    a, d = np.radians(random.uniform(0, 360, n)), np.radians(np.clip(radius_deg * random.normal(1, 0.01, n), 0, 180))
    up, x = np.radians(dec), np.sin(d) * np.cos(a)
    z = np.cos(d) * np.sin(up) + x * np.cos(up)
    east = np.arctan2(np.sin(d) * np.sin(a), np.cos(d) * np.cos(up) - x * np.sin(up))
    anywhere = random.uniform(0, 360, n), np.degrees(np.arcsin(random.uniform(-1, 1, n)))
    return (
        np.concatenate([(ra + np.degrees(east)) % 360, anywhere[0], [ra % 360]]),
        np.concatenate([np.degrees(np.arcsin(np.clip(z, -1, 1))), anywhere[1], [dec]]),
    )


@settings(max_examples=60)
@given(LONGITUDES, LATITUDES, RADII)
def test_a_cone_holds_what_is_near(covers, ra, dec, radius):
    cone = Cone(ra, dec, radius)
    places = around(ra, dec, radius)
    away = np.degrees(angular_separation(*np.radians([ra, dec]), *np.radians(places)))
    # The two formulas may differ where rounding decides; near 180 degrees it is larger.
    clear = np.abs(away - radius) > 1e-9 if radius < 179 else np.abs(away - radius) > 1e-6
    np.testing.assert_array_equal(cone.contains(*places)[clear], (away <= radius)[clear])
    assert cone.contains([ra], [dec]).all()
    assert covers(cone, *places)


def test_edges_are_inside():
    assert Cone(10, 0, 1).contains([11, 9, 10], [0, 0, 1]).all()
    assert not Cone(10, 0, 1).contains([11 + 1e-9], [0]).any()
    assert Cone(0, 0, 180).contains([180, 12], [0, -3]).all()
    assert Cone(0, 90, 90).contains([5, 77], [0, 0]).all()
    assert not Cone(0, 90, 90).contains([5], [-1e-9]).any()
    np.testing.assert_array_equal(Cone(0, 0, 179.9).contains([180, 180, 180], [0, 0.0999, 0.1001]), [False, False, True])


@pytest.mark.parametrize(
    ("ra", "dec", "radius", "message"),
    [
        (361, 0, 1, "right ascension of 361"),
        (float("nan"), 0, 1, "right ascension of nan"),
        (0, 90.1, 1, "declination of 90.1"),
        (0, float("inf"), 1, "declination of inf"),
        (0, 0, -1e-9, "radius of -1e-09"),
        (0, 0, 180.1, "radius of 180.1"),
    ],
)
def test_cones_that_there_are_not(ra, dec, radius, message):
    with pytest.raises(UsageError, match=message):
        Cone(ra, dec, radius)


CELLS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12 * 4**8 - 1)), max_size=200)


@settings(max_examples=60)
@given(CELLS)
def test_a_moc_holds_its_cells(covers, cells):
    orders = np.array([order for order, _ in cells], dtype=np.uint8)
    pixels = np.array([pixel % (12 * 4**order) for order, pixel in cells], dtype=np.uint64)
    moc = MOC.from_healpix_cells(pixels, orders, max_depth=8) if cells else MOC.new_empty(8)
    region = MocRegion(moc)
    random = np.random.default_rng(len(cells))
    ra, dec = random.uniform(0, 360, 3000), np.degrees(np.arcsin(random.uniform(-1, 1, 3000)))
    np.testing.assert_array_equal(region.contains(ra, dec), moc.contains_lonlat(ra * u.deg, dec * u.deg))
    assert covers(region, ra, dec)


def test_overlapping_ranges():
    ranges = np.array([[2, 4], [10, 12]])
    starts, stops = np.array([0, 0, 4, 3, 9, 12, 5]), np.array([2, 3, 10, 4, 11, 20, 9])
    np.testing.assert_array_equal(overlapping(ranges, starts, stops), [False, True, False, True, True, False, False])
    assert not overlapping(np.empty((0, 2), np.int64), starts, stops).any()


def test_conditions_have_a_parameter_for_each_mark():
    for region in (
        Cone(1, 2, 3),
        Polygon([(0, 0), (1, 0), (0, 1)]),
        MocRegion(MOC.new_empty(3)),
        MocRegion(MOC.from_string("3/1-9")),
    ):
        condition = region.condition()
        assert condition.sql.count("?") == len(condition.parameters)
