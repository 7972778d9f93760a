"""What a catalogue is asked without SQL: a region, a score, a name, the best so many.

In: an open catalogue and a :class:`Search`. Out: a table, whose fields keep unit, description and UCD, or a number of rows. A
region is looked for in the files, and the parts of files, that its HEALPix ranges touch; a full designation (``EUCL J…``) tells
its place. Refused (:class:`~scanner.errors.UsageError`): columns that there are not, orders and ids that make no sense.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow as pa

from scanner.catalogue.columns import BEST_OF_EQUALS, NAME_COLUMN, RANK_COLUMN, Column
from scanner.errors import UsageError
from scanner.query.catalogue import Catalogue, Source
from scanner.query.database import watching
from scanner.query.region import Condition, Cone, Region, all_of
from scanner.sphere import PREFIX, place_of_designation

SEPARATION_COLUMN = Column("separation", "float64", "arcsec", "Distance from the centre of the search", "pos.angDistance")
_DESIGNATION = re.compile(r"(?:EUCL\s*)?J(\d{2})(\d{2})(\d{2}\.\d{2})([+-])(\d{2})(\d{2})(\d{2}\.\d)", re.IGNORECASE)
# Designations are truncated, by up to 0.15″ and 0.1″.
_DESIGNATION_RADIUS_DEG = 0.5 / 3600


@dataclass(frozen=True)
class Search:
    """A question; what is None or empty is not asked.

    ``region``: where. ``min_score``: least ``p_calibrated``. ``top``: most rows. ``name``: a designation, the beginning of one,
    or the name of a lens that was known before. ``candidate_id``: ``run/tile_id/target_id``. ``candidates_only``: those with
    ``is_candidate``. ``columns``: which, in this order; all by default, and ``separation`` (arcsec) if the region is a cone.
    ``order``: the column to sort by, from low to high, or with ``-`` before it from high to low; what is not known comes last.
    """

    region: Region | None = None
    min_score: float | None = None
    top: int | None = None
    name: str | None = None
    candidate_id: str | None = None
    candidates_only: bool = False
    columns: tuple[str, ...] | None = None
    order: str = RANK_COLUMN.name


def search(catalogue: Catalogue, question: Search) -> pa.Table:
    """Find objects.

    Returns
    -------
    pyarrow.Table
        The objects, in the order that was asked for.

    Raises
    ------
    UsageError
        The question makes no sense for this catalogue.
    """
    fields = _fields(catalogue, question)
    source, where = _asked(catalogue, question)
    order = _order(catalogue, question)
    shown = [_expression(field.name, question) for field in fields]
    sql = f"SELECT {', '.join(one.sql for one in shown)} FROM {source.relation.sql} WHERE {where.sql} ORDER BY {order.sql}"
    parameters = [value for part in (*shown, source.relation, where, order) for value in part.parameters]
    if question.top is not None:
        sql, parameters = f"{sql} LIMIT ?", [*parameters, question.top]
    connection = catalogue.connection()
    with watching(connection):
        return connection.sql(sql, params=parameters).to_arrow_table().cast(pa.schema(fields))


def count(catalogue: Catalogue, question: Search) -> int:
    """Number of objects that a search would find without ``top``."""
    source, where = _asked(catalogue, replace(question, top=None))
    connection = catalogue.connection()
    with watching(connection):
        rows = connection.execute(
            f"SELECT count(*) FROM {source.relation.sql} WHERE {where.sql}", [*source.relation.parameters, *where.parameters]
        ).fetchone()
    return int(rows[0]) if rows is not None else 0


def unknown_column(name: str, known: Iterable[str]) -> UsageError:
    """Say that there is no such column, and which one may have been meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
    return UsageError(f'There is no column "{name}"; {hint}')


def _asked(catalogue: Catalogue, question: Search) -> tuple[Source, Condition]:
    """Where the rows are looked for, and which of them are meant."""
    conditions: list[Condition] = []
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
    if question.min_score is not None:
        # To the database, what is not a number is larger than any; isnan() does not see it in Parquet files.
        conditions.append(Condition("isfinite(p_calibrated) AND p_calibrated >= ?::FLOAT", (question.min_score,)))
    if question.candidates_only:
        conditions.append(Condition("is_candidate"))
    if question.top is not None and not conditions and question.order == RANK_COLUMN.name:
        # Ranks go from 1 without gaps: the files' statistics tell where the first are.
        conditions.append(Condition(f"{RANK_COLUMN.name} <= ?", (question.top,)))
    source = catalogue.source(None if region is None else region.ranges())
    return source, all_of([source.within, *conditions])


def _named(name: str) -> tuple[Region | None, Condition]:
    """Where an object of this name lies, if that can be told, and the condition that it is the one."""
    text = " ".join(name.split())
    if not text:
        raise UsageError("An empty name was given; write a designation such as 'EUCL J100024.00+021200.0'.")
    match = _DESIGNATION.fullmatch(text)
    if match is None:
        start = text if text.upper().startswith(PREFIX) else f"{PREFIX} {text}"
        return None, Condition(f"starts_with({NAME_COLUMN.name}, ?) OR lower(known_name) = lower(?)", (start.upper(), text))
    digits = match.groups()
    cone = Cone(*place_of_designation(*digits), _DESIGNATION_RADIUS_DEG)
    return cone, Condition(f"{NAME_COLUMN.name} = ?", (f"{PREFIX} J{''.join(digits)}",))


def _identified(candidate_id: str) -> Condition:
    run, _, rest = candidate_id.partition("/")
    tile, _, target = rest.rpartition("/")
    if not (run and tile and re.fullmatch(r"-?\d{1,19}", target)) or abs(int(target)) >= 2**63:
        raise UsageError(f'"{candidate_id[:80]}" is no id of an object; write run/tile_id/target_id.')
    return Condition("run = ? AND tile_id = ? AND target_id = ?", (run, tile, int(target)))


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


def _expression(name: str, question: Search) -> Condition:
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return Condition(f"{separation.sql} AS {name}", separation.parameters)
    return Condition(f'"{name}"')


def _order(catalogue: Catalogue, question: Search) -> Condition:
    name = question.order.removeprefix("-")
    direction = "DESC" if question.order.startswith("-") else "ASC"
    ties = ", ".join(BEST_OF_EQUALS)
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return Condition(f"{separation.sql} {direction}, {ties}", separation.parameters)
    if name not in catalogue.schema.names:
        raise unknown_column(name, catalogue.schema.names)
    unknown = f'NOT isfinite("{name}"), ' if pa.types.is_floating(catalogue.schema.field(name).type) else ""
    return Condition(f'{unknown}"{name}" {direction}, {ties}')
