"""How a column's values spread, for all objects and for candidates.

In: a column, a number of bins, a scale. Out: edges and counts; with the sum of the candidates' values in each bin, which for a
calibrated probability is how many of them are expected to be lenses. Refused: nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query

from scanner.records import Record
from scanner.service.api.answers import ERRORS, Bins, Slug
from scanner.service.api.listing import ScoreColumn
from scanner.service.collections import Collection
from scanner.service.context import Context

HistogramColumn = Literal["magnitude_vis", ScoreColumn]
#: Where the logarithm of a probability begins.
LEAST_PROBABILITY = 1e-6


class Histogram(Record):
    """``edges`` (bins + 1), ascending; what lies outside is counted in the bin at that end, what is not known in none.

    ``objects``, ``candidates``: how many in each bin; ``candidate_sum``: the sum of the candidates' values.
    """

    edges: list[float]
    objects: list[int]
    candidates: list[int]
    candidate_sum: list[float]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/collections", tags=["statistics"], responses=ERRORS)

    @routes.get("/{slug}/histogram", summary="Histogram of a column, of all objects and of candidates")
    async def histogram(
        slug: Slug,
        column: Annotated[HistogramColumn, Query(description="Column")] = "p_calibrated",
        bins: Bins = 50,
        scale: Annotated[Literal["linear", "log"], Query(description="Of the edges; log for probabilities only")] = "linear",
    ) -> Histogram:
        collection = context.collections.get(slug)
        return await context.run(_histogram, collection, column, bins, scale == "log" and column != "magnitude_vis")

    return routes


def _histogram(collection: Collection, column: HistogramColumn, bins: int, logarithmic: bool) -> Histogram:
    source = collection.catalogue.source().relation
    low, high = (LEAST_PROBABILITY if logarithmic else 0.0), 1.0
    if column == "magnitude_vis":
        (box,) = collection.query(
            f"SELECT min({column})::DOUBLE AS low, max({column})::DOUBLE AS high FROM {source.sql} WHERE isfinite({column})",
            source.parameters,
        ).to_pylist()
        if box["low"] is not None:
            low, high = float(np.floor(box["low"])), float(np.floor(box["high"]) + 1)
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    value = f"ln(greatest({column}::DOUBLE, ?)) - ln(?)" if logarithmic else f"greatest({column}::DOUBLE, ?) - ?"
    width = (np.log(high / low) if logarithmic else high - low) / bins
    counted = collection.query(
        f"SELECT least(floor(({value}) / ?), ?)::BIGINT AS bin, count(*) AS objects, "
        f"count(*) FILTER (is_candidate) AS candidates, coalesce(sum({column}::DOUBLE) FILTER (is_candidate), 0) AS total "
        f"FROM {source.sql} WHERE isfinite({column}) GROUP BY bin ORDER BY bin",
        (low, low, width, bins - 1, *source.parameters),
    )
    objects, candidates, total = [0] * bins, [0] * bins, [0.0] * bins
    for row in counted.to_pylist():
        place = row["bin"]
        objects[place], candidates[place], total[place] = row["objects"], row["candidates"], row["total"]
    return Histogram(edges=edges.tolist(), objects=objects, candidates=candidates, candidate_sum=total)
