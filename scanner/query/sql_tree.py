"""What a user's SQL is, by the database's own parser, before it is run.

In: a text. Out: :class:`Query`: it is one, it only reads, and which of its columns are a table's. Refused
(:class:`~scanner.errors.UsageError`): what is no SQL, or not one query; queries with any part but :data:`QUERY_NODES`, or table
functions but :data:`TABLE_FUNCTIONS`.

That DuckDB *calls* a text a query is not enough: ``WITH a AS (COPY … TO 'file') SELECT …`` is one to it, and
``json_execute_serialized_sql`` hides such a thing from whoever looks for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanner.errors import UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Nodes of the parse tree that only read. Every kind of node that holds a statement is named ``…_NODE``.
QUERY_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
TABLE_FUNCTIONS = frozenset({"generate_series", "range", "unnest"})
TABLES = ("objects", "candidates")
ONLY_TABLES = "it can read objects and candidates, nothing else."
_MAX_LETTERS = 100_000

Tree = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A query's parse tree, as DuckDB's ``json_serialize_sql`` gives it."""

    tree: Tree

    def chosen(self, columns: Collection[str]) -> dict[str, str]:
        """Which of the answer's columns are, as they stand, which of some columns of :data:`TABLES`.

        Nothing is said of queries over queries.
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


def parsed(connection: DuckDBPyConnection, sql: str) -> Query:
    """Parse a text that is one query, which reads and does nothing else.

    Raises
    ------
    UsageError
        It is not.
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
    return Query(answer["statements"][0]["node"])


def _nodes(tree: Any) -> Iterator[Tree]:
    """Every object of a parse tree; without recursion, since users decide how deep it is."""
    left = [tree]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one
