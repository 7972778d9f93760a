"""The tables that TAP offers, and where their rows are.

In: the open collections. Out: a :class:`TapTable` for each of ``<collection>.objects``, ``.candidates`` and ``.tiles``; those
of the first collection go by their last names too. Refused: nothing; a collection whose name ADQL cannot have without quotes
is called something like it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from scanner.catalogue.columns import HEALPIX_COLUMN
from scanner.query.adql.answer import Relation
from scanner.query.adql.expressions import RESERVED
from scanner.query.adql.tables import TableDescription
from scanner.records import Int64
from scanner.service.collections import CANDIDATES, Collection
from scanner.service.collections.identifiers import IDENTIFIER_SQL

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Schemas of the protocol's own; no collection may be called so.
TAP_SCHEMA, IVOA = "tap_schema", "ivoa"
#: Metadata key of columns whose texts are ASCII.
CHARSET = "charset"
_ASCII_COLUMNS = ("name", "tile_id", "state")
_MAIN_IDENTIFIER = "meta.id;meta.main"
_POSITION = ("ra", "dec")
_IDENTIFIER = pa.field(
    "candidate_id",
    pa.string(),
    metadata={"ucd": _MAIN_IDENTIFIER, "description": "Name in this service: run/tile_id/target_id"},
)


@dataclass(frozen=True)
class ForeignKey:
    """A column whose values are those of another table's."""

    column: str
    target_table: str
    target_column: str


@dataclass(frozen=True)
class TapTable:
    """One table: ``name`` with its schema; ``relation``: its rows in some HEALPix ranges; ``database``: what can read them."""

    name: str
    description: TableDescription
    relation: Callable[[Int64 | None], Relation]
    database: Callable[[], AbstractContextManager[DuckDBPyConnection]]
    utype: str = ""
    keys: tuple[ForeignKey, ...] = ()

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self.name.partition(".")[0]


def collection_tables(collections: Iterable[Collection]) -> Iterator[tuple[str, Collection, tuple[TapTable, ...]]]:
    """The tables of every collection, with their schema's name."""
    taken = {TAP_SCHEMA, IVOA}
    for collection in collections:
        schema = _schema_name(collection.slug, taken)
        taken.add(schema)
        yield schema, collection, tuple(_tables(schema, collection))


def by_name(tables: Iterable[TapTable], default_schema: str) -> Mapping[str, TapTable]:
    """The tables by the names that a query may call them by."""
    named = {table.name: table for table in tables}
    short = {table.name.partition(".")[2]: table for table in named.values() if table.schema == default_schema}
    return named | short


def described(schema: pa.Schema) -> pa.Schema:
    """Columns of a stored table as TAP offers them: one main identifier, and which texts are ASCII."""
    return pa.schema([_as_offered(field) for field in schema])


def _tables(schema: str, collection: Collection) -> Iterator[TapTable]:
    catalogue = collection.catalogue
    columns = pa.schema([_IDENTIFIER, *described(collection.schema)])
    healpix = HEALPIX_COLUMN.name

    def database() -> AbstractContextManager[DuckDBPyConnection]:
        return closing(catalogue.connection())

    def objects(ranges: Int64 | None) -> Relation:
        source = catalogue.source(ranges)
        sql = f"SELECT {IDENTIFIER_SQL} AS candidate_id, * FROM {source.relation.sql} WHERE {source.within.sql}"
        return Relation(sql, (*source.relation.parameters, *source.within.parameters))

    def candidates(_: Int64 | None) -> Relation:
        return Relation(f"SELECT {IDENTIFIER_SQL} AS candidate_id, * FROM {CANDIDATES}")

    def tiles(_: Int64 | None) -> Relation:
        return Relation("SELECT * FROM tiles", tables={"tiles": collection.tiles})

    about = TableDescription(columns, f"Every object of {collection.title}, once", _POSITION, healpix)
    yield TapTable(f"{schema}.objects", about, objects, database)
    about = TableDescription(
        columns, f"Lens candidates of {collection.title}: the objects that were decided for", _POSITION, healpix
    )
    yield TapTable(f"{schema}.candidates", about, candidates, database)
    about = TableDescription(described(collection.tiles.schema), f"Tiles of {collection.title}, scanned and failed")
    yield TapTable(f"{schema}.tiles", about, tiles, database)


def _as_offered(field: pa.Field) -> pa.Field:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if metadata.get("ucd") == _MAIN_IDENTIFIER and field.name == "target_id":
        metadata["ucd"] = "meta.id"
    if field.name in _ASCII_COLUMNS:
        metadata[CHARSET] = "ascii"
    return pa.field(field.name, field.type, metadata=metadata)


def _schema_name(slug: str, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9_]+", "_", slug.lower()).strip("_")
    if not name[:1].isalpha() or name.upper() in RESERVED:
        name = f"c_{name}"
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique
