"""Regions of the sky that a catalogue is asked for (cones, polygons, MOCs), and how they are read from text and files.

Each is a test of arrays, the same as an SQL condition, and HEALPix ranges that hold all of it. Edges belong to a region.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from astropy_healpix import healpix_to_xyz
from numpy.typing import ArrayLike, NDArray

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.records import Float64, Int64
from scanner.sphere import HEALPIX_ORDER, healpix_29, unit_vectors
from scanner.storage import read_file

if TYPE_CHECKING:
    from mocpy import MOC


@dataclass(frozen=True)
class SqlPart:
    """SQL of DuckDB with a ``?`` for each of ``parameters``, so that no value is ever written into SQL."""

    sql: str
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Position:
    """SQL of a position: right ascension and declination in degrees, and the nested HEALPix index of order 29."""

    ra: str = "ra"
    dec: str = "dec"
    healpix: str = "_healpix_29"

    @property
    def unit_vector(self) -> tuple[str, str, str]:
        """The direction as three expressions."""
        ra, dec = f"radians({self.ra})", f"radians({self.dec})"
        return f"(cos({dec}) * cos({ra}))", f"(cos({dec}) * sin({ra}))", f"sin({dec})"


CATALOGUE_POSITION = Position()
#: SQL of the angle between two positions in degrees (haversine). Slots: declinations of the second and the first, then of the
#: first and the second, right ascensions of the second and the first; each once and in this order, as parameters need it.
SEPARATION_DEG = (
    "degrees(2 * asin(least(1, sqrt(pow(sin(radians({0} - {1}) / 2), 2)"
    " + cos(radians({2})) * cos(radians({3})) * pow(sin(radians({4} - {5}) / 2), 2)))))"
)


def all_of(conditions: Iterable[SqlPart]) -> SqlPart:
    """What holds where every condition holds; of none, what always holds."""
    given = tuple(conditions)
    sql = " AND ".join(f"({one.sql})" for one in given) or "true"
    return SqlPart(sql, tuple(value for one in given for value in one.parameters))


Bools = NDArray[np.bool_]


class Region(Protocol):
    """A part of the sky."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        ...

    def condition(self, position: Position = CATALOGUE_POSITION) -> SqlPart:
        """The same as SQL."""
        ...

    def ranges(self) -> Int64:
        """HEALPix indices of order 29, nested, that hold all of the region, (M, 2) int64, half open, ascending, few."""
        ...


#: Radians (0.2 µas): far below what positions are known to, and far above what rounding does.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Cone:
    """All within ``radius_deg`` (0 to 180) of a position in degrees (ICRS); a UsageError where that makes no sense."""

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

    def condition(self, position: Position = CATALOGUE_POSITION) -> SqlPart:
        """The same as SQL."""
        towards, limit = self._near_side()
        squares = " + ".join(f"pow({axis} - ?, 2)" for axis in position.unit_vector)
        return SqlPart(f"{squares} {'<=' if self._is_small else '>='} ?", (*map(float, towards), limit))

    def separation(self, position: Position = CATALOGUE_POSITION) -> SqlPart:
        """Distance from the centre in arcseconds, as an SQL expression."""
        sql = SEPARATION_DEG.format(position.dec, "?", "?", position.dec, position.ra, "?")
        return SqlPart(f"3600 * {sql}", (self.dec, self.dec, self.ra))

    def ranges(self) -> Int64:
        """HEALPix indices that hold all of the cone, (M, 2) int64, half open; see :func:`cover`."""
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

        Chords hardly grow near 180 degrees, so large cones compare the distance from the opposite point.
        """
        angle = np.radians(self.radius_deg) + TOLERANCE if self._is_small else np.radians(180 - self.radius_deg) - TOLERANCE
        return self._centre if self._is_small else -self._centre, float(4 * np.sin(max(angle, 0.0) / 2) ** 2)


MAX_VERTICES = 500
_SHORTEST_SIDE = 1e-10
# Directions of no meaning, of which the one farthest from all sides is the end of the arcs.
_ARC_ENDS = 32
# Scalar product of a position and three numbers of a side.
_DOT = "(side[{}] * v.x + side[{}] * v.y + side[{}] * v.z)"
# More than there are sides to cross, and even.
_TOUCHED = 1 << 20


class Polygon:
    """A polygon whose sides are great circles.

    The inside is the smaller of the two parts of the sky, whichever way round the vertices go, so a polygon may hold a pole. A
    position is inside where the arc from it to a point whose side is known crosses the outline an even or odd number of times
    (O'Rourke, *Computational Geometry in C*, section 7.4, on the sphere). All that this asks of a position is on which side of
    some planes it lies, in numpy as in SQL.

    Parameters
    ----------
    vertices
        (N, 2), right ascension and declination in degrees (ICRS).

    Raises
    ------
    UsageError
        Fewer than three vertices or more than :data:`MAX_VERTICES`, values that are no position, a vertex given twice in a row
        or opposite to the next, sides that cross.
    """

    def __init__(self, vertices: ArrayLike) -> None:
        self.vertices = _checked(vertices)
        self._a = unit_vectors(self.vertices[:, 0], self.vertices[:, 1])
        self._b = np.roll(self._a, -1, axis=0)
        if (np.linalg.norm(self._a - self._b, axis=1) < _SHORTEST_SIDE).any():
            raise UsageError("A polygon has the same vertex twice in a row; leave one out.")
        if (np.linalg.norm(self._a + self._b, axis=1) < _SHORTEST_SIDE).any():
            raise UsageError("Two neighbouring vertices of a polygon are opposite on the sky; put one between them.")
        # The plane of each side, without the rounding of a plain cross product of two directions close together; and the
        # directions in it that point from either end to the other.
        planes = np.cross(self._a - self._b, self._a + self._b)
        self._plane = planes / np.linalg.norm(planes, axis=1, keepdims=True)
        self._from_a, self._from_b = np.cross(self._plane, self._a), np.cross(self._b, self._plane)
        if self._crosses_itself():
            raise UsageError("The sides of a polygon cross or touch each other; give its vertices in order, once around.")
        end = self._arc_end()
        self._fan = np.cross(end, self._a)
        self._end_is_left = self._plane @ end >= 0
        self._end_is_inside = self._is_end_inside()

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> Bools:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        return self._contains(unit_vectors(np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)))

    def condition(self, position: Position = CATALOGUE_POSITION) -> SqlPart:
        """The same as SQL: one expression, of which all sides are one parameter."""
        x, y, z = position.unit_vector
        plane, fan, next_fan, from_a, from_b = (_DOT.format(*range(first, first + 3)) for first in range(1, 16, 3))
        touches = f"abs({plane}) <= {TOLERANCE} AND {from_a} >= -{TOLERANCE} AND {from_b} >= -{TOLERANCE}"
        crosses = f"({plane} >= 0) <> (side[16] > 0) AND ({fan} >= 0) <> ({plane} >= 0) AND ({next_fan} >= 0) = ({plane} >= 0)"
        counted = f"lambda side: CASE WHEN {touches} THEN {_TOUCHED} WHEN {crosses} THEN 1 ELSE 0 END"
        counts = f"list_transform([{{'x': {x}, 'y': {y}, 'z': {z}}}], lambda v: list_transform(?::DOUBLE[][], {counted}))[1]"
        is_inside = f"lambda n: n >= {_TOUCHED} OR n % 2 = {int(not self._end_is_inside)}"
        next_fans = np.roll(self._fan, -1, axis=0)
        sides = np.hstack(
            [self._plane, self._fan, next_fans, self._from_a, self._from_b, self._end_is_left[:, None].astype(np.float64)]
        )
        # A list of one element gives a name to a value that is used twice.
        return SqlPart(f"list_transform([list_sum({counts})], {is_inside})[1]", (sides.tolist(),))

    def ranges(self) -> Int64:
        """HEALPix indices that hold all of the polygon, (M, 2) int64, half open; see :func:`cover`."""
        return cover(self._distance)

    def _contains(self, directions: Float64) -> Bools:
        crossed_oddly = self._crossings(directions).sum(axis=1) % 2 == 1
        return np.asarray((crossed_oddly != self._end_is_inside) | self._touches(directions).any(axis=1))

    def _crossings(self, directions: Float64) -> Bools:
        """Which sides the arc from each direction to the known point crosses, (P, N) bool."""
        left = directions @ self._plane.T >= 0
        first = directions @ self._fan.T >= 0
        return np.asarray((left != self._end_is_left) & (first != left) & (np.roll(first, -1, axis=1) == left))

    def _touches(self, directions: Float64) -> Bools:
        """Which directions lie on which sides, (P, N) bool."""
        off = np.abs(directions @ self._plane.T) <= TOLERANCE
        between = (directions @ self._from_a.T >= -TOLERANCE) & (directions @ self._from_b.T >= -TOLERANCE)
        return np.asarray(off & between)

    def _distance(self, directions: Float64) -> Float64:
        """Angle to the outline in radians, negative inside, (P,)."""
        between = (directions @ self._from_a.T >= 0) & (directions @ self._from_b.T >= 0)
        to_plane = np.abs(np.arcsin(np.clip(directions @ self._plane.T, -1, 1)))
        to_vertex = 2 * np.arcsin(np.clip(np.linalg.norm(directions[:, None] - self._a, axis=2) / 2, 0, 1))
        to_ends = np.minimum(to_vertex, np.roll(to_vertex, -1, axis=1))
        away = np.where(between, to_plane, to_ends).min(axis=1)
        return np.asarray(np.where(self._contains(directions), -away, away))

    def _crosses_itself(self) -> bool:
        n = len(self._a)
        side = np.arange(n)
        apart = (side[:, None] - side) % n
        touching = self._touches(self._a) & (apart != 0) & (apart != 1)
        a_left, b_left = self._a @ self._plane.T >= 0, self._b @ self._plane.T >= 0
        # Rows are sides as arcs, columns as planes: two arcs cross where each divides the other on the same side of the sky.
        crossing = (a_left != b_left) & (a_left != b_left).T & (a_left == b_left.T) & (apart > 1) & (apart < n - 1)
        return bool(touching.any() or crossing.any())

    def _arc_end(self) -> Float64:
        """A direction far from all sides."""
        directions = np.random.default_rng(29).normal(size=(_ARC_ENDS, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        to_plane = np.abs(directions @ self._plane.T).min(axis=1)
        return np.asarray(directions[np.argmax(to_plane)])

    def _is_end_inside(self) -> bool:
        """Whether that direction is on the smaller side.

        It is followed to the middle of the first side: it arrives there on the side of the sky that it lies on, unless it
        crosses others. The part to the left is the smaller one where the outline turns left more than right (theorem of Gauss
        and Bonnet).
        """
        middle = self._a[:1] + self._b[:1]
        others = int(self._crossings(middle / np.linalg.norm(middle))[0, 1:].sum())
        arrives_left = bool(self._end_is_left[0]) == (others % 2 == 0)
        arriving, leaving = -np.roll(self._from_b, 1, axis=0), self._from_a
        turns = np.arctan2(np.sum(np.cross(arriving, leaving) * self._a, axis=1), np.sum(arriving * leaving, axis=1))
        return arrives_left == bool(turns.sum() >= -1e-9)


def _checked(vertices: ArrayLike) -> Float64:
    given = np.asarray(vertices, dtype=np.float64)
    if given.ndim != 2 or given.shape[1:] != (2,) or len(given) < 3:
        raise UsageError("A polygon needs three vertices or more, each with right ascension and declination.")
    if np.array_equal(given[0], given[-1]):
        given = given[:-1]
    if not 3 <= len(given) <= MAX_VERTICES:
        raise UsageError(f"A polygon needs 3 to {MAX_VERTICES} different vertices, not {len(given)}; for more, give a MOC.")
    if not (np.isfinite(given).all() and (np.abs(given[:, 1]) <= 90).all() and (np.abs(given[:, 0]) <= 360).all()):
        raise UsageError("A polygon's vertices need right ascensions of 0 to 360 and declinations of -90 to 90 degrees.")
    return given


# A MOC of more ranges is asked for cell by cell: a database looks numbers up faster than it compares.
_MAX_COMPARED_RANGES = 64


class MocRegion:
    """The cells of a MOC (``mocpy.MOC``): a position is inside if its HEALPix cell of order 29 is."""

    def __init__(self, moc: MOC) -> None:
        self._ranges = merged(np.asarray(moc.to_depth29_ranges, dtype=np.int64).reshape(-1, 2))

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Which positions are inside; ``ra``, ``dec`` (N,) in degrees, result (N,) bool."""
        index = healpix_29(np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64))
        return np.asarray(np.searchsorted(self._ranges.ravel(), index, side="right") % 2 == 1)

    def condition(self, position: Position = CATALOGUE_POSITION) -> SqlPart:
        """The same as SQL."""
        index = position.healpix
        if len(self._ranges) <= _MAX_COMPARED_RANGES:
            sql = " OR ".join(f"({index} >= ? AND {index} < ?)" for _ in self._ranges) or "false"
            return SqlPart(sql, tuple(self._ranges.ravel().tolist()))
        cells = _cells(self._ranges)
        sql = " OR ".join(f"({index} >> {2 * (HEALPIX_ORDER - order)}) IN (SELECT unnest(?::BIGINT[]))" for order in cells)
        return SqlPart(sql, tuple(pixels.tolist() for pixels in cells.values()))

    def ranges(self) -> Int64:
        """The MOC itself, (M, 2) int64, half-open ranges of HEALPix indices of order 29."""
        return self._ranges


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


#: Cells on the edge are no longer divided when there are this many, or at this order (cells of 3.2″).
EDGE_CELLS = 64
FINEST_ORDER = 16
_FIRST_ORDER = 3


def cover(distance: Callable[[Float64], Float64]) -> Int64:
    """HEALPix cells that cover a region of any shape, as ranges of indices.

    A cell is left out where its centre lies farther outside than any of its corners can reach, taken whole where it lies
    farther inside, and divided otherwise. (The cones of mocpy 0.17 lose positions beyond 150 degrees.)

    Parameters
    ----------
    distance
        Of unit vectors (N, 3), the angle to the region's edge in radians, (N,); negative inside. Its amount may be smaller than
        the true one, but not larger.

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
    """Join the ranges that are nearest to each other until at most so many are left; they then hold the gaps too."""
    if len(ranges) <= at_most:
        return ranges
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    kept = np.sort(np.argsort(gaps)[len(gaps) - at_most + 1 :])
    return np.stack([np.r_[ranges[:1, 0], ranges[kept + 1, 0]], np.r_[ranges[kept, 1], ranges[-1:, 1]]], axis=1)


def overlapping(ranges: Int64, starts: Int64, stops: Int64) -> NDArray[np.bool_]:
    """Which of K half-open intervals hold an index of the ranges.

    Parameters
    ----------
    ranges
        (M, 2), half open, ascending, apart from each other.
    starts, stops
        (K,), half open.
    """
    # Only the first range that ends after an interval's start can hold an index of it.
    first = np.searchsorted(ranges[:, 1], starts, side="right")
    begins = np.append(ranges[:, 0], np.iinfo(np.int64).max)[first]
    return np.asarray(begins < stops)


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


_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_DEGREES = re.compile(rf"({_NUMBER})(?:d|deg|°)?")
_SEXAGESIMAL = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3})(?P<unit>[:hd°])(?P<minutes>\d{1,2})(?:[:m'′](?:(?P<seconds>\d{1,2}(?:\.\d*)?)[s\"″]?)?)?"
)
_RADIUS = re.compile(rf"({_NUMBER})\s*([a-z°'′\"″]*)")
_DEGREES_PER_UNIT = {
    **dict.fromkeys(("", "d", "deg", "degree", "degrees", "°"), 1.0),
    **dict.fromkeys(("arcmin", "arcminute", "arcminutes", "'", "′"), 1 / 60),
    **dict.fromkeys(("arcsec", "arcsecond", "arcseconds", '"', "″", "''"), 1 / 3600),
    "mas": 1 / 3_600_000,
}
_KEYWORDS = re.compile(r"^\s*(?:CIRCLE|POLYGON)?\s*(?:ICRS\b)?", re.IGNORECASE)
#: Letters of refused text that a message quotes.
_QUOTED_LETTERS = 60
CONE_EXAMPLES = '"150.1 2.2 10arcsec" or "10:00:24 +02:12:00 0.5deg"'
POLYGON_EXAMPLE = '"150 2, 151 2, 151 3"'


def parse_right_ascension(text: str) -> float:
    """Right ascension in degrees; sexagesimal text is in hours, unless it says ``d`` or ``°``."""
    return _angle(text, "right ascension", "150.1, 10:00:24 or 10h00m24s", hours=True)


def parse_declination(text: str) -> float:
    """Declination in degrees."""
    return _angle(text, "declination", "2.2, +02:12:00 or 2d12m0s", hours=False)


def parse_radius(text: str) -> float:
    """Radius in degrees."""
    match = _RADIUS.fullmatch(text.strip())
    if match is None or match[2] not in _DEGREES_PER_UNIT:
        raise UsageError(f"{_quoted(text)} is no radius; write 10arcsec, 5arcmin or 0.5deg (without a unit: degrees).")
    return float(match[1]) * _DEGREES_PER_UNIT[match[2]]


def parse_cone(text: str) -> Cone:
    """A cone from ``RA DEC RADIUS``.

    Right ascension and declination are degrees (``150.1``, ``150.1d``) or sexagesimal with colons or letters, right ascension
    then in hours (``10:00:24.0``, ``10h00m24s``; ``+02:12:00``, ``2d12m0s``, ``2°12′0″``). A radius is in degrees or has a
    unit. Spaces or commas divide; ``CIRCLE ICRS`` and ``POLYGON ICRS`` may stand before them. Anything else is a UsageError.

    Raises
    ------
    UsageError
        It is none.
    """
    words = _words(text)
    # A unit may stand apart from its number.
    if len(words) == 4 and not re.search(r"\d", words[3]):
        words = [*words[:2], words[2] + words[3]]
    if len(words) != 3:
        raise UsageError(f"{_quoted(text)} is no cone; write RA, DEC and RADIUS: {CONE_EXAMPLES}.")
    return Cone(parse_right_ascension(words[0]), parse_declination(words[1]), parse_radius(words[2]))


def parse_polygon(text: str) -> Polygon:
    """A polygon from ``RA DEC, RA DEC, RA DEC …``, its vertices once around.

    Raises
    ------
    UsageError
        It is none.
    """
    words = _words(text)
    if len(words) % 2 or len(words) < 6:
        raise UsageError(f"{_quoted(text)} is no polygon; write RA and DEC of three vertices or more: {POLYGON_EXAMPLE}.")
    vertices = zip(words[::2], words[1::2], strict=True)
    return Polygon([(parse_right_ascension(ra), parse_declination(dec)) for ra, dec in vertices])


def _quoted(text: str) -> str:
    return f'"{text[:_QUOTED_LETTERS]}…"' if len(text) > _QUOTED_LETTERS else f'"{text}"'


def _words(text: str) -> list[str]:
    return _KEYWORDS.sub("", text).replace(",", " ").replace(";", " ").replace("−", "-").split()


def _angle(text: str, what: str, examples: str, *, hours: bool) -> float:
    plain = _DEGREES.fullmatch(text)
    if plain is not None:
        return float(plain[1])
    match = _SEXAGESIMAL.fullmatch(text)
    if match is None or (match["unit"] == "h" and not hours):
        raise UsageError(f"{_quoted(text)} is no {what}; write {examples}.")
    minutes, seconds = int(match["minutes"]), float(match["seconds"] or 0)
    if minutes >= 60 or seconds >= 60:
        raise UsageError(f"{_quoted(text)} is no {what}: minutes and seconds go up to 59; write {examples}.")
    value = int(match["whole"]) + minutes / 60 + seconds / 3600
    in_hours = hours and match["unit"] in ":h"
    return (-value if match["sign"] == "-" else value) * (15 if in_hours else 1)


def read_moc(location: str, storage: StorageConfig) -> MocRegion:
    """Read a MOC (IVOA MOC 2.0) in FITS, JSON or ASCII.

    Parameters
    ----------
    location
        A local path or ``s3://…``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        There is no such file.
    ContentError
        It is no MOC of the sky.
    """
    try:
        content = read_file(location, storage)
    except (FileNotFoundError, IsADirectoryError):
        raise InputMissingError(f"{location}: there is no such file; name a MOC in FITS, JSON or ASCII.") from None
    try:
        region = MocRegion(_parsed(content))
        ranges = region.ranges()
        if len(ranges) and not 0 <= ranges.min() <= ranges.max() <= 12 << 2 * HEALPIX_ORDER:
            raise ValueError("a cell's number is too large for its order")
        return region
    # The library's errors have no common class.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ContentError(f"{location}: is no MOC of the sky in FITS, JSON or ASCII ({reason}); name another.") from None


def _parsed(content: bytes) -> MOC:
    from mocpy import MOC

    if content.startswith(b"SIMPLE"):
        from astropy.io import fits

        with fits.open(io.BytesIO(content)) as hdus:
            _refuse_orders(
                order for order in (hdus[1].header.get(key) for key in ("MOCORD_S", "MOCORDER")) if order is not None
            )
        with tempfile.TemporaryDirectory(prefix="scanner-moc-") as folder:
            path = Path(folder, "moc.fits")
            path.write_bytes(content)
            return MOC.from_fits(path)
    text = content.decode("ascii")
    if not text.lstrip().startswith("{"):
        _refuse_orders(re.findall(r"(\d+)/", text))
        return MOC.from_string(text, "ascii")
    cells = json.loads(text)
    _refuse_orders(cells)
    return MOC.from_json(cells)


def _refuse_orders(orders: Iterable[str | int]) -> None:
    """Refuse orders that a MOC cannot have: the library takes them modulo something."""
    for order in orders:
        if not 0 <= int(order) <= HEALPIX_ORDER:
            raise ValueError(f"it has order {order}, and {HEALPIX_ORDER} is the highest")
