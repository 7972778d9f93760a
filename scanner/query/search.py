"""Search of a catalogue without SQL: by region, score, rank, name or id; and what names a single object."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from scanner.catalogue.columns import BEST_OF_EQUALS, NAME_COLUMN, RANK_COLUMN, Column
from scanner.errors import UsageError
from scanner.query.catalogue import Catalogue, Source
from scanner.query.region import Cone, Region, SqlPart, all_of
from scanner.records import TILE_ID_PATTERN
from scanner.sphere import PREFIX, parse_designation

SEPARATION_COLUMN = Column("separation", "float64", "arcsec", "Distance from the centre of the search", "pos.angDistance")
# Designations are truncated, by up to 0.15″ and 0.1″.
_DESIGNATION_RADIUS_DEG = 0.5 / 3600
#: As numbers are written: another way of writing one would name the same object differently.
TARGET_ID_PATTERN = r"^(?:0|-?[1-9][0-9]{0,18})$"
_CANDIDATE_ID = re.compile(
    rf"(?P<run>[^/\x00-\x1f\x7f]{{1,300}})/(?P<tile_id>{TILE_ID_PATTERN.strip('^$')})/(?P<target_id>{TARGET_ID_PATTERN.strip('^$')})"
)

#: SQL of the text of a row's id.
CANDIDATE_ID_SQL = "run || '/' || tile_id || '/' || target_id::VARCHAR"


@dataclass(frozen=True)
class CandidateId:
    """Which object: the run that scored it, its tile, and its id there; ``run/tile_id/target_id`` is unique among all runs."""

    run: str
    tile_id: str
    target_id: int

    def __str__(self) -> str:
        return f"{self.run}/{self.tile_id}/{self.target_id}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CandidateId:
        """The id of a row of a catalogue."""
        return cls(str(row["run"]), str(row["tile_id"]), int(row["target_id"]))

    @classmethod
    def parse(cls, text: str) -> CandidateId | None:
        """Read an id; None where the text is none."""
        match = _CANDIDATE_ID.fullmatch(text)
        if match is None or not -(2**63) <= int(match["target_id"]) < 2**63:
            return None
        return cls(match["run"], match["tile_id"], int(match["target_id"]))

    @property
    def condition(self) -> SqlPart:
        """That a row is this object's."""
        return SqlPart("run = ? AND tile_id = ? AND target_id = ?", (self.run, self.tile_id, self.target_id))


@dataclass(frozen=True)
class Search:
    """What is wanted; None: any.

    ``min_score``: least ``p_calibrated``. ``top``: most rows. ``name``: a designation, the beginning of one, or the name of a
    known lens. ``candidate_id``: ``run/tile_id/target_id``. ``candidates_only``: those with ``is_candidate``. ``columns``: by
    default all, and ``separation`` (arcsec) where the region is a cone. ``order``: the column to sort by, from low to high, or
    with ``-`` before it from high to low; unknown values come last.
    """

    region: Region | None = None
    min_score: float | None = None
    top: int | None = None
    name: str | None = None
    candidate_id: str | None = None
    rank: int | None = None
    candidates_only: bool = False
    columns: tuple[str, ...] | None = None
    order: str = RANK_COLUMN.name


def search(catalogue: Catalogue, question: Search) -> pa.Table:
    """Find objects.

    Returns
    -------
    pyarrow.Table
        The objects, in the order that was asked for; fields keep unit, description and UCD.

    Raises
    ------
    UsageError
        There are no such columns, or the name, id or order makes no sense.
    """
    fields = _fields(catalogue, question)
    source, where = _asked(catalogue, question, {field.name for field in fields} - {SEPARATION_COLUMN.name})
    order = _order(catalogue, question)
    shown = [_expression(field.name, question) for field in fields]
    sql = f"SELECT {', '.join(one.sql for one in shown)} FROM {source.relation.sql} WHERE {where.sql} ORDER BY {order.sql}"
    parameters = [value for part in (*shown, source.relation, where, order) for value in part.parameters]
    if question.top is not None:
        sql, parameters = f"{sql} LIMIT ?", [*parameters, question.top]
    return catalogue.query(sql, parameters).cast(pa.schema(fields))


def count(catalogue: Catalogue, question: Search) -> int:
    """Number of objects that a search would find without ``top``."""
    source, where = _asked(catalogue, replace(question, top=None), ())
    sql = f"SELECT count(*) AS n FROM {source.relation.sql} WHERE {where.sql}"
    return int(catalogue.query(sql, (*source.relation.parameters, *where.parameters))["n"][0].as_py())


def unknown_column(name: str, known: Iterable[str]) -> UsageError:
    """Say that there is no such column, and which one may have been meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
    return UsageError(f'There is no column "{name}"; {hint}')


def _asked(catalogue: Catalogue, question: Search, columns: Iterable[str]) -> tuple[Source, SqlPart]:
    """Where the rows are looked for, of which some columns are shown, and which of them are meant."""
    conditions: list[SqlPart] = []
    region = question.region
    if question.name is not None:
        place, named = _named(question.name)
        conditions.append(named)
        if region is not None:
            conditions.append(region.condition())
        region = place or region
    elif region is not None:
        conditions.append(region.condition())
    if question.candidate_id is not None:
        conditions.append(_identified(question.candidate_id))
    if question.rank is not None:
        conditions.append(SqlPart(f"{RANK_COLUMN.name} = ?", (question.rank,)))
    if question.min_score is not None:
        # To DuckDB NaN is larger than any number, and isnan() does not see it in Parquet files.
        conditions.append(SqlPart("isfinite(p_calibrated) AND p_calibrated >= ?::FLOAT", (question.min_score,)))
    if question.candidates_only:
        conditions.append(SqlPart("is_candidate"))
    if question.top is not None and not conditions and question.order == RANK_COLUMN.name:
        # Ranks go from 1 without gaps, so the files' statistics lead to the first ones.
        conditions.append(SqlPart(f"{RANK_COLUMN.name} <= ?", (question.top,)))
    order = question.order.removeprefix("-")
    read = {*columns, *((order,) if order in catalogue.schema.names else ())}
    source = catalogue.source(None if region is None else region.ranges(), read)
    return source, all_of([source.within, *conditions])


def _named(name: str) -> tuple[Region | None, SqlPart]:
    """Where an object of this name lies, if it is a full designation, and the condition that a row has the name."""
    text = " ".join(name.split())
    if not text:
        raise UsageError(f"An empty name was given; write a designation such as '{PREFIX} J100024.00+021200.0'.")
    designation = parse_designation(text)
    if designation is None:
        beginning = f"(starts_with({NAME_COLUMN.name}, ?) OR contains({NAME_COLUMN.name}, ?))"
        return None, SqlPart(f"{beginning} OR lower(known_name) = lower(?)", (text.upper(), f" {text.upper()}", text))
    full_name, ra, dec = designation
    return Cone(ra, dec, _DESIGNATION_RADIUS_DEG), SqlPart(
        f"({NAME_COLUMN.name} = ? OR ends_with({NAME_COLUMN.name}, ?))", (full_name, f" {full_name}")
    )


def _identified(candidate_id: str) -> SqlPart:
    wanted = CandidateId.parse(candidate_id)
    if wanted is None:
        raise UsageError(f'"{candidate_id[:80]}" is no id of an object; write run/tile_id/target_id.')
    return wanted.condition


def _fields(catalogue: Catalogue, question: Search) -> list[pa.Field]:
    known = {field.name: field for field in catalogue.schema}
    if isinstance(question.region, Cone):
        known[SEPARATION_COLUMN.name] = SEPARATION_COLUMN.field()
    wanted = catalogue.schema.names if question.columns is None else question.columns
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError("Name at least one column, and each only once.")
    for name in wanted:
        if name not in known:
            raise unknown_column(name, known)
    return [known[name] for name in wanted]


def _expression(name: str, question: Search) -> SqlPart:
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return SqlPart(f"{separation.sql} AS {name}", separation.parameters)
    return SqlPart(f'"{name}"')


def _order(catalogue: Catalogue, question: Search) -> SqlPart:
    name = question.order.removeprefix("-")
    direction = "DESC" if question.order.startswith("-") else "ASC"
    ties = ", ".join(BEST_OF_EQUALS)
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return SqlPart(f"{separation.sql} {direction}, {ties}", separation.parameters)
    if name not in catalogue.schema.names:
        raise unknown_column(name, catalogue.schema.names)
    unknown = f'NOT isfinite("{name}"), ' if pa.types.is_floating(catalogue.schema.field(name).type) else ""
    return SqlPart(f'{unknown}"{name}" {direction}, {ties}')
