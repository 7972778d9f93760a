"""Templates to answers.

In: the name of a template and what it shows. Out: HTML; all text is escaped. Refused: nothing.
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from scanner import __version__
from scanner.service.pages.assets import Assets
from scanner.service.security.viewer import Viewer

assets = cache(Assets.load)

#: What a heading says of a status that people meet.
HEADINGS = {
    400: "This cannot be asked",
    401: "A token is needed",
    403: "Not for you",
    404: "Nothing here",
    408: "It took too long",
    429: "Too fast",
    503: "Busy",
}


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("scanner.service.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(request: Request, template: str, *, status: int = 200, **shown: Any) -> Response:
    """Render one page.

    Parameters
    ----------
    request
        Tells the root that links begin with, and who looks.
    template
        Its name without ``.html.jinja``.
    status
        HTTP status of the answer.
    **shown
        What the template shows besides.
    """
    root = str(request.scope.get("root_path", "")).rstrip("/")
    viewer = request.scope.get("state", {}).get("viewer")
    common = {
        "root": root,
        "static": lambda name: assets().address(root, name),
        "version": __version__,
        "page": template,
        "viewer": viewer.name if isinstance(viewer, Viewer) and viewer.is_named_by_token else None,
        "collection": None,
        "candidate_id": None,
    }
    text = _environment().get_template(f"{template}.html.jinja").render(common | shown)
    return HTMLResponse(text, status)


def message(request: Request, status: int, sentence: str, request_id: str) -> Response:
    """The page in place of one that cannot be shown: the form of errors for people."""
    heading = HEADINGS.get(status, HTTPStatus(status).phrase)
    if status == HTTPStatus.UNAUTHORIZED:
        return page(request, "login", status=status, next="/", sentence=sentence)
    return page(request, "message", status=status, heading=heading, sentence=sentence, request_id=request_id)
