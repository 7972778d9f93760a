"""SQL of users over one catalogue or several: it can read the tables and nothing else, and write nothing.

In: open catalogues by name, one query. Out: a table; columns that are chosen as they stand keep unit, description and UCD. The
first catalogue's tables are ``objects`` and ``candidates`` (those with ``is_candidate``); any one's, ``"name".objects``. What
is not known is NULL in a query, and NaN again in its answer. Refused (:class:`~scanner.errors.UsageError`): what is not one
query (:mod:`scanner.query.sql_tree`); what fails, with the database's reason; more rows than the limit; and by
:mod:`scanner.query.deadline`, more memory or time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from scanner.errors import UsageError
from scanner.query.catalogue import Catalogue
from scanner.query.condition import all_of
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits, open_database
from scanner.query.deadline import time_limit, watching
from scanner.query.plain import plain
from scanner.query.region import Region
from scanner.query.sql_tree import ONLY_TABLES, Query, parsed

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

    Parameters
    ----------
    catalogues
        By name, one or more; the first is the default.
    sql
        The query, in DuckDB's dialect.
    limits
        What it may take.
    region
        The tables then hold this part of the sky only, and no more than that is read.

    Returns
    -------
    pyarrow.Table
        Booleans, integers, floats and texts without nulls (:mod:`scanner.query.plain`).

    Raises
    ------
    UsageError
        See the module.
    OutOfTimeError, OutOfMemoryError
        It takes more than it may.
    """
    import duckdb

    connection = open_database([one.dataset for one in catalogues.values()], limits.database)
    try:
        query = parsed(connection, sql)
        with time_limit(limits.seconds), watching(connection):
            for number, (name, catalogue) in enumerate(catalogues.items()):
                if name.lower() != _FIRST:
                    _attach(connection, _quoted(name), catalogue, region)
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
    if region is None:
        # A view has no parameters; paths are quoted.
        files = ", ".join(f"'{_escaped(str(path))}'" for path in catalogue.files())
        relation = f"read_parquet([{files}], hive_partitioning = false)"
        connection.execute(f"CREATE VIEW {schema}.objects AS SELECT {columns} FROM {relation}")
    else:
        source = catalogue.source(region.ranges())
        where = all_of([source.within, region.condition()])
        connection.execute(
            f"CREATE TABLE {schema}.objects AS SELECT {columns} FROM {source.relation.sql} WHERE {where.sql}",
            [*source.relation.parameters, *where.parameters],
        )
    connection.execute(f"CREATE VIEW {schema}.candidates AS SELECT * FROM {schema}.objects WHERE is_candidate")


def _column(field: pa.Field) -> str:
    """A column as queries see it: what is not known is NULL, for NaN is larger than any number to the database."""
    name = _quoted(field.name)
    is_always_known = not pa.types.is_floating(field.type) or field.name in _POSITION
    return name if is_always_known else f"CASE WHEN isfinite({name}) THEN {name} END AS {name}"


def _limited(connection: DuckDBPyConnection, sql: str, rows: int) -> pa.Table:
    """The answer, unless it has more rows."""
    reader = connection.sql(sql).to_arrow_reader()
    batches, n = [], 0
    for batch in reader:
        batches.append(batch)
        n += batch.num_rows
        if n > rows:
            raise UsageError(f"The answer has more than {rows:,} rows; add a LIMIT, or raise the limit of rows.")
    return pa.Table.from_batches(batches, reader.schema)


def _described(answer: pa.Table, query: Query, schema: pa.Schema) -> pa.Table:
    """The answer, with what the catalogue says of the columns that were chosen as they stand."""
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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escaped(text: str) -> str:
    return text.replace("'", "''")
