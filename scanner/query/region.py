"""Regions of the sky that a catalogue is asked for: cones, polygons, MOCs.

In: degrees (ICRS), or a MOC. Out: which positions lie inside, edges included, as a test of arrays, as a condition of a query,
and as ranges of HEALPix indices that hold all of the region, by which a query knows what it need not read. Refused
(:class:`~scanner.errors.UsageError`): positions and radii that there are not; polygons as :mod:`scanner.query.polygon` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanner.errors import UsageError
from scanner.query.condition import CATALOGUE_POSITION, Condition, Position
from scanner.query.cover import cover, merged
from scanner.query.polygon import TOLERANCE, Polygon
from scanner.records import Float64, Int64
from scanner.sphere import HEALPIX_ORDER, healpix_29, unit_vectors

if TYPE_CHECKING:
    from mocpy import MOC

__all__ = ["Cone", "MocRegion", "Polygon", "Region", "overlapping"]

# A MOC of more ranges is asked for cell by cell: a database looks numbers up faster than it compares.
_MAX_COMPARED_RANGES = 64


class Region(Protocol):
    """A part of the sky."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        ...

    def condition(self, position: Position = CATALOGUE_POSITION) -> Condition:
        """The same as SQL."""
        ...

    def ranges(self) -> Int64:
        """HEALPix indices of order 29, nested, that hold all of the region, (M, 2) int64, half open, ascending, few."""
        ...


@dataclass(frozen=True)
class Cone:
    """All within ``radius_deg`` (0 to 180) of a position in degrees; what is nearer to the edge than 0.2 µas is inside."""

    ra: float
    dec: float
    radius_deg: float

    def __post_init__(self) -> None:
        if not abs(self.ra) <= 360:
            raise UsageError(f"A right ascension of {self.ra:g} degrees does not exist; give 0 to 360.")
        if not abs(self.dec) <= 90:
            raise UsageError(f"A declination of {self.dec:g} degrees does not exist; give -90 to 90.")
        if not 0 <= self.radius_deg <= 180:
            raise UsageError(f"A radius of {self.radius_deg:g} degrees makes no sense; give 0 to 180.")

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        towards, limit = self._near_side()
        directions = unit_vectors(np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64))
        squares = np.sum((directions - towards) ** 2, axis=-1)
        return np.asarray(squares <= limit if self._is_small else squares >= limit)

    def condition(self, position: Position = CATALOGUE_POSITION) -> Condition:
        """The same as SQL."""
        towards, limit = self._near_side()
        squares = " + ".join(f"pow({axis} - ?, 2)" for axis in position.unit_vector)
        return Condition(f"{squares} {'<=' if self._is_small else '>='} ?", (*map(float, towards), limit))

    def separation(self, position: Position = CATALOGUE_POSITION) -> Condition:
        """Distance from the centre in arcseconds, as an SQL expression."""
        squares = " + ".join(f"pow({axis} - ?, 2)" for axis in position.unit_vector)
        return Condition(f"7200 * degrees(asin(least(1, sqrt({squares}) / 2)))", tuple(map(float, self._centre)))

    def ranges(self) -> Int64:
        """HEALPix indices that hold all of the cone, (M, 2) int64, half open; see :mod:`scanner.query.cover`."""
        centre, radius = self._centre, np.radians(self.radius_deg) + TOLERANCE

        def distance(directions: Float64) -> Float64:
            chords = np.linalg.norm(directions - centre, axis=1)
            return np.asarray(2 * np.arcsin(np.minimum(chords / 2, 1)) - radius)

        return cover(distance)

    @property
    def _is_small(self) -> bool:
        return self.radius_deg <= 90

    @property
    def _centre(self) -> Float64:
        return unit_vectors(np.array(self.ra), np.array(self.dec))

    def _near_side(self) -> tuple[Float64, float]:
        """The end of the axis that the edge is nearer to, and the square of the chord from there to the edge.

        Chords hardly grow any more near 180 degrees: there, the distance from the opposite point is what can be compared.
        """
        angle = np.radians(self.radius_deg) + TOLERANCE if self._is_small else np.radians(180 - self.radius_deg) - TOLERANCE
        return self._centre if self._is_small else -self._centre, float(4 * np.sin(max(angle, 0.0) / 2) ** 2)


class MocRegion:
    """The cells of a MOC (``mocpy.MOC``): a position is inside if its HEALPix cell of order 29 is."""

    def __init__(self, moc: MOC) -> None:
        self._ranges = merged(np.asarray(moc.to_depth29_ranges, dtype=np.int64).reshape(-1, 2))

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        index = healpix_29(np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64))
        return np.asarray(np.searchsorted(self._ranges.ravel(), index, side="right") % 2 == 1)

    def condition(self, position: Position = CATALOGUE_POSITION) -> Condition:
        """The same as SQL."""
        index = position.healpix
        if len(self._ranges) <= _MAX_COMPARED_RANGES:
            sql = " OR ".join(f"({index} >= ? AND {index} < ?)" for _ in self._ranges) or "false"
            return Condition(sql, tuple(self._ranges.ravel().tolist()))
        cells = _cells(self._ranges)
        sql = " OR ".join(f"({index} >> {2 * (HEALPIX_ORDER - order)}) IN (SELECT unnest(?::BIGINT[]))" for order in cells)
        return Condition(sql, tuple(pixels.tolist() for pixels in cells.values()))

    def ranges(self) -> Int64:
        """The MOC itself, (M, 2) int64, half-open ranges of HEALPix indices of order 29."""
        return self._ranges


def overlapping(ranges: Int64, starts: Int64, stops: Int64) -> NDArray[np.bool_]:
    """Which of K half-open intervals hold an index of the ranges.

    Parameters
    ----------
    ranges
        (M, 2), half open, ascending, apart from each other.
    starts, stops
        (K,), half open.
    """
    # The first range that ends after an interval's start is the only one that need be looked at.
    first = np.searchsorted(ranges[:, 1], starts, side="right")
    begins = np.append(ranges[:, 0], np.iinfo(np.int64).max)[first]
    return np.asarray(begins < stops)


def _cells(ranges: Int64) -> dict[int, Int64]:
    """The fewest cells that make up ranges, by their order."""
    cells: dict[int, Int64] = {}
    left = ranges
    for order in range(HEALPIX_ORDER + 1):
        size = 1 << 2 * (HEALPIX_ORDER - order)
        first, last = -(-left[:, 0] // size), left[:, 1] // size
        whole = first < last
        counts = np.where(whole, last - first, 0)
        if counts.any():
            offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            cells[order] = np.repeat(first, counts) + offsets
        before = np.stack([left[:, 0], np.where(whole, first * size, left[:, 1])], axis=1)
        after = np.stack([np.where(whole, last * size, left[:, 1]), left[:, 1]], axis=1)
        left = np.concatenate([before, after])
        left = left[left[:, 0] < left[:, 1]]
    return cells
