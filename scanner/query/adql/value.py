"""A value of a query as SQL, with what is known of it.

In: nothing. Out: :class:`Value`. Texts of a query become parameters, its numbers are written from Python's own numbers, and all
other SQL is this package's: nothing that somebody wrote is ever part of it. Refused: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pyarrow as pa

from scanner.query.adql.tree import ColumnName

#: SQL of a given text: a parameter that says of what type it is.
TEXT = "?::VARCHAR"


class Kind(Enum):
    """What can be done with a value."""

    WHOLE = "a whole number"
    REAL = "a number"
    TEXT = "a text"
    TRUTH = "a condition"
    NULL = "NULL"

    @property
    def is_number(self) -> bool:
        """Whether it can be reckoned with."""
        return self in (Kind.WHOLE, Kind.REAL, Kind.NULL)

    @property
    def arrow(self) -> pa.DataType:
        """Type of an answer's column of such values."""
        return {Kind.WHOLE: pa.int64(), Kind.REAL: pa.float64(), Kind.TRUTH: pa.bool_()}.get(self, pa.string())

    @property
    def sql(self) -> str:
        """The same for DuckDB."""
        return {Kind.WHOLE: "BIGINT", Kind.REAL: "DOUBLE", Kind.TRUTH: "BOOLEAN"}.get(self, "VARCHAR")


@dataclass(frozen=True)
class Value:
    """``sql`` has a ``?`` for each of ``parameters``.

    ``field``: the column, where it is nothing but one. ``loose``: a column in it that is neither within an aggregate nor
    grouped by. ``constant``: its number, where it does not depend on the row.
    """

    sql: str
    kind: Kind
    parameters: tuple[object, ...] = ()
    field: pa.Field | None = None
    loose: ColumnName | None = None
    constant: int | float | None = None


def number(value: int | float) -> Value:
    """A constant."""
    if isinstance(value, int):
        return Value(f"({value})::BIGINT", Kind.WHOLE, constant=value)
    return Value(f"({value!r})::DOUBLE", Kind.REAL, constant=value)


def text(value: str) -> Value:
    """A constant text."""
    return Value(TEXT, Kind.TEXT, (value,))


def combined(sql: str, kind: Kind, *values: Value) -> Value:
    """A value made of others; in ``sql``, ``{0}`` stands for the first, each once and in order."""
    parameters = tuple(parameter for value in values for parameter in value.parameters)
    loose = next((value.loose for value in values if value.loose is not None), None)
    return Value(sql.format(*(value.sql for value in values)), kind, parameters, loose=loose)
