"""What routes share: how parameters are read and described for OpenAPI, and how answers are cached."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from scanner.query.search import TARGET_ID_PATTERN
from scanner.service.errors import BadRequestError, ErrorAnswer

_REFUSED = (
    "Refused, with a sentence that says why: 400 a parameter, 401 the token, 403 not allowed, 404 no such thing, "
    "408 takes too long, 421 wrong host, 429 too many requests"
)
_BUSY = "Too much waits already, or the catalogue is being opened: come again"
#: The ``responses`` of routes that are refused in JSON.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": _REFUSED},
    503: {"model": ErrorAnswer, "description": _BUSY},
}

Slug = Annotated[str, Path(max_length=200, description="Name of the collection, as /api/v1/collections lists it")]
RunId = Annotated[str, Path(max_length=300, description="Run that scored the object (column run)")]
TileId = Annotated[str, Path(max_length=128, description="Tile (column tile_id)")]
TargetId = Annotated[str, Path(pattern=TARGET_ID_PATTERN, description="Id in the tile (column target_id)")]
CampaignName = Annotated[str, Path(max_length=60, description="Name of the campaign")]
HandoutId = Annotated[str, Path(max_length=64, description="Id of what was handed out, as /api/v1/campaigns/…/next says it")]
Bins = Annotated[int, Query(ge=1, le=500, description="Bins along one axis")]


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


_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Parameters:
    """Parameters as DALI 1.1 (sections 2.3 and 3) has them: names in any case, each any number of times, in a query or a form.

    What is empty counts as not given.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value.strip():
                self._values.setdefault(name.upper(), []).append(value.strip())

    @classmethod
    async def of(cls, request: Request) -> Parameters:
        """Read those of a request.

        Raises
        ------
        BadRequestError
            The body is no form.
        """
        pairs = list(request.query_params.multi_items())
        if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip() in _FORMS:
            async with request.form(max_files=0, max_fields=1000) as form:
                pairs += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        elif request.method == "POST" and await request.body():
            raise BadRequestError(f"The body is no form; send {_FORMS[0]}.")
        return cls(pairs)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter."""
        return tuple(self._values.get(name.upper(), ()))

    def one(self, *names: str) -> str | None:
        """The value of a parameter that can be given once, by any of its names; None where it is not given.

        Raises
        ------
        BadRequestError
            It was given more than once.
        """
        values = [value for name in names for value in self.all(name)]
        if len(values) > 1:
            raise BadRequestError(f"MultiValuedParamNotSupported: {names[0]} can be given once.")
        return values[0] if values else None


def is_whole_number(value: str, most_digits: int) -> bool:
    """Whether a value is a number of at most so many decimal digits; with many more, int() is slow and then fails."""
    return value.isascii() and value.isdigit() and len(value) <= most_digits


def conditional(
    request: Request, content: bytes, media_type: str, *, max_age_s: int, filename: str | None = None, vary: str | None = None
) -> Response:
    """Answer with an ETag of the content, or 304 where the client has it already (RFC 9110, sections 8.8.3 and 13.1.2).

    Parameters
    ----------
    request
        Whose ``If-None-Match`` counts.
    content, media_type
        The answer.
    max_age_s
        How long the client may use it without asking, in seconds; no shared cache may, as reading may need a token.
    filename
        What a browser calls it when it is saved; ASCII without quotes.
    vary
        Request header that the content depends on.
    """
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": f"private, max-age={max_age_s}"}
    if vary is not None:
        headers["Vary"] = vary
    if _has(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    if filename is not None:
        headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return Response(content, media_type=media_type, headers=headers)


def _has(known: str, tag: str) -> bool:
    tags = {one.strip().removeprefix("W/") for one in known.split(",")}
    return "*" in tags or tag in tags
