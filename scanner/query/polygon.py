"""Polygons on the sky whose sides are great circles.

In: vertices in degrees. Out: which positions lie inside, as a test of arrays, as a condition of a query, as HEALPix ranges. The
inside is the smaller of the two parts that the outline divides the sky into, whichever way round its vertices go, so a polygon
may hold a pole. Positions within :data:`TOLERANCE` of the outline are inside. Refused (:class:`~scanner.errors.UsageError`):
fewer than three vertices or more than :data:`MAX_VERTICES`, values that are no position, a vertex given twice in a row or
opposite to the next, sides that cross.

A position is inside where the arc from it to a point whose side is known crosses the outline as often as that side asks (even
or odd; O'Rourke, *Computational Geometry in C*, section 7.4, on the sphere). All that is asked of a position is on which side
of some planes through the centre of the sky it lies, in numpy as in SQL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanner.errors import UsageError
from scanner.query.condition import CATALOGUE_POSITION, Condition, Position
from scanner.query.cover import cover
from scanner.records import Float64, Int64
from scanner.sphere import unit_vectors

#: Radians (0.2 µas): far below what positions are known to, and far above what rounding does.
TOLERANCE = 1e-12
MAX_VERTICES = 500
_SHORTEST_SIDE = 1e-10
# Directions of no meaning, of which the one farthest from all sides is the end of the arcs.
_ARC_ENDS = 32
# Product of a position and three numbers of a side.
_DOT = "(side[{}] * v.x + side[{}] * v.y + side[{}] * v.z)"
# More than there are sides to cross, and even.
_TOUCHED = 1 << 20
Bools = NDArray[np.bool_]


class Polygon:
    """A polygon; ``vertices`` (N, 2), right ascension and declination in degrees (ICRS)."""

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

    def condition(self, position: Position = CATALOGUE_POSITION) -> Condition:
        """The same as SQL: one expression for all sides, which are a parameter, however many they are."""
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
        return Condition(f"list_transform([list_sum({counts})], {is_inside})[1]", (sides.tolist(),))

    def ranges(self) -> Int64:
        """HEALPix indices that hold all of the polygon, (M, 2) int64, half open; see :mod:`scanner.query.cover`."""
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
