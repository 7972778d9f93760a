"""The syntax tree of an ADQL query, and the error that says what is wrong with a query and where."""

from __future__ import annotations

from dataclasses import dataclass, field

from scanner.errors import UsageError


@dataclass(frozen=True, order=True)
class QueryPlace:
    """Line and column of a character, both from 1."""

    line: int
    column: int


class AdqlError(UsageError):
    """A query that cannot be answered; ``place`` is where it goes wrong, None where that cannot be said."""

    def __init__(self, message: str, place: QueryPlace | None = None) -> None:
        super().__init__(message if place is None else f"line {place.line}, column {place.column}: {message}")
        self.place = place


@dataclass(frozen=True)
class Name:
    """An identifier; ``quoted`` ones are taken to the letter, others whatever their case."""

    text: str
    quoted: bool = False

    def means(self, name: str) -> bool:
        """Whether it is this name."""
        return self.text == name if self.quoted else self.text.lower() == name.lower()


@dataclass(frozen=True)
class Node:
    """Base of all; ``place``: where it begins, for messages."""

    place: QueryPlace = field(compare=False)


@dataclass(frozen=True)
class Number(Node):
    """A number; whole ones are int."""

    value: int | float


@dataclass(frozen=True)
class Text(Node):
    """A character string."""

    value: str


@dataclass(frozen=True)
class Boolean(Node):
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True)
class Null(Node):
    """NULL."""


@dataclass(frozen=True)
class ColumnName(Node):
    """A column, with the names of its table before it where they are given."""

    parts: tuple[Name, ...]


@dataclass(frozen=True)
class Sign(Node):
    """A number with a sign, ``-`` or ``+``, before it."""

    operator: str
    operand: Node


@dataclass(frozen=True)
class Arithmetic(Node):
    """``+ - * /`` of numbers, ``||`` of texts."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Call(Node):
    """A function, its name in capitals; ``star``: COUNT(*)."""

    function: str
    arguments: tuple[Node, ...]
    distinct: bool = False
    star: bool = False


@dataclass(frozen=True)
class Cast(Node):
    """CAST(… AS type), the type in capitals."""

    operand: Node
    type: str


@dataclass(frozen=True)
class Comparison(Node):
    """``= <> < > <= >=``."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Logic(Node):
    """AND or OR of two or more conditions."""

    operator: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Not(Node):
    """NOT."""

    operand: Node


@dataclass(frozen=True)
class IsNull(Node):
    """IS NULL."""

    operand: Node


@dataclass(frozen=True)
class Between(Node):
    """BETWEEN, ends included."""

    operand: Node
    low: Node
    high: Node


@dataclass(frozen=True)
class In(Node):
    """IN a list of values."""

    operand: Node
    values: tuple[Node, ...]


@dataclass(frozen=True)
class Like(Node):
    """LIKE, or ILIKE (``any_case``)."""

    operand: Node
    pattern: Node
    any_case: bool


@dataclass(frozen=True)
class Item(Node):
    """One entry of the list after SELECT; ``value`` None: all columns (``*``), of ``table`` if it is named."""

    value: Node | None
    label: Name | None = None
    table: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Order(Node):
    """One entry of the list after ORDER BY."""

    value: Node
    descending: bool


@dataclass(frozen=True)
class Query(Node):
    """A whole query."""

    items: tuple[Item, ...]
    table: tuple[Name, ...]
    table_place: QueryPlace = field(compare=False)
    alias: Name | None = None
    distinct: bool = False
    top: int | None = None
    where: Node | None = None
    groups: tuple[Node, ...] = ()
    having: Node | None = None
    orders: tuple[Order, ...] = ()
    offset: int = 0
