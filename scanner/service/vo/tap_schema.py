"""``TAP_SCHEMA``: the tables that tell of the tables, itself among them.

In: the tables that are offered. Out: the five tables of the standard as Arrow tables, and what queries need to ask them.
Refused: nothing.

Source: TAP 1.1, section 4, https://www.ivoa.net/documents/TAP/20190927/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scanner.query.adql.answer import Relation
from scanner.query.adql.expressions import RESERVED
from scanner.query.adql.tables import TableDescription
from scanner.records import Int64
from scanner.service.vo.tap_tables import CHARSET, IVOA, TAP_SCHEMA, ForeignKey, TapTable
from scanner.service.vo.votable import Field

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PRINCIPAL = ("candidate_id", "ra", "dec", "name", "rank", "p_calibrated", "is_candidate", "tile_id", "state", "s_ra", "s_dec")
_DESCRIPTIONS = {
    "schemas": "Schemas of this service",
    "tables": "Tables of this service",
    "columns": "Columns of these tables",
    "keys": "Which tables refer to which",
    "key_columns": "By which columns they do",
}


def _columns(**columns: tuple[pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, type_, metadata={"description": said, CHARSET: "ascii"}) for name, (type_, said) in columns.items()]
    )


_TEXT, _NUMBER = pa.string(), pa.int32()
_SCHEMAS: dict[str, pa.Schema] = {
    "schemas": _columns(
        schema_name=(_TEXT, "Name"), utype=(_TEXT, "Utype"), description=(_TEXT, "What it holds"),
        schema_index=(_NUMBER, "Place in lists"),
    ),
    "tables": _columns(
        schema_name=(_TEXT, "Schema"), table_name=(_TEXT, "Name as queries write it"), table_type=(_TEXT, "table or view"),
        utype=(_TEXT, "Utype"), description=(_TEXT, "What it holds"), table_index=(_NUMBER, "Place in lists"),
    ),
    "columns": _columns(
        table_name=(_TEXT, "Table"), column_name=(_TEXT, "Name as queries write it"), utype=(_TEXT, "Utype"),
        ucd=(_TEXT, "UCD"),
        unit=(_TEXT, "Unit"), description=(_TEXT, "What it is"), datatype=(_TEXT, "Type, as in VOTable"),
        arraysize=(_TEXT, "Array size, as in VOTable"), xtype=(_TEXT, "Extended type, as in VOTable"),
        size=(_NUMBER, "Deprecated: length of texts"), principal=(_NUMBER, "1: among the first to look at"),
        indexed=(_NUMBER, "1: conditions on it are fast"), std=(_NUMBER, "1: of a standard"),
        column_index=(_NUMBER, "Place in lists"),
    ),
    "keys": _columns(
        key_id=(_TEXT, "Id"), from_table=(_TEXT, "Table that refers"), target_table=(_TEXT, "Table that is referred to"),
        utype=(_TEXT, "Utype"), description=(_TEXT, "What it means"),
    ),
    "key_columns": _columns(
        key_id=(_TEXT, "Id of the key"), from_column=(_TEXT, "Column that refers"), target_column=(_TEXT, "Column referred to"),
    ),
}  # fmt: skip


_TO_TABLES = f"{TAP_SCHEMA}.tables"
_KEYS = {
    "tables": (ForeignKey("schema_name", f"{TAP_SCHEMA}.schemas", "schema_name"),),
    "columns": (ForeignKey("table_name", _TO_TABLES, "table_name"),),
    "keys": (ForeignKey("from_table", _TO_TABLES, "table_name"), ForeignKey("target_table", _TO_TABLES, "table_name")),
    "key_columns": (ForeignKey("key_id", f"{TAP_SCHEMA}.keys", "key_id"),),
}


def tap_schema(
    offered: Sequence[TapTable],
    schemas: Mapping[str, str],
    database: Callable[[], AbstractContextManager[DuckDBPyConnection]],
) -> tuple[TapTable, ...]:
    """The five tables.

    Parameters
    ----------
    offered
        All others.
    schemas
        Description of each schema, TAP_SCHEMA included.
    database
        Anything that can read Arrow tables.
    """

    @cache
    def contents() -> dict[str, pa.Table]:
        return _contents((*offered, *own), schemas)

    def table(name: str, schema: pa.Schema) -> TapTable:
        def relation(_: Int64 | None) -> Relation:
            return Relation(f"SELECT * FROM told_{name}", tables={f"told_{name}": contents()[name]})

        about = TableDescription(schema, _DESCRIPTIONS[name])
        return TapTable(f"{TAP_SCHEMA}.{name}", about, relation, database, keys=_KEYS.get(name, ()))

    own = tuple(table(name, schema) for name, schema in _SCHEMAS.items())
    return own


def written(name: str) -> str:
    """A column's name as queries write it: in quotes where it needs them."""
    return name if name[:1].isalpha() and name.upper() not in (*RESERVED, "SIZE") else f'"{name}"'


def field_of(column: pa.Field) -> Field:
    """A column as answers describe it."""
    metadata = column.metadata or {}
    return Field.of(column, ascii=metadata.get(CHARSET.encode()) == b"ascii")


def _contents(tables: Sequence[TapTable], schemas: Mapping[str, str]) -> dict[str, pa.Table]:
    rows: dict[str, list[dict[str, Any]]] = {
        "schemas": [
            {"schema_name": name, "description": said, "schema_index": place}
            for place, (name, said) in enumerate(schemas.items(), 1)
        ],
        "tables": [
            {"schema_name": table.schema, "table_name": table.name, "table_type": "table", "utype": table.utype or None,
             "description": table.description.description, "table_index": place}
            for place, table in enumerate(tables, 1)
        ],
        "columns": [row for table in tables for row in _column_rows(table)],
        "keys": [
            {"key_id": _key_id(table, key), "from_table": table.name, "target_table": key.target_table}
            for table in tables
            for key in table.keys
        ],
        "key_columns": [
            {"key_id": _key_id(table, key), "from_column": key.column, "target_column": key.target_column}
            for table in tables
            for key in table.keys
        ],
    }  # fmt: skip
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in _SCHEMAS.items()}


def _key_id(table: TapTable, key: ForeignKey) -> str:
    return f"{table.name}.{key.column}"


def _column_rows(table: TapTable) -> list[dict[str, Any]]:
    about = table.description
    indexed = {about.healpix, *(about.position or ())}
    rows = []
    for place, column in enumerate(about.schema, 1):
        field = field_of(column)
        datatype, arraysize = field.datatype
        rows.append({
            "table_name": table.name, "column_name": written(field.name), "utype": field.utype or None,
            "ucd": field.ucd or None, "unit": field.unit or None, "description": field.description or None,
            "datatype": datatype,
            "arraysize": arraysize or None, "xtype": field.xtype or None, "principal": int(field.name in _PRINCIPAL),
            "indexed": int(column.name in indexed), "std": int(table.schema in (IVOA, TAP_SCHEMA)), "column_index": place,
        })  # fmt: skip
    return rows
