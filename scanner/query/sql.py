"""SQL of users over one catalogue or several: it can read their tables and nothing else, and write nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanner.errors import UsageError
from scanner.query.catalogue import Catalogue
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits, escaped, interruptible, open_database, quoted, time_limit
from scanner.query.region import Region, SqlPart, all_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


_POSITION = ("ra", "dec")
#: Schema of the tables that need no name before them.
_FIRST = "main"


@dataclass(frozen=True)
class SqlLimits:
    """What one query may return and take: rows, seconds, memory and threads."""

    rows: int = 1_000_000
    seconds: float = 300.0
    database: DatabaseLimits = DEFAULT_LIMITS


DEFAULT_SQL_LIMITS = SqlLimits()


def run_sql(
    catalogues: Mapping[str, Catalogue], sql: str, limits: SqlLimits = DEFAULT_SQL_LIMITS, region: Region | None = None
) -> pa.Table:
    """Answer a query.

    The tables of the first catalogue are ``objects`` and ``candidates`` (those with ``is_candidate``), those of any one
    ``"name".objects``. What is not known is NULL in a query, and NaN again in its answer. That DuckDB calls a text a query is
    not enough: to it ``WITH a AS (COPY … TO 'file') SELECT …`` is one, and ``json_execute_serialized_sql`` hides such a thing.

    Parameters
    ----------
    catalogues
        By name, one or more; the first is the default.
    sql
        The query, in DuckDB's dialect.
    limits
        What it may take.
    region
        The tables hold and read this part of the sky only; None: all.

    Returns
    -------
    pyarrow.Table
        Without nulls, as :func:`plain` makes it; columns that are chosen as they stand keep unit, description and UCD.

    Raises
    ------
    UsageError
        It is not one query that only reads (:func:`parsed`), it fails (with the database's reason), or it has more rows than
        the limit.
    OutOfTimeError, OutOfMemoryError
        It takes more than it may.
    """
    import duckdb

    connection = open_database([path for one in catalogues.values() for path in one.paths], limits.database)
    try:
        query = parsed(connection, sql)
        with time_limit(limits.seconds), interruptible(connection):
            for number, (name, catalogue) in enumerate(catalogues.items()):
                if name.lower() != _FIRST:
                    _attach(connection, quoted(name), catalogue, region)
                if number == 0:
                    _attach(connection, _FIRST, catalogue, region)
            answer = plain(_limited(connection, sql, limits.rows))
    except duckdb.PermissionException:
        raise UsageError(f"The query asks for a file; {ONLY_TABLES}") from None
    except duckdb.Error as error:
        raise UsageError(f"The query cannot be answered: {_reason(error)}") from None
    finally:
        connection.close()
    return _described(answer, query, next(iter(catalogues.values())).schema)


def _attach(connection: DuckDBPyConnection, schema: str, catalogue: Catalogue, region: Region | None) -> None:
    columns = ", ".join(map(_column, catalogue.schema))
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    source = catalogue.source(None if region is None else region.ranges())
    if region is None:
        connection.execute(f"CREATE VIEW {schema}.objects AS SELECT {columns} FROM {_written_out(source.relation)}")
    else:
        where = all_of([source.within, region.condition()])
        connection.execute(
            f"CREATE TABLE {schema}.objects AS SELECT {columns} FROM {source.relation.sql} WHERE {where.sql}",
            [*source.relation.parameters, *where.parameters],
        )
    connection.execute(f"CREATE VIEW {schema}.candidates AS SELECT * FROM {schema}.objects WHERE is_candidate")


def _written_out(relation: SqlPart) -> str:
    """A relation over files with their names in it: a view takes no parameters."""
    sql = relation.sql
    for value in relation.parameters:
        names = [f"'{escaped(str(one))}'" for one in (value if isinstance(value, list) else [value])]
        sql = sql.replace("?", f"[{', '.join(names)}]", 1)
    return sql


def _column(field: pa.Field) -> str:
    """A column as queries see it: NULL for NaN, which to DuckDB is larger than any number."""
    name = quoted(field.name)
    is_always_known = not pa.types.is_floating(field.type) or field.name in _POSITION
    return name if is_always_known else f"CASE WHEN isfinite({name}) THEN {name} END AS {name}"


def _limited(connection: DuckDBPyConnection, sql: str, rows: int) -> pa.Table:
    """The answer; a UsageError where it has more rows."""
    reader = connection.sql(sql).to_arrow_reader()
    batches, n = [], 0
    for batch in reader:
        batches.append(batch)
        n += batch.num_rows
        if n > rows:
            raise UsageError(f"The answer has more than {rows:,} rows; add a LIMIT, or raise the limit of rows.")
    return pa.Table.from_batches(batches, reader.schema)


def _described(answer: pa.Table, query: ParsedSql, schema: pa.Schema) -> pa.Table:
    """The answer with the units, descriptions and UCDs of the columns that were chosen as they stand."""
    sources = query.chosen(schema.names)
    fields = []
    for field in answer.schema:
        source = sources.get(field.name)
        same = source is not None and schema.field(source).type == field.type
        fields.append(field.with_metadata(schema.field(source).metadata) if same else field)
    return answer.cast(pa.schema(fields))


def _reason(error: Exception) -> str:
    """The database's message in one line, without the kind of error before it and the query after it."""
    text = str(error).partition("\n\nLINE ")[0].partition(": ")[2] or str(error)
    sentence = " ".join(text.split())
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


#: Nodes of the parse tree that only read. Every kind of node that holds a statement is named ``…_NODE``.
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})
TABLES = ("objects", "candidates")
ONLY_TABLES = "it can read objects and candidates, nothing else."
_MAX_LETTERS = 100_000
Tree = dict[str, Any]


@dataclass(frozen=True)
class ParsedSql:
    """The parse tree of one query, as DuckDB's ``json_serialize_sql`` gives it."""

    tree: Tree

    def chosen(self, columns: Collection[str]) -> dict[str, str]:
        """Columns of the answer that are columns of :data:`TABLES` as they stand: name in the answer → name in the table.

        None of them for a query over another query.
        """
        sources: dict[str, str] = {}
        tables = [node for node in _nodes(self.tree.get("from_table")) if "sample" in node]
        direct = all(node["type"] == "JOIN" or node.get("table_name") in TABLES for node in tables)
        if self.tree["type"] != "SELECT_NODE" or self.tree["cte_map"]["map"] or not direct:
            return sources
        for item in self.tree["select_list"]:
            if item["class"] == "STAR":
                sources |= {name: name for name in columns}
            elif item["class"] == "COLUMN_REF" and item["column_names"][-1] in columns:
                sources[item["alias"] or item["column_names"][-1]] = item["column_names"][-1]
            else:
                sources.pop(item["alias"], None)
        return sources


def parsed(connection: DuckDBPyConnection, sql: str) -> ParsedSql:
    """Parse a text with the database's own parser.

    Raises
    ------
    UsageError
        It is no SQL, not one query, or one with any part but :data:`QUERY_NODES` or table function but
        :data:`TABLE_FUNCTIONS`.
    """
    if len(sql) > _MAX_LETTERS:
        raise UsageError(f"The query is longer than {_MAX_LETTERS:,} letters.")
    row = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    answer: Tree = json.loads(row[0]) if row is not None else {}
    if answer.get("error") and answer.get("error_type") != "not implemented":
        raise UsageError(f"The query is no SQL: {str(answer.get('error_message', '')).splitlines()[0].rstrip('.')}.")
    if answer.get("error") or len(answer.get("statements", ())) != 1:
        raise UsageError("Give one SELECT; nothing else is done with a catalogue.")
    for node in _nodes(answer):
        kind, function = node.get("type"), node.get("function")
        if isinstance(kind, str) and kind.endswith("_NODE") and kind not in QUERY_NODES:
            raise UsageError("Give one SELECT, which changes nothing: a catalogue is read only.")
        if kind == "TABLE_FUNCTION" and not (isinstance(function, dict) and function.get("function_name") in TABLE_FUNCTIONS):
            name = function.get("function_name") if isinstance(function, dict) else "a function"
            raise UsageError(f"The query calls {name}(); {ONLY_TABLES}")
    return ParsedSql(answer["statements"][0]["node"])


def _nodes(tree: Any) -> Iterator[Tree]:
    """Every node of a parse tree, without recursion, as users decide how deep it is."""
    left = [tree]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


_KEPT = (pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string())


def plain(table: pa.Table) -> pa.Table:
    """A table of booleans, 32 and 64 bit integers, floats and texts without nulls, which every file format can hold.

    What is not known becomes NaN or an empty text, so integers that may be unknown become floats. Other types (dates, lists,
    structures) become texts. Names that repeat get a number.
    """
    columns = [_plain(column) for column in table.columns]
    fields = [
        field.with_name(name).with_type(column.type).with_nullable(False)
        for name, field, column in zip(_distinct(table.column_names), table.schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind, unknown = column.type, column.null_count > 0
    if pa.types.is_decimal(kind) and kind.scale == 0 and not unknown and _fit_int64(column):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or (pa.types.is_integer(kind) and unknown):
        target = kind if kind in _KEPT and pa.types.is_floating(kind) else pa.float64()
        return column.cast(target, safe=False).fill_null(float("nan"))
    if pa.types.is_integer(kind):
        small = kind in (pa.int8(), pa.int16(), pa.uint8(), pa.uint16(), pa.int32())
        return column.cast(pa.int32() if small else pa.int64() if _fit_int64(column) else pa.float64(), safe=False)
    if pa.types.is_null(kind):
        return pa.chunked_array([np.full(len(column), np.nan)], pa.float64())
    if pa.types.is_boolean(kind) and not unknown:
        return column
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string()).fill_null("")
    return pa.chunked_array([["" if value is None else str(value) for value in column.to_pylist()]], pa.string())


def _fit_int64(column: pa.ChunkedArray) -> bool:
    extremes = pc.min_max(column).as_py()
    return len(column) == 0 or (extremes["min"] >= -(2**63) and extremes["max"] < 2**63)


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    taken, distinct = set(names), []
    for name in names:
        seen[name] += 1
        new = name
        while new in taken and seen[name] > 1:
            new = f"{name}_{seen[name]}"
            seen[name] += new in taken
        taken.add(new)
        distinct.append(new)
    return distinct
