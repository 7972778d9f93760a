"""How the Virtual Observatory's protocols are told of errors.

In: a status and a sentence. Out: a VOTable whose QUERY_STATUS is ERROR. Refused: nothing.

Source: DALI 1.1, section 4.2.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from scanner.service.vo import votable


def error_form(request: Request, status: int, message: str, request_id: str) -> Response:
    """The answer to a request of TAP that is refused."""
    return Response(votable.error_document(message), status, media_type=votable.MEDIA_TYPE)
