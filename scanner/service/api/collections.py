"""Which collections there are, what they hold, where they lie on the sky, and how their best objects are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import astropy.units as u
import numpy as np
from astropy_healpix import healpix_to_lonlat
from fastapi import APIRouter, Depends, Query

from scanner.catalogue.columns import BEST_OF_EQUALS
from scanner.grading.grade import Viewer
from scanner.records import Int64, Record
from scanner.service.api.listing import SCORES, Neighbour, TileItem, items_of
from scanner.service.collections import LISTED, Collection
from scanner.service.context import ERRORS, Bins, Context, RunId, Slug, TargetId, TileId
from scanner.service.security import viewer
from scanner.sphere import HEALPIX_ORDER, unit_vectors

if TYPE_CHECKING:
    HistogramColumn = str
else:
    HistogramColumn = Literal[("magnitude_vis", *SCORES)]


#: Cells of 52": finer ones would be single objects.
FINEST_ORDER = 12
#: Where the logarithm of a probability begins.
LEAST_PROBABILITY = 1e-6
_FINITE = "isfinite(tsne_x) AND isfinite(tsne_y)"


class SkyPosition(Record):
    """Degrees, ICRS."""

    ra: float
    dec: float


class CollectionSummary(Record):
    """One collection.

    ``version`` is a survey's, null for a run. ``n_listed``: objects that lists show, the best by rank and all
    candidates. ``area_deg2``: sky with good VIS pixels, counted once. ``center`` and
    ``radius_deg``: a circle round all of them, null where no tile is done.
    """

    slug: str
    title: str
    version: int | None
    runs: list[str]
    bundles: list[str]
    n_objects: int
    n_listed: int
    n_candidates: int
    n_tiles: int
    n_failed: int
    area_deg2: float
    center: SkyPosition | None
    radius_deg: float | None


class CollectionList(Record):
    """All of them, the default one first."""

    collections: list[CollectionSummary]


class TilePage(Record):
    """Tiles by run and id; ``next`` is null on the last page."""

    items: list[TileItem]
    next: int | None


class SkyCell(Record):
    """A HEALPix cell's centre in degrees, and the listed objects in it."""

    ra: float
    dec: float
    n: int


class SkyDensity(Record):
    """All cells that hold listed objects; ``order`` of the HEALPix grid: cells have sides of 58.6° / 2^order."""

    order: int
    cells: list[SkyCell]


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

    @routes.get("", tags=["collections"], summary="All collections, the default one first")
    async def collections() -> CollectionList:
        return await context.work.run(lambda: CollectionList(collections=[_summary(one) for one in context.collections]))

    @routes.get("/{slug}", tags=["collections"], summary="One collection")
    async def collection(slug: Slug) -> CollectionSummary:
        return await context.work.run(_summary, context.collections.get(slug))

    @routes.get("/{slug}/tiles", tags=["sky"], summary="Tiles: where they are, what came of them, why some failed")
    async def tiles(
        slug: Slug,
        limit: Annotated[int, Query(ge=1, le=20_000, description="Tiles of a page")] = 10_000,
        after: Annotated[int, Query(ge=0, le=2**40, description="'next' of the page before")] = 0,
    ) -> TilePage:
        rows = context.collections.get(slug).tiles
        items = await context.work.run(lambda: items_of(rows.slice(after, limit)))
        return TilePage(items=items, next=after + limit if after + limit < len(rows) else None)

    @routes.get("/{slug}/sky", tags=["sky"], summary="Listed objects counted in cells of the sky")
    async def sky(
        slug: Slug,
        max_cells: Annotated[int, Query(ge=12, le=20_000, description="The finest grid with no more cells is taken")] = 4000,
    ) -> SkyDensity:
        return await context.work.run(_density, context.collections.get(slug), max_cells)

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


def _summary(collection: Collection) -> CollectionSummary:
    center, radius = _circle(collection)
    states = collection.tiles["state"].to_pylist()
    return CollectionSummary(
        slug=collection.slug,
        title=collection.title,
        version=collection.published.version,
        runs=sorted(collection.published.run_folders),
        bundles=list(collection.published.bundles),
        n_objects=collection.catalogue.n_rows,
        n_listed=collection.n_listed,
        n_candidates=collection.n_candidates,
        n_tiles=len(states),
        n_failed=states.count("failed"),
        area_deg2=round(collection.published.sky_area_deg2, 6),
        center=center,
        radius_deg=radius,
    )


def _circle(collection: Collection) -> tuple[SkyPosition | None, float | None]:
    """A circle round all tiles: their centres, and half a tile's diagonal beyond."""
    ra, dec, area = (collection.tiles[name].to_numpy() for name in ("ra", "dec", "sky_area_deg2"))
    known = np.isfinite(ra)
    if not known.any():
        return None, None
    directions = unit_vectors(ra[known], dec[known])
    x, y, z = middle = directions.mean(axis=0)
    center = SkyPosition(
        ra=round(float(np.degrees(np.arctan2(y, x)) % 360.0), 6), dec=round(float(np.degrees(np.arctan2(z, np.hypot(x, y)))), 6)
    )
    cosines = np.clip(directions @ (middle / max(float(np.linalg.norm(middle)), 1e-12)), -1, 1)
    reach = np.degrees(np.arccos(cosines)) + np.sqrt(area[known] / 2)
    return center, round(min(float(reach.max()), 180.0), 4)


def _density(collection: Collection, max_cells: int) -> SkyDensity:
    counted = collection.database.query(
        f"SELECT _healpix_29 >> ? AS pixel, count(*) AS n FROM {LISTED} GROUP BY pixel ORDER BY pixel",
        (2 * (HEALPIX_ORDER - FINEST_ORDER),),
    )
    pixels: Int64 = np.asarray(counted["pixel"].to_numpy(), dtype=np.int64)
    counts: Int64 = np.asarray(counted["n"].to_numpy(), dtype=np.int64)
    order = FINEST_ORDER
    while len(pixels) > max_cells:
        order -= 1
        pixels, first = np.unique(pixels >> 2, return_index=True)
        counts = np.add.reduceat(counts, first)
    ra, dec = healpix_to_lonlat(pixels, 2**order, order="nested")
    centres = zip(ra.to_value(u.deg), dec.to_value(u.deg), counts, strict=True)
    return SkyDensity(order=order, cells=[SkyCell(ra=round(x, 5), dec=round(y, 5), n=int(n)) for x, y, n in centres])


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
    source = collection.catalogue.source(columns=(column, "is_candidate")).relation
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
