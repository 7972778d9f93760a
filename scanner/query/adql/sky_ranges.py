"""The part of the sky that a query's rows can lie in.

In: the condition after WHERE. Out: HEALPix ranges outside which no row can fulfil it, so that a table's other files need not be
read. Nothing is refused: what cannot be told is the whole sky (None).
"""

from __future__ import annotations

import numpy as np

from scanner.errors import UsageError
from scanner.query.adql import geometry, tree
from scanner.query.adql.tables import Scope
from scanner.query.adql.values import Values, geometry_test
from scanner.query.cover import merged
from scanner.query.region import Cone, Region
from scanner.records import Int64

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def sky_ranges(where: tree.Node | None, scope: Scope) -> Int64 | None:
    """Ranges that hold every row that fulfils a condition.

    Parameters
    ----------
    where
        The condition, which has been translated already; None: every row does.
    scope
        The table.

    Returns
    -------
    numpy.ndarray or None
        (M, 2) int64, half open, ascending, indices of order 29; None: the whole sky.
    """
    if where is None or scope.position is None:
        return None
    if isinstance(where, tree.Logic):
        parts = [sky_ranges(operand, scope) for operand in where.operands]
        known = [part for part in parts if part is not None]
        if where.operator == "AND":
            found = known[0] if known else None
            for part in known[1:]:
                found = common(found, part) if found is not None else part
            return found
        return merged(np.concatenate(known)) if len(known) == len(parts) else None
    if not isinstance(where, tree.Comparison):
        return None
    region = _region(where, scope)
    return None if region is None else region.ranges()


def common(first: Int64, second: Int64) -> Int64:
    """What two sets of half-open ranges, (M, 2) and (N, 2), ascending and apart, have in common."""
    edges = np.unique(np.concatenate([first.ravel(), second.ravel()]))
    starts, stops = edges[:-1], edges[1:]
    inside = [np.searchsorted(ranges.ravel(), starts, side="right") % 2 == 1 for ranges in (first, second)]
    both = inside[0] & inside[1]
    return merged(np.stack([starts[both], stops[both]], axis=1))


def _region(node: tree.Comparison, scope: Scope) -> Region | None:
    """The region that the comparison asks the table's own position to lie in."""
    test = geometry_test(node)
    value = Values(scope).value
    if test is not None:
        if not test.inside:
            return None
        point, region = geometry.point_and_region(test.call, value)
        if isinstance(region, geometry.Circle):
            cone = geometry.constant_cone(point, region, node.place)
            if cone is None:
                return None
            point, within = cone
            return within if _is_own(point, scope) else None
        return region if _is_own(point, scope) else None
    return _near(node, scope, value)


def _near(node: tree.Comparison, scope: Scope, value: geometry.ToValue) -> Region | None:
    """The cone of ``DISTANCE(own, given) < radius``."""
    call, operator, limit = node.left, node.operator, node.right
    if not isinstance(call, tree.Call):
        call, operator, limit = node.right, _TURNED.get(operator, operator), node.left
    if not isinstance(call, tree.Call) or call.function != "DISTANCE" or operator not in ("<", "<=", "="):
        return None
    radius = value(limit).constant
    points = geometry.distance_points(call, value)
    for own, given in (points, points[::-1]):
        if radius is not None and _is_own(own, scope) and given.constants is not None:
            try:
                # Distances are computed in another way than cones: room for rounding, most near 180 degrees.
                return Cone(*given.constants, min(max(float(radius), 0.0) + 1e-5, 180.0))
            except UsageError:
                return None
    return None


def _is_own(point: geometry.Point, scope: Scope) -> bool:
    position = scope.position
    return position is not None and (point.ra.sql, point.dec.sql) == (position.ra, position.dec)
