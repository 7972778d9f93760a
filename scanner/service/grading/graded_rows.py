"""The rows of today's catalogues that stand for what was graded, maybe in another version of them.

In: graded objects, published runs and surveys. Out: a row of the catalogue for each object that is found. Nothing is refused;
what no catalogue has is left out.

A row is the object's if it was graded under its ``candidate_id``; of several, the last graded one. Where no catalogue has such
a row any more, it is the nearest within :data:`~scanner.service.grading.same_object.RADIUS_ARCSEC` of the last graded one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from scanner.query.catalogue import Catalogue
from scanner.query.region import Cone
from scanner.query.search import SEPARATION_COLUMN, Search, search
from scanner.service.grading.grade import Place
from scanner.service.grading.same_object import RADIUS_ARCSEC
from scanner.survey.published import CATALOGUE, Published


@dataclass(frozen=True)
class GradedRow:
    """A graded object's row: a table of one row of the catalogue's columns, and what it was published in."""

    object: int
    published: Published
    row: pa.Table


def graded_rows(places: Mapping[int, Sequence[Place]], published: Iterable[Published]) -> list[GradedRow]:
    """Find the rows of graded objects.

    Parameters
    ----------
    places
        The rows that were graded, by object, the last graded first.
    published
        Where to look; the first that has the object counts.

    Returns
    -------
    list of GradedRow
        By object.
    """
    found: dict[int, GradedRow] = {}
    for one in published:
        catalogue = Catalogue.open(one.store, one.key(CATALOGUE))
        for number, of_object in places.items():
            row = None if number in found else _row(of_object, catalogue)
            if row is not None:
                found[number] = GradedRow(number, one, row)
    return [found[number] for number in sorted(found)]


def _row(places: Sequence[Place], catalogue: Catalogue) -> pa.Table | None:
    near = [_near(place, catalogue) for place in places]
    for place, rows in zip(places, near, strict=True):
        ids = ["/".join(map(str, row.values())) for row in rows.select(["run", "tile_id", "target_id"]).to_pylist()]
        if place.candidate_id in ids:
            return rows.slice(ids.index(place.candidate_id), 1)
    return near[0].slice(0, 1) if len(near[0]) else None


def _near(place: Place, catalogue: Catalogue) -> pa.Table:
    """What lies about a place, the nearest first."""
    cone = Cone(place.ra, place.dec, RADIUS_ARCSEC / 3600.0)
    return search(catalogue, Search(region=cone, order=SEPARATION_COLUMN.name, columns=tuple(catalogue.schema.names)))
