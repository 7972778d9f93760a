"""Templates to HTML, and the style sheets and scripts that pages load."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources
from pathlib import PurePath
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from scanner import __version__
from scanner.grading.grade import Viewer
from scanner.service.errors import NotFoundError

ASSET_MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: An address with the fingerprint of all files never changes its meaning.
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Assets:
    """The files by name, and a ``fingerprint`` of them all: modules import one another, so they change together."""

    files: dict[str, bytes]
    fingerprint: str

    @classmethod
    def load(cls) -> Assets:
        """Read the package's own files."""
        found = sorted(resources.files(__package__).joinpath("static").iterdir(), key=lambda file: file.name)
        files = {file.name: file.read_bytes() for file in found if PurePath(file.name).suffix in ASSET_MEDIA_TYPES}
        digest = hashlib.sha256()
        for name, content in files.items():
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return cls(files, digest.hexdigest()[:12])

    def address(self, root: str, name: str) -> str:
        """Where a file is served, below the service's root path.

        Raises
        ------
        KeyError
            There is no such file.
        """
        if name not in self.files:
            raise KeyError(name)
        return f"{root}/static/{self.fingerprint}/{name}"

    def answer(self, fingerprint: str, name: str) -> Response:
        """One file; it may be kept for ever only where the address is of this very state.

        Raises
        ------
        NotFoundError
            There is no such file.
        """
        if name not in self.files:
            raise NotFoundError("There is nothing at this address.")
        kept = FOREVER if fingerprint == self.fingerprint else "no-cache"
        return Response(self.files[name], media_type=ASSET_MEDIA_TYPES[PurePath(name).suffix], headers={"Cache-Control": kept})


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
