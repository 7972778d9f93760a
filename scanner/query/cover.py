"""HEALPix cells that cover a region of any shape, as ranges of indices of order 29.

In: how far directions lie from the region's edge, in radians: positive outside, negative inside. Out: few ranges that hold
every index of the region, and little else. Nothing is refused.

A cell is left out where its centre lies farther outside than any of its corners can reach, taken whole where it lies farther
inside, and divided otherwise. The distance may be smaller than it is (by its amount), never larger: a region's edge may be
rough, but no position is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from astropy_healpix import healpix_to_xyz

from scanner.records import Float64, Int64
from scanner.sphere import HEALPIX_ORDER

#: Cells on the edge are not divided any more when there are this many, or at this order (cells of 3.2″).
EDGE_CELLS = 64
FINEST_ORDER = 16
_FIRST_ORDER = 3


def cover(distance: Callable[[Float64], Float64]) -> Int64:
    """Cover a region.

    Parameters
    ----------
    distance
        Of unit vectors (N, 3), the angle to the region's edge in radians, (N,); negative inside.

    Returns
    -------
    numpy.ndarray
        (M, 2) int64, half-open ranges of nested indices of order 29, ascending, not touching.
    """
    order, cells = _FIRST_ORDER, np.arange(12 * 4**_FIRST_ORDER, dtype=np.int64)
    ranges: list[Int64] = []
    while True:
        away, reach = distance(_centres(order, cells)), cell_radius(order)
        whole, edge = away < -reach, np.abs(away) <= reach
        ranges.append(_ranges(cells[whole], order))
        cells = cells[edge]
        if len(cells) == 0 or len(cells) > EDGE_CELLS or order == FINEST_ORDER:
            return merged(np.concatenate([*ranges, _ranges(cells, order)]))
        order, cells = order + 1, (4 * cells[:, None] + np.arange(4)).ravel()


def merged(ranges: Int64) -> Int64:
    """Sort half-open ranges (N, 2) and join those that touch or overlap."""
    if len(ranges) == 0:
        return ranges.reshape(0, 2)
    ranges = ranges[np.argsort(ranges[:, 0])]
    ends = np.maximum.accumulate(ranges[:, 1])
    first = np.r_[True, ranges[1:, 0] > ends[:-1]]
    return np.stack([ranges[first, 0], ends[np.r_[first[1:], True]]], axis=1)


def few(ranges: Int64, at_most: int) -> Int64:
    """Join the ranges that are nearest to each other until so many are left; what lies between is then in them too."""
    if len(ranges) <= at_most:
        return ranges
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    kept = np.sort(np.argsort(gaps)[len(gaps) - at_most + 1 :])
    return np.stack([np.r_[ranges[:1, 0], ranges[kept + 1, 0]], np.r_[ranges[kept, 1], ranges[-1:, 1]]], axis=1)


@cache
def cell_radius(order: int) -> float:
    """Farthest that a cell's corner can be from its centre, in radians.

    The farthest corners are those of the cells that touch both the equatorial and a polar region, and the poles (Górski et al.
    2005, doi:10.1086/427976, section 5).
    """
    n_side = 2**order
    side = 1 - 1 / n_side
    a, b = _direction(2 / 3, np.pi / (4 * n_side)), _direction(1 - side * side / 3, 0.0)
    return 1.001 * 2 * float(np.arcsin(min(1.0, float(np.linalg.norm(a - b)) / 2)))


def _direction(z: float, longitude: float) -> Float64:
    across = np.sqrt(1 - z * z)
    return np.array([across * np.cos(longitude), across * np.sin(longitude), z])


def _centres(order: int, cells: Int64) -> Float64:
    return _first_centres() if order == _FIRST_ORDER else _unit(cells, order)


@cache
def _first_centres() -> Float64:
    return _unit(np.arange(12 * 4**_FIRST_ORDER, dtype=np.int64), _FIRST_ORDER)


def _unit(cells: Int64, order: int) -> Float64:
    return np.stack(healpix_to_xyz(cells, 2**order, order="nested"), axis=-1)


def _ranges(cells: Int64, order: int) -> Int64:
    shift = 2 * (HEALPIX_ORDER - order)
    return np.stack([cells << shift, (cells + 1) << shift], axis=1)
