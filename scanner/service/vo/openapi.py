"""How the VO's routes stand in the OpenAPI document: their parameters come in any case and are read by hand.

In: names, types, what they mean; a handler. Out: its routes, described. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from starlette.responses import Response

from scanner.service.errors import ErrorAnswer

Slug = Annotated[str, Path(max_length=200, description="Name of the collection, as /api/v1/collections lists it")]

_REFUSED = (
    "Refused, with a sentence that says why: 400 a parameter, 401 the token, 403 not allowed, 404 no such thing, "
    "408 takes too long, 429 too many requests"
)
_BUSY = "Too much waits already, or the catalogue is being opened: come again"


@dataclass(frozen=True)
class QueryParameter:
    """One parameter of a query; ``schema``: further keywords of its JSON schema."""

    name: str
    description: str
    type: Literal["string", "number", "integer"] = "string"
    required: bool = False
    schema: tuple[tuple[str, Any], ...] = ()


def described(*parameters: QueryParameter) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads a query by hand."""
    return {"parameters": [_described(one) | {"name": one.name, "in": "query", "required": one.required} for one in parameters]}


def add_routes(
    routes: APIRouter,
    path: str,
    handler: Callable[..., Awaitable[Response]],
    *parameters: QueryParameter,
    summary: str,
    responses: dict[int | str, dict[str, Any]],
    posted: bool = True,
) -> None:
    """Add a route that reads its parameters by hand.

    Parameters
    ----------
    routes
        What it is added to.
    path, handler
        Where, and what answers GET and HEAD.
    parameters
        What it reads.
    summary, responses
        What it is and gives, see :func:`answers`.
    posted
        Whether it answers POST too, with the same parameters as a form, as DALI asks of its services.
    """
    arguments: dict[str, Any] = {"summary": summary, "response_class": Response, "responses": responses}
    routes.add_api_route(path, handler, methods=["GET"], openapi_extra=described(*parameters), **arguments)
    routes.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
    if posted:
        schema = {
            "type": "object",
            "properties": {one.name: _described(one)["schema"] for one in parameters},
            "required": [one.name for one in parameters if one.required],
        }
        form = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}
        routes.add_api_route(path, handler, methods=["POST"], openapi_extra={"requestBody": form}, **arguments)


def _described(one: QueryParameter) -> dict[str, Any]:
    return {"description": one.description, "schema": {"type": one.type, **dict(one.schema)}}


#: The ``responses`` of a router whose routes are refused in JSON.
REFUSED_AS_JSON: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": _REFUSED},
    503: {"model": ErrorAnswer, "description": _BUSY},
}


def answers(error_media_type: str, *media_types: str, **others: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: what it gives, its other statuses (``_304="…"``), and in what form it refuses."""
    refused = {error_media_type: {"schema": {"type": "string"}}}
    return found(*media_types, **others) | {
        "4XX": {"description": _REFUSED, "content": refused},
        503: {"description": _BUSY, "content": refused},
    }


def found(*media_types: str, **others: str) -> dict[int | str, dict[str, Any]]:
    """The same without refusals."""
    given: dict[int | str, dict[str, Any]] = {
        200: {"description": "What was asked for", "content": {name: {"schema": {"type": "string"}} for name in media_types}}
    }
    return given | {int(status.removeprefix("_")): {"description": said} for status, said in others.items()}
