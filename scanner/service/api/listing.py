"""Lists of the best objects, or of all: filtered, in a stable order, a page at a time, as JSON."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, WithJsonSchema

from scanner.catalogue.columns import (
    BEST_OF_EQUALS,
    CATALOGUE_COLUMNS,
    HEALPIX_COLUMN,
    IDENTITY,
    MEMBER_COLUMNS,
    MODEL_COLUMNS,
    RANK_COLUMN,
    TILE_COLUMNS,
    Column,
    column,
)
from scanner.errors import UsageError
from scanner.grading.grade import Place, Viewer
from scanner.grading.store import Blindness, GradeStore
from scanner.modelling.lens_model import Verdict
from scanner.query.catalogue import CANDIDATE_ID_SQL, CandidateId, Source
from scanner.query.region import Cone, SqlPart, all_of, parse_cone
from scanner.records import Record
from scanner.service.collections import LISTED, Collection
from scanner.service.errors import BadRequestError, NotAllowedError

SCORES: tuple[str, ...] = ("p_calibrated", "grid_value", *(column.name for column in MEMBER_COLUMNS.values()))
#: Columns of lens models that a list can be ordered by, where there are any.
MODEL_SORTS: tuple[str, ...] = ("p_lens_modelled", "theta_e", "ln_evidence_ratio", "arc_snr")
#: What a list can be ordered by; ``place``: on the sky; ``random``: by chance, the same order for the same seed.
SORTS: tuple[str, ...] = ("rank", "place", "random", "magnitude_vis", "ra", "dec", *SCORES, *MODEL_SORTS)
_MODELS = frozenset(one.name for one in MODEL_COLUMNS)
_BEST_FIRST = frozenset({*SCORES, *MODEL_SORTS})
#: The column that a list by chance is ordered by.
SHUFFLED = "shuffled"
Order = Literal["asc", "desc"]
if TYPE_CHECKING:
    SortColumn = str
else:
    SortColumn = Literal[SORTS]
#: Longer ones are none of ours: the longest ids of runs and tiles make 400 characters.
MAX_CURSOR_LENGTH = 800
#: The longest list for which the answer says what the viewer has graded.
MOST_GRADED = 100_000
#: A number that JSON and single precision have.
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]
Graded = Literal["any", "yes", "no"]


@dataclass(frozen=True)
class Selection:
    """Which rows, and in which order; None: whatever.

    ``sort``: a column, ``place`` on the sky (HEALPix), or ``random``, by ``seed``. ``min_score``, ``max_score``: of
    ``p_calibrated``. ``flags``: any, none, or a sum of bits of which one must be set. ``name``: a part of it. ``systems``:
    only objects that lead theirs. ``candidates``: only these. ``verdict``: of the lens model. ``objects``: all of them, not
    only those that lists show.
    """

    sort: SortColumn = "rank"
    order: Order | None = None
    seed: int = 1
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
    systems: bool = False
    candidates: bool = False
    verdict: Verdict | None = None
    objects: bool = False

    @property
    def descending(self) -> bool:
        """Whether the largest come first; by default the best do."""
        return self.sort in _BEST_FIRST if self.order is None else self.order == "desc"

    @property
    def column(self) -> str:
        """The column that orders the list."""
        return {"place": HEALPIX_COLUMN.name, "random": SHUFFLED}.get(self.sort, self.sort)

    @property
    def ties(self) -> tuple[str, ...]:
        """The columns that decide, one after the other, where it is equal."""
        # Graders who are blind read lists that are not of scores; their cursors must not hold ranks either.
        return BEST_OF_EQUALS if self.sort in _BEST_FIRST else IDENTITY

    @property
    def used(self) -> frozenset[str]:
        """Columns whose values the order and the choice of rows betray."""
        filters = {
            "p_calibrated": (self.min_score, self.max_score),
            "magnitude_vis": (self.min_magnitude, self.max_magnitude),
            "flags": (self.flags,),
            "rank": (self.min_rank,),
            "system_id": (self.systems or None,),
            "is_candidate": (self.candidates or None, self.objects or None),
            "model_verdict": (self.verdict,),
        }
        # Beside the usual list, that of all objects tells which are the best.
        return frozenset({self.column, *(name for name, values in filters.items() if any(v is not None for v in values))})


class ListQuery(Record):
    """Filters and order of a list, as clients ask for them."""

    sort: SortColumn | None = Field(None, description="Column that orders it; place: on the sky; random. Default: rank.")
    order: Order | None = Field(None, description="Default: the best first.")
    seed: int = Field(1, ge=0, lt=2**31, description="Of the random order.")
    min_score: Number | None = Field(None, description="Least p_calibrated.")
    max_score: Number | None = Field(None, description="Largest p_calibrated.")
    min_magnitude: Number | None = Field(None, description="Brightest VIS magnitude.")
    max_magnitude: Number | None = Field(None, description="Faintest VIS magnitude.")
    flags: str | None = Field(None, max_length=10, description="any, none, or a sum of bits of which one must be set.")
    tile: str | None = Field(None, max_length=128, description="Only of this tile.")
    run: str | None = Field(None, max_length=300, description="Only of this run.")
    known: str = Field("any", pattern="^(any|yes|no)$", description="Whether a lens was known there before.")
    cone: str | None = Field(
        None, max_length=200, description="Position and radius, e.g. '150.1 2.2 30arcsec' or '10h00m24s +2d12m 1deg'."
    )
    name: str | None = Field(None, max_length=60, description="A part of the IAU style name.")
    min_rank: int | None = Field(None, ge=1, le=2**62, description="Only from this rank on.")
    systems: bool = Field(False, description="Only the best object of each system: none that lies within 8″ of a better one.")
    candidates: bool = Field(False, description="Only candidates: at or above the threshold.")
    verdict: Verdict | None = Field(None, description="Only objects whose lens model says so.")
    objects: bool = Field(False, description="All objects of the catalogue, scored or not, not only the best by rank.")
    graded: Graded = Field("any", description="Only what the viewer has graded (yes), or has not (no).")

    def selection(self, blindness: Blindness, who: Viewer) -> Selection:
        """The rows and their order; by default by rank, or by place where the grader is blind.

        Raises
        ------
        NotAllowedError
            Grading is blind, and this order or choice would tell scores.
        """
        default = "place" if blindness.hides_column(who, RANK_COLUMN.name) else "rank"
        wanted = {name: getattr(self, name) for name in ListQuery.model_fields if name not in ("sort", "graded")}
        selection = Selection(sort=self.sort or default, **wanted)
        if any(blindness.hides_column(who, column) for column in selection.used):
            raise NotAllowedError("Blind grading: this order or filter would tell scores of what you have not graded.")
        return selection


@dataclass(frozen=True)
class Page:
    """A page of a list.

    ``rows`` with the catalogue's columns. ``next``: where the following page begins, None after the last. ``total``: rows of
    the whole list, on its first page; ``graded``: how many of these are graded, where that is known.
    """

    rows: pa.Table
    next: str | None
    total: int | None
    graded: int | None = None


@dataclass(frozen=True)
class ByGrader:
    """What one grader has graded of a list: the ``ids``; ``wanted``: which of them the list holds."""

    ids: tuple[str, ...] = ()
    wanted: Graded = "any"

    @property
    def graded(self) -> SqlPart:
        """The graded rows."""
        return SqlPart(f"list_contains(?, {CANDIDATE_ID_SQL})", (list(self.ids),)) if self.ids else SqlPart("false")

    @property
    def condition(self) -> SqlPart:
        """The rows that are wanted."""
        if self.wanted == "any":
            return SqlPart("true")
        return self.graded if self.wanted == "yes" else SqlPart(f"NOT {self.graded.sql}", self.graded.parameters)


def by_grader(collection: Collection, store: GradeStore, grader: str, wanted: Graded = "any") -> ByGrader | None:
    """What a grader has graded of what lists show; None where the lists are too long to tell. Blocks."""
    if collection.n_listed > MOST_GRADED:
        return None
    rows = collection.database.query(f"SELECT {CANDIDATE_ID_SQL} AS id, name, ra, dec FROM {LISTED}")
    places = (Place(*values) for values in zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    return ByGrader(tuple(store.grades_of(grader, places)), wanted)


def page(collection: Collection, selection: Selection, limit: int, after: str | None, mine: ByGrader | None = None) -> Page:
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
    mine
        What the grader who asks has graded, and whether that is wanted.

    Raises
    ------
    BadRequestError
        A filter or ``after`` makes no sense.
    """
    found = _List.of(collection, selection, mine)
    column, list_of = selection.column, f"{found.order} {selection.seed} {selection.objects}"
    behind = None if after is None else _beyond(Cursor.parse(after, list_of, collection.state), selection)
    rows = found.rows(behind, limit + 1)
    ended = None
    if len(rows) > limit:
        rows = rows.slice(0, limit)
        (last,) = rows.slice(limit - 1, 1).to_pylist()
        rank = last[RANK_COLUMN.name] if RANK_COLUMN.name in selection.ties else None
        ended = Cursor(last[column], rank, CandidateId.of(last)).text(list_of, collection.state)
    rows = rows.select([name for name in rows.column_names if name != SHUFFLED])
    if after is not None:
        return Page(rows, ended, None)
    return Page(rows, ended, found.count(), None if mine is None else found.count(mine.graded))


def following(collection: Collection, selection: Selection, candidate_id: str | None, mine: ByGrader) -> str | None:
    """Id of the next row of a list behind an object, and after its last row the first; None where the list is empty. Blocks.

    Parameters
    ----------
    collection, selection, mine
        The list, see :func:`page`.
    candidate_id
        The object, which need not be of the list; the list's first row where it is None, or not among what lists show.
    """
    found = _List.of(collection, selection, mine)
    wanted = CandidateId.parse(candidate_id or "")
    here = [] if wanted is None else found.whole(wanted.condition)
    after = [_beyond(Cursor(row[selection.column], row[RANK_COLUMN.name], CandidateId.of(row)), selection) for row in here]
    for behind in (*after, None):
        for row in found.rows(behind, 1).to_pylist():
            return str(CandidateId.of(row))
    return None


@dataclass(frozen=True)
class _List:
    """A list as SQL: the relation that it is of, which of its rows, in which order."""

    collection: Collection
    relation: SqlPart
    chosen: SqlPart
    order: str

    @classmethod
    def of(cls, collection: Collection, selection: Selection, mine: ByGrader | None) -> _List:
        cone = _cone(selection.cone)
        if any(name not in collection.catalogue.schema.names for name in selection.used if name in _MODELS):
            raise BadRequestError("The objects of this collection have no lens models; 'scanner model' makes them.")
        source = Source(SqlPart(LISTED), SqlPart("true"))
        if selection.objects:
            if mine is not None and mine.wanted != "any":
                raise BadRequestError("graded: of the list only, not of all objects; leave one of the two out.")
            source = collection.catalogue.source(None if cone is None else cone.ranges())
        relation = source.relation
        if selection.sort == "random":
            by_chance = f"(md5_number_lower(? || {CANDIDATE_ID_SQL}) >> 1)::BIGINT"
            parameters = (f"{selection.seed} ", *relation.parameters)
            relation = SqlPart(f"(SELECT *, {by_chance} AS {SHUFFLED} FROM {relation.sql})", parameters)
        parts = [source.within, *_conditions(selection), *([] if cone is None else [cone.condition()])]
        chosen = all_of([*parts, *([] if mine is None else [mine.condition])])
        direction = "DESC" if selection.descending else "ASC"
        return cls(collection, relation, chosen, f"{_ordering(selection.column)} {direction}, {', '.join(selection.ties)}")

    def rows(self, behind: SqlPart | None, most: int) -> pa.Table:
        """Its first rows, or the first ones that fulfil a condition."""
        where = self.chosen if behind is None else all_of([self.chosen, behind])
        return self._ask(f"SELECT * FROM {self.relation.sql} WHERE {where.sql} ORDER BY {self.order} LIMIT ?", where, most)

    def count(self, also: SqlPart | None = None) -> int:
        """How many rows it has, or how many that fulfil another condition."""
        where = self.chosen if also is None else all_of([self.chosen, also])
        counted = self._ask(f"SELECT count(*) AS n FROM {self.relation.sql} WHERE {where.sql}", where)
        return int(counted["n"][0].as_py())

    def whole(self, where: SqlPart) -> list[dict[str, Any]]:
        """Rows of the relation, whether or not the list has them."""
        rows: list[dict[str, Any]] = self._ask(f"SELECT * FROM {self.relation.sql} WHERE {where.sql}", where).to_pylist()
        return rows

    def _ask(self, sql: str, where: SqlPart, *more: int) -> pa.Table:
        return self.collection.database.query(sql, (*self.relation.parameters, *where.parameters, *more))


def _cone(text: str | None) -> Cone | None:
    if text is None:
        return None
    try:
        return parse_cone(text)
    except UsageError as error:
        raise BadRequestError(f"cone: {error}") from None


def _conditions(selection: Selection) -> Iterator[SqlPart]:
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
            yield SqlPart(sql, (value,))
    # In DuckDB NaN is larger than any number.
    if selection.min_score is not None:
        yield SqlPart("isfinite(p_calibrated)")
    if selection.min_magnitude is not None:
        yield SqlPart("isfinite(magnitude_vis)")
    if selection.candidates:
        yield SqlPart("is_candidate")
    if selection.verdict is not None:
        yield SqlPart("model_verdict = ?", (selection.verdict,))
    if selection.systems:
        yield SqlPart("system_id = rank")
    if selection.known != "any":
        yield SqlPart("known_name <> ''" if selection.known == "yes" else "known_name = ''")
    if selection.flags is not None:
        yield _flags(selection.flags)


def _flags(wanted: str) -> SqlPart:
    if wanted in ("any", "none"):
        return SqlPart("flags <> 0" if wanted == "any" else "flags = 0")
    if not (wanted.isascii() and wanted.isdigit()) or not 0 < int(wanted) < 2**31:
        raise BadRequestError("flags: give 'any', 'none', or a sum of the bits that docs/catalogue-columns.md lists.")
    return SqlPart("(flags & ?) <> 0", (int(wanted),))


def _is_float(name: str) -> bool:
    return name != SHUFFLED and column(name).dtype in ("float32", "float64")


def _ordering(name: str) -> str:
    """The beginning of an order in which rows whose value is not known come last, in either direction, and are equal."""
    # Not isnan(): DuckDB believes the statistics of Parquet files, which leave NaN out.
    return f"NOT isfinite({name}), if(isfinite({name}), {name}, 0)" if _is_float(name) else name


def _beyond(cursor: Cursor, selection: Selection) -> SqlPart:
    """Rows that come after one."""
    name, value = selection.column, cursor.value
    known = {RANK_COLUMN.name: cursor.rank, **dataclasses.asdict(cursor.last)}
    ties = tuple(known[one] for one in selection.ties)
    behind = f"({', '.join(selection.ties)}) > ({', '.join('?' * len(ties))})"
    if not _is_float(name):
        further = "<" if selection.descending else ">"
        return SqlPart(f"{name} {further} ? OR ({name} = ? AND {behind})", (value, value, *ties))
    if value is None:
        return SqlPart(f"NOT isfinite({name}) AND {behind}", ties)
    # As the column has it: 0.1 in single precision is not 0.1.
    cast = "CAST(? AS FLOAT)" if column(name).dtype == "float32" else "CAST(? AS DOUBLE)"
    further = f"isfinite({name}) AND {name} {'<' if selection.descending else '>'} {cast}"
    return SqlPart(f"NOT isfinite({name}) OR ({further}) OR ({name} = {cast} AND {behind})", (value, value, *ties))


@dataclass(frozen=True)
class Cursor:
    """The last row of a page.

    ``value``: of the column that orders the list, None where it is not known. ``rank``: None in lists that must not show it.
    ``last``: which row it is.
    """

    value: float | None
    rank: int | None
    last: CandidateId

    def text(self, order: str, state: str) -> str:
        """As text; ``order``: how the list is ordered; ``state``: of the collection."""
        # Digits that give the same number again; JSON knows no NaN.
        value = None if self.value is None or not math.isfinite(self.value) else repr(self.value)
        rank = None if self.rank is None else str(self.rank)
        content = json.dumps([_stamp(order, state), value, rank, str(self.last)], separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, order: str, state: str) -> Cursor:
        """Read it.

        Raises
        ------
        BadRequestError
            It is not one of this list.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            stamp, value, rank, last = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            cursor = cls(None if value is None else _number(value), None if rank is None else _whole(rank), _row(last))
        except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BadRequestError("after: not the 'next' of a page; begin with the first page.") from None
        if stamp != _stamp(order, state):
            raise BadRequestError("after: belongs to another order or state of the list; begin with the first page.")
        return cursor


def _number(text: str) -> float:
    """A number; HEALPix indices are whole numbers of more bits than a float has."""
    return _whole(text) if text.removeprefix("-").isdigit() else float(text)


def _whole(text: str) -> int:
    """A whole number of 64 bits."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _row(text: str) -> CandidateId:
    """The name of a row."""
    row = CandidateId.parse(text)
    if row is None:
        raise ValueError(text)
    return row


def _stamp(order: str, state: str) -> str:
    return hashlib.sha256(f"{order}\0{state}".encode()).hexdigest()[:12]


#: Columns whose numbers need all their 64 bits.
TEXT_IDS = frozenset({"target_id", HEALPIX_COLUMN.name})
_TYPES = {
    "bool": "boolean",
    "int32": "integer",
    "int64": "integer",
    "float32": "number",
    "float64": "number",
    "string": "string",
}


def items_of(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON shows them, with their ``id`` where they have what it is made of."""
    columns = {name: _values(name, rows.column(name)) for name in rows.column_names}
    items = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if {"run", "tile_id", "target_id"} <= columns.keys():
        items = [{"id": str(CandidateId.of(item)), **item} for item in items]
    return items


def number(value: float | None) -> float | None:
    """A number as JSON shows it: NaN and infinities are null."""
    return None if value is None or not math.isfinite(value) else value


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if name in TEXT_IDS:
        return [None if value is None else str(value) for value in values]
    if pa.types.is_float32(column.type):
        # The shortest digits that mean this number, not those of its neighbour in double precision.
        return [None if value is None else number(float(str(np.float32(value)))) for value in values]
    if pa.types.is_float64(column.type):
        return [number(value) for value in values]
    return values


def _schema(columns: Sequence[Column], more: Mapping[str, Any], optional: Sequence[Column] = ()) -> dict[str, Any]:
    properties: dict[str, Any] = dict(more)
    for one in (*columns, *optional):
        kind = "string" if one.name in TEXT_IDS else _TYPES[one.dtype]
        described = f"{one.description} [{one.unit}]" if one.unit else one.description
        properties[one.name] = {"type": [kind, "null"], "description": described}
    return {"type": "object", "properties": properties, "required": [*more, *(one.name for one in columns)]}


_OBJECT = {
    "id": {"type": "string", "description": "run/tile_id/target_id: unique wherever objects of several runs meet"},
    "grade": {"type": ["string", "null"], "description": "The grade that the viewer has given it"},
    "withheld": {"type": "boolean", "description": "Whether its scores are null because grading is blind"},
}


def _object(**more: Mapping[str, Any]) -> WithJsonSchema:
    return WithJsonSchema(_schema(CATALOGUE_COLUMNS, _OBJECT | more, MODEL_COLUMNS))


#: One object.
Item = Annotated[dict[str, Any], _object()]
#: One object near another one in the embedding.
Neighbour = Annotated[dict[str, Any], _object(distance={"type": "number", "description": "Distance in the t-SNE map"})]
#: One object and how like it is.
Similar = Annotated[
    dict[str, Any],
    _object(similarity={"type": "number", "description": "Cosine of the angle between feature vectors: 1, the same"}),
]
#: One tile.
TileItem = Annotated[dict[str, Any], WithJsonSchema(_schema(TILE_COLUMNS, {}))]
