"""Which collections there are, and what they are.

In: nothing, or a collection's name. Out: what it holds, what made it, where it is on the sky. Refused: unknown names (404).
"""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter

from scanner.records import Record
from scanner.service.api.answers import ERRORS, Slug
from scanner.service.collections import Collection
from scanner.service.context import Context
from scanner.sphere import unit_vectors

#: The whole sky in square degrees.
SKY_DEG2 = 4 * np.pi * np.degrees(1.0) ** 2


class SkyPosition(Record):
    """Degrees, ICRS."""

    ra: float
    dec: float


class CollectionSummary(Record):
    """One collection.

    ``version`` is a survey's, null for a run. ``area_deg2``: sky that its tiles cover, counted once. ``center`` and
    ``radius_deg``: a circle round all of them, null where no tile is done.
    """

    slug: str
    title: str
    version: int | None
    runs: list[str]
    bundles: list[str]
    n_objects: int
    n_candidates: int
    n_tiles: int
    n_failed: int
    area_deg2: float
    center: SkyPosition | None
    radius_deg: float | None


class CollectionList(Record):
    """All of them, the default one first."""

    collections: list[CollectionSummary]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["collections"], responses=ERRORS)

    @routes.get("/collections", summary="All collections, the default one first")
    async def collections() -> CollectionList:
        return await context.run(lambda: CollectionList(collections=[_summary(one) for one in context.collections]))

    @routes.get("/collections/{slug}", summary="One collection")
    async def collection(slug: Slug) -> CollectionSummary:
        return await context.run(_summary, context.collections.get(slug))

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
        n_objects=collection.n_objects,
        n_candidates=collection.n_candidates,
        n_tiles=len(states),
        n_failed=states.count("failed"),
        area_deg2=round(float(collection.footprint.sky_fraction * SKY_DEG2), 6),
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
