"""How the best objects spread over the t-SNE map, candidates over a column's values, and what lies near on the map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query

from scanner.catalogue.columns import BEST_OF_EQUALS
from scanner.grading.grade import Viewer
from scanner.records import Record
from scanner.service.api.listing import SCORES, Neighbour, items_of
from scanner.service.collections import LISTED, Collection
from scanner.service.context import Context
from scanner.service.routing import ERRORS, Bins, RunId, Slug, TargetId, TileId
from scanner.service.security.viewer import viewer

if TYPE_CHECKING:
    HistogramColumn = str
else:
    HistogramColumn = Literal[("magnitude_vis", *SCORES)]
#: Where the logarithm of a probability begins.
LEAST_PROBABILITY = 1e-6
_FINITE = "isfinite(tsne_x) AND isfinite(tsne_y)"


class NeighbourList(Record):
    """Listed objects, the nearest on the map first; ``distance`` is in its units."""

    items: list[Neighbour]


class EmbeddingMap(Record):
    """Listed objects on a grid of ``n_x`` by ``n_y`` cells, x fastest; ``grid_value``: a cell's mean, null in an empty one."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    n_x: int
    n_y: int
    counts: list[int]
    grid_value: list[float | None]


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
    routes = APIRouter(prefix="/api/v1/collections", responses=ERRORS)

    @routes.get(
        "/{slug}/candidates/{run}/{tile_id}/{target_id}/neighbours",
        tags=["embedding"],
        summary="The nearest of the listed objects on the t-SNE map",
    )
    async def neighbours(
        slug: Slug,
        run: RunId,
        tile_id: TileId,
        target_id: TargetId,
        who: Annotated[Viewer, Depends(viewer)],
        limit: Annotated[int, Query(ge=1, le=200, description="How many")] = 24,
    ) -> NeighbourList:
        collection = context.collections.get(slug)
        items = await context.work.run(_neighbours, collection, f"{run}/{tile_id}/{target_id}", limit)
        return NeighbourList(items=await context.work.run(context.blindness.hide_scores, who, items))

    @routes.get("/{slug}/tsne", tags=["embedding"], summary="Listed objects on the t-SNE map, counted in cells")
    async def tsne(slug: Slug, bins: Bins = 80) -> EmbeddingMap:
        return await context.work.run(_map, context.collections.get(slug), bins)

    @routes.get("/{slug}/histogram", tags=["statistics"], summary="Histogram of a column, of all objects and of candidates")
    async def histogram(
        slug: Slug,
        column: Annotated[HistogramColumn, Query(description="Column")] = "p_calibrated",
        bins: Bins = 50,
        scale: Annotated[Literal["linear", "log"], Query(description="Of the edges; log for probabilities only")] = "linear",
    ) -> Histogram:
        collection = context.collections.get(slug)
        return await context.work.run(_histogram, collection, column, bins, scale == "log" and column != "magnitude_vis")

    return routes


def _neighbours(collection: Collection, candidate_id: str, limit: int) -> list[dict[str, Any]]:
    (centre,) = collection.find(candidate_id).select(["tsne_x", "tsne_y", "rank"]).to_pylist()
    rows = collection.database.query(
        f"SELECT *, sqrt(pow(tsne_x::DOUBLE - ?, 2) + pow(tsne_y::DOUBLE - ?, 2)) AS distance FROM {LISTED} "
        f"WHERE {_FINITE} AND isfinite(?::DOUBLE) AND isfinite(?::DOUBLE) AND rank <> ? "
        f"ORDER BY distance, {', '.join(BEST_OF_EQUALS)} LIMIT ?",
        (*[centre["tsne_x"], centre["tsne_y"]] * 2, centre["rank"], limit),
    )
    return items_of(rows)


def _map(collection: Collection, bins: int) -> EmbeddingMap:
    (box,) = collection.database.query(
        f"SELECT min(tsne_x)::DOUBLE AS x_min, max(tsne_x)::DOUBLE AS x_max, min(tsne_y)::DOUBLE AS y_min, "
        f"max(tsne_y)::DOUBLE AS y_max FROM {LISTED} WHERE {_FINITE}"
    ).to_pylist()
    if box["x_min"] is None:
        return EmbeddingMap(x_min=0, x_max=0, y_min=0, y_max=0, n_x=0, n_y=0, counts=[], grid_value=[])
    x_step, y_step = ((box[f"{axis}_max"] - box[f"{axis}_min"]) / bins or 1.0 for axis in "xy")
    cells = collection.database.query(
        f"SELECT least(floor((tsne_y - ?) / ?), ?)::BIGINT * ? + least(floor((tsne_x - ?) / ?), ?)::BIGINT AS cell, "
        f"count(*) AS n, avg(grid_value) FILTER (isfinite(grid_value)) AS value "
        f"FROM {LISTED} WHERE {_FINITE} GROUP BY cell",
        (box["y_min"], y_step, bins - 1, bins, box["x_min"], x_step, bins - 1),
    )
    counts: list[int] = [0] * (bins * bins)
    values: list[float | None] = [None] * (bins * bins)
    for cell, n, value in zip(*(cells[name].to_pylist() for name in ("cell", "n", "value")), strict=True):
        counts[cell], values[cell] = n, value
    return EmbeddingMap(**box, n_x=bins, n_y=bins, counts=counts, grid_value=values)


def _histogram(collection: Collection, column: HistogramColumn, bins: int, logarithmic: bool) -> Histogram:
    source = collection.catalogue.source().relation
    low, high = (LEAST_PROBABILITY if logarithmic else 0.0), 1.0
    if column == "magnitude_vis":
        (box,) = collection.database.query(
            f"SELECT min({column})::DOUBLE AS low, max({column})::DOUBLE AS high FROM {source.sql} WHERE isfinite({column})",
            source.parameters,
        ).to_pylist()
        if box["low"] is not None:
            low, high = float(np.floor(box["low"])), float(np.floor(box["high"]) + 1)
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    value = f"ln(greatest({column}::DOUBLE, ?)) - ln(?)" if logarithmic else f"greatest({column}::DOUBLE, ?) - ?"
    width = (np.log(high / low) if logarithmic else high - low) / bins
    counted = collection.database.query(
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
