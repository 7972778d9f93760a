"""Who makes a request: the owner of a token, or a user of this machine."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote

from fastapi import Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scanner.grading.grade import NAME, Role, Viewer
from scanner.service.errors import NotAllowedError, UnknownViewerError, audience_of, route_path
from scanner.service.instruments import ServiceInstruments
from scanner.service.security.tokens import TokenBook
from scanner.service.settings import ServiceConfig

TOKEN_COOKIE = "scanner_token"
#: Name of a grader at this machine, where no tokens are configured.
NAME_COOKIE = "scanner_grader"
_STATE = "viewer"


def viewer(request: Request) -> Viewer:
    """Who makes a request.

    A token comes as ``Authorization: Bearer …``, as the password of HTTP Basic authentication (what pyvo, TOPCAT and stilts can
    send), or as the cookie that ``POST /login`` sets.
    """
    known = request.scope["state"][_STATE]
    assert isinstance(known, Viewer)
    return known


def grader(request: Request) -> Viewer:
    """Who makes a request that only graders may make.

    Raises
    ------
    NotAllowedError
        They may only read.
    """
    known = viewer(request)
    if known.role != "grade":
        raise NotAllowedError("You may read here, not grade: your token has not the role 'grade', or nobody may grade here.")
    return known


class IdentifyViewer:
    """Finds out who makes a request, before anything else is done with it."""

    def __init__(self, app: ASGIApp, tokens: TokenBook, config: ServiceConfig, instruments: ServiceInstruments) -> None:
        self._app, self._tokens, self._instruments = app, tokens, instruments
        self._grading = config.grading.enabled
        #: What those may do who need no token.
        self._open_role: Role = "grade" if config.is_local and self._grading else "read"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            known = self._viewer(scope)
            if isinstance(known, RedirectResponse):
                await known(scope, receive, send)
                return
            scope.setdefault("state", {})[_STATE] = known
        await self._app(scope, receive, send)

    def _viewer(self, scope: Scope) -> Viewer | RedirectResponse:
        headers, path = Headers(scope=scope), route_path(scope)
        cookies = cookie_parser(headers.get("cookie", ""))
        if not self._tokens:
            name = cookies.get(NAME_COOKIE, "").replace("+", " ")
            return Viewer(name if NAME.fullmatch(name) else None, self._open_role, False)
        sent = [token for token in (_token(headers), cookies.get(TOKEN_COOKIE)) if token]
        line = self._tokens.find(sent[0]) if sent else None
        if line is not None:
            return Viewer(line.name, line.role if self._grading else "read", True)
        audience = audience_of(path)
        if audience == "open":
            return Viewer(None, "read", False)
        self._instruments.refused.labels("token").inc()
        if audience == "page" and scope["method"] in ("GET", "HEAD"):
            wanted = "?".join(filter(None, (path, scope["query_string"].decode("latin-1"))))
            return RedirectResponse(f"{scope.get('root_path', '')}/login?next={quote(wanted)}", 303)
        # Browsers answer a Basic challenge with a window of their own, even to a script's request.
        scheme = 'Basic realm="scanner", charset="UTF-8"' if audience == "vo" else "Bearer"
        raise UnknownViewerError(
            "This token is not known." if sent else "A token is needed: send it as 'Authorization: Bearer …' or as a password.",
            {"WWW-Authenticate": scheme},
        )


def _token(headers: Headers) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return value
    return None
