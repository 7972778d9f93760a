"""What a catalogue is asked in Python's words: regions, columns, SQL; and one object, however it is called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
import pyarrow as pa

from scanner.config import StorageConfig
from scanner.errors import InputMissingError, UsageError
from scanner.query import region as regions
from scanner.query.catalogue import Catalogue
from scanner.query.database import time_limit
from scanner.query.region_input import parse_cone, parse_polygon, parse_radius, read_moc
from scanner.query.search import SEPARATION_COLUMN, Search, search
from scanner.query.sql import SqlLimits, run_sql

if TYPE_CHECKING:
    from astropy.coordinates import SkyCoord
    from astropy.table import Row
    from mocpy import MOC

    #: An object: its rank, its name, ``#rank`` or its place as text, where it is, or a row of a table.
    Which: TypeAlias = int | str | SkyCoord | Row
    Cone: TypeAlias = str | tuple[Any, Any] | tuple[Any, Any, Any]

#: Distance within which an object is the one at a position, in arcseconds.
NEAR_ARCSEC = 2.0


class Question(TypedDict, total=False):
    """What :meth:`Opened.query` can be asked.

    ``cone``: ``"150.1 2.2 10arcsec"``, or a position (degrees or :class:`~astropy.coordinates.SkyCoord`) and a radius
    (degrees, :class:`~astropy.units.Quantity` or text). ``polygon``: ``"150 2, 151 2, 151 3"``, pairs of degrees, or a
    SkyCoord of the vertices. ``moc``: a file, or a :class:`mocpy.MOC`. ``name``: a designation, the beginning of one, or the
    name of a known lens. ``candidates``: candidates only. ``min_score``: least ``p_calibrated``. ``top``: most rows.
    ``columns``: which; all by default. ``order``: the column to sort by; with ``-`` before it from high to low. ``sql``: a
    SELECT over the tables ``objects`` and ``candidates``, instead of all but the region. ``max_rows``: refuse larger answers.
    ``seconds``: give up after so long.
    """

    cone: Cone
    polygon: str | Iterable[tuple[float, float]] | SkyCoord
    moc: str | Path | MOC
    name: str
    candidates: bool
    min_score: float
    top: int
    columns: Iterable[str]
    order: str
    sql: str
    max_rows: int
    seconds: float


def answer(catalogue: Catalogue, slug: str, question: Mapping[str, Any], storage: StorageConfig) -> pa.Table:
    """Answer a :class:`Question`.

    Parameters
    ----------
    catalogue, slug
        What is asked, and its name in SQL.
    question
        A :class:`Question`.
    storage
        How the object store of a MOC is reached.

    Raises
    ------
    UsageError
        The question makes no sense, or its answer is too large.
    """
    for name in question.keys() - Question.__annotations__.keys():
        raise UsageError(f"There is no question {name}; there are {', '.join(Question.__annotations__)}.")
    seconds, most = question.get("seconds", 300.0), question.get("max_rows", 1_000_000)
    region = region_of(question.get("cone"), question.get("polygon"), question.get("moc"), storage)
    if question.get("sql") is not None:
        others = question.keys() - {"sql", "cone", "polygon", "moc", "seconds", "max_rows"}
        if others:
            raise UsageError(f"sql says all but the region itself; leave out {', '.join(sorted(others))}.")
        return run_sql({slug: catalogue}, question["sql"], SqlLimits(most, seconds, catalogue.limits), region)
    columns, top = question.get("columns"), question.get("top")
    if columns is None:
        columns = (*catalogue.schema.names, *((SEPARATION_COLUMN.name,) if isinstance(region, regions.Cone) else ()))
    asked = Search(
        region=region,
        min_score=question.get("min_score"),
        top=most + 1 if top is None else min(top, most + 1),
        name=question.get("name"),
        candidates_only=question.get("candidates", False),
        columns=tuple(columns),
        order=question.get("order", "rank"),
    )
    with time_limit(seconds):
        rows = search(catalogue, asked)
    if len(rows) > most:
        raise UsageError(f"More than {most:,} objects were found; ask for less, give top, or raise max_rows.")
    return rows


def find(catalogue: Catalogue, location: str, which: Which) -> pa.Table:
    """The row of one object.

    Parameters
    ----------
    catalogue, location
        Where it is looked for, and how messages call that.
    which
        Rank, name, ``run/tile/target_id``, position, or a row of a table.

    Raises
    ------
    InputMissingError
        There is no such object.
    UsageError
        There are several.
    """
    rank, text = _rank_of(which), str(which)
    other: Any = which
    if rank is not None:
        rows = run_sql({"main": catalogue}, f"SELECT * FROM objects WHERE rank = {rank}")
    elif isinstance(which, str):
        rows = search(catalogue, Search(candidate_id=which) if "/" in which else Search(name=which))
    elif hasattr(which, "icrs"):
        text = f"within {NEAR_ARCSEC:g} arcsec of {other.to_string('hmsdms')}"
        near = regions.Cone(*_cone(which, NEAR_ARCSEC / 3600))
        rows = search(catalogue, Search(region=near, order=SEPARATION_COLUMN.name, top=1))
    else:
        text = "/".join(str(other[name]) for name in ("run", "tile_id", "target_id"))
        rows = search(catalogue, Search(candidate_id=text))
    if not len(rows):
        raise InputMissingError(f"{location}: has no object {text}.")
    if len(rows) > 1:
        ranks = ", ".join(f"#{number}" for number in rows["rank"].to_pylist()[:10])
        raise UsageError(f"{location}: {len(rows)} objects are called {text}; give the rank of one: {ranks}.")
    return rows


def region_of(
    cone: Cone | None, polygon: str | Iterable[tuple[float, float]] | SkyCoord | None, moc: str | Path | MOC | None,
    storage: StorageConfig,
) -> regions.Region | None:  # fmt: skip
    """The part of the sky that is asked for; see :class:`Question`.

    Raises
    ------
    UsageError
        More than one is given, or one that makes no sense.
    """
    if sum(one is not None for one in (cone, polygon, moc)) > 1:
        raise UsageError("Give one of cone, polygon and moc.")
    if cone is not None:
        return parse_cone(cone) if isinstance(cone, str) else regions.Cone(*_cone(*cone))
    if polygon is not None:
        if isinstance(polygon, str):
            return parse_polygon(polygon)
        corners = np.stack([polygon.icrs.ra.deg, polygon.icrs.dec.deg], axis=1) if hasattr(polygon, "icrs") else list(polygon)
        return regions.Polygon(corners)
    if moc is None or isinstance(moc, str | Path):
        return None if moc is None else read_moc(str(moc), storage)
    return regions.MocRegion(moc)


def _cone(*parts: Any) -> tuple[float, float, float]:
    """Right ascension, declination and radius in degrees."""
    *position, radius = parts
    if len(position) == 1:
        position = [position[0].icrs.ra, position[0].icrs.dec]
    if len(position) != 2:
        raise UsageError("A cone is a position and a radius: (ra, dec, radius) in degrees, or (SkyCoord, radius).")
    ra, dec = (_degrees(value) for value in position)
    return ra, dec, parse_radius(radius) if isinstance(radius, str) else _degrees(radius)


def _degrees(value: Any) -> float:
    return float(value.to_value("deg") if hasattr(value, "to_value") else value)


def _rank_of(which: Which) -> int | None:
    if isinstance(which, int | np.integer):
        return int(which)
    text = which.strip().removeprefix("#") if isinstance(which, str) else ""
    return int(text) if text.isdecimal() else None
