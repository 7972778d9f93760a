"""How much one client may ask: requests a minute, and bytes in one of them.

In: requests, each counted for its viewer's name or its address. Out: nothing. Refused: requests beyond the rate (429, with
``Retry-After``), bodies beyond the limit (413) and bodies that do not come (408).

The rate is that of a bucket that fills evenly and holds ``burst``: a page of a hundred pictures, or a TAP client that looks at
a job again and again, empties a part of it; a loop without a pause finds its end.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanner.service.errors import TimeLimitError, TooLargeError, TooManyRequestsError
from scanner.service.instruments import ServiceInstruments
from scanner.service.paths import is_below, route_path

#: Clients remembered at a time; the one that has been quiet for longest is forgotten first.
REMEMBERED = 10_000
#: Longest wait for the next part of a body.
BODY_S = 20.0


class RateLimited:
    """Counts requests of each client."""

    def __init__(
        self,
        app: ASGIApp,
        per_minute: int,
        burst: int,
        instruments: ServiceInstruments,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._instruments, self._clock = app, instruments, clock
        self._per_second, self._burst = per_minute / 60.0, float(burst)
        #: Client → what is left in its bucket, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._per_second and not is_below(route_path(scope), "/static"):
            wait = self._wait(_client(scope))
            if wait:
                self._instruments.refused.labels("rate").inc()
                raise TooManyRequestsError(f"Too many requests; try again in {wait} s.", {"Retry-After": str(wait)})
        await self._app(scope, receive, send)

    def _wait(self, client: str) -> int:
        """Seconds that a client has to wait; 0, and one request is counted, where it need not."""
        now = self._clock()
        left, since = self._left.pop(client, (self._burst, now))
        left = min(left + (now - since) * self._per_second, self._burst)
        allowed = left >= 1.0
        self._left[client] = (left - allowed, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return 0 if allowed else max(math.ceil((1.0 - left) / self._per_second), 1)


class SmallBodies:
    """Refuses bodies that are too large, before they are in memory, and those that do not come."""

    def __init__(self, app: ASGIApp, max_bytes: int, instruments: ServiceInstruments, seconds: float = BODY_S) -> None:
        self._app, self._max, self._instruments, self._seconds = app, max_bytes, instruments, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        self._refuse(int(told) if told.isdigit() else 0)
        n_bytes, is_whole = 0, False

        async def counted() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(self._seconds):
                    message = await receive()
            except TimeoutError:
                raise TimeLimitError(f"No more of the request's body came for {self._seconds:g} s.") from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            self._refuse(n_bytes)
            return message

        await self._app(scope, counted, send)

    def _refuse(self, n_bytes: int) -> None:
        if n_bytes > self._max:
            self._instruments.refused.labels("size").inc()
            raise TooLargeError(f"The request's body is larger than {self._max // 1000} kB.")


def _client(scope: Scope) -> str:
    who = scope.get("state", {}).get("viewer")
    if who is not None and who.is_named_by_token:
        return f"name {who.name}"
    return f"address {(scope.get('client') or ('', 0))[0]}"
