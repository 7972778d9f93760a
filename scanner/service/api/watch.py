"""What watches the service asks: does it run, can it answer, what did it do.

In: nothing. Out: ``/healthz``, ``/readyz`` for orchestrators and ``/metrics`` for Prometheus. Refused: ``/readyz`` while a
collection is not open (503).
"""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from scanner.records import Record
from scanner.service.context import Context
from scanner.service.errors import BusyError


class State(Record):
    """How the service is."""

    status: str


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["watch"])

    @routes.get("/healthz", summary="Whether the service runs")
    async def health() -> State:
        return State(status="ok")

    @routes.get("/readyz", summary="Whether every collection is open", responses={503: {"description": "Not yet"}})
    async def ready() -> State:
        if not context.collections.is_ready:
            raise BusyError("Not every collection is open.", {"Retry-After": "2"})
        return State(status="ready")

    @routes.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes
