"""From ADQL to SQL over one table, and from there to the rows of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scanner.catalogue.columns import IDENTITY
from scanner.errors import ContentError
from scanner.query.adql import tree
from scanner.query.adql.expressions import Clause, sky_ranges
from scanner.query.adql.functions import AGGREGATES
from scanner.query.adql.grammar import parse
from scanner.query.adql.tree import AdqlError
from scanner.query.adql.values import RELATION, Scope, TableDescription, Value, ValueKind
from scanner.query.database import DatabaseFiles, interruptible, opened
from scanner.records import Int64

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


#: More columns than any table has, several times.
MAX_COLUMNS = 1000
#: Rows of a batch, and the values of one with more columns than a catalogue has.
BATCH_ROWS, BATCH_VALUES = 8192, 800_000


@dataclass(frozen=True)
class Translation:
    """What to ask a database.

    ``table``: name of the table, whose rows the SQL expects as the relation :data:`~scanner.query.adql.values.RELATION`; those
    outside ``ranges`` ((M, 2) int64, HEALPix order 29, half open; None: the whole sky) may be missing. ``columns``: of the
    answer, in order, with units, UCDs and descriptions; the SQL's own names of them mean nothing. ``top``: most rows wanted.
    """

    table: str
    statement: str
    parameters: tuple[Any, ...]
    columns: pa.Schema
    ranges: Int64 | None
    top: int | None
    offset: int

    @property
    def sql(self) -> str:
        """The statement, with a ``?`` for each parameter."""
        limit = "" if self.top is None else f" LIMIT {self.top:d}"
        return f"{self.statement}{limit}" + (f" OFFSET {self.offset:d}" if self.offset else "")

    def limited(self, rows: int) -> Translation:
        """The same with no more than so many rows."""
        return replace(self, top=rows if self.top is None else min(rows, self.top))


@dataclass(frozen=True)
class Relation:
    """The rows of a table: a SELECT with its parameters, over files or over ``tables`` by the names it gives them."""

    sql: str
    parameters: tuple[Any, ...] = ()
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


def translate(text: str, tables: Mapping[str, TableDescription]) -> Translation:
    """Translate a query.

    The SQL is written from the query's tree, whose nodes are few and known: no name, function or statement of a user can come
    into it.

    Parameters
    ----------
    text
        ADQL.
    tables
        The tables that may be asked, by their names (``schema.table`` or ``table``).

    Raises
    ------
    AdqlError
        It cannot be asked.
    """
    query = parse(text)
    scope = Scope.of(query.table, query.alias, tables, query.table_place)
    where = None if query.where is None else Clause(scope).condition(query.where)
    return _Statement(query, scope, where).translation()


def answer(connection: DuckDBPyConnection, translation: Translation, relation: Relation) -> Iterator[pa.RecordBatch]:
    """Answer a translated query, batch by batch.

    Parameters
    ----------
    connection
        Of one thread; each batch is subject to the deadline of the thread that takes it.
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
        The rows do not allow an answer: numbers beyond 64 bits, texts that are no number, too little memory. The message speaks
        of the query, not of SQL and files, which clients do not know.
    OutOfTimeError
        The time is up.
    """
    for name, table in relation.tables.items():
        connection.register(name, table)
    sql = f"WITH {RELATION} AS NOT MATERIALIZED ({relation.sql}) {translation.sql}"
    with _asking(connection):
        rows = connection.sql(sql, params=[*relation.parameters, *translation.parameters])
        reader = rows.to_arrow_reader(min(BATCH_ROWS, BATCH_VALUES // len(translation.columns)))
    while True:
        with _asking(connection):
            batch = next(reader, None)
        if batch is None:
            return
        yield _typed(batch, translation.columns)


def answer_from(files: DatabaseFiles, translation: Translation, relation: Relation) -> Iterator[pa.RecordBatch]:
    """Answer a translated query from some files, as :func:`answer` does."""
    with opened(files) as connection:
        yield from answer(connection, translation, relation)


class _Statement:
    """The SQL of one query, clause by clause."""

    def __init__(self, query: tree.Query, scope: Scope, where: Value | None) -> None:
        self.query, self.scope, self.where = query, scope, where
        self.is_grouped = bool(query.groups or query.having is not None or _has_aggregate(query))
        of_rows = Clause(scope)
        self.keys = tuple((self._key(of_rows, node), f'"group {place}"') for place, node in enumerate(query.groups))
        # What it is grouped by, a group has one of.
        of_groups = {
            key.identity: replace(key, sql=f"t.{name}", parameters=(), loose=None) for key, name in reversed(self.keys)
        }
        self.values = Clause(scope, of_groups, aggregates=True) if self.is_grouped else of_rows

    def _key(self, of_rows: Clause, node: tree.Node) -> Value:
        """What rows are grouped by: an expression of columns, or the label of one that is selected."""
        if isinstance(node, tree.ColumnName) and len(node.parts) == 1 and not self.scope.has(node.parts[0]):
            labelled = [
                item.value for item in self.query.items if item.label is not None and node.parts[0].means(item.label.text)
            ]
            if labelled and labelled[0] is not None:
                return of_rows.value(labelled[0])
        key = of_rows.value(node)
        if key.constant is not None:
            raise AdqlError("rows are grouped by columns, not by a number", node.place)
        return key

    def translation(self) -> Translation:
        items = self._items()
        fields = [_field(value, label) for value, label in items]
        names = _distinct([field.name for field in fields])
        selected = ", ".join(f"{value.sql} AS c{place}" for place, (value, _) in enumerate(items))
        parameters = [parameter for value, _ in items for parameter in value.parameters]
        statement = f"SELECT {'DISTINCT ' if self.query.distinct else ''}{selected} FROM {self._source(parameters)}"
        if self.keys:
            statement += f" GROUP BY {', '.join(name for _, name in self.keys)}"
        if self.query.having is not None:
            statement += f" HAVING {self._added(self.values.condition(self.query.having), self.query.having, parameters)}"
        if self.query.orders:
            orders = [self._order(order, items, names, parameters) for order in self.query.orders] + self._ties(len(items))
            statement += f" ORDER BY {', '.join(orders)}"
        columns = pa.schema([field.with_name(name) for field, name in zip(fields, names, strict=True)])
        ranges = sky_ranges(self.query.where, self.scope)
        return Translation(
            self.scope.name, statement, tuple(parameters), columns, ranges, self.query.top, self.query.offset
        )  # fmt: skip

    def _source(self, parameters: list[Any]) -> str:
        """The rows, with what they are grouped by."""
        keys = "".join(f", {key.sql} AS {name}" for key, name in self.keys)
        parameters += [parameter for key, _ in self.keys for parameter in key.parameters]
        condition = ""
        if self.where is not None:
            parameters += self.where.parameters
            condition = f" WHERE {self.where.sql}"
        rows = f"{RELATION} AS t{condition}"
        return f"(SELECT t.*{keys} FROM {rows}) AS t" if self.keys else rows

    def _items(self) -> list[tuple[Value, str]]:
        found: list[tuple[Value, str]] = []
        for item in self.query.items:
            if item.value is None:
                every = self.scope.columns(item.table, item.place)
                if self.is_grouped:
                    raise AdqlError("* cannot be asked of groups; name the columns", item.place)
                found += [(value, str(value.field.name)) for value in every if value.field is not None]
            else:
                value = self._checked(self.values.value(item.value), item.value)
                found.append((value, item.label.text if item.label is not None else _label(item.value, value)))
        if len(found) > MAX_COLUMNS:
            raise AdqlError(f"more than {MAX_COLUMNS} columns; ask for fewer", self.query.place)
        return found

    def _ties(self, n_items: int) -> list[str]:
        """The end of an order, so that TOP and OFFSET cut answers where they say."""
        if not self.is_grouped and not self.query.distinct and set(IDENTITY) <= set(self.scope.table.schema.names):
            return [f"t.{name}" for name in IDENTITY]
        # Rows that are equal in all that is selected are the same.
        return [f"c{place}" for place in range(n_items)]

    def _order(self, order: tree.Order, items: list[tuple[Value, str]], names: list[str], parameters: list[Any]) -> str:
        direction = " DESC" if order.descending else ""
        place = _selected(order.value, names)
        if place is None and self.query.distinct:
            value = self._checked(self.values.value(order.value), order.value)
            place = next((number for number, (item, _) in enumerate(items) if item == value), None)
            if place is None:
                raise AdqlError("with DISTINCT, rows can only be ordered by what is selected", order.place)
        if place is None:
            value = self.values.value(order.value)
            # The database refuses to order by what it takes for a mistake, a bare NULL.
            ordered = replace(value, sql=f"({value.sql})::DOUBLE") if value.kind is ValueKind.NULL else value
            return f"{self._added(ordered, order.value, parameters)}{direction}"
        if not 0 <= place < len(items):
            raise AdqlError(f"there is no column {place + 1} to order by; there are {len(items)}", order.place)
        return f"c{place}{direction}"

    def _added(self, value: Value, node: tree.Node, parameters: list[Any]) -> str:
        parameters += self._checked(value, node).parameters
        return value.sql

    def _checked(self, value: Value, node: tree.Node) -> Value:
        """Refuse what a group has many of."""
        if self.is_grouped and value.loose is not None:
            name = value.loose.parts[-1].text
            raise AdqlError(f"a group has many {name}; group by it, or ask for MIN, MAX, AVG …", node.place)
        return value


def _has_aggregate(query: tree.Query) -> bool:
    nodes = [item.value for item in query.items if item.value is not None] + [order.value for order in query.orders]
    return any(_calls_aggregate(node) for node in nodes)


def _calls_aggregate(node: object) -> bool:
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, tree.Call) and one.function in AGGREGATES:
            return True
        if isinstance(one, tree.Node):
            pending += vars(one).values()
        elif isinstance(one, tuple):
            pending += one
    return False


def _selected(node: tree.Node, names: list[str]) -> int | None:
    """Which of the answer's columns is meant: by its number or its name."""
    if isinstance(node, tree.Number):
        return node.value - 1 if isinstance(node.value, int) else -1
    if isinstance(node, tree.ColumnName) and len(node.parts) == 1:
        return next((place for place, name in enumerate(names) if node.parts[0].means(name)), None)
    return None


def _label(node: tree.Node, value: Value) -> str:
    if isinstance(node, tree.ColumnName) and value.field is not None:
        return str(value.field.name)
    return node.function.lower() if isinstance(node, tree.Call) else "value"


def _distinct(names: list[str]) -> list[str]:
    """The names; those that repeat get a number."""
    found: list[str] = []
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for name in names:
        unique = name
        while unique.lower() in taken:
            numbers[name] = number = numbers.get(name, 1) + 1
            unique = f"{name}_{number}"
        taken.add(unique.lower())
        found.append(unique)
    return found


def _field(value: Value, label: str) -> pa.Field:
    if value.field is not None and value.kind is not ValueKind.NULL:
        return pa.field(label, value.field.type, metadata=value.field.metadata)
    return pa.field(label, value.kind.arrow)


@contextmanager
def _asking(connection: DuckDBPyConnection) -> Iterator[None]:
    """Turn the database's errors into errors of the query."""
    import duckdb

    try:
        with interruptible(connection):
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
