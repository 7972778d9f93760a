"""What the routes of a service share, and the bounded threads in which they do work that blocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from fastapi import Request

from scanner.grading.blind import Blindness
from scanner.grading.store import GradeStore
from scanner.query.database import Deadline, OutOfMemoryError, OutOfTimeError
from scanner.service.collections import Collections
from scanner.service.cutouts import Cutouts
from scanner.service.errors import BadRequestError, BusyError, TimeLimitError
from scanner.service.instruments import ServiceInstruments
from scanner.service.security.tokens import TokenBook
from scanner.service.settings import ServiceConfig

Result = TypeVar("Result")
P = ParamSpec("P")
#: Seconds after which a client that was refused should try again.
RETRY_AFTER_S = 2


class WorkThreads:
    """Work that blocks, in a bounded number of threads, each piece within a time limit that interrupts DuckDB."""

    def __init__(self, workers: int, queue: int, seconds: float, instruments: ServiceInstruments) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="work")
        self._room = workers + queue
        self._seconds = seconds
        self._instruments = instruments
        self._pending = 0

    async def run(self, function: Callable[..., Result], *args: Any, seconds: float | None = None) -> Result:
        """Call a function that blocks.

        Parameters
        ----------
        function, args
            What to call.
        seconds
            Longest time it may take, the wait for a free thread included; none: the service's limit.

        Raises
        ------
        BusyError
            Too many wait already.
        TimeLimitError
            It took longer. Cancelling the call interrupts it likewise.
        BadRequestError
            Its query needs more memory than it may use.
        """
        deadline = Deadline(self._seconds if seconds is None else seconds)
        return await self._within(deadline, deadline.seconds, function, *args)

    async def stream(
        self, function: Callable[..., Iterator[bytes]], *args: Any, seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        """Call a function that makes an answer piece by piece; the first piece is made before this returns.

        The pieces are made while the client takes them, so the answer's size is bounded by neither memory nor this service. The
        time limit is for making them; how long the client takes to read does not count.
        """
        deadline = Deadline(self._seconds if seconds is None else seconds)
        left = deadline.seconds
        clock = asyncio.get_running_loop().time

        def begun() -> tuple[Iterator[bytes], bytes | None]:
            pieces = function(*args)
            return pieces, next(pieces, None)

        start = clock()
        pieces, first = await self._within(deadline, left, begun)
        left -= clock() - start

        async def sent() -> AsyncIterator[bytes]:
            nonlocal left
            piece = first
            try:
                while piece is not None:
                    yield piece
                    start = clock()
                    piece = await self._within(deadline, left, next, pieces, None)
                    left -= clock() - start
            finally:
                deadline.end()
                if (close := getattr(pieces, "close", None)) is not None:
                    self._pool.submit(close)

        return sent()

    def close(self) -> None:
        """Stop, and drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _within(self, deadline: Deadline, seconds: float, function: Callable[..., Result], *args: Any) -> Result:
        if self._pending >= self._room:
            self._instruments.refused.labels("busy").inc()
            raise BusyError("Too many requests wait already; try again in a moment.", {"Retry-After": str(RETRY_AFTER_S)})
        self._pending += 1
        self._instruments.work_pending.set(self._pending)

        def entered() -> Result:
            with deadline.entered():
                if deadline.over:
                    raise OutOfTimeError("its time was up before it began.")
                return function(*args)

        loop = asyncio.get_running_loop()
        submitted = self._pool.submit(entered)
        submitted.add_done_callback(lambda _: _call_in_loop(loop, self._done))
        future: Future[Result] = submitted
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await asyncio.wrap_future(future)
        except (TimeoutError, OutOfTimeError):
            deadline.end()
            self._instruments.refused.labels("time").inc()
            raise TimeLimitError(
                f"The answer would take longer than {deadline.seconds:g} s; ask for fewer rows or a smaller part of the sky."
            ) from None
        except OutOfMemoryError as error:
            self._instruments.refused.labels("memory").inc()
            raise BadRequestError(str(error)) from None
        except asyncio.CancelledError:
            deadline.end()
            raise

    def _done(self) -> None:
        self._pending -= 1
        self._instruments.work_pending.set(self._pending)


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)


@dataclass(frozen=True)
class Context:
    """What the routes of a service share."""

    config: ServiceConfig
    collections: Collections
    tokens: TokenBook
    work: WorkThreads
    metrics: ServiceInstruments
    grades: GradeStore
    blindness: Blindness
    cutouts: Cutouts

    def base_url(self, request: Request) -> str:
        """The service's root as clients reach it, without a trailing slash."""
        return (self.config.http.base_url or str(request.base_url)).rstrip("/")
