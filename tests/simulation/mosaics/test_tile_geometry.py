import itertools
import math

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import proj_plane_pixel_scales
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.simulation.mosaics.field import PLANE, lay_out, rotation_to, to_fine_pixels

TILES = lay_out(3, 2000, 0.15, seed=4)


def test_pixel_scales_and_shapes():
    for tile in TILES:
        np.testing.assert_allclose(proj_plane_pixel_scales(tile.vis.wcs) * 3600, 0.1, rtol=1e-9)
        np.testing.assert_allclose(proj_plane_pixel_scales(tile.nisp.wcs) * 3600, 0.3 if tile.native else 0.1, rtol=1e-9)
    assert [tile.native for tile in TILES] == [False, True, False]
    assert len({tile.tile_id for tile in TILES}) == 3
    assert all(len(tile.tile_id) == 9 for tile in TILES)


def test_neighbours_share_the_overlap_that_was_asked_for():
    for left, right in itertools.pairwise(TILES):
        ra, dec = left.vis.wcs.wcs_pix2world(999.5, 999.5, 0)
        x, y = right.vis.wcs.wcs_world2pix(ra, dec, 0)
        assert abs(x - 999.5) == pytest.approx(1700, abs=0.5)
        # Parallels are curved: a tile's neighbour lies a little off its middle row.
        assert y == pytest.approx(999.5, abs=1.5)


def test_native_nisp_covers_vis_and_is_turned():
    tile = TILES[1]
    corners = np.array([[-0.5, -0.5], [1999.5, -0.5], [-0.5, 1999.5], [1999.5, 1999.5]])
    pixels = tile.nisp.wcs.wcs_world2pix(tile.vis.wcs.wcs_pix2world(corners, 0), 0)
    ny, nx = tile.nisp.shape
    assert pixels.min() > -0.5
    assert (pixels < [nx - 0.5, ny - 0.5]).all()
    assert math.degrees(rotation_to(tile.nisp, tile.centre)) == pytest.approx(1.7, abs=0.05)


@settings(max_examples=50)
@given(x=st.floats(-280, 280), y=st.floats(-95, 95), number=st.integers(0, 2))
def test_positions_survive_the_way_through_the_sky(x, y, number):
    tile = TILES[number]
    ra, dec = PLANE.wcs.wcs_pix2world(x, y, 0)
    for grid in (tile.vis, tile.nisp):
        column, row = to_fine_pixels(grid, x, y)
        shift = 0.5 * (grid.samples - 1)
        back = grid.wcs.wcs_pix2world((column - shift) / grid.samples, (row - shift) / grid.samples, 0)
        assert SkyCoord(*back, unit="deg").separation(SkyCoord(ra, dec, unit="deg")).arcsec < 1e-6


def test_west_is_right_and_north_is_up():
    ra, dec = PLANE.wcs.wcs_pix2world([0.0, 10.0, 0.0], [0.0, 0.0, 10.0], 0)
    assert ra[1] < ra[0]
    assert dec[2] > dec[0]
    columns, rows = to_fine_pixels(TILES[0].vis, [0.0, 10.0, 0.0], [0.0, 0.0, 10.0])
    assert columns[1] - columns[0] == pytest.approx(100, abs=0.01)
    assert rows[2] - rows[0] == pytest.approx(100, abs=0.01)
