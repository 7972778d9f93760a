"""The sky that was scanned, as a multi-order coverage map (MOC 2.0): ``/moc`` and ``/moc/{slug}``."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from scanner.service.collections import Collection
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotAcceptableError
from scanner.service.routing import (
    ERRORS,
    Parameters,
    QueryParameter,
    Slug,
    add_routes,
    conditional,
    found,
    is_whole_number,
)
from scanner.sphere import HEALPIX_ORDER

if TYPE_CHECKING:
    from mocpy import MOC

#: The first one is that of clients that do not care.
MEDIA_TYPES = {"fits": "application/fits", "json": "application/json", "ascii": "text/plain"}
#: Other names of the same.
_ALIASES = {"image/fits": "fits", "application/x-fits": "fits", "txt": "ascii", "text": "ascii"}
#: Surveys grow while they are served.
MAX_AGE_S = 300


def router(context: Context) -> APIRouter:
    """The routes, for GET and HEAD."""
    routes = APIRouter(tags=["Virtual Observatory"], responses=ERRORS)

    async def default_moc(request: Request) -> Response:
        return await answer(request, context.collections.default)

    async def moc(request: Request, slug: Slug) -> Response:
        return await answer(request, context.collections.get(slug))

    async def answer(request: Request, collection: Collection) -> Response:
        parameters = await Parameters.of(request)
        wanted = parameters.one("FORMAT", "RESPONSEFORMAT")
        name = _named(wanted) if wanted is not None else negotiated(request.headers.get("accept", "*/*"))
        content = await context.work.run(_content, collection, name, _order(parameters.one("ORDER")))
        suffix = {"ascii": "txt"}.get(name, name)
        return conditional(
            request, content, MEDIA_TYPES[name], max_age_s=MAX_AGE_S, filename=f"{collection.slug}.moc.{suffix}", vary="Accept"
        )

    for path, handler, whose in (("/moc", default_moc, "the first collection"), ("/moc/{slug}", moc, "one collection")):
        add_routes(
            routes,
            path,
            handler,
            QueryParameter("FORMAT", f"{', '.join(MEDIA_TYPES)} [default: as the Accept header asks, else fits]."),
            QueryParameter(
                "ORDER", f"Coarsest cells, 0 to {HEALPIX_ORDER} [default: as scanned].", "integer",
                schema=(("minimum", 0), ("maximum", HEALPIX_ORDER)),
            ),
            summary=f"Sky that was scanned: coverage map of {whose}",
            responses=found(*MEDIA_TYPES.values(), _304="You have it"),
            posted=False,
        )  # fmt: skip
    return routes


def negotiated(accept: str) -> str:
    """The format that an Accept header likes best.

    Raises
    ------
    NotAcceptableError
        It rules out all of them.
    """
    ranked: list[tuple[float, int, str]] = []
    for number, part in enumerate(accept.split(",")):
        media_type, *options = (piece.strip().lower() for piece in part.split(";"))
        quality = next((option[2:] for option in options if option.startswith("q=")), "1")
        try:
            weight = float(quality)
        except ValueError:
            weight = 1.0
        if weight <= 0:
            continue
        for name, own in MEDIA_TYPES.items():
            if media_type in ("*/*", own, f"{own.partition('/')[0]}/*") or _ALIASES.get(media_type) == name:
                ranked.append((-weight, number, name))
                break
    if not ranked:
        raise NotAcceptableError(f"There is no such format; accept one of {', '.join(MEDIA_TYPES.values())}.")
    return min(ranked)[2]


def _named(value: str) -> str:
    wanted = value.lower().partition(";")[0].strip()
    for name, media_type in MEDIA_TYPES.items():
        if wanted in (name, media_type) or _ALIASES.get(wanted) == name:
            return name
    raise BadRequestError(f"FORMAT={value}: is none of {', '.join(MEDIA_TYPES)}.")


def _order(value: str | None) -> int | None:
    if value is None:
        return None
    if not (is_whole_number(value, 2) and int(value) <= HEALPIX_ORDER):
        raise BadRequestError(f"ORDER={value}: is no whole number from 0 to {HEALPIX_ORDER}.")
    return int(value)


def _content(collection: Collection, name: str, order: int | None) -> bytes:
    if name == "fits" and order is None:
        return collection.footprint_fits()
    moc: MOC = collection.footprint
    if order is not None and order < moc.max_order:
        moc = moc.degrade_to_order(order)
    if name == "fits":
        stream = io.BytesIO()
        moc.serialize(format="fits").writeto(stream)
        return stream.getvalue()
    if name == "json":
        return json.dumps(moc.serialize(format="json"), separators=(",", ":")).encode()
    return str(moc.serialize(format="str")).encode()
