"""From words to values and conditions.

In: the tokens of a query. Out: nodes of :mod:`~scanner.query.adql.tree`. Refused (:class:`AdqlError`): what is neither a value
nor a condition, and expressions so deep that they could only be meant to do harm.

Values and conditions share one grammar; which of them may stand where is looked at when kinds are known
(:mod:`~scanner.query.adql.values`).
"""

from __future__ import annotations

from collections.abc import Callable

from scanner.query.adql import tree
from scanner.query.adql.error import AdqlError, Place
from scanner.query.adql.tokens import Token, tokens

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


class Expressions:
    """Reads tokens from left to right; ``here`` is the next one."""

    def __init__(self, query: str) -> None:
        self._tokens = tokens(query)
        self._at = 0
        self._brackets = 0

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

    def name(self, what: str) -> tree.Name:
        """Take an identifier."""
        token = self.here
        if token.kind == "word" and token.text in RESERVED:
            raise AdqlError(f'{what} is expected here; if “{token.written}” is one, write "{token.written}"', token.place)
        if token.kind not in ("word", "name"):
            raise AdqlError(f"{what} is expected here, not {token}", token.place)
        self.next()
        return tree.Name(token.written, False) if token.kind == "word" else tree.Name(token.text, True)

    def expression(self) -> tree.Node:
        """A value or a condition."""
        self._brackets += 1
        if self._brackets > MAX_BRACKETS:
            raise AdqlError(f"more than {MAX_BRACKETS} brackets within one another", self.here.place)
        found = self._logic("OR")
        self._brackets -= 1
        return found

    def _logic(self, operator: str) -> tree.Node:
        place = self.here.place
        operands = [self._operand(operator)]
        while self.taken(operator):
            operands.append(self._operand(operator))
        return operands[0] if len(operands) == 1 else tree.Logic(place, operator, tuple(operands))

    def _operand(self, operator: str) -> tree.Node:
        return self._logic("AND") if operator == "OR" else self._negation()

    def _negation(self) -> tree.Node:
        place, negations = self.here.place, 0
        while self.taken("NOT"):
            negations += 1
        found = self._predicate()
        return tree.Not(place, found) if negations % 2 else found

    def _predicate(self) -> tree.Node:
        place = self.here.place
        value = self._sum()
        if self.here.kind == "sign" and self.here.text in _COMPARISONS:
            return tree.Comparison(place, self.next().text, value, self._sum())
        if self.taken("IS"):
            negated = self.taken("NOT")
            self.expect("NULL")
            return _maybe_not(place, tree.IsNull(place, value), negated)
        negated = self.taken("NOT")
        if self.taken("BETWEEN"):
            low = self._sum()
            self.expect("AND")
            return _maybe_not(place, tree.Between(place, value, low, self._sum()), negated)
        if self.taken("IN"):
            return _maybe_not(place, tree.In(place, value, self._list()), negated)
        if self.here.text in ("LIKE", "ILIKE") and self.here.kind == "word":
            any_case = self.next().text == "ILIKE"
            return _maybe_not(place, tree.Like(place, value, self._sum(), any_case), negated)
        if negated:
            raise AdqlError(f"BETWEEN, IN or LIKE is expected after NOT, not {self.here}", self.here.place)
        return value

    def _list(self) -> tuple[tree.Node, ...]:
        self.expect("(")
        if self.here.text == "SELECT":
            raise AdqlError("a query cannot stand within a query here; list the values", self.here.place)
        values = [self.expression()]
        while self.taken(","):
            values.append(self.expression())
        self.expect(")")
        return tuple(values)

    def _sum(self) -> tree.Node:
        return self._chain(("+", "-", "||"), lambda: self._chain(("*", "/"), self._signed))

    def _chain(self, operators: tuple[str, ...], operand: Callable[[], tree.Node]) -> tree.Node:
        place = self.here.place
        found = operand()
        length = 0
        while self.here.kind == "sign" and self.here.text in operators:
            length += 1
            if length > MAX_CHAIN:
                raise AdqlError(f"more than {MAX_CHAIN} operators one after the other", self.here.place)
            found = tree.Arithmetic(place, self.next().text, found, operand())
        return found

    def _signed(self) -> tree.Node:
        token = self.here
        if self.taken("-") or self.taken("+"):
            return tree.Sign(token.place, token.text, self._primary())
        return self._primary()

    def _primary(self) -> tree.Node:
        token = self.here
        if token.kind == "number":
            return tree.Number(self.next().place, token.number)
        if token.kind == "text":
            return tree.Text(self.next().place, token.text)
        if self.taken("("):
            if self.here.text == "SELECT":
                raise AdqlError("a query cannot stand within a query here", self.here.place)
            found = self.expression()
            self.expect(")")
            return found
        if self.taken("NULL"):
            return tree.Null(token.place)
        if token.kind == "word" and self.following.kind == "sign" and self.following.text == "(" and self.is_plain_word(token):
            return self._call()
        if token.kind == "word" and token.text in ("TRUE", "FALSE"):
            return tree.Truth(self.next().place, token.text == "TRUE")
        return self._column()

    def _column(self) -> tree.ColumnName:
        place = self.here.place
        parts = [self.name("a value")]
        while self.here.text == "." and self.following.kind in ("word", "name"):
            self.next()
            parts.append(self.name("the name of a column"))
        return tree.ColumnName(place, tuple(parts))

    def _call(self) -> tree.Node:
        token = self.next()
        self.expect("(")
        if token.text == "CAST":
            return self._cast(token.place)
        if token.text == "COUNT" and self.taken("*"):
            self.expect(")")
            return tree.Call(token.place, token.text, (), star=True)
        distinct = self.taken("DISTINCT")
        if not distinct:
            self.taken("ALL")
        arguments: list[tree.Node] = []
        if self.here.text != ")" or self.here.kind != "sign":
            arguments.append(self.expression())
            while self.taken(","):
                arguments.append(self.expression())
        self.expect(")")
        return tree.Call(token.place, token.text, tuple(arguments), distinct)

    def _cast(self, place: Place) -> tree.Node:
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
        return tree.Cast(place, operand, " ".join(words))


def _maybe_not(place: Place, node: tree.Node, negated: bool) -> tree.Node:
    return tree.Not(place, node) if negated else node
