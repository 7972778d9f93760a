"""Expressions of a query as SQL, and the part of the sky outside which a condition cannot be true.

Where ADQL 2.1 leaves a choice: a whole number divided by a whole number is whole, and what is divided by zero is NULL. Two
constants that leave a remainder are refused, for a radius written as 5/3600 is not meant to be 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scanner.errors import UsageError
from scanner.query.adql import functions, tree
from scanner.query.adql.tree import AdqlError
from scanner.query.adql.values import (
    Scope,
    Value,
    ValueKind,
    combined,
    compared,
    evaluated_once,
    in_list,
    like,
    number,
    text,
    within,
)
from scanner.query.region import Cone, Region, merged
from scanner.records import Int64

#: Largest constant that is computed here.
_LARGEST = 2**63 - 1
_TYPES: dict[str, ValueKind] = {
    **dict.fromkeys(("SMALLINT", "INTEGER", "INT", "BIGINT"), ValueKind.WHOLE),
    **dict.fromkeys(("REAL", "DOUBLE", "DOUBLE PRECISION", "FLOAT"), ValueKind.REAL),
    **dict.fromkeys(("CHAR", "VARCHAR"), ValueKind.TEXT),
}


@dataclass(frozen=True)
class Clause:
    """One clause of a query, in which expressions become SQL.

    ``keys``: what rows are grouped by: the value of a group by the :attr:`~scanner.query.adql.values.Value.identity` of that of
    a row. ``aggregates``: whether they are allowed.
    """

    scope: Scope
    keys: Mapping[tuple[str, str], Value] = field(default_factory=dict)
    aggregates: bool = False

    def condition(self, node: tree.Node) -> Value:
        """What has to be true or false."""
        found = self.value(node)
        if found.kind is not ValueKind.TRUTH:
            raise AdqlError(f"a condition is expected here, not {found.kind.value}", node.place)
        return found

    def value(self, node: tree.Node) -> Value:
        """SQL of a node."""
        found = self._value(node)
        return self.keys.get(found.identity, found) if self.keys else found

    def _value(self, node: tree.Node) -> Value:
        match node:
            case tree.Number():
                return number(node.value)
            case tree.Text():
                return text(node.value)
            case tree.Boolean():
                return Value("true" if node.value else "false", ValueKind.TRUTH)
            case tree.Null():
                return Value("NULL", ValueKind.NULL)
            case tree.ColumnName():
                return self.scope.column(node)
            case tree.Sign():
                return self._signed(node)
            case tree.Arithmetic():
                return self._reckoned(node)
            case tree.Cast():
                return self._cast(node)
            case tree.Call():
                return self._called(node)
            case tree.Logic():
                joined = f" {node.operator} ".join(f"{{{place}}}" for place in range(len(node.operands)))
                return combined(f"({joined})", ValueKind.TRUTH, *(self.condition(operand) for operand in node.operands))
            case tree.Not():
                return combined("(NOT {0})", ValueKind.TRUTH, self.condition(node.operand))
            case _:
                return self._predicate(node)

    def _predicate(self, node: tree.Node) -> Value:
        match node:
            case tree.Comparison():
                test = geometry_test(node)
                if test is not None:
                    found = functions.contains(test.call, self.value)
                    return found if test.inside else combined("(NOT {0})", ValueKind.TRUTH, found)
                return compared(node, self.value(node.left), self.value(node.right))
            case tree.IsNull():
                return combined("({0} IS NULL)", ValueKind.TRUTH, self.value(node.operand))
            case tree.Between():
                return within(node, *(self.value(part) for part in (node.operand, node.low, node.high)))
            case tree.In():
                return in_list(node, self.value(node.operand), [self.value(one) for one in node.values])
            case tree.Like():
                return like(node, self.value(node.operand), self.value(node.pattern))
            case _:
                raise AdqlError("this cannot be asked", node.place)

    def _signed(self, node: tree.Sign) -> Value:
        operand = self.value(node.operand)
        if not operand.kind.is_number:
            raise AdqlError(f"a number is expected after {node.operator}, not {operand.kind.value}", node.place)
        if node.operator == "+":
            return operand
        return number(-operand.constant) if operand.constant is not None else combined("(-{0})", operand.kind, operand)

    def _reckoned(self, node: tree.Arithmetic) -> Value:
        # Long sums lean to the left: walked down in a loop, they need no depth.
        spine: list[tree.Arithmetic] = [node]
        while isinstance(spine[-1].left, tree.Arithmetic):
            spine.append(spine[-1].left)
        found = self.value(spine[-1].left)
        for one in reversed(spine):
            found = _reckon(one, found, self.value(one.right))
        return found

    def _cast(self, node: tree.Cast) -> Value:
        if node.type not in _TYPES:
            raise AdqlError(f"nothing can be cast to {node.type}; there are {', '.join(_TYPES)}", node.place)
        kind = _TYPES[node.type]
        return combined(f"({{0}})::{kind.sql}", kind, self.value(node.operand))

    def _called(self, node: tree.Call) -> Value:
        return self._aggregate(node) if node.function in functions.AGGREGATES else functions.call(node, self.scope, self.value)

    def _aggregate(self, node: tree.Call) -> Value:
        if not self.aggregates:
            raise AdqlError(f"{node.function} cannot be asked here: it is of many rows", node.place)
        of_rows = replace(self, keys={}, aggregates=False)
        arguments = [of_rows.value(argument) for argument in node.arguments]
        return functions.aggregate(node.function, arguments, node.place, distinct=node.distinct, star=node.star)


@dataclass(frozen=True)
class GeometryTest:
    """CONTAINS or INTERSECTS compared with 1 (``inside``) or 0."""

    call: tree.Call
    inside: bool


def geometry_test(node: tree.Comparison) -> GeometryTest | None:
    """Whether a comparison is one of CONTAINS or INTERSECTS with 0 or 1, in either order."""
    for call, wanted in ((node.left, node.right), (node.right, node.left)):
        if not isinstance(call, tree.Call) or not isinstance(wanted, tree.Number):
            continue
        if call.function in ("CONTAINS", "INTERSECTS") and node.operator in ("=", "<>") and wanted.value in (0, 1):
            return GeometryTest(call, (wanted.value == 1) == (node.operator == "="))
    return None


def _reckon(node: tree.Arithmetic, left: Value, right: Value) -> Value:
    operator = node.operator
    if operator == "||":
        if any(value.kind not in (ValueKind.TEXT, ValueKind.NULL) for value in (left, right)):
            raise AdqlError("|| joins texts; use CAST(… AS VARCHAR) for others", node.place)
        return combined("({0} || {1})", ValueKind.TEXT, left, right)
    for value in (left, right):
        if not value.kind.is_number:
            raise AdqlError(f"{operator} needs numbers, not {value.kind.value}", node.place)
    whole = left.kind is ValueKind.WHOLE and right.kind is ValueKind.WHOLE
    kind = ValueKind.WHOLE if whole else ValueKind.REAL
    divides = "//" if whole else "/"
    constant = _constant(node, left, right, whole=whole)
    if constant is not None:
        return number(constant)
    if operator == "/":
        return combined(f"({{0}} {divides} {{1}})", kind, left, evaluated_once("nullif({0}, 0)", right.kind, right))
    return combined(f"({{0}} {operator} {{1}})", kind, left, right)


def _constant(node: tree.Arithmetic, left: Value, right: Value, *, whole: bool) -> int | float | None:
    a, b = left.constant, right.constant
    if a is None or b is None:
        return None
    if node.operator != "/":
        found = a + b if node.operator == "+" else a - b if node.operator == "-" else a * b
        # What no column can hold is left to the database, which says so.
        return found if abs(found) <= _LARGEST else None
    if b == 0:
        return None
    if whole and a % b:
        raise AdqlError(f"{a}/{b} of whole numbers drops the rest; write {a}/{b}.0", node.place)
    return a // b if whole else a / b if abs(a) <= abs(b) * _LARGEST else None


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
    value = Clause(scope).value
    if test is not None:
        if not test.inside:
            return None
        point, region = functions.point_and_region(test.call, value)
        if isinstance(region, functions.Circle):
            cone = functions.constant_cone(point, region, node.place)
            if cone is None:
                return None
            point, within = cone
            return within if _is_own(point, scope) else None
        return region if _is_own(point, scope) else None
    return _near(node, scope, value)


def _near(node: tree.Comparison, scope: Scope, value: functions.ToValue) -> Region | None:
    """The cone of ``DISTANCE(own, given) < radius``."""
    call, operator, limit = node.left, node.operator, node.right
    if not isinstance(call, tree.Call):
        call, operator, limit = node.right, _TURNED.get(operator, operator), node.left
    if not isinstance(call, tree.Call) or call.function != "DISTANCE" or operator not in ("<", "<=", "="):
        return None
    radius = value(limit).constant
    points = functions.distance_points(call, value)
    for own, given in (points, points[::-1]):
        if radius is not None and _is_own(own, scope) and given.constants is not None:
            try:
                # Distances are computed in another way than cones: room for rounding, most near 180 degrees.
                return Cone(*given.constants, min(max(float(radius), 0.0) + 1e-5, 180.0))
            except UsageError:
                return None
    return None


def _is_own(point: functions.Point, scope: Scope) -> bool:
    position = scope.position
    return position is not None and (point.ra.sql, point.dec.sql) == (position.ra, position.dec)
