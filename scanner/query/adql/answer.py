"""The answer to a translated query, batch by batch.

In: a :class:`~scanner.query.adql.translate.Translation`, the rows of its table, a connection to a database. Out: record
batches of the answer's columns. Refused: what only rows can tell (:class:`AdqlError`): numbers beyond 64 bits, texts that are
no number, too little memory. What the database says of it is not repeated: it would speak of SQL and files, which whoever
asks does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scanner.errors import ContentError
from scanner.query import deadline
from scanner.query.adql.error import AdqlError
from scanner.query.adql.tables import RELATION
from scanner.query.adql.translate import Translation

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

BATCH_ROWS = 8192


@dataclass(frozen=True)
class Relation:
    """The rows of a table: a SELECT with its parameters, over files or over ``tables`` by the names it gives them."""

    sql: str
    parameters: tuple[Any, ...] = ()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


def answer(connection: DuckDBPyConnection, translation: Translation, relation: Relation) -> Iterator[pa.RecordBatch]:
    """Ask.

    Parameters
    ----------
    connection
        Of one thread; the deadline of the thread that takes a batch counts for it.
    translation
        The query.
    relation
        The rows of ``translation.table``.

    Yields
    ------
    pyarrow.RecordBatch
        Of schema ``translation.columns``.

    Raises
    ------
    AdqlError
        The rows do not allow for an answer.
    OutOfTimeError
        The time is up.
    """
    for name, table in relation.tables.items():
        connection.register(name, table)
    sql = f"WITH {RELATION} AS NOT MATERIALIZED ({relation.sql}) {translation.sql}"
    with _asking(connection):
        reader = connection.sql(sql, params=[*relation.parameters, *translation.parameters]).to_arrow_reader(BATCH_ROWS)
    while True:
        with _asking(connection):
            batch = next(reader, None)
        if batch is None:
            return
        yield _typed(batch, translation.columns)


@contextmanager
def _asking(connection: DuckDBPyConnection) -> Iterator[None]:
    """Say what goes wrong in words of the query."""
    import duckdb

    try:
        with deadline.watching(connection):
            yield
    except duckdb.InterruptException:
        raise
    except duckdb.OutOfRangeException:
        raise AdqlError("a number is larger than a column can hold; cast to DOUBLE PRECISION before it grows") from None
    except duckdb.ConversionException:
        raise AdqlError("a value cannot be cast to the type that the query asks for") from None
    except duckdb.OutOfMemoryException:
        raise AdqlError("the answer needs more memory than there is; ask for a smaller part, or without ORDER BY") from None
    except duckdb.IOException:
        raise ContentError("The catalogue's files cannot be read; tell whoever runs this service.") from None
    except (duckdb.Error, pa.ArrowException):
        raise AdqlError("the query cannot be answered; ask for it in simpler parts") from None


def _typed(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    arrays = [array.cast(field.type) for array, field in zip(batch.columns, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)
