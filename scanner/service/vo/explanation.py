"""Why the networks say what they say of an object, where it was explained: ``/explanation``.

In: ID (``run/tile_id/target_id``), FORMAT. Out: the strip of pictures (PNG) or the record (JSON), as ``scanner explain`` wrote
them into the run folder. Refused: objects that are not known or not explained (404), other formats (400).
"""

from __future__ import annotations

import logging

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from scanner.errors import ScannerError
from scanner.report import explanations
from scanner.report.explanations import Explanation
from scanner.service.collections import CandidateId
from scanner.service.conditional import conditional
from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotFoundError
from scanner.service.vo.openapi import REFUSED_AS_JSON, QueryParameter, add_routes, found
from scanner.service.vo.parameters import Parameters
from scanner.survey.folder.ledger import RunFolder

MEDIA_TYPES = {"png": "image/png", "json": "application/json"}
#: An object may be explained anew while its page is open.
MAX_AGE_S = 300

_log = logging.getLogger(__name__)


def router(context: Context) -> APIRouter:
    """The route, for GET and HEAD."""
    routes = APIRouter(tags=["Virtual Observatory"], responses=REFUSED_AS_JSON)

    async def explanation(request: Request) -> Response:
        parameters = await Parameters.of(request)
        identifier, wanted = parameters.one("ID"), (parameters.one("FORMAT") or "png").lower()
        if identifier is None:
            raise BadRequestError("Name an object: ID=run/tile_id/target_id.")
        if wanted not in MEDIA_TYPES:
            raise BadRequestError(f"FORMAT={wanted}: is neither png nor json.")
        content = await context.run(_content, context, identifier, wanted)
        return conditional(request, content, MEDIA_TYPES[wanted], max_age_s=MAX_AGE_S, filename=f"explanation.{wanted}")

    add_routes(
        routes,
        "/explanation",
        explanation,
        QueryParameter("ID", "The object: run/tile_id/target_id.", required=True),
        QueryParameter("FORMAT", "png or json [default: png]."),
        summary="Why the networks say what they say of an object",
        responses=found(*MEDIA_TYPES.values(), _304="You have it"),
        posted=False,
    )
    return routes


def explanation_of(context: Context, wanted: CandidateId) -> tuple[RunFolder, Explanation] | None:
    """An object's explanation and the run folder that it lies in; None where there is none, or it is damaged. Blocks."""
    for collection in context.collections:
        folder = collection.published.run_folders.get(wanted.run)
        if folder is None:
            continue
        try:
            known = explanations.read(folder.store, wanted.tile_id, wanted.target_id)
        except ScannerError as error:
            _log.warning("no explanation of %s: %s", wanted, error)
            known = None
        if known is not None:
            return folder, known
    return None


def _content(context: Context, identifier: str, wanted: str) -> bytes:
    parsed = CandidateId.parse(identifier)
    known = None if parsed is None else explanation_of(context, parsed)
    if known is None:
        raise NotFoundError("There is no explanation of an object of this id (run/tile_id/target_id).")
    folder, explanation = known
    if wanted == "json":
        return explanation.model_dump_json(indent=2, exclude={"place"}).encode()
    try:
        return explanations.strip(folder.store, explanation)
    except ScannerError as error:
        _log.warning("no strip of %s: %s", identifier, error)
        raise NotFoundError("The explanation of this object is damaged; explain it again.") from None
