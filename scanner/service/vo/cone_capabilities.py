"""What the cone search says of itself: ``/scs/capabilities`` and ``/scs/availability``.

In: the service's root and its collections. Out: VOSI documents: a capability for each collection, the first one's also
under its short address. Refused: nothing.

Source: VOSI 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from scanner.service.context import Context
from scanner.service.vo import vosi, votable
from scanner.service.vo.markup import text
from scanner.service.vo.openapi import add_routes, answers

STANDARD = "ivo://ivoa.net/std/ConeSearch"
_NAMESPACES = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "vosi": "http://www.ivoa.net/xml/VOSICapabilities/v1.0",
        "xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "vs": "http://www.ivoa.net/xml/VODataService/v1.1",
    }.items()
)


def router(context: Context) -> APIRouter:
    """The routes, for GET and HEAD; to be added before those of the searches, one of whose names they take."""
    routes = APIRouter(tags=["Virtual Observatory"])
    since = datetime.now(UTC)

    async def capabilities(request: Request) -> Response:
        slugs = [collection.slug for collection in context.collections]
        return Response(document(context.base_url(request), slugs), media_type=vosi.MEDIA_TYPE)

    async def availability(request: Request) -> Response:
        return Response(vosi.availability(context.collections.is_ready, since), media_type=vosi.MEDIA_TYPE)

    for path, handler, summary in (
        ("/scs/capabilities", capabilities, "What the cone search can do (VOSI)"),
        ("/scs/availability", availability, "Whether the cone search answers (VOSI)"),
    ):
        responses = answers(votable.ERROR_MEDIA_TYPE, vosi.MEDIA_TYPE)
        add_routes(routes, path, handler, summary=summary, responses=responses, posted=False)
    return routes


def document(base_url: str, slugs: Sequence[str]) -> bytes:
    """``/scs/capabilities``; ``slugs``: names of the collections."""
    scs = f"{base_url}/scs"
    told = [_capability(STANDARD, f"{url}?", 'role="std"', "base") for url in (scs, *(f"{scs}/{slug}" for slug in slugs))]
    told += [
        _capability(f"ivo://ivoa.net/std/VOSI#{name}", f"{scs}/{name}", "", "full") for name in ("capabilities", "availability")
    ]
    opening = f'<?xml version="1.0" encoding="UTF-8"?>\n<vosi:capabilities {_NAMESPACES}>\n'
    return f"{opening}{''.join(told)}</vosi:capabilities>\n".encode()


def _capability(standard: str, url: str, attributes: str, use: str) -> str:
    address = f'<accessURL use="{use}">{text(url)}</accessURL>'
    interface = f'<interface xsi:type="vs:ParamHTTP" {attributes}>{address}</interface>'
    return f'<capability standardID="{standard}">\n{interface}\n</capability>\n'
