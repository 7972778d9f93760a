"""Every request has an id, one line in the log and its place in the metrics; what goes wrong is answered in one sentence.

In: requests. Out: answers with ``X-Request-ID``, log lines of ``scanner.service.access`` with the same id, metrics. Refused:
nothing; errors of the layers below become answers, and those that nobody foresaw are logged with their traceback, which the
client never sees.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextvars import ContextVar
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanner.service.errors import Forms, ServiceError
from scanner.service.instruments import ServiceInstruments

access = logging.getLogger("scanner.service.access")
logger = logging.getLogger(__name__)

ID_HEADER = "X-Request-ID"
#: Longest part of a query that is logged.
LOGGED_QUERY = 1000
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
#: Methods that are counted by name; clients can send any word.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Id of the request that this task answers, for log lines anywhere.
request_id: ContextVar[str] = ContextVar("request_id", default="")


class Observed:
    """Gives requests their ids, logs and counts them."""

    def __init__(self, app: ASGIApp, instruments: ServiceInstruments) -> None:
        self._app, self._instruments = app, instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(ID_HEADER, "")
        known_as = sent if _ID.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = known_as
        token = request_id.set(known_as)
        start, status, n_bytes = time.perf_counter(), 499, 0

        async def observed(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = known_as
            elif message["type"] == "http.response.body":
                n_bytes += len(message.get("body", b""))
            await send(message)

        self._instruments.in_progress.inc()
        try:
            await self._app(scope, receive, observed)
        finally:
            self._instruments.in_progress.dec()
            self._tell(scope, status, n_bytes, time.perf_counter() - start)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, n_bytes: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._instruments.requests.labels(route, method, str(status)).inc()
        self._instruments.seconds.labels(route).observe(seconds)
        self._instruments.sent_bytes.inc(n_bytes)
        who = scope["state"].get("viewer")
        access.info(
            "%s %s %d",
            scope["method"],
            # As it was sent: what it decodes to may be the end of a line, or orders to a terminal.
            quote(scope["path"], safe="/:@!$&'()*+,;=~"),
            status,
            extra={
                "request_id": scope["state"]["request_id"],
                "client": (scope.get("client") or ("", 0))[0],
                "viewer": getattr(who, "name", None),
                "query": scope.get("query_string", b"").decode("latin-1")[:LOGGED_QUERY],
                "route": route,
                "seconds": round(seconds, 4),
                "bytes": n_bytes,
            },
        )


class Answered:
    """Turns errors into answers."""

    def __init__(self, app: ASGIApp, forms: Forms) -> None:
        self._app, self._forms = app, forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ServiceError as error:
            if begun:
                raise
            await self._forms.answer(Request(scope), error, scope["state"]["request_id"])(scope, receive, send)
        except Exception:
            known_as = scope["state"]["request_id"]
            logger.exception("request %s failed", known_as, extra={"request_id": known_as})
            if begun:
                raise
            unforeseen = ServiceError(f"Something went wrong here; the operator's log knows it as {known_as}.")
            await self._forms.answer(Request(scope), unforeseen, known_as)(scope, receive, send)
