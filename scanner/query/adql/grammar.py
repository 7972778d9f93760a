"""From a query's text to its tree.

In: ADQL. Out: a :class:`~scanner.query.adql.tree.Query`. Refused (:class:`AdqlError`, with the place): whatever is not one
SELECT from one table: joins, unions, subqueries, statements that change anything; too many brackets within one another.

Source: ADQL 2.1, appendix A (the grammar), of which this is the part that asks one table.
"""

from __future__ import annotations

from scanner.query.adql import tree
from scanner.query.adql.error import AdqlError
from scanner.query.adql.expressions import Expressions
from scanner.query.adql.tokens import Token

_NO_JOIN = "tables cannot be joined here; ask one table"
_NO_UNION = "queries cannot be combined here; ask one after the other"
_NOT_HERE = {
    **dict.fromkeys(("JOIN", "NATURAL", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", ","), _NO_JOIN),
    **dict.fromkeys(("UNION", "EXCEPT", "INTERSECT"), _NO_UNION),
    "LIMIT": "ADQL has no LIMIT; write SELECT TOP n",
}


def parse(query: str) -> tree.Query:
    """Read a query.

    Raises
    ------
    AdqlError
        It is not one that can be asked.
    """
    return _Grammar(query).query()


class _Grammar(Expressions):
    """What stands between a query's keywords."""

    def query(self) -> tree.Query:
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
        return tree.Query(
            start.place, items, table, table_place, alias, distinct, top, where, groups, having, orders, offset
        )  # fmt: skip

    def _items(self) -> tuple[tree.Item, ...]:
        items = [self._item()]
        while self.taken(","):
            items.append(self._item())
        return tuple(items)

    def _item(self) -> tree.Item:
        place = self.here.place
        if self.taken("*"):
            return tree.Item(place, None)
        value = self.expression()
        if isinstance(value, tree.ColumnName) and self.here.text == "." and self.following.text == "*":
            self.next()
            self.next()
            return tree.Item(place, None, table=value.parts)
        return tree.Item(place, value, self._label())

    def _label(self) -> tree.Name | None:
        """A name with AS before it, or without."""
        if self.taken("AS") or self.here.kind == "name" or self.is_plain_word(self.here):
            return self.name("a name after AS")
        return None

    def _table(self) -> tuple[tree.Name, ...]:
        if self.here.text == "(":
            raise AdqlError("a query cannot stand for a table here; name one", self.here.place)
        parts = [self.name("the name of a table")]
        while self.taken("."):
            parts.append(self.name("the name of a table"))
        if self.here.text == "(":
            raise AdqlError("a function cannot stand for a table; name one", self.here.place)
        return tuple(parts)

    def _groups(self) -> tuple[tree.Node, ...]:
        self.expect("BY")
        groups = [self.expression()]
        while self.taken(","):
            groups.append(self.expression())
        return tuple(groups)

    def _orders(self) -> tuple[tree.Order, ...]:
        self.expect("BY")
        orders = [self._order()]
        while self.taken(","):
            orders.append(self._order())
        return tuple(orders)

    def _order(self) -> tree.Order:
        place = self.here.place
        value = self.expression()
        descending = self.taken("DESC")
        if not descending:
            self.taken("ASC")
        return tree.Order(place, value, descending)

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
