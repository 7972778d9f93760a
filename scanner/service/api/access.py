"""How a browser shows its token: once, for a cookie that scripts cannot read and other sites' pages cannot use.

In: the field ``token`` of a form. Out: the cookie, and the way back to where one came from. Refused: unknown tokens (401).
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from scanner.service.context import Context
from scanner.service.errors import UnknownViewerError
from scanner.service.security.viewer import TOKEN_COOKIE

#: A place on this server; two slashes, or a backslash, would lead to another one.
_HERE = re.compile(r"/(?![/\\])[^\x00-\x20\\]*")
#: How long a browser keeps the cookie, in seconds.
COOKIE_S = 30 * 24 * 3600


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(include_in_schema=False)

    @routes.post("/login")
    async def login(
        request: Request,
        token: Annotated[str, Form(max_length=200)],
        next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
    ) -> Response:
        if context.tokens and context.tokens.find(token) is None:
            context.metrics.refused.labels("token").inc()
            raise UnknownViewerError("This token is not known.")
        answer = _to(request, next)
        if context.tokens:
            answer.set_cookie(
                TOKEN_COOKIE,
                token,
                COOKIE_S,
                path=_root(request),
                secure=_is_https(context, request),
                httponly=True,
                samesite="strict",
            )
        return answer

    @routes.post("/logout")
    async def logout(request: Request) -> Response:
        answer = _to(request, "/login")
        answer.delete_cookie(
            TOKEN_COOKIE, path=_root(request), secure=_is_https(context, request), httponly=True, samesite="strict"
        )
        return answer

    return routes


def _to(request: Request, place: str) -> RedirectResponse:
    return RedirectResponse(request.scope.get("root_path", "") + (place if _HERE.fullmatch(place) else "/"), 303)


def _root(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


def _is_https(context: Context, request: Request) -> bool:
    return context.base_url(request).startswith("https://")
