"""The rows of today's catalogues that stand for what was graded, maybe in another version of them.

In: graded objects, published runs and surveys. Out: a row of the catalogue for each object that is found. Nothing is refused;
what no catalogue has is left out.

A row is the object's if it was graded under its ``candidate_id``; of several, the last graded one. Where no catalogue has such
a row any more, it is the nearest within :data:`~scanner.service.grading.same_object.RADIUS_ARCSEC` of the last graded one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from scanner.query.catalogue import Catalogue
from scanner.query.region import Cone
from scanner.service.grading.grade import Place
from scanner.service.grading.same_object import RADIUS_ARCSEC
from scanner.sphere import unit_vectors
from scanner.survey.merged.opening import CATALOGUE, Published


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
    rows, place = near[0], places[0]
    if not len(rows):
        return None
    here = unit_vectors(np.array([place.ra]), np.array([place.dec]))
    distance = np.linalg.norm(unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy()) - here, axis=1)
    return rows.slice(int(np.argmin(distance)), 1)


def _near(place: Place, catalogue: Catalogue) -> pa.Table:
    cone = Cone(place.ra, place.dec, RADIUS_ARCSEC / 3600.0)
    files, condition = [str(file) for file in catalogue.files(cone.ranges())], cone.condition()
    connection = catalogue.connection()
    try:
        rows: pa.Table = connection.sql(
            f"SELECT * FROM read_parquet(?, hive_partitioning=false) WHERE {condition.sql}",
            params=[files, *condition.parameters],
        ).to_arrow_table()
        return rows.cast(catalogue.schema)
    finally:
        connection.close()
