"""Which kind of client a path is for: that decides how it is told of errors and how it is asked for a token.

In: an ASGI scope or a path. Out: the path as routes see it, and its kind. Refused: nothing.
"""

from __future__ import annotations

from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

Kind = Literal["open", "vo", "program", "page"]
#: Roots of the Virtual Observatory's protocols: their clients know HTTP Basic authentication, and POST what they read.
VO_ROOTS = ("/tap", "/scs", "/datalink", "/soda", "/cutout", "/moc", "/explanation")
#: Answered to everybody: they tell nothing of the catalogue, and a page that asks for a token needs its style.
OPEN_ROOTS = ("/healthz", "/readyz", "/login", "/logout", "/static", "/favicon.ico")
PROGRAM_ROOTS = ("/api", "/metrics", "/openapi.json")


class Rooted:
    """Tells routes and links the root that the service lies under, as clients see it."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app, self._root = app, root.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._app({**scope, "root_path": self._root} if self._root else scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path below the service's own root, whether or not a reverse proxy has removed that."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def is_below(path: str, root: str) -> bool:
    """Whether a path is a root or lies below it."""
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def kind(path: str) -> Kind:
    """Whom a path is for."""
    roots: tuple[tuple[Kind, tuple[str, ...]], ...] = (("open", OPEN_ROOTS), ("vo", VO_ROOTS), ("program", PROGRAM_ROOTS))
    return next((name for name, below in roots if any(is_below(path, root) for root in below)), "page")
