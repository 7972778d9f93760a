"""What the API's answers other than success look like, for its OpenAPI description.

In: nothing. Out: the ``responses`` of a router, and types of parameters that several routes take. Refused: nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query

from scanner.service.collections.identifiers import TARGET_ID_PATTERN
from scanner.service.errors import ErrorAnswer

#: Every status that is not success has the same body.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorAnswer,
        "description": "Refused, with a sentence that says why: 400 a parameter, 401 the token, 403 not allowed, 404 no such "
        "thing, 408 takes too long, 421 wrong host, 429 too many requests",
    },
    503: {"model": ErrorAnswer, "description": "Too much waits already, or the catalogue is being opened: come again"},
}

Slug = Annotated[str, Path(max_length=200, description="Name of the collection, as /api/v1/collections lists it")]
RunId = Annotated[str, Path(max_length=300, description="Run that scored the object (column run)")]
TileId = Annotated[str, Path(max_length=128, description="Tile (column tile_id)")]
TargetId = Annotated[str, Path(pattern=TARGET_ID_PATTERN, description="Id in the tile (column target_id)")]
Bins = Annotated[int, Query(ge=1, le=500, description="Bins along one axis")]
