"""From ADQL to SQL over one table, and from there to the rows of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from scanner.catalogue.columns import IDENTITY
from scanner.errors import ContentError, UsageError
from scanner.query.adql import functions, grammar
from scanner.query.adql.functions import (
    AGGREGATES,
    RELATION,
    Scope,
    TableDescription,
    Value,
    ValueKind,
    combined,
    compared,
    evaluated_once,
    in_list,
    like,
    number,
    text,
    within,
)
from scanner.query.adql.grammar import AdqlError, parse
from scanner.query.database import DatabaseFiles, interruptible, opened
from scanner.query.region import Cone, Region, merged
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

    ``table``: name of the table, whose rows the SQL expects as the relation :data:`~scanner.query.adql.functions.RELATION`;
    those outside ``ranges`` ((M, 2) int64, HEALPix order 29, half open; None: the whole sky) may be missing. ``columns``: of
    the answer, in order, with units, UCDs and descriptions; the SQL's own names of them mean nothing. ``top``: most rows.
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

    def __init__(self, query: grammar.Query, scope: Scope, where: Value | None) -> None:
        self.query, self.scope, self.where = query, scope, where
        self.is_grouped = bool(query.groups or query.having is not None or _has_aggregate(query))
        of_rows = Clause(scope)
        self.keys = tuple((self._key(of_rows, node), f'"group {place}"') for place, node in enumerate(query.groups))
        # What it is grouped by, a group has one of.
        of_groups = {
            key.identity: replace(key, sql=f"t.{name}", parameters=(), loose=None) for key, name in reversed(self.keys)
        }
        self.values = Clause(scope, of_groups, aggregates=True) if self.is_grouped else of_rows

    def _key(self, of_rows: Clause, node: grammar.Node) -> Value:
        """What rows are grouped by: an expression of columns, or the label of one that is selected."""
        if isinstance(node, grammar.ColumnName) and len(node.parts) == 1 and not self.scope.has(node.parts[0]):
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

    def _order(self, order: grammar.Order, items: list[tuple[Value, str]], names: list[str], parameters: list[Any]) -> str:
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

    def _added(self, value: Value, node: grammar.Node, parameters: list[Any]) -> str:
        parameters += self._checked(value, node).parameters
        return value.sql

    def _checked(self, value: Value, node: grammar.Node) -> Value:
        """Refuse what a group has many of."""
        if self.is_grouped and value.loose is not None:
            name = value.loose.parts[-1].text
            raise AdqlError(f"a group has many {name}; group by it, or ask for MIN, MAX, AVG …", node.place)
        return value


def _has_aggregate(query: grammar.Query) -> bool:
    nodes = [item.value for item in query.items if item.value is not None] + [order.value for order in query.orders]
    return any(_calls_aggregate(node) for node in nodes)


def _calls_aggregate(node: object) -> bool:
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, grammar.Call) and one.function in AGGREGATES:
            return True
        if isinstance(one, grammar.Node):
            pending += vars(one).values()
        elif isinstance(one, tuple):
            pending += one
    return False


def _selected(node: grammar.Node, names: list[str]) -> int | None:
    """Which of the answer's columns is meant: by its number or its name."""
    if isinstance(node, grammar.Number):
        return node.value - 1 if isinstance(node.value, int) else -1
    if isinstance(node, grammar.ColumnName) and len(node.parts) == 1:
        return next((place for place, name in enumerate(names) if node.parts[0].means(name)), None)
    return None


def _label(node: grammar.Node, value: Value) -> str:
    if isinstance(node, grammar.ColumnName) and value.field is not None:
        return str(value.field.name)
    return node.function.lower() if isinstance(node, grammar.Call) else "value"


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
        raise ContentError("The catalogue's files cannot be read; report this to the operator of the service.") from None
    except (duckdb.Error, pa.ArrowException):
        raise AdqlError("the query cannot be answered; ask for it in simpler parts") from None


def _typed(batch: pa.RecordBatch, columns: pa.Schema) -> pa.RecordBatch:
    arrays = [array.cast(field.type) for array, field in zip(batch.columns, columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=columns)


#: Largest constant that is computed here.
_LARGEST = 2**63 - 1
_TYPES: dict[str, ValueKind] = {
    **dict.fromkeys(("SMALLINT", "INTEGER", "INT", "BIGINT"), ValueKind.WHOLE),
    **dict.fromkeys(("REAL", "DOUBLE", "DOUBLE PRECISION", "FLOAT"), ValueKind.REAL),
    **dict.fromkeys(("CHAR", "VARCHAR"), ValueKind.TEXT),
}


@dataclass(frozen=True)
class Clause:
    """One clause of a query, in which expressions become SQL.

    ``keys``: what rows are grouped by: the value of a group by the :attr:`~scanner.query.adql.functions.Value.identity` of
    that of a row. ``aggregates``: whether they are allowed.
    """

    scope: Scope
    keys: Mapping[tuple[str, str], Value] = field(default_factory=dict)
    aggregates: bool = False

    def condition(self, node: grammar.Node) -> Value:
        """What has to be true or false."""
        found = self.value(node)
        if found.kind is not ValueKind.TRUTH:
            raise AdqlError(f"a condition is expected here, not {found.kind.value}", node.place)
        return found

    def value(self, node: grammar.Node) -> Value:
        """SQL of a node."""
        found = self._value(node)
        return self.keys.get(found.identity, found) if self.keys else found

    def _value(self, node: grammar.Node) -> Value:
        match node:
            case grammar.Number():
                return number(node.value)
            case grammar.Text():
                return text(node.value)
            case grammar.Boolean():
                return Value("true" if node.value else "false", ValueKind.TRUTH)
            case grammar.Null():
                return Value("NULL", ValueKind.NULL)
            case grammar.ColumnName():
                return self.scope.column(node)
            case grammar.Sign():
                return self._signed(node)
            case grammar.Arithmetic():
                return self._reckoned(node)
            case grammar.Cast():
                return self._cast(node)
            case grammar.Call():
                return self._called(node)
            case grammar.Logic():
                joined = f" {node.operator} ".join(f"{{{place}}}" for place in range(len(node.operands)))
                return combined(f"({joined})", ValueKind.TRUTH, *(self.condition(operand) for operand in node.operands))
            case grammar.Not():
                return combined("(NOT {0})", ValueKind.TRUTH, self.condition(node.operand))
            case _:
                return self._predicate(node)

    def _predicate(self, node: grammar.Node) -> Value:
        match node:
            case grammar.Comparison():
                test = geometry_test(node)
                if test is not None:
                    found = functions.contains(test.call, self.value)
                    return found if test.inside else combined("(NOT {0})", ValueKind.TRUTH, found)
                return compared(node, self.value(node.left), self.value(node.right))
            case grammar.IsNull():
                return combined("({0} IS NULL)", ValueKind.TRUTH, self.value(node.operand))
            case grammar.Between():
                return within(node, *(self.value(part) for part in (node.operand, node.low, node.high)))
            case grammar.In():
                return in_list(node, self.value(node.operand), [self.value(one) for one in node.values])
            case grammar.Like():
                return like(node, self.value(node.operand), self.value(node.pattern))
            case _:
                raise AdqlError("this cannot be asked", node.place)

    def _signed(self, node: grammar.Sign) -> Value:
        operand = self.value(node.operand)
        if not operand.kind.is_number:
            raise AdqlError(f"a number is expected after {node.operator}, not {operand.kind.value}", node.place)
        if node.operator == "+":
            return operand
        return number(-operand.constant) if operand.constant is not None else combined("(-{0})", operand.kind, operand)

    def _reckoned(self, node: grammar.Arithmetic) -> Value:
        # Long sums lean to the left: walked down in a loop, they need no depth.
        spine: list[grammar.Arithmetic] = [node]
        while isinstance(spine[-1].left, grammar.Arithmetic):
            spine.append(spine[-1].left)
        found = self.value(spine[-1].left)
        for one in reversed(spine):
            found = _reckon(one, found, self.value(one.right))
        return found

    def _cast(self, node: grammar.Cast) -> Value:
        if node.type not in _TYPES:
            raise AdqlError(f"nothing can be cast to {node.type}; there are {', '.join(_TYPES)}", node.place)
        kind = _TYPES[node.type]
        return combined(f"({{0}})::{kind.sql}", kind, self.value(node.operand))

    def _called(self, node: grammar.Call) -> Value:
        return self._aggregate(node) if node.function in functions.AGGREGATES else functions.call(node, self.scope, self.value)

    def _aggregate(self, node: grammar.Call) -> Value:
        if not self.aggregates:
            raise AdqlError(f"{node.function} cannot be asked here: it is of many rows", node.place)
        of_rows = replace(self, keys={}, aggregates=False)
        arguments = [of_rows.value(argument) for argument in node.arguments]
        return functions.aggregate(node.function, arguments, node.place, distinct=node.distinct, star=node.star)


@dataclass(frozen=True)
class GeometryTest:
    """CONTAINS or INTERSECTS compared with 1 (``inside``) or 0."""

    call: grammar.Call
    inside: bool


def geometry_test(node: grammar.Comparison) -> GeometryTest | None:
    """Whether a comparison is one of CONTAINS or INTERSECTS with 0 or 1, in either order."""
    for call, wanted in ((node.left, node.right), (node.right, node.left)):
        if not isinstance(call, grammar.Call) or not isinstance(wanted, grammar.Number):
            continue
        if call.function in ("CONTAINS", "INTERSECTS") and node.operator in ("=", "<>") and wanted.value in (0, 1):
            return GeometryTest(call, (wanted.value == 1) == (node.operator == "="))
    return None


def _reckon(node: grammar.Arithmetic, left: Value, right: Value) -> Value:
    operator = node.operator
    if operator == "||":
        if any(value.kind not in (ValueKind.TEXT, ValueKind.NULL) for value in (left, right)):
            raise AdqlError("|| joins texts; use CAST(… AS VARCHAR) for others", node.place)
        return combined("({0} || {1})", ValueKind.TEXT, left, right)
    for value in (left, right):
        if not value.kind.is_number:
            raise AdqlError(f"{operator} needs numbers, not {value.kind.value}", node.place)
    whole = left.kind is ValueKind.WHOLE and right.kind is ValueKind.WHOLE
    kind = ValueKind.WHOLE if whole else ValueKind.REAL
    divides = "//" if whole else "/"
    constant = _constant(node, left, right, whole=whole)
    if constant is not None:
        return number(constant)
    if operator == "/":
        return combined(f"({{0}} {divides} {{1}})", kind, left, evaluated_once("nullif({0}, 0)", right.kind, right))
    return combined(f"({{0}} {operator} {{1}})", kind, left, right)


def _constant(node: grammar.Arithmetic, left: Value, right: Value, *, whole: bool) -> int | float | None:
    a, b = left.constant, right.constant
    if a is None or b is None:
        return None
    if node.operator != "/":
        found = a + b if node.operator == "+" else a - b if node.operator == "-" else a * b
        # What no column can hold is left to the database, which says so.
        return found if abs(found) <= _LARGEST else None
    if b == 0:
        return None
    if whole and a % b:
        raise AdqlError(f"{a}/{b} of whole numbers drops the rest; write {a}/{b}.0", node.place)
    return a // b if whole else a / b if abs(a) <= abs(b) * _LARGEST else None


_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def sky_ranges(where: grammar.Node | None, scope: Scope) -> Int64 | None:
    """Ranges that hold every row that fulfils a condition.

    Parameters
    ----------
    where
        The condition, which has been translated already; None: every row does.
    scope
        The table.

    Returns
    -------
    numpy.ndarray or None
        (M, 2) int64, half open, ascending, indices of order 29; None: the whole sky.
    """
    if where is None or scope.position is None:
        return None
    if isinstance(where, grammar.Logic):
        parts = [sky_ranges(operand, scope) for operand in where.operands]
        known = [part for part in parts if part is not None]
        if where.operator == "AND":
            found = known[0] if known else None
            for part in known[1:]:
                found = common(found, part) if found is not None else part
            return found
        return merged(np.concatenate(known)) if len(known) == len(parts) else None
    if not isinstance(where, grammar.Comparison):
        return None
    region = _region(where, scope)
    return None if region is None else region.ranges()


def common(first: Int64, second: Int64) -> Int64:
    """What two sets of half-open ranges, (M, 2) and (N, 2), ascending and apart, have in common."""
    edges = np.unique(np.concatenate([first.ravel(), second.ravel()]))
    starts, stops = edges[:-1], edges[1:]
    inside = [np.searchsorted(ranges.ravel(), starts, side="right") % 2 == 1 for ranges in (first, second)]
    both = inside[0] & inside[1]
    return merged(np.stack([starts[both], stops[both]], axis=1))


def _region(node: grammar.Comparison, scope: Scope) -> Region | None:
    """The region that the comparison asks the table's own position to lie in."""
    test = geometry_test(node)
    value = Clause(scope).value
    if test is not None:
        if not test.inside:
            return None
        point, region = functions.point_and_region(test.call, value)
        if isinstance(region, functions.Circle):
            cone = functions.constant_cone(point, region, node.place)
            if cone is None:
                return None
            point, within = cone
            return within if _is_own(point, scope) else None
        return region if _is_own(point, scope) else None
    return _near(node, scope, value)


def _near(node: grammar.Comparison, scope: Scope, value: functions.ToValue) -> Region | None:
    """The cone of ``DISTANCE(own, given) < radius``."""
    call, operator, limit = node.left, node.operator, node.right
    if not isinstance(call, grammar.Call):
        call, operator, limit = node.right, _TURNED.get(operator, operator), node.left
    if not isinstance(call, grammar.Call) or call.function != "DISTANCE" or operator not in ("<", "<=", "="):
        return None
    radius = value(limit).constant
    points = functions.distance_points(call, value)
    for own, given in (points, points[::-1]):
        if radius is not None and _is_own(own, scope) and given.constants is not None:
            try:
                # Distances are computed in another way than cones: room for rounding, most near 180 degrees.
                return Cone(*given.constants, min(max(float(radius), 0.0) + 1e-5, 180.0))
            except UsageError:
                return None
    return None


def _is_own(point: functions.Point, scope: Scope) -> bool:
    position = scope.position
    return position is not None and (point.ra.sql, point.dec.sql) == (position.ra, position.dec)
