"""From the text of an ADQL query to its tree (ADQL 2.1, section 2.1 and appendix A): one SELECT from one table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

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


MAX_TOKENS = 20_000
MAX_BRACKETS = 32
#: Most operators one after the other, but for AND and OR, of which there may be any number.
MAX_CHAIN = 100
#: Words that end an expression, or have a meaning of their own, and so cannot name anything without quotes.
RESERVED = frozenset((
    "ALL", "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "CROSS", "DESC", "DISTINCT", "EXCEPT", "EXISTS", "FROM", "FULL",
    "GROUP", "HAVING", "ILIKE", "IN", "INNER", "INTERSECT", "INTO", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NATURAL",
    "NOT", "NULL", "OFFSET", "ON", "OR", "ORDER", "OUTER", "RIGHT", "SELECT", "TOP", "UNION", "USING", "WHERE", "WITH",
))  # fmt: skip
_COMPARISONS = ("=", "<>", "<", ">", "<=", ">=")
_NO_JOIN = "tables cannot be joined here; ask one table"
_NO_UNION = "queries cannot be combined here; ask one after the other"
_NOT_HERE = {
    **dict.fromkeys(("JOIN", "NATURAL", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", ","), _NO_JOIN),
    **dict.fromkeys(("UNION", "EXCEPT", "INTERSECT"), _NO_UNION),
    "LIMIT": "ADQL has no LIMIT; write SELECT TOP n",
}


def parse(query: str) -> Query:
    """Read a query.

    Raises
    ------
    AdqlError
        It is not one that can be answered here; the message says where.
    """
    return _Parser(query).query()


class _Parser:
    """Reads tokens from left to right; ``here`` is the next one.

    Values and conditions share one grammar; which of them may stand where is checked once kinds are known
    (:mod:`~scanner.query.adql.translate`).
    """

    def __init__(self, query: str) -> None:
        self._tokens = tokens(query)
        self._at = 0
        self._brackets = 0

    def query(self) -> Query:
        start = self.here
        if start.kind == "end":
            raise AdqlError("the query is empty", start.place)
        if not self.taken("SELECT"):
            raise AdqlError(f"a query begins with SELECT, not with {start}", start.place)
        distinct = self.taken("DISTINCT")
        if not distinct:
            self.taken("ALL")
        top = self._whole("TOP") if self.taken("TOP") else None
        items = self._items()
        self.expect("FROM")
        table_place = self.here.place
        table = self._table()
        alias = self._label()
        where = self.expression() if self.taken("WHERE") else None
        groups = self._groups() if self.taken("GROUP") else ()
        having = self.expression() if self.taken("HAVING") else None
        orders = self._orders() if self.taken("ORDER") else ()
        offset = self._whole("OFFSET") if self.taken("OFFSET") else 0
        self.taken(";")
        self._end()
        return Query(
            start.place, items, table, table_place, alias, distinct, top, where, groups, having, orders, offset
        )  # fmt: skip

    def _items(self) -> tuple[Item, ...]:
        items = [self._item()]
        while self.taken(","):
            items.append(self._item())
        return tuple(items)

    def _item(self) -> Item:
        place = self.here.place
        if self.taken("*"):
            return Item(place, None)
        value = self.expression()
        if isinstance(value, ColumnName) and self.here.text == "." and self.following.text == "*":
            self.next()
            self.next()
            return Item(place, None, table=value.parts)
        return Item(place, value, self._label())

    def _label(self) -> Name | None:
        """A name with AS before it, or without."""
        if self.taken("AS") or self.here.kind == "name" or self.is_plain_word(self.here):
            return self.name("a name after AS")
        return None

    def _table(self) -> tuple[Name, ...]:
        if self.here.text == "(":
            raise AdqlError("a query cannot stand for a table here; name one", self.here.place)
        parts = [self.name("the name of a table")]
        while self.taken("."):
            parts.append(self.name("the name of a table"))
        if self.here.text == "(":
            raise AdqlError("a function cannot stand for a table; name one", self.here.place)
        return tuple(parts)

    def _groups(self) -> tuple[Node, ...]:
        self.expect("BY")
        groups = [self.expression()]
        while self.taken(","):
            groups.append(self.expression())
        return tuple(groups)

    def _orders(self) -> tuple[Order, ...]:
        self.expect("BY")
        orders = [self._order()]
        while self.taken(","):
            orders.append(self._order())
        return tuple(orders)

    def _order(self) -> Order:
        place = self.here.place
        value = self.expression()
        descending = self.taken("DESC")
        if not descending:
            self.taken("ASC")
        return Order(place, value, descending)

    def _whole(self, keyword: str) -> int:
        token: Token = self.next()
        if token.kind != "number" or not isinstance(token.number, int):
            raise AdqlError(f"{keyword} needs a whole number, not {token}", token.place)
        return token.number

    def _end(self) -> None:
        token = self.here
        if token.kind == "end":
            return
        raise AdqlError(_NOT_HERE.get(token.text, f"{token} cannot stand here"), token.place)

    @property
    def here(self) -> Token:
        """The next token."""
        return self._tokens[self._at]

    @property
    def following(self) -> Token:
        """The one after it."""
        return self._tokens[min(self._at + 1, len(self._tokens) - 1)]

    def next(self) -> Token:
        """Take the next token."""
        token = self.here
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def taken(self, text: str) -> bool:
        """Take the next token if it is this keyword or sign."""
        is_it = self.here.kind in ("word", "sign") and self.here.text == text
        if is_it:
            self.next()
        return is_it

    def expect(self, text: str) -> None:
        """Take this keyword or sign."""
        if not self.taken(text):
            raise AdqlError(f"{text} is expected here, not {self.here}", self.here.place)

    def is_plain_word(self, token: Token) -> bool:
        """Whether a word can be a name."""
        return token.kind == "word" and token.text not in RESERVED

    def name(self, what: str) -> Name:
        """Take an identifier."""
        token = self.here
        if token.kind == "word" and token.text in RESERVED:
            raise AdqlError(f'{what} is expected here; if “{token.written}” is one, write "{token.written}"', token.place)
        if token.kind not in ("word", "name"):
            raise AdqlError(f"{what} is expected here, not {token}", token.place)
        self.next()
        return Name(token.written, False) if token.kind == "word" else Name(token.text, True)

    def expression(self) -> Node:
        """A value or a condition."""
        self._brackets += 1
        if self._brackets > MAX_BRACKETS:
            raise AdqlError(f"more than {MAX_BRACKETS} brackets within one another", self.here.place)
        found = self._logic("OR")
        self._brackets -= 1
        return found

    def _logic(self, operator: str) -> Node:
        place = self.here.place
        operands = [self._operand(operator)]
        while self.taken(operator):
            operands.append(self._operand(operator))
        return operands[0] if len(operands) == 1 else Logic(place, operator, tuple(operands))

    def _operand(self, operator: str) -> Node:
        return self._logic("AND") if operator == "OR" else self._negation()

    def _negation(self) -> Node:
        place, negations = self.here.place, 0
        while self.taken("NOT"):
            negations += 1
        found = self._predicate()
        return Not(place, found) if negations % 2 else found

    def _predicate(self) -> Node:
        place = self.here.place
        value = self._sum()
        if self.here.kind == "sign" and self.here.text in _COMPARISONS:
            return Comparison(place, self.next().text, value, self._sum())
        if self.taken("IS"):
            negated = self.taken("NOT")
            self.expect("NULL")
            return _maybe_not(place, IsNull(place, value), negated)
        negated = self.taken("NOT")
        if self.taken("BETWEEN"):
            low = self._sum()
            self.expect("AND")
            return _maybe_not(place, Between(place, value, low, self._sum()), negated)
        if self.taken("IN"):
            return _maybe_not(place, In(place, value, self._list()), negated)
        if self.here.text in ("LIKE", "ILIKE") and self.here.kind == "word":
            any_case = self.next().text == "ILIKE"
            return _maybe_not(place, Like(place, value, self._sum(), any_case), negated)
        if negated:
            raise AdqlError(f"BETWEEN, IN or LIKE is expected after NOT, not {self.here}", self.here.place)
        return value

    def _list(self) -> tuple[Node, ...]:
        self.expect("(")
        if self.here.text == "SELECT":
            raise AdqlError("a query cannot stand within a query here; list the values", self.here.place)
        values = [self.expression()]
        while self.taken(","):
            values.append(self.expression())
        self.expect(")")
        return tuple(values)

    def _sum(self) -> Node:
        return self._chain(("+", "-", "||"), lambda: self._chain(("*", "/"), self._signed))

    def _chain(self, operators: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        place = self.here.place
        found = operand()
        length = 0
        while self.here.kind == "sign" and self.here.text in operators:
            length += 1
            if length > MAX_CHAIN:
                raise AdqlError(f"more than {MAX_CHAIN} operators one after the other", self.here.place)
            found = Arithmetic(place, self.next().text, found, operand())
        return found

    def _signed(self) -> Node:
        token = self.here
        if self.taken("-") or self.taken("+"):
            return Sign(token.place, token.text, self._primary())
        return self._primary()

    def _primary(self) -> Node:
        token = self.here
        if token.kind == "number":
            return Number(self.next().place, token.number)
        if token.kind == "text":
            return Text(self.next().place, token.text)
        if self.taken("("):
            if self.here.text == "SELECT":
                raise AdqlError("a query cannot stand within a query here", self.here.place)
            found = self.expression()
            self.expect(")")
            return found
        if self.taken("NULL"):
            return Null(token.place)
        if token.kind == "word" and self.following.kind == "sign" and self.following.text == "(" and self.is_plain_word(token):
            return self._call()
        if token.kind == "word" and token.text in ("TRUE", "FALSE"):
            return Boolean(self.next().place, token.text == "TRUE")
        return self._column()

    def _column(self) -> ColumnName:
        place = self.here.place
        parts = [self.name("a value")]
        while self.here.text == "." and self.following.kind in ("word", "name"):
            self.next()
            parts.append(self.name("the name of a column"))
        return ColumnName(place, tuple(parts))

    def _call(self) -> Node:
        token = self.next()
        self.expect("(")
        if token.text == "CAST":
            return self._cast(token.place)
        if token.text == "COUNT" and self.taken("*"):
            self.expect(")")
            return Call(token.place, token.text, (), star=True)
        distinct = self.taken("DISTINCT")
        if not distinct:
            self.taken("ALL")
        arguments: list[Node] = []
        if self.here.text != ")" or self.here.kind != "sign":
            arguments.append(self.expression())
            while self.taken(","):
                arguments.append(self.expression())
        self.expect(")")
        return Call(token.place, token.text, tuple(arguments), distinct)

    def _cast(self, place: QueryPlace) -> Node:
        operand = self.expression()
        self.expect("AS")
        words = [self.name("a type").text.upper()]
        if words == ["DOUBLE"] and self.here.text == "PRECISION":
            words.append(self.next().text)
        if self.taken("("):
            length = self.next()
            if length.kind != "number":
                raise AdqlError(f"a type's length is expected here, not {length}", length.place)
            self.expect(")")
        self.expect(")")
        return Cast(place, operand, " ".join(words))


def _maybe_not(place: QueryPlace, node: Node, negated: bool) -> Node:
    return Not(place, node) if negated else node


_INT64 = 2**63
TokenKind = Literal["word", "name", "text", "number", "sign", "end"]
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|--[^\n]*)+)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<text>'(?:[^']|'')*')
    |(?P<name>"(?:[^"]|"")+")
    |(?P<sign>\|\||<>|!=|<=|>=|[-+*/=<>(),.;])""",
    re.VERBOSE,
)
_UNENDED = {"'": "a character string without its closing '", '"': 'a quoted name without its closing "'}


@dataclass(frozen=True)
class Token:
    """One word: ``text`` is what was written without its quotes, or in capitals where quotes were not needed (``word``)."""

    kind: TokenKind
    text: str
    written: str
    place: QueryPlace
    number: int | float = 0

    def __str__(self) -> str:
        return "the end of the query" if self.kind == "end" else f"“{shortened(self.written)}”"


def tokens(query: str) -> list[Token]:
    """Divide a query into its words; the last token is its end. Comments (``-- …``) and white space are left out.

    Raises
    ------
    AdqlError
        A character that ADQL has no use for, a string without an end, a number that is too large, too many words.
    """
    found: list[Token] = []
    at, line, line_start = 0, 1, 0
    while at < len(query):
        place = QueryPlace(line, at - line_start + 1)
        match = _TOKEN.match(query, at)
        if match is None:
            raise AdqlError(_UNENDED.get(query[at], f"“{query[at]}” means nothing in ADQL; leave it out"), place)
        written = match.group()
        if match.lastgroup != "space":
            found.append(_token(match, place))
        if len(found) > MAX_TOKENS:
            raise AdqlError(f"the query has more than {MAX_TOKENS} words; ask for less at a time", place)
        line += written.count("\n")
        if "\n" in written:
            line_start = at + written.rindex("\n") + 1
        at = match.end()
    found.append(Token("end", "", "", QueryPlace(line, at - line_start + 1)))
    return found


def shortened(text: str) -> str:
    """A text as messages show it."""
    return text if len(text) <= 40 else f"{text[:39]}…"


def _token(match: re.Match[str], place: QueryPlace) -> Token:
    written = match.group()
    if match.lastgroup == "word":
        return Token("word", written.upper(), written, place)
    if match.lastgroup == "number":
        return Token("number", written, written, place, _number(written, place))
    if match.lastgroup == "text":
        return Token("text", written[1:-1].replace("''", "'"), written, place)
    if match.lastgroup == "name":
        return Token("name", written[1:-1].replace('""', '"'), written, place)
    return Token("sign", {"!=": "<>"}.get(written, written), written, place)


def _number(written: str, place: QueryPlace) -> int | float:
    if len(written) > 400:
        raise AdqlError(f"{shortened(written)} has too many digits", place)
    if written.isdigit() and int(written) < _INT64:
        return int(written)
    if written[:2] in ("0x", "0X"):
        if int(written, 16) >= _INT64:
            raise AdqlError(f"{shortened(written)} is larger than any whole number can be", place)
        return int(written, 16)
    value = float(written)
    if not math.isfinite(value):
        raise AdqlError(f"{shortened(written)} is larger than any number can be", place)
    return value
