"""Answers that a client need not be sent again.

In: a request and the bytes that answer it. Out: the answer with an ETag of its content, or 304 where the client has it already.
Refused: nothing.

Source: RFC 9110, sections 8.8.3 and 13.1.2.
"""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response


def conditional(
    request: Request, content: bytes, media_type: str, *, max_age_s: int, filename: str | None = None, vary: str | None = None
) -> Response:
    """Answer with some content.

    Parameters
    ----------
    request
        Whose ``If-None-Match`` counts.
    content, media_type
        The answer.
    max_age_s
        How long it may be used without asking, in seconds; by the client alone, as reading may need a token.
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
