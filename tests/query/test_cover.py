import numpy as np
import pytest
from astropy import units as u
from astropy_healpix import boundaries_lonlat, healpix_to_lonlat
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.query.region import Cone, cell_radius, few, merged, overlapping
from scanner.sphere import unit_vectors


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 9])
def test_no_cell_reaches_farther_than_is_said(order):
    n = 12 * 4**order
    cells = np.arange(n) if n < 20_000 else np.random.default_rng(0).integers(0, n, 20_000)
    corners = unit_vectors(*(x.to_value(u.deg) for x in boundaries_lonlat(cells, 4, 2**order, order="nested")))
    centres = unit_vectors(*(x.to_value(u.deg) for x in healpix_to_lonlat(cells, 2**order, order="nested")))
    farthest = 2 * np.arcsin(np.linalg.norm(corners - centres[:, None], axis=2).max() / 2)
    assert farthest <= cell_radius(order)
    if order < 6:
        assert farthest > 0.99 * cell_radius(order)


@pytest.mark.parametrize(("radius", "times"), [(10 / 3600, 3), (5 / 60, 3), (1, 3), (30, 1.5), (120, 1.2)])
def test_covers_are_tight(radius, times):
    ranges = Cone(123.4, -56.7, radius).ranges()
    area = (ranges[:, 1] - ranges[:, 0]).sum() / (12 * 4**29)
    assert area <= times * (1 - np.cos(np.radians(radius))) / 2
    assert len(ranges) <= 64


def test_the_whole_sky_is_one_range():
    np.testing.assert_array_equal(Cone(0, 0, 180).ranges(), [[0, 12 * 4**29]])


RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 30)), max_size=40)


@settings(max_examples=60)
@given(RANGES, st.integers(1, 12))
def test_merged_and_few(spans, at_most):
    ranges = np.array([(start, start + length) for start, length in spans], dtype=np.int64).reshape(-1, 2)
    held = {index for start, stop in ranges.tolist() for index in range(start, stop)}
    one = merged(ranges)
    assert {index for start, stop in one.tolist() for index in range(start, stop)} == held
    assert (one[1:, 0] > one[:-1, 1]).all()
    fewer = few(one, at_most)
    assert len(fewer) == min(at_most, len(one))
    assert overlapping(fewer, *one.T).all()
    if len(one):
        # The widest gaps are those that are left.
        gaps = np.sort(one[1:, 0] - one[:-1, 1])[::-1][: at_most - 1]
        assert sorted(fewer[1:, 0] - fewer[:-1, 1]) == sorted(gaps)
