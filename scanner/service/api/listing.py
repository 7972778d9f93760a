"""Lists of candidates, or of all objects: filtered, in a stable order, a page at a time.

In: a :class:`Selection` and an open collection. Out: a page of rows and the place where the next one begins. A page is found by
its last row's values, not by counting, so the millionth costs what the first does. Refused: orders and filters that make no
sense (:class:`~scanner.service.errors.BadRequestError`).

What clients send becomes values of parameters; the SQL is made of what stands in this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from scanner.catalogue.columns import BEST_OF_EQUALS, CATALOGUE_SCHEMA, HEALPIX_COLUMN, IDENTITY, RANK_COLUMN
from scanner.errors import UsageError
from scanner.query.catalogue import Source
from scanner.query.condition import Condition, all_of
from scanner.query.positions import parse_cone
from scanner.query.region import Cone
from scanner.service.api.cursor import Cursor
from scanner.service.collections import CANDIDATES, CandidateId, Collection
from scanner.service.errors import BadRequestError

ScoreColumn = Literal["p_calibrated", "grid_value", "p_ou_j", "p_ou_y", "p_ou_h", "p_ou_jyh", "p_ou_vis", "p_ou_66", "p_ou_200"]
SortColumn = Literal["rank", "place", "magnitude_vis", "ra", "dec", ScoreColumn]
Order = Literal["asc", "desc"]
SCORES: tuple[ScoreColumn, ...] = get_args(ScoreColumn)


@dataclass(frozen=True)
class Selection:
    """Which rows, and in which order; None: whatever.

    ``sort``: a column, or ``place`` on the sky (HEALPix). ``min_score``, ``max_score``: of ``p_calibrated``. ``flags``: any,
    none, or a sum of bits of which one must be set. ``name``: a part of it. ``objects``: all of them, not only candidates.
    """

    sort: SortColumn = "rank"
    order: Order | None = None
    min_score: float | None = None
    max_score: float | None = None
    min_magnitude: float | None = None
    max_magnitude: float | None = None
    flags: str | None = None
    tile: str | None = None
    run: str | None = None
    known: Literal["any", "yes", "no"] = "any"
    cone: str | None = None
    name: str | None = None
    min_rank: int | None = None
    objects: bool = False

    @property
    def descending(self) -> bool:
        """Whether the largest come first; unless told otherwise, the best do."""
        return self.sort in SCORES if self.order is None else self.order == "desc"

    @property
    def column(self) -> str:
        """The column that orders the list."""
        return HEALPIX_COLUMN.name if self.sort == "place" else self.sort

    @property
    def ties(self) -> tuple[str, ...]:
        """The columns that decide, one after the other, where it is equal."""
        # Where a list is not of scores, its cursors must not tell ranks either: graders who are blind read such lists.
        return BEST_OF_EQUALS if self.sort in SCORES else IDENTITY

    @property
    def used(self) -> frozenset[str]:
        """Columns whose values the order and the choice of rows tell something of."""
        filters = {
            "p_calibrated": (self.min_score, self.max_score),
            "magnitude_vis": (self.min_magnitude, self.max_magnitude),
            "flags": (self.flags,),
            "rank": (self.min_rank,),
        }
        return frozenset({self.column, *(name for name, values in filters.items() if any(v is not None for v in values))})


@dataclass(frozen=True)
class Page:
    """A page of a list.

    ``rows`` with the catalogue's columns. ``next``: where the following page begins, None after the last. ``total``: rows of
    the whole list, on its first page.
    """

    rows: pa.Table
    next: str | None
    total: int | None


def page(collection: Collection, selection: Selection, limit: int, after: str | None) -> Page:
    """One page of a list; blocks.

    Parameters
    ----------
    collection
        What to list.
    selection
        Which rows, in which order.
    limit
        Rows of a page.
    after
        ``next`` of the page before; None: the first page.

    Raises
    ------
    BadRequestError
        A filter or ``after`` makes no sense.
    """
    cone = _cone(selection.cone)
    source = _source(collection, selection, cone)
    chosen = all_of([source.within, *_conditions(selection), *([] if cone is None else [cone.condition()])])
    column = selection.column
    order = f"{_ordering(column)} {'DESC' if selection.descending else 'ASC'}, {', '.join(selection.ties)}"
    list_of = f"{order} {selection.objects}"
    where = chosen if after is None else all_of([chosen, _beyond(Cursor.parse(after, list_of, collection.state), selection)])
    rows = collection.query(
        f"SELECT * FROM {source.relation.sql} WHERE {where.sql} ORDER BY {order} LIMIT ?",
        (*source.relation.parameters, *where.parameters, limit + 1),
    )
    ended = None
    if len(rows) > limit:
        rows = rows.slice(0, limit)
        (last,) = rows.slice(limit - 1, 1).to_pylist()
        rank = last[RANK_COLUMN.name] if RANK_COLUMN.name in selection.ties else None
        ended = Cursor(last[column], rank, CandidateId.of(last)).text(list_of, collection.state)
    return Page(rows, ended, _count(collection, source, chosen) if after is None else None)


def _count(collection: Collection, source: Source, chosen: Condition) -> int:
    counted = collection.query(
        f"SELECT count(*) AS n FROM {source.relation.sql} WHERE {chosen.sql}", (*source.relation.parameters, *chosen.parameters)
    )
    return int(counted["n"][0].as_py())


def _source(collection: Collection, selection: Selection, cone: Cone | None) -> Source:
    if not selection.objects:
        return Source(Condition(CANDIDATES), Condition("true"))
    return collection.catalogue.source(None if cone is None else cone.ranges())


def _cone(text: str | None) -> Cone | None:
    if text is None:
        return None
    try:
        return parse_cone(text)
    except UsageError as error:
        raise BadRequestError(f"cone: {error}") from None


def _conditions(selection: Selection) -> Iterator[Condition]:
    """What rows have to fulfil, the cone excepted."""
    bounds = (
        ("p_calibrated >= CAST(? AS FLOAT)", selection.min_score),
        ("p_calibrated <= CAST(? AS FLOAT)", selection.max_score),
        ("magnitude_vis >= CAST(? AS FLOAT)", selection.min_magnitude),
        ("magnitude_vis <= CAST(? AS FLOAT)", selection.max_magnitude),
        ("tile_id = ?", selection.tile),
        ("run = ?", selection.run),
        ("contains(upper(name), upper(?))", selection.name),
        ("rank >= ?", selection.min_rank),
    )
    for sql, value in bounds:
        if value is not None:
            yield Condition(sql, (value,))
    # In DuckDB NaN is larger than any number.
    if selection.min_score is not None:
        yield Condition("isfinite(p_calibrated)")
    if selection.min_magnitude is not None:
        yield Condition("isfinite(magnitude_vis)")
    if selection.known != "any":
        yield Condition("known_name <> ''" if selection.known == "yes" else "known_name = ''")
    if selection.flags is not None:
        yield _flags(selection.flags)


def _flags(wanted: str) -> Condition:
    if wanted in ("any", "none"):
        return Condition("flags <> 0" if wanted == "any" else "flags = 0")
    if not (wanted.isascii() and wanted.isdigit()) or not 0 < int(wanted) < 2**31:
        raise BadRequestError("flags: give 'any', 'none', or a sum of the bits that docs/catalogue-columns.md lists.")
    return Condition("(flags & ?) <> 0", (int(wanted),))


def _is_float(column: str) -> bool:
    return bool(pa.types.is_floating(CATALOGUE_SCHEMA.field(column).type))


def _ordering(column: str) -> str:
    """The beginning of an order in which rows whose value is not known come last, in either direction, and are equal."""
    # Not isnan(): DuckDB believes the statistics of Parquet files, which leave NaN out.
    return f"NOT isfinite({column}), if(isfinite({column}), {column}, 0)" if _is_float(column) else column


def _beyond(cursor: Cursor, selection: Selection) -> Condition:
    """Rows that come after one."""
    column, value = selection.column, cursor.value
    known = {RANK_COLUMN.name: cursor.rank, **dataclasses.asdict(cursor.last)}
    ties = tuple(known[name] for name in selection.ties)
    behind = f"({', '.join(selection.ties)}) > ({', '.join('?' * len(ties))})"
    if not _is_float(column):
        further = "<" if selection.descending else ">"
        return Condition(f"{column} {further} ? OR ({column} = ? AND {behind})", (value, value, *ties))
    if value is None:
        return Condition(f"NOT isfinite({column}) AND {behind}", ties)
    # As the column has it: 0.1 in single precision is not 0.1.
    cast = "CAST(? AS FLOAT)" if pa.types.is_float32(CATALOGUE_SCHEMA.field(column).type) else "CAST(? AS DOUBLE)"
    further = f"isfinite({column}) AND {column} {'<' if selection.descending else '>'} {cast}"
    return Condition(f"NOT isfinite({column}) OR ({further}) OR ({column} = {cast} AND {behind})", (value, value, *ties))
