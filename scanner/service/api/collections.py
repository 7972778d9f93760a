"""Which collections there are, what they hold, and where on the sky their tiles and best objects are."""

from __future__ import annotations

from typing import Annotated

import astropy.units as u
import numpy as np
from astropy_healpix import healpix_to_lonlat
from fastapi import APIRouter, Query

from scanner.records import Int64, Record
from scanner.service.api.listing import TileItem, items_of
from scanner.service.collections import LISTED, Collection
from scanner.service.context import Context
from scanner.service.routing import ERRORS, Slug
from scanner.sphere import HEALPIX_ORDER, unit_vectors

#: Cells of 52": finer ones would be single objects.
FINEST_ORDER = 12


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
