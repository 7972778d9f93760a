"""Tables that can be asked, and what the names in a query mean.

In: names of a query. Out: the table, and SQL for its columns. Refused (:class:`AdqlError`): names that nothing has.

A number that is not finite is not known, and a query sees it as NULL: a comparison with it is never true.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from scanner.query.adql.error import AdqlError, Place
from scanner.query.adql.tree import ColumnName, Name
from scanner.query.adql.value import Kind, Value
from scanner.query.condition import Position

#: What a translated query calls the table that it asks.
RELATION = "relation"
_ALIAS = "t"


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
    def of(cls, parts: tuple[Name, ...], alias: Name | None, tables: Mapping[str, TableDescription], place: Place) -> Scope:
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

    def columns(self, qualifier: tuple[Name, ...], place: Place) -> tuple[Value, ...]:
        """SQL of every column (``*``)."""
        self.check_qualifier(qualifier, place)
        return tuple(self.value(field, ColumnName(place, (Name(field.name, quoted=True),))) for field in self.table.schema)

    def check_qualifier(self, qualifier: tuple[Name, ...], place: Place) -> None:
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


def quoted(name: str) -> str:
    """A name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def _mean(parts: tuple[Name, ...], name: tuple[str, ...]) -> bool:
    return len(parts) == len(name) and all(part.means(text) for part, text in zip(parts, name, strict=True))


def _kind(type_: pa.DataType) -> Kind:
    if pa.types.is_boolean(type_):
        return Kind.TRUTH
    if pa.types.is_integer(type_):
        return Kind.WHOLE
    return Kind.REAL if pa.types.is_floating(type_) else Kind.TEXT
