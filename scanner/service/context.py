"""What the routes of a service share: how parameters are read, answers are cached, and threads that do work that blocks."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import pyarrow as pa
from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from scanner.cutouts.framed import FramedCutout
from scanner.errors import UsageError
from scanner.grading.campaign import Campaigns
from scanner.grading.store import Blindness, GradeStore
from scanner.query.catalogue import TARGET_ID_PATTERN
from scanner.query.database import Deadline, OutOfMemoryError, OutOfTimeError
from scanner.query.processes import QueryProcesses
from scanner.service.collections import Collection, Collections, Cutouts, NoCutoutError
from scanner.service.errors import BadRequestError, BusyError, ErrorAnswer, NotFoundError, TimeLimitError
from scanner.service.security import ServiceInstruments, TokenBook
from scanner.service.settings import LimitsConfig, ServiceConfig

_REFUSED = (
    "Refused, with a sentence that says why: 400 a parameter, 401 the token, 403 not allowed, 404 no such thing, "
    "408 takes too long, 421 wrong host, 429 too many requests"
)
_BUSY = "Too much waits already, or the catalogue is being opened: come again"
#: The ``responses`` of routes that are refused in JSON.
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": _REFUSED},
    503: {"model": ErrorAnswer, "description": _BUSY},
}

Slug = Annotated[str, Path(max_length=200, description="Name of the collection, as /api/v1/collections lists it")]
RunId = Annotated[str, Path(max_length=300, description="Run that scored the object (column run)")]
TileId = Annotated[str, Path(max_length=128, description="Tile (column tile_id)")]
TargetId = Annotated[str, Path(pattern=TARGET_ID_PATTERN, description="Id in the tile (column target_id)")]
CampaignName = Annotated[str, Path(max_length=60, description="Name of the campaign")]
HandoutId = Annotated[str, Path(max_length=64, description="Id of what was handed out, as /api/v1/campaigns/…/next says it")]
Bins = Annotated[int, Query(ge=1, le=500, description="Bins along one axis")]


@dataclass(frozen=True)
class QueryParameter:
    """One parameter of a query; ``schema``: further keywords of its JSON schema."""

    name: str
    description: str
    type: Literal["string", "number", "integer"] = "string"
    required: bool = False
    schema: tuple[tuple[str, Any], ...] = ()


def described(*parameters: QueryParameter) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads a query by hand."""
    return {"parameters": [_described(one) | {"name": one.name, "in": "query", "required": one.required} for one in parameters]}


def add_routes(
    routes: APIRouter,
    path: str,
    handler: Callable[..., Awaitable[Response]],
    *parameters: QueryParameter,
    summary: str,
    responses: dict[int | str, dict[str, Any]],
    posted: bool = True,
) -> None:
    """Add a route that reads its parameters by hand.

    Parameters
    ----------
    routes
        What it is added to.
    path, handler
        Where, and what answers GET and HEAD.
    parameters
        What it reads.
    summary, responses
        What it is and gives, see :func:`answers`.
    posted
        Whether it answers POST too, with the same parameters as a form, as DALI asks of its services.
    """
    arguments: dict[str, Any] = {"summary": summary, "response_class": Response, "responses": responses}
    routes.add_api_route(path, handler, methods=["GET"], openapi_extra=described(*parameters), **arguments)
    routes.add_api_route(path, handler, methods=["HEAD"], include_in_schema=False)
    if posted:
        schema = {
            "type": "object",
            "properties": {one.name: _described(one)["schema"] for one in parameters},
            "required": [one.name for one in parameters if one.required],
        }
        form = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}
        routes.add_api_route(path, handler, methods=["POST"], openapi_extra={"requestBody": form}, **arguments)


def _described(one: QueryParameter) -> dict[str, Any]:
    return {"description": one.description, "schema": {"type": one.type, **dict(one.schema)}}


def answers(error_media_type: str, *media_types: str, **others: str) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: what it gives, its other statuses (``_304="…"``), and in what form it refuses."""
    refused = {error_media_type: {"schema": {"type": "string"}}}
    return found(*media_types, **others) | {
        "4XX": {"description": _REFUSED, "content": refused},
        503: {"description": _BUSY, "content": refused},
    }


def found(*media_types: str, **others: str) -> dict[int | str, dict[str, Any]]:
    """The same without refusals."""
    given: dict[int | str, dict[str, Any]] = {
        200: {"description": "What was asked for", "content": {name: {"schema": {"type": "string"}} for name in media_types}}
    }
    return given | {int(status.removeprefix("_")): {"description": said} for status, said in others.items()}


_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class Parameters:
    """Parameters as DALI 1.1 (sections 2.3 and 3) has them: names in any case, each any number of times, in a query or a form.

    What is empty counts as not given.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if value.strip():
                self._values.setdefault(name.upper(), []).append(value.strip())

    @classmethod
    async def of(cls, request: Request) -> Parameters:
        """Read those of a request.

        Raises
        ------
        BadRequestError
            The body is no form.
        """
        pairs = list(request.query_params.multi_items())
        if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0].strip() in _FORMS:
            async with request.form(max_files=0, max_fields=1000) as form:
                pairs += [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        elif request.method == "POST" and await request.body():
            raise BadRequestError(f"The body is no form; send {_FORMS[0]}.")
        return cls(pairs)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a parameter."""
        return tuple(self._values.get(name.upper(), ()))

    def one(self, *names: str) -> str | None:
        """The value of a parameter that can be given once, by any of its names; None where it is not given.

        Raises
        ------
        BadRequestError
            It was given more than once.
        """
        values = [value for name in names for value in self.all(name)]
        if len(values) > 1:
            raise BadRequestError(f"MultiValuedParamNotSupported: {names[0]} can be given once.")
        return values[0] if values else None


def is_whole_number(value: str, most_digits: int) -> bool:
    """Whether a value is a number of at most so many decimal digits; with many more, int() is slow and then fails."""
    return value.isascii() and value.isdigit() and len(value) <= most_digits


def conditional(
    request: Request, content: bytes, media_type: str, *, max_age_s: int, filename: str | None = None, vary: str | None = None
) -> Response:
    """Answer with an ETag of the content, or 304 where the client has it already (RFC 9110, sections 8.8.3 and 13.1.2).

    Parameters
    ----------
    request
        Whose ``If-None-Match`` counts.
    content, media_type
        The answer.
    max_age_s
        How long the client may use it without asking, in seconds; no shared cache may, as reading may need a token.
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


Result = TypeVar("Result")
P = ParamSpec("P")
#: Seconds after which a client that was refused should try again.
RETRY_AFTER_S = 2
#: Longest time in which an answer that has begun and met its limit can still be ended well, in seconds.
END_S = 10.0
#: Answers are kept in memory up to this length, and sent in such pieces, in bytes.
IN_MEMORY_BYTES, SENT_BYTES = 1_000_000, 256_000
#: No answer is begun while clients have yet to read this many of the longest.
MOST_HELD = 4


class AnswerTooLongError(UsageError):
    """An answer is longer than any may be."""


class WorkThreads:
    """Work that blocks, in a bounded number of threads, each piece within a time limit that interrupts DuckDB."""

    def __init__(self, limits: LimitsConfig, instruments: ServiceInstruments) -> None:
        self._pool = ThreadPoolExecutor(limits.workers, thread_name_prefix="work")
        self._room = limits.workers + limits.queue
        self._seconds = limits.seconds
        self._most_bytes = limits.answer_mb * 1_000_000
        self._instruments = instruments
        self._pending = 0
        #: Those that are not sent yet.
        self._answers: weakref.WeakSet[_Answer] = weakref.WeakSet()

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
        return await self._within(deadline, partial(function, *args))

    async def stream(
        self, function: Callable[..., Iterator[bytes]], *args: Any, seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        """Call a function that makes an answer piece by piece; this returns when the first piece is made.

        The whole answer is one piece of work: once it is admitted, it is made as fast as that goes, and waits for the client in
        memory or in a file. So the time limit is for making it, and a client that reads slowly keeps no thread.

        Errors before the first piece are those of :meth:`run`. After it the answer says itself what ended it, as DALI asks; the
        connection of one that cannot (CSV) breaks.
        """
        held = sum(one.n_bytes for one in self._answers)
        if held > MOST_HELD * self._most_bytes:
            raise self._busy()
        deadline = Deadline(self._seconds if seconds is None else seconds)
        answer = _Answer(asyncio.get_running_loop())
        self._answers.add(answer)

        def make() -> None:
            for piece in bounded(function(*args), self._most_bytes):
                answer.write(piece)

        making = asyncio.create_task(self._within(deadline, make, has_begun=lambda: answer.n_bytes > 0))
        making.add_done_callback(answer.end)

        async def sent() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.pieces():
                    yield piece
                await making
            finally:
                making.cancel()
                answer.close()

        try:
            await answer.grown()
            if not answer.n_bytes:
                await making
        except BaseException:
            making.cancel()
            answer.close()
            raise
        return sent()

    def close(self) -> None:
        """Stop, and drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _within(
        self, deadline: Deadline, function: Callable[[], Result], *, has_begun: Callable[[], bool] = lambda: False
    ) -> Result:
        """Call a function in a thread; where something of its answer ``has_begun`` to be sent, it is given time to end well."""
        if self._pending >= self._room:
            raise self._busy()
        self._pending += 1
        self._instruments.work_pending.set(self._pending)

        def entered() -> Result:
            with deadline.entered():
                if deadline.over:
                    raise OutOfTimeError("its time was up before it began.")
                return function()

        loop = asyncio.get_running_loop()
        submitted = self._pool.submit(entered)
        submitted.add_done_callback(lambda _: _call_in_loop(loop, self._done))
        future = asyncio.wrap_future(submitted)
        try:
            done, _ = await asyncio.wait((future,), timeout=max(deadline.seconds, 0.0))
            if not done:
                deadline.end()
                done, _ = await asyncio.wait((future,), timeout=END_S if has_begun() else 0)
            if not done:
                raise OutOfTimeError("it has not ended yet.")
            return await future
        except OutOfTimeError:
            self._instruments.refused.labels("time").inc()
            raise TimeLimitError(
                f"The answer would take longer than {deadline.seconds:g} s; ask for fewer rows or a smaller part of the sky."
            ) from None
        except OutOfMemoryError as error:
            self._instruments.refused.labels("memory").inc()
            raise BadRequestError(str(error)) from None
        finally:
            deadline.end()
            future.cancel()

    def _busy(self) -> BusyError:
        self._instruments.refused.labels("busy").inc()
        return BusyError("Too many requests wait already; try again in a moment.", {"Retry-After": str(RETRY_AFTER_S)})

    def _done(self) -> None:
        self._pending -= 1
        self._instruments.work_pending.set(self._pending)


class _Answer:
    """What a thread has made of an answer, for the event loop to send: in memory, or in a file where it is long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.n_bytes = 0
        self._has_ended = False
        self._loop = loop
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        self._lock = threading.Lock()
        self._changed = asyncio.Event()

    def write(self, piece: bytes) -> None:
        """Add a piece; from the thread that makes it."""
        with self._lock:
            if self._file.closed:
                raise OutOfTimeError("nobody reads the answer any more.")
            self._file.seek(0, os.SEEK_END)
            self._file.write(piece)
            self.n_bytes += len(piece)
        _call_in_loop(self._loop, self._changed.set)

    def end(self, making: asyncio.Task[None]) -> None:
        """Take notice that the task which makes it has ended."""
        if not making.cancelled():
            # A client that reads on gets the error; one that does not is gone.
            making.exception()
        self._has_ended = True
        self._changed.set()

    async def grown(self) -> None:
        """Wait for the next piece, or the end."""
        await self._changed.wait()
        self._changed.clear()

    async def pieces(self) -> AsyncIterator[bytes]:
        """All that is written until the end."""
        at = 0
        while not (self._has_ended and at == self.n_bytes):
            if at == self.n_bytes:
                await self.grown()
                continue
            with self._lock:
                self._file.seek(at)
                piece = self._file.read(SENT_BYTES)
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Forget it."""
        with self._lock:
            self._file.close()


def bounded(pieces: Iterator[bytes], most_bytes: int) -> Iterator[bytes]:
    """Pieces of an answer; one that grows too long gets an error at its last piece, and can still end properly.

    Raises
    ------
    AnswerTooLongError
        It does not.
    """
    n_bytes, is_over = 0, False
    try:
        for piece in pieces:
            yield piece
            n_bytes += len(piece)
            if n_bytes > most_bytes and not is_over:
                is_over = True
                error = AnswerTooLongError(
                    f"The answer is longer than {most_bytes // 1_000_000} MB; ask for fewer rows or columns."
                )
                if not isinstance(pieces, Generator):
                    raise error
                yield pieces.throw(error)
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def _call_in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)


@dataclass(frozen=True)
class Context:
    """What the routes of a service share."""

    config: ServiceConfig
    collections: Collections
    salt: Collections | None
    tokens: TokenBook
    work: WorkThreads
    processes: QueryProcesses
    metrics: ServiceInstruments
    grades: GradeStore
    campaigns: Campaigns
    blindness: Blindness
    cutouts: Cutouts

    def close(self) -> None:
        """End all work, whatever it is at; a second call does nothing."""
        for one in self.opened:
            one.close()
        self.work.close()
        self.processes.close()
        self.cutouts.close()

    @property
    def opened(self) -> tuple[Collections, ...]:
        """What is listed, and the painted runs, which are not."""
        return (self.collections,) if self.salt is None else (self.collections, self.salt)

    @property
    def is_ready(self) -> bool:
        """Whether all collections are open."""
        return all(one.is_ready for one in self.opened)

    def cutout_of(self, candidate_id: str, *, salted: bool = False) -> tuple[Collection, pa.Table, FramedCutout]:
        """An object's collection, its row and its cutout; ``salted``: it is painted. Blocks.

        Raises
        ------
        NotFoundError
            There is no such object, or its cutout was not kept and cannot be made again.
        BusyError
            The collections are being opened, or others wait already for a cutout to be made again.
        """
        where = self.salt if salted else self.collections
        if where is None:
            raise NotFoundError("The run that this object was painted into is not at hand: serve it with --salt.")
        collection, rows = where.find(candidate_id)
        run = rows["run"][0].as_py()
        folder = collection.published.run_folders.get(run)
        if folder is None:
            raise NotFoundError(f"The run {run} is not at hand any more, and with it its cutouts.")
        try:
            return collection, rows, self.cutouts.find(folder, rows)
        except NoCutoutError as error:
            raise NotFoundError(str(error)) from None

    def base_url(self, request: Request) -> str:
        """The service's root as clients reach it, without a trailing slash."""
        return (self.config.http.base_url or str(request.base_url)).rstrip("/")
