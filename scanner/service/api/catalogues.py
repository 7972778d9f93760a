"""Which collections there are.

In: nothing, or a collection's name. Out: what it holds and where it is on the sky. Refused: unknown names (404).
"""

from __future__ import annotations

from fastapi import APIRouter

from scanner.records import Record
from scanner.service.context import Context


class CollectionSummary(Record):
    """One collection; ``version`` is a survey's, null for a run."""

    slug: str
    title: str
    version: int | None
    n_objects: int
    n_candidates: int


class CollectionList(Record):
    """All of them, the default one first."""

    collections: list[CollectionSummary]


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["collections"])

    @routes.get("/collections", summary="All collections, the default one first")
    async def collections() -> CollectionList:
        return CollectionList(
            collections=[
                CollectionSummary(
                    slug=one.slug,
                    title=one.title,
                    version=one.published.version,
                    n_objects=one.n_objects,
                    n_candidates=one.n_candidates,
                )
                for one in context.collections
            ]
        )

    return routes
