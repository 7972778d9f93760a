"""Whose pages may ask: names that lead to this server by a trick, and pages of others that write in a viewer's name.

In: the headers ``Host``, ``Origin`` and ``Sec-Fetch-Site``. Out: nothing. Refused: a ``Host`` that is not this server's where
it listens on the loopback only (421): a page whose name was made to mean 127.0.0.1 could read everything; and requests that
change something and come from another site's page (403).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from scanner.service.errors import ForbiddenError, WrongHostError
from scanner.service.instruments import ServiceInstruments
from scanner.service.paths import kind, route_path
from scanner.service.settings import HttpConfig, ServiceConfig, host_name, is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def allowed_hosts(http: HttpConfig) -> frozenset[str]:
    """Host names that requests may carry; '*' in it: any."""
    own = urlsplit(http.base_url).netloc if http.base_url else ""
    named = {host_name(host) for host in (*http.hosts, own) if host}
    # Elsewhere the network decides who reaches the server, and tokens who reads.
    return frozenset(named | ({*LOOPBACK_NAMES, host_name(http.host)} if is_loopback(http.host) else {"*"}))


def reading_origins(config: ServiceConfig, *, is_guarded: bool) -> tuple[str, ...]:
    """Origins whose pages may read; where nothing guards reading and only this machine can ask, no page but our own may."""
    if config.http.cors is not None:
        return config.http.cors
    return ("*",) if is_guarded or not config.is_local else ()


class OwnHost:
    """Refuses requests that were meant for another server."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], instruments: ServiceInstruments) -> None:
        self._app, self._hosts, self._instruments = app, hosts, instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (
            scope["type"] == "http"
            and "*" not in self._hosts
            and host_name(Headers(scope=scope).get("host", "")) not in self._hosts
        ):
            self._instruments.refused.labels("host").inc()
            raise WrongHostError(
                "This server is not known by that name; its operator can allow it with http.hosts or http.base_url."
            )
        await self._app(scope, receive, send)


class OwnWrites:
    """Refuses requests that change something and come from another site's page."""

    def __init__(self, app: ASGIApp, readers: tuple[str, ...], base_url: str | None, instruments: ServiceInstruments) -> None:
        self._app, self._readers, self._instruments = app, readers, instruments
        self._own = urlsplit(base_url).netloc if base_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and self._is_foreign(scope):
            self._instruments.refused.labels("origin").inc()
            raise ForbiddenError("Pages of other sites may not write here.")
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None:
            # No browser sends a write without one of the two; other programs send neither.
            return site in ("cross-site", "same-site")
        if urlsplit(origin).netloc in {headers.get("host"), self._own}:
            return False
        # A POST of the VO's protocols reads.
        return not (kind(route_path(scope)) == "vo" and ("*" in self._readers or origin in self._readers))
