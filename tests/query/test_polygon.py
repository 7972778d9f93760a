import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from scanner.errors import UsageError
from scanner.query.region import MAX_VERTICES, Polygon

CENTRES = st.one_of(
    st.sampled_from([(0.0, 90.0), (123.0, -90.0), (0.0, 0.0), (360.0, 10.0), (359.99, -60.0), (45.0, 89.99)]),
    st.tuples(st.floats(0, 360), st.floats(-90, 90)),
)
# Distances of the vertices from the centre, in the plane that the sky is seen on from its middle: up to 68 degrees.
STARS = st.lists(st.floats(0.02, 2.5), min_size=3, max_size=12)


def to_sky(centre, points):
    """Points of the plane that touches the sky at a centre, as right ascension and declination: lines become great circles."""
    a, d = np.radians(centre)
    up = np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
    east = np.array([-np.sin(a), np.cos(a), 0])
    directions = up + points[:, :1] * east + points[:, 1:] * np.cross(up, east)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.degrees(np.arctan2(directions[:, 1], directions[:, 0])) % 360, np.degrees(
        np.arcsin(np.clip(directions[:, 2], -1, 1))
    )


@settings(max_examples=60)
@given(CENTRES, STARS, st.floats(1e-4, 1), st.booleans())
def test_stars_hold_what_their_outline_holds(covers, centre, radii, scale, turned):
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii)
    corners = scale * np.array(radii)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.stack(to_sky(centre, corners), axis=1)
    polygon = Polygon(vertices[::-1] if turned else vertices)
    random = np.random.default_rng(len(radii))
    points = scale * random.normal(0, 1.2, (500, 2))
    ra, dec = to_sky(centre, points)
    # Positions so near to a side that rounding decides are left out.
    clear = Outline(corners).contains_points(points, radius=1e-9 * scale) == Outline(corners).contains_points(
        points, radius=-1e-9 * scale
    )
    inside = Outline(corners).contains_points(points)
    np.testing.assert_array_equal(polygon.contains(ra, dec)[clear], inside[clear])
    assert not polygon.contains((ra + 180) % 360, -dec).any()
    assert polygon.contains(*vertices.T).all()
    assert covers(polygon, ra, dec)
    assert covers(polygon, *vertices.T)


@pytest.mark.parametrize("n", [3, 4, 7])
def test_a_polygon_around_a_pole(n):
    around = [(360 * i / n, 70) for i in range(n)]
    assert Polygon(around).contains([0, 12, 300], [90, 89, 85]).all()
    assert not Polygon(around).contains([0, 12, 300, 50], [-90, 0, 20, 10]).any()
    south = Polygon([(ra, -dec) for ra, dec in around])
    np.testing.assert_array_equal(south.contains([0, 12], [-90, 90]), [True, False])


def test_the_smaller_side_is_inside_though_it_spans_half_the_sky():
    band = [*((lon, -5) for lon in range(0, 221, 20)), *((lon, 5) for lon in range(220, -1, -20))]
    for vertices in (band, band[::-1]):
        polygon = Polygon(vertices)
        np.testing.assert_array_equal(
            polygon.contains([10, 190, 100, 0, 220, 230, 350, 10, 190], [0, 0, 4, 5, -5, 0, 0, 8, -90]),
            [True, True, True, True, True, False, False, False, False],
        )


def test_sides_are_great_circles_and_inside():
    square = Polygon([(-30, 40), (30, 40), (30, -40), (-30, -40)])
    middle = np.degrees(np.arctan(np.tan(np.radians(40)) / np.cos(np.radians(30))))
    np.testing.assert_array_equal(square.contains([0, 0, 0, 30, 30 + 1e-9], [40, middle, middle + 1e-9, 0, 0]), [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(square.contains([330, 390 - 360, 329.9], [40, -40, 0]), [1, 1, 0])


@settings(max_examples=20)
@given(st.floats(0, 359), st.floats(-80, 80), st.floats(1e-6, 1e-3))
def test_small_polygons_are_as_exact(ra, dec, size):
    side = size / np.cos(np.radians(dec))
    polygon = Polygon([(ra, dec), (ra + side, dec), (ra + side, dec + size), (ra, dec + size)])
    inside = polygon.contains(
        [ra + side / 2, ra + 0.01 * side, ra - 0.01 * side, ra + side / 2], [dec + size / 2] * 3 + [dec + 1.01 * size]
    )
    np.testing.assert_array_equal(inside, [True, True, False, False])


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        ([(0, 0), (1, 1)], "three vertices"),
        ([(0, 0), (1, 1), (0, 0)], "3 to 500 different vertices, not 2"),
        ([(0, 0), (1, 0), (1, 0), (0, 1)], "same vertex twice"),
        ([(0, 0), (180, 0), (90, 45)], "opposite on the sky"),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "cross or touch"),
        ([(0, 0), (2, 0), (1, 0), (1, 1)], "cross or touch"),
        ([(0, 0), (2, 0), (2, 2), (1, 0), (0, 2)], "cross or touch"),
        ([(0, 0), (1, 91), (1, 0)], "declinations of -90 to 90"),
        ([(0, 0), (float("nan"), 1), (1, 0)], "declinations of -90 to 90"),
        ([(i / 2, 0 if i % 2 else 1) for i in range(MAX_VERTICES + 1)], "for more, give a MOC"),
    ],
)
def test_polygons_that_there_are_not(vertices, message):
    with pytest.raises(UsageError, match=message):
        Polygon(vertices)
