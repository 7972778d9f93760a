"""Comparisons of a query as SQL.

In: nodes and what their parts are worth. Out: conditions. Refused (:class:`AdqlError`): parts that cannot be compared.

Conditions are compared with TRUE and FALSE, and with 1, 0, 'true' and 'false', as archives without a boolean type have them.
"""

from __future__ import annotations

from collections.abc import Sequence

from scanner.query.adql import tree
from scanner.query.adql.error import AdqlError
from scanner.query.adql.value import TEXT, Kind, Value, combined

_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def compared(node: tree.Comparison, left: Value, right: Value) -> Value:
    """``= <> < > <= >=``."""
    left, right = _comparable(node, left, right), _comparable(node, right, left)
    return combined(f"({{0}} {node.operator} {{1}})", Kind.TRUTH, left, right)


def within(node: tree.Between, operand: Value, low: Value, high: Value) -> Value:
    """BETWEEN."""
    low, high = _comparable(node, low, operand), _comparable(node, high, operand)
    return combined("({0} BETWEEN {1} AND {2})", Kind.TRUTH, operand, low, high)


def in_list(node: tree.In, operand: Value, values: Sequence[Value]) -> Value:
    """IN."""
    slots = ", ".join(f"{{{place}}}" for place in range(1, len(values) + 1))
    fitting = [_comparable(node, value, operand) for value in values]
    return combined(f"({{0}} IN ({slots}))", Kind.TRUTH, operand, *fitting)


def like(node: tree.Like, operand: Value, pattern: Value) -> Value:
    """LIKE and ILIKE."""
    for value in (operand, pattern):
        if value.kind not in (Kind.TEXT, Kind.NULL):
            raise AdqlError(f"LIKE compares texts, not {value.kind.value}", node.place)
    operator = "ILIKE" if node.any_case else "LIKE"
    return combined(f"(({{0}})::VARCHAR {operator} ({{1}})::VARCHAR)", Kind.TRUTH, operand, pattern)


def _comparable(node: tree.Node, value: Value, other: Value) -> Value:
    """The value as something that can be compared with the other."""
    same = value.kind is other.kind or (value.kind.is_number and other.kind.is_number) or Kind.NULL in (value.kind, other.kind)
    if same:
        return value
    if other.kind is Kind.TRUTH:
        told = str(value.constant) if value.constant is not None else str(value.parameters[0]) if value.sql == TEXT else ""
        if told.strip().lower() in _TRUTHS:
            return Value("true" if _TRUTHS[told.strip().lower()] else "false", Kind.TRUTH)
    if value.kind is Kind.TRUTH:
        # The other side will be turned into a condition, or refused.
        return value
    raise AdqlError(f"{value.kind.value} cannot be compared with {other.kind.value}", node.place)
