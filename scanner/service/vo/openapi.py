"""How the VO's routes stand in the OpenAPI document: their parameters come in any case and are read by hand.

In: names, types, what they mean. Out: what FastAPI's ``openapi_extra`` and ``responses`` take. Refused: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class QueryParameter:
    """One parameter of a query; ``schema``: further keywords of its JSON schema."""

    name: str
    description: str
    type: Literal["string", "number", "integer"] = "string"
    required: bool = False
    schema: tuple[tuple[str, Any], ...] = ()


def described(*parameters: QueryParameter) -> dict[str, Any]:
    """The ``openapi_extra`` of a route."""
    return {
        "parameters": [
            {
                "name": one.name,
                "in": "query",
                "required": one.required,
                "description": one.description,
                "schema": {"type": one.type, **dict(one.schema)},
            }
            for one in parameters
        ]
    }


def answers(error_media_type: str, *media_types: str, **others: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: what it gives, in what form it refuses, and its other statuses (``_304="…"``)."""
    refused = {error_media_type: {"schema": {"type": "string"}}}
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "What was asked for.", "content": {name: {"schema": {"type": "string"}} for name in media_types}}
    }
    for status, said in (
        (400, "A parameter makes no sense."),
        (404, "There is no such object or collection."),
        (408, "It would take too long."),
        (429, "Too many requests."),
        (503, "Too many requests wait."),
    ):
        found[status] = {"description": said, "content": refused}
    return found | {int(status.removeprefix("_")): {"description": said} for status, said in others.items()}
