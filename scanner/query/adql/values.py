"""Values of a query as SQL: constants, the columns of its table, comparisons.

Texts become parameters, numbers are written from Python's own, and all other SQL is this package's. NaN is NULL to a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from scanner.query.adql import tree
from scanner.query.adql.tree import AdqlError, ColumnName, Name, QueryPlace
from scanner.query.database import quoted
from scanner.query.region import Position

#: SQL of a given text: a parameter that says of what type it is.
TEXT = "?::VARCHAR"
#: What a translated query calls the table that it asks.
RELATION = "relation"
_ALIAS = "t"
#: Longest SQL of a query, in letters: some ten thousand numbers.
MAX_SQL = 1_000_000
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class ValueKind(Enum):
    """What can be done with a value."""

    WHOLE = "a whole number"
    REAL = "a number"
    TEXT = "a text"
    TRUTH = "a condition"
    NULL = "NULL"

    @property
    def is_number(self) -> bool:
        """Whether it can be reckoned with."""
        return self in (ValueKind.WHOLE, ValueKind.REAL, ValueKind.NULL)

    @property
    def arrow(self) -> pa.DataType:
        """Type of an answer's column of such values."""
        return {ValueKind.WHOLE: pa.int64(), ValueKind.REAL: pa.float64(), ValueKind.TRUTH: pa.bool_()}.get(self, pa.string())

    @property
    def sql(self) -> str:
        """The same for DuckDB."""
        return {ValueKind.WHOLE: "BIGINT", ValueKind.REAL: "DOUBLE", ValueKind.TRUTH: "BOOLEAN"}.get(self, "VARCHAR")


@dataclass(frozen=True)
class Value:
    """``sql`` has a ``?`` for each of ``parameters``.

    ``field``: the column, where it is nothing but one. ``loose``: a column in it that is neither within an aggregate nor
    grouped by. ``constant``: its number, where it does not depend on the row.
    """

    sql: str
    kind: ValueKind
    parameters: tuple[object, ...] = ()
    field: pa.Field | None = None
    loose: ColumnName | None = None
    constant: int | float | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """The same for two values that are the same expression."""
        return self.sql, repr(self.parameters)

    @property
    def is_plain(self) -> bool:
        """Whether it is nothing but a column or a number, so that it costs nothing to write it twice."""
        return not self.parameters and (self.field is not None or self.constant is not None or self.sql == "NULL")


def number(value: int | float) -> Value:
    """A constant."""
    if isinstance(value, int):
        return Value(f"({value})::BIGINT", ValueKind.WHOLE, constant=value)
    return Value(f"({value!r})::DOUBLE", ValueKind.REAL, constant=value)


def text(value: str) -> Value:
    """A constant text."""
    return Value(TEXT, ValueKind.TEXT, (value,))


def combined(sql: str, kind: ValueKind, *values: Value) -> Value:
    """A value made of others; in ``sql``, ``{0}`` stands for the first, each once and in order.

    Raises
    ------
    AdqlError
        Its SQL is longer than :data:`MAX_SQL`.
    """
    return _made(sql.format(*(value.sql for value in values)), kind, values)


def evaluated_once(sql: str, kind: ValueKind, *values: Value) -> Value:
    """A value made of others, of which ``sql`` names some more than once, or as an argument of DuckDB's macro ``nullif``.

    Columns and constants are written wherever they are named. All else is evaluated into a structure, whose fields a lambda
    names: written twice at each of n levels of nesting, it would be planned 2^n times.

    Raises
    ------
    AdqlError
        As of :func:`combined`.
    """
    names = [value.sql if value.is_plain else f"v.a{place}" for place, value in enumerate(values)]
    fields = ", ".join(f"'a{place}': {value.sql}" for place, value in enumerate(values) if not value.is_plain)
    body = sql.format(*names)
    return _made(f"list_transform([{{{fields}}}], lambda v: {body})[1]" if fields else body, kind, values)


def _made(sql: str, kind: ValueKind, values: Sequence[Value]) -> Value:
    if len(sql) > MAX_SQL:
        raise AdqlError("the query is too long for one; ask for a part of it at a time")
    parameters = tuple(parameter for value in values for parameter in value.parameters)
    return Value(sql, kind, parameters, loose=next((value.loose for value in values if value.loose is not None), None))


@dataclass(frozen=True)
class TableDescription:
    """A table: ``schema`` with metadata ``unit``, ``ucd``, ``description`` … of its columns.

    ``position``: its columns of right ascension and declination in degrees (ICRS), never NaN; ``healpix``: its column of their
    HEALPix index of order 29, nested, by which its rows are sorted.
    """

    schema: pa.Schema
    description: str = ""
    position: tuple[str, str] | None = None
    healpix: str | None = None


@dataclass(frozen=True)
class Scope:
    """The table that a query asks, and the names by which it may be called there."""

    name: str
    table: TableDescription
    qualifiers: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls, parts: tuple[Name, ...], alias: Name | None, tables: Mapping[str, TableDescription], place: QueryPlace
    ) -> Scope:
        """Find the table.

        Raises
        ------
        AdqlError
            There is none of this name.
        """
        found = [name for name in tables if _mean(parts, tuple(name.split(".")))]
        if not found:
            asked, known = ".".join(part.text for part in parts), ", ".join(sorted(tables)[:12])
            raise AdqlError(f"there is no table {asked}; there are {known}", place)
        own = tuple(found[0].split("."))
        qualifiers = tuple(own[start:] for start in range(len(own))) if alias is None else ((alias.text,),)
        return cls(found[0], tables[found[0]], qualifiers)

    def column(self, node: ColumnName) -> Value:
        """SQL of a column.

        Raises
        ------
        AdqlError
            The table has no such column.
        """
        *qualifier, name = node.parts
        self.check_qualifier(tuple(qualifier), node.place)
        for field in self.table.schema:
            if name.means(field.name):
                return self.value(field, node)
        raise AdqlError(f"{self.name} has no column {name.text}", node.place)

    def has(self, name: Name) -> bool:
        """Whether the table has a column of this name."""
        return any(name.means(field.name) for field in self.table.schema)

    def columns(self, qualifier: tuple[Name, ...], place: QueryPlace) -> tuple[Value, ...]:
        """SQL of every column (``*``)."""
        self.check_qualifier(qualifier, place)
        return tuple(self.value(field, ColumnName(place, (Name(field.name, quoted=True),))) for field in self.table.schema)

    def check_qualifier(self, qualifier: tuple[Name, ...], place: QueryPlace) -> None:
        """Refuse names before a column's that are not the table's."""
        if qualifier and not any(_mean(qualifier, known) for known in self.qualifiers):
            asked = ".".join(part.text for part in qualifier)
            raise AdqlError(f"the query asks no table {asked}; it asks {'.'.join(self.qualifiers[0])}", place)

    def value(self, field: pa.Field, node: ColumnName) -> Value:
        """SQL of one column."""
        sql = f"{_ALIAS}.{quoted(field.name)}"
        if pa.types.is_floating(field.type) and field.name not in (self.table.position or ()):
            # Not isnan: Parquet's statistics leave NaN out, and DuckDB takes from them that there is none.
            sql = f"CASE WHEN isfinite({sql}) THEN {sql} END"
        return Value(sql, _kind(field.type), field=field, loose=node)

    @property
    def position(self) -> Position | None:
        """SQL of the position of the table's rows, where it has one."""
        if self.table.position is None:
            return None
        ra, dec = (f"{_ALIAS}.{quoted(name)}" for name in self.table.position)
        healpix = f"{_ALIAS}.{quoted(self.table.healpix)}" if self.table.healpix else ""
        return Position(ra, dec, healpix)


def _mean(parts: tuple[Name, ...], name: tuple[str, ...]) -> bool:
    return len(parts) == len(name) and all(part.means(text) for part, text in zip(parts, name, strict=True))


def _kind(type_: pa.DataType) -> ValueKind:
    if pa.types.is_boolean(type_):
        return ValueKind.TRUTH
    if pa.types.is_integer(type_):
        return ValueKind.WHOLE
    return ValueKind.REAL if pa.types.is_floating(type_) else ValueKind.TEXT


def compared(node: tree.Comparison, left: Value, right: Value) -> Value:
    """``= <> < > <= >=``."""
    left, right = _comparable(node, left, right), _comparable(node, right, left)
    return combined(f"({{0}} {node.operator} {{1}})", ValueKind.TRUTH, left, right)


def within(node: tree.Between, operand: Value, low: Value, high: Value) -> Value:
    """BETWEEN."""
    low, high = _comparable(node, low, operand), _comparable(node, high, operand)
    return combined("({0} BETWEEN {1} AND {2})", ValueKind.TRUTH, operand, low, high)


def in_list(node: tree.In, operand: Value, values: Sequence[Value]) -> Value:
    """IN."""
    slots = ", ".join(f"{{{place}}}" for place in range(1, len(values) + 1))
    fitting = [_comparable(node, value, operand) for value in values]
    return combined(f"({{0}} IN ({slots}))", ValueKind.TRUTH, operand, *fitting)


def like(node: tree.Like, operand: Value, pattern: Value) -> Value:
    """LIKE and ILIKE."""
    for value in (operand, pattern):
        if value.kind not in (ValueKind.TEXT, ValueKind.NULL):
            raise AdqlError(f"LIKE compares texts, not {value.kind.value}", node.place)
    operator = "ILIKE" if node.any_case else "LIKE"
    return combined(f"(({{0}})::VARCHAR {operator} ({{1}})::VARCHAR)", ValueKind.TRUTH, operand, pattern)


def _comparable(node: tree.Node, value: Value, other: Value) -> Value:
    """The value as something that can be compared with the other."""
    same = (
        value.kind is other.kind
        or (value.kind.is_number and other.kind.is_number)
        or ValueKind.NULL in (value.kind, other.kind)
    )
    if same:
        return value
    if other.kind is ValueKind.TRUTH:
        written = str(value.constant) if value.constant is not None else str(value.parameters[0]) if value.sql == TEXT else ""
        if written.strip().lower() in _TRUTHS:
            return Value("true" if _TRUTHS[written.strip().lower()] else "false", ValueKind.TRUTH)
    if value.kind is ValueKind.TRUTH:
        # The other side will be turned into a condition, or refused.
        return value
    raise AdqlError(f"{value.kind.value} cannot be compared with {other.kind.value}", node.place)
