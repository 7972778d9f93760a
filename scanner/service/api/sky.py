"""Where on the sky: the tiles, and how many candidates lie where.

In: a collection. Out: its tiles, a page at a time; candidates counted in HEALPix cells, as fine as fits. Refused: nothing.
"""

from __future__ import annotations

from typing import Annotated

import astropy.units as u
import numpy as np
from astropy_healpix import healpix_to_lonlat
from fastapi import APIRouter, Query

from scanner.records import Int64, Record
from scanner.service.api.answers import ERRORS, Slug
from scanner.service.api.rows import TileItem, items_of
from scanner.service.collections import CANDIDATES, Collection
from scanner.service.context import Context
from scanner.sphere import HEALPIX_ORDER

#: Cells of 52": finer ones would be single candidates.
FINEST_ORDER = 12


class TilePage(Record):
    """Tiles by run and id; ``next`` is null on the last page."""

    items: list[TileItem]
    next: int | None


class SkyCell(Record):
    """A HEALPix cell's centre in degrees, and the candidates in it."""

    ra: float
    dec: float
    n: int


class SkyDensity(Record):
    """All cells that hold candidates; ``order`` of the HEALPix grid: cells have sides of 58.6° / 2^order."""

    order: int
    cells: list[SkyCell]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1/collections", tags=["sky"], responses=ERRORS)

    @routes.get("/{slug}/tiles", summary="Tiles: where they are, what came of them, why some failed")
    async def tiles(
        slug: Slug,
        limit: Annotated[int, Query(ge=1, le=20_000, description="Tiles of a page")] = 10_000,
        after: Annotated[int, Query(ge=0, le=2**40, description="'next' of the page before")] = 0,
    ) -> TilePage:
        rows = context.collections.get(slug).tiles
        items = await context.run(lambda: items_of(rows.slice(after, limit)))
        return TilePage(items=items, next=after + limit if after + limit < len(rows) else None)

    @routes.get("/{slug}/sky", summary="Candidates counted in cells of the sky")
    async def sky(
        slug: Slug,
        max_cells: Annotated[int, Query(ge=12, le=20_000, description="The finest grid with no more cells is taken")] = 4000,
    ) -> SkyDensity:
        return await context.run(_density, context.collections.get(slug), max_cells)

    return routes


def _density(collection: Collection, max_cells: int) -> SkyDensity:
    counted = collection.query(
        f"SELECT _healpix_29 >> ? AS pixel, count(*) AS n FROM {CANDIDATES} GROUP BY pixel ORDER BY pixel",
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
