"""Table Access Protocol 1.1: ``/tap/sync``, and ``/tap/async``, the jobs of the Universal Worker Service 1.1."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI
from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from scanner.errors import ScannerError
from scanner.query.adql.grammar import AdqlError
from scanner.service.context import Context, Parameters, QueryParameter, add_routes, answers, bounded, is_whole_number
from scanner.service.errors import BadRequestError, BusyError, NotFoundError, ServiceError
from scanner.service.security import client_of, viewer
from scanner.service.vo import vosi, votable
from scanner.service.vo.tap_query import FORMATS, TapQuery, TapService, kept, read_query
from scanner.service.vo.vosi import TapLimits
from scanner.service.vo.votable import element, text

Phase = Literal["PENDING", "QUEUED", "EXECUTING", "COMPLETED", "ERROR", "ABORTED"]
ACTIVE: tuple[Phase, ...] = ("QUEUED", "EXECUTING")
FINAL: tuple[Phase, ...] = ("COMPLETED", "ERROR", "ABORTED")
#: Longest wait for a change, in seconds.
MAX_WAIT_S = 60
RESULT = "result"
#: Writes a result to a file within some seconds, and gives its media type.
WriteResult = Callable[[Path, float], Awaitable[str]]
#: Writes the answer to some parameters, with the service's root, to a file, within some seconds; gives its media type.
WriteAnswer = Callable[[Mapping[str, str], str, Path, float], Awaitable[str]]
_OPENING = (
    'xmlns:uws="http://www.ivoa.net/xml/UWS/v1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" version="1.1"'
)
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XML = "text/xml"
logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One job; times are UTC, ``duration_s`` is how long it may run.

    ``owner``: whose token it was made with, who alone may see it; None: everybody who knows its address. ``client``: whose
    share of jobs it counts to.
    """

    identifier: str
    owner: str | None
    client: str
    parameters: dict[str, str]
    created: datetime
    destruction: datetime
    duration_s: int
    run_id: str = ""
    phase: Phase = "PENDING"
    started: datetime | None = None
    ended: datetime | None = None
    media_type: str = ""
    error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    work: WriteResult | None = None
    task: asyncio.Task[None] | None = None

    def enter(self, phase: Phase) -> None:
        """Change the phase, and wake those who wait for that."""
        self.phase = phase
        self.changed.set()
        self.changed = asyncio.Event()


class JobBook:
    """All jobs of a service; they change only in the thread of the event loop, so polls see a job before or after a change.

    Results are files in a temporary folder, removed with their job or the service.
    """

    def __init__(self, *, at_a_time: int, duration_s: int, retention: timedelta, max_jobs: int, max_each: int) -> None:
        self._max_jobs, self._max_each, self._retention, self.duration_s = max_jobs, max_each, retention, duration_s
        self._jobs: dict[str, Job] = {}
        self._at_a_time = at_a_time
        #: Clients of the jobs that are worked on, by the jobs' identifiers.
        self._working: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="scanner-jobs-")

    def create(self, parameters: dict[str, str], owner: str | None, client: str, run_id: str = "") -> Job:
        """Make a job that waits to be started; where there is no room, an idle one of the owner with most goes.

        Raises
        ------
        BusyError
            The client has as many jobs as one may, or all have as many as there is room for, and all of these run.
        """
        self._sweep()
        own = [job for job in self._jobs.values() if job.client == client]
        if len(own) >= self._max_each:
            self._make_room(own)
        elif len(self._jobs) >= self._max_jobs:
            counts = Counter(job.client for job in self._jobs.values() if job.phase not in ACTIVE)
            most = max(counts.values(), default=0)
            self._make_room([job for job in self._jobs.values() if counts[job.client] == most])
        now = _now()
        # Where no token binds it to its owner, anyone who knows it may see it, so it cannot be guessed.
        job = Job(secrets.token_hex(12), owner, client, parameters, now, now + self._retention, self.duration_s, run_id)
        self._jobs[job.identifier] = job
        return job

    def _make_room(self, jobs: Iterable[Job]) -> None:
        """Remove one of some jobs: those that are over go first, then those that were never started."""
        idle = [job for job in jobs if job.phase not in ACTIVE]
        if not idle:
            raise BusyError("There are too many jobs; try again in a minute.", {"Retry-After": "60"})
        self.remove(min(idle, key=lambda job: (job.phase == "PENDING", job.created)))

    def get(self, identifier: str, owner: str | None) -> Job:
        """A job.

        Parameters
        ----------
        identifier
            Which.
        owner
            Whose token asks for it; None: nobody's.

        Raises
        ------
        NotFoundError
            There is none, it is somebody else's, or it has been destroyed.
        """
        self._sweep()
        job = self._jobs.get(identifier)
        if job is None or job.owner not in (None, owner):
            raise NotFoundError("There is no such job, or its destruction time has come.")
        return job

    def of(self, owner: str | None) -> Iterator[Job]:
        """The jobs of somebody, newest first."""
        self._sweep()
        return iter(
            sorted((job for job in self._jobs.values() if job.owner == owner), key=lambda job: job.created, reverse=True)
        )

    def start(self, job: Job, work: WriteResult) -> None:
        """Run a job as soon as there is a place; one that runs or is over stays as it is."""
        if job.phase == "PENDING":
            job.enter("QUEUED")
            job.work = work
            self._begin()

    def abort(self, job: Job) -> None:
        """Stop a job, its query in the database too; one that is over stays as it is."""
        if job.phase in FINAL:
            return
        job.ended = _now()
        job.enter("ABORTED")
        if job.task is not None:
            job.task.cancel()

    def remove(self, job: Job) -> None:
        """Abort a job and forget it, with its result."""
        self.abort(job)
        self._jobs.pop(job.identifier, None)
        self.result(job).unlink(missing_ok=True)

    def destroy_at(self, job: Job, when: datetime) -> None:
        """Change the destruction time, to no later than any job may live."""
        job.destruction = min(when, job.created + self._retention)

    def limit(self, job: Job, seconds: int) -> None:
        """Change how long a job may run; 0, which means for ever, is as long as any may.

        Raises
        ------
        BadRequestError
            It is not waiting to be started.
        """
        if job.phase != "PENDING":
            raise BadRequestError("The job has been started: how long it may take cannot be changed any more.")
        job.duration_s = min(seconds or self.duration_s, self.duration_s)

    def result(self, job: Job) -> Path:
        """The file of a job's result."""
        return Path(self._folder.name) / job.identifier

    async def wait(self, job: Job, seconds: float, phase: str | None = None) -> None:
        """Wait until a job that is on its way changes its phase, if that is ``phase``, but no longer than so many seconds."""
        if job.phase in FINAL or (phase is not None and phase != job.phase):
            return
        try:
            async with asyncio.timeout(min(seconds, MAX_WAIT_S)):
                await job.changed.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Stop all jobs and remove their results."""
        for job in list(self._jobs.values()):
            self.remove(job)
        self._folder.cleanup()

    def _begin(self) -> None:
        """Begin jobs while there are places, those of the client first for whom fewest are worked on."""
        while len(self._working) < self._at_a_time:
            counts = Counter(self._working.values())
            queued = [job for job in self._jobs.values() if job.phase == "QUEUED"]
            if not queued:
                return
            job = min(queued, key=lambda one: (counts[one.client], one.created))
            job.started = _now()
            job.enter("EXECUTING")
            self._working[job.identifier] = job.client
            job.task = asyncio.create_task(self._work(job))
            job.task.add_done_callback(partial(self._end, job))

    def _end(self, job: Job, task: asyncio.Task[None]) -> None:
        del self._working[job.identifier]
        self._begin()

    async def _work(self, job: Job) -> None:
        assert job.work is not None
        phase: Phase = "ABORTED"
        try:
            job.media_type = await job.work(self.result(job), job.duration_s)
            phase = "COMPLETED"
        except (ServiceError, ScannerError) as error:
            phase, job.error = "ERROR", str(error)
        except Exception:
            phase, job.error = "ERROR", "The service failed; its log says why."
            logger.exception("job %s failed", job.identifier)
        finally:
            if job.phase == "EXECUTING":
                job.ended = _now()
                job.enter(phase)

    def _sweep(self) -> None:
        now = _now()
        for job in [job for job in self._jobs.values() if job.destruction <= now]:
            self.remove(job)


def _now() -> datetime:
    return datetime.now(UTC)


def add_job_routes(routes: APIRouter, context: Context, jobs: JobBook, write: WriteAnswer) -> None:
    """Add the routes."""
    handlers = _Handlers(context, jobs, write)
    one = "/tap/async/{identifier}"
    for path, methods, handler in (
        ("/tap/async", ("GET", "HEAD"), handlers.listed),
        ("/tap/async", ("POST",), handlers.create),
        (one, ("GET", "HEAD"), handlers.job),
        (one, ("POST",), handlers.change),
        (one, ("DELETE",), handlers.remove),
        (f"{one}/results/{RESULT}", ("GET", "HEAD"), handlers.result),
        (f"{one}/error", ("GET", "HEAD"), handlers.error),
        (f"{one}/{{part}}", ("GET", "HEAD"), handlers.part),
        (f"{one}/{{part}}", ("POST",), handlers.change),
    ):
        routes.add_api_route(path, handler, methods=list(methods), response_class=Response, include_in_schema=False)


class _Handlers:
    """What the routes do."""

    def __init__(self, context: Context, jobs: JobBook, write: WriteAnswer) -> None:
        self._context, self._jobs, self._write = context, jobs, write
        # Clients without a name share one list: at one's own machine that is oneself.
        self._is_local = context.config.is_local

    async def listed(self, request: Request) -> Response:
        """The client's own jobs."""
        owner, parameters = self._owner(request), await Parameters.of(request)
        phases = tuple(phase.upper() for phase in parameters.all("PHASE"))
        found = [] if owner is None and not self._is_local else list(self._jobs.of(owner))
        found = [job for job in found if not phases or job.phase in phases]
        after, last = parameters.one("AFTER"), parameters.one("LAST")
        if after is not None:
            found = [job for job in found if job.created > _moment(after)]
        if last is not None:
            found = found[: _whole("LAST", last)]
        return Response(list_document(found, self._list_url(request)), media_type=_XML)

    async def create(self, request: Request) -> Response:
        """A new job."""
        parameters = await Parameters.of(request)
        client = client_of(request.scope)
        job = self._jobs.create(kept(parameters), self._owner(request), client, parameters.one("RUNID") or "")
        if (parameters.one("PHASE") or "").upper() == "RUN":
            self._start(request, job)
        return self._to(request, job)

    async def job(self, request: Request, identifier: str) -> Response:
        """A job now, or once it has changed (WAIT)."""
        job, parameters = self._jobs.get(identifier, self._owner(request)), await Parameters.of(request)
        seconds = parameters.one("WAIT")
        if seconds is not None:
            await self._jobs.wait(job, float("inf") if seconds == "-1" else _whole("WAIT", seconds), parameters.one("PHASE"))
        return Response(job_document(job, self._list_url(request)), media_type=_XML)

    async def change(self, request: Request, identifier: str, part: str = "") -> Response:
        """Start, abort, remove a job; or change its parameters, its destruction time, how long it may take."""
        job, parameters = self._jobs.get(identifier, self._owner(request)), await Parameters.of(request)
        if (parameters.one("ACTION") or "").upper() == "DELETE":
            return await self.remove(request, identifier)
        destruction, duration = parameters.one("DESTRUCTION"), parameters.one("EXECUTIONDURATION")
        if destruction is not None:
            self._jobs.destroy_at(job, _moment(destruction))
        if duration is not None:
            self._jobs.limit(job, _whole("EXECUTIONDURATION", duration))
        changed = kept(parameters)
        if changed and job.phase != "PENDING":
            raise BadRequestError("The job has been started: its parameters cannot be changed any more.")
        job.parameters |= changed
        phase = (parameters.one("PHASE") or "").upper()
        if phase == "RUN":
            self._start(request, job)
        elif phase == "ABORT":
            self._jobs.abort(job)
        elif phase:
            raise BadRequestError(f"PHASE={phase} is neither RUN nor ABORT.")
        return self._to(request, job)

    async def remove(self, request: Request, identifier: str) -> Response:
        """No such job any more."""
        self._jobs.remove(self._jobs.get(identifier, self._owner(request)))
        return RedirectResponse(self._list_url(request), 303)

    async def part(self, request: Request, identifier: str, part: str) -> Response:
        """One of the things that are known of a job."""
        job = self._jobs.get(identifier, self._owner(request))
        texts = {
            "phase": job.phase,
            "executionduration": str(job.duration_s),
            "destruction": moment(job.destruction),
            "quote": "",
            "owner": job.owner or "",
        }
        if part in texts:
            return Response(texts[part], media_type="text/plain")
        if part == "parameters":
            return Response(parameters_document(job), media_type=_XML)
        if part == "results":
            return Response(results_document(job, self._list_url(request)), media_type=_XML)
        raise NotFoundError("A job has no such part.")

    async def error(self, request: Request, identifier: str) -> Response:
        """What went wrong, as a VOTable."""
        job = self._jobs.get(identifier, self._owner(request))
        if job.phase != "ERROR":
            raise NotFoundError("The job has no error.")
        return Response(votable.error_document(job.error), media_type=votable.MEDIA_TYPE)

    async def result(self, request: Request, identifier: str) -> Response:
        """The answer."""
        job = self._jobs.get(identifier, self._owner(request))
        if job.phase != "COMPLETED":
            raise NotFoundError(f"The job has no result; its phase is {job.phase}.")
        return FileResponse(self._jobs.result(job), media_type=job.media_type)

    @staticmethod
    def _owner(request: Request) -> str | None:
        """The name of the token that a request comes with."""
        who = viewer(request)
        return who.name if who.is_named_by_token else None

    def _start(self, request: Request, job: Job) -> None:
        self._jobs.start(job, partial(self._write, dict(job.parameters), self._context.base_url(request)))

    def _list_url(self, request: Request) -> str:
        return f"{self._context.base_url(request)}/tap/async"

    def _to(self, request: Request, job: Job) -> Response:
        return RedirectResponse(f"{self._list_url(request)}/{job.identifier}", 303)


def _whole(name: str, value: str) -> int:
    if not is_whole_number(value, 9):
        raise BadRequestError(f"{name}={value} is no whole number.")
    return int(value)


def _moment(value: str) -> datetime:
    try:
        when = datetime.fromisoformat(value)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequestError(f"{value} is no time; write 2026-12-31T23:59:59Z.") from None


def job_document(job: Job, list_url: str) -> bytes:
    """``/async/{id}``."""
    own = f"{list_url}/{job.identifier}"
    parts = [
        element("uws:jobId", {}, job.identifier),
        element("uws:runId", {}, text(job.run_id)) if job.run_id else "",
        element("uws:ownerId", {}, text(job.owner)) if job.owner else '<uws:ownerId xsi:nil="true"/>',
        element("uws:phase", {}, job.phase),
        '<uws:quote xsi:nil="true"/>',
        element("uws:creationTime", {}, moment(job.created)),
        _time("startTime", job.started),
        _time("endTime", job.ended),
        element("uws:executionDuration", {}, str(job.duration_s)),
        element("uws:destruction", {}, moment(job.destruction)),
        _parameters(job),
        _results(job, own),
        _error(job),
    ]
    return f"{_DECLARATION}<uws:job {_OPENING}>\n{_lines(parts)}</uws:job>\n".encode()


def list_document(jobs: Iterable[Job], list_url: str) -> bytes:
    """``/async``."""
    parts = [
        f'<uws:jobref id="{job.identifier}" xlink:href="{text(list_url)}/{job.identifier}">'
        f"<uws:phase>{job.phase}</uws:phase>"
        + (element("uws:runId", {}, text(job.run_id)) if job.run_id else "")
        + f"<uws:creationTime>{moment(job.created)}</uws:creationTime></uws:jobref>"
        for job in jobs
    ]
    return f"{_DECLARATION}<uws:jobs {_OPENING}>\n{_lines(parts)}</uws:jobs>\n".encode()


def parameters_document(job: Job) -> bytes:
    """``/async/{id}/parameters``."""
    return (_DECLARATION + _parameters(job, _OPENING.removesuffix(' version="1.1"')) + "\n").encode()


def results_document(job: Job, list_url: str) -> bytes:
    """``/async/{id}/results``."""
    return (
        _DECLARATION + _results(job, f"{list_url}/{job.identifier}", _OPENING.removesuffix(' version="1.1"')) + "\n"
    ).encode()


def moment(when: datetime) -> str:
    """A time as UWS writes it."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def _time(name: str, when: datetime | None) -> str:
    return f'<uws:{name} xsi:nil="true"/>' if when is None else element(f"uws:{name}", {}, moment(when))


def _parameters(job: Job, attributes: str = "") -> str:
    parts = [element("uws:parameter", {"id": name}, text(value)) for name, value in job.parameters.items()]
    return f"<uws:parameters {attributes}>\n{_lines(parts)}</uws:parameters>"


def _results(job: Job, own: str, attributes: str = "") -> str:
    parts = []
    if job.phase == "COMPLETED":
        reference = {"id": RESULT, "xlink:type": "simple", "xlink:href": f"{own}/results/{RESULT}", "mime-type": job.media_type}
        parts.append(element("uws:result", reference))
    return f"<uws:results {attributes}>\n{_lines(parts)}</uws:results>"


def _error(job: Job) -> str:
    if job.phase != "ERROR":
        return ""
    return f'<uws:errorSummary type="fatal" hasDetail="true"><uws:message>{text(job.error)}</uws:message></uws:errorSummary>'


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts if part)


DEFAULT_ROWS = 20_000
EXAMPLES_MEDIA_TYPE = "application/xhtml+xml"
#: Identifier, title, query; every one is answered by any collection.
EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("best", "The hundred best candidates", "SELECT TOP 100 * FROM candidates ORDER BY rank"),
    (
        "cone",
        "Objects within 5 arcminutes of a position, nearest first",
        "SELECT candidate_id, ra, dec, p_calibrated,\n"
        "  DISTANCE(POINT('ICRS', ra, dec), POINT('ICRS', 267.78, 65.53)) * 3600 AS separation\n"
        "FROM objects\n"
        "WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 267.78, 65.53, 5/60.0))\n"
        "ORDER BY separation",
    ),
    (
        "density",
        "Objects and candidates in every HEALPix cell of order 8",
        "SELECT ivo_healpix_index(8, ra, dec) AS cell, COUNT(*) AS n, MAX(p_calibrated) AS best\n"
        "FROM objects\nGROUP BY cell\nORDER BY n DESC",
    ),
    (
        "unknown",
        "Probable lenses that nobody knew",
        "SELECT name, ra, dec, p_calibrated FROM candidates\n"
        "WHERE known_name = '' AND p_calibrated > 0.5\nORDER BY p_calibrated DESC",
    ),
    ("failed", "Tiles that could not be scanned, and why", "SELECT tile_id, reason FROM tiles WHERE state = 'failed'"),
)
TableName = Annotated[
    str, PathParameter(max_length=200, description="Name of the table with its schema, as /tap/tables lists it")
]


def router(context: Context) -> APIRouter:
    """The routes."""
    limits = tap_limits(context)
    jobs = JobBook(
        at_a_time=context.config.jobs.at_a_time,
        duration_s=limits.most_job_seconds,
        retention=timedelta(seconds=limits.retention_seconds),
        max_jobs=context.config.jobs.number,
        max_each=context.config.jobs.each,
    )
    since = datetime.now(UTC)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    routes = APIRouter(tags=["Virtual Observatory"], lifespan=running)

    def service(base_url: str) -> TapService:
        return TapService(tuple(context.collections), base_url)

    async def sync(request: Request) -> Response:
        values = kept(await Parameters.of(request))
        query = read_query(values, limits.default_rows, limits.most_rows)
        pieces = await context.work.stream(_pieces, service(context.base_url(request)), query)
        return StreamingResponse(pieces, media_type=query.format.media_type)

    async def write(values: Mapping[str, str], base_url: str, path: Path, seconds: float) -> str:
        query = read_query(values, limits.default_rows, limits.most_rows)
        most_bytes = context.config.limits.answer_mb * 1_000_000
        await context.work.run(_write, service(base_url), query, path, most_bytes, seconds=seconds)
        return query.format.media_type

    async def base(request: Request) -> Response:
        return RedirectResponse(f"{context.base_url(request)}/tap/capabilities", 303)

    async def capabilities(request: Request) -> Response:
        return Response(vosi.capabilities(context.base_url(request), limits), media_type=vosi.MEDIA_TYPE)

    async def availability(request: Request) -> Response:
        return Response(vosi.availability(context.collections.is_ready, since), media_type=vosi.MEDIA_TYPE)

    async def tables(request: Request) -> Response:
        own = service(context.base_url(request))
        columns = (await Parameters.of(request)).one("DETAIL") != "min"
        return Response(vosi.tableset(own.schemas, own.tables, columns=columns), media_type=vosi.MEDIA_TYPE)

    async def table(request: Request, name: TableName) -> Response:
        found = next((one for one in service(context.base_url(request)).tables if one.name == name.lower()), None)
        if found is None:
            raise NotFoundError("There is no table of this name; /tap/tables lists them.")
        return Response(vosi.single_table(found), media_type=vosi.MEDIA_TYPE)

    async def examples(request: Request) -> Response:
        return Response(examples_document(), media_type=EXAMPLES_MEDIA_TYPE)

    add_routes(
        routes,
        "/tap/sync",
        sync,
        *parameters_of(limits),
        summary="Rows of a table (TAP, ADQL)",
        responses=answers(votable.MEDIA_TYPE, *(one.media_type for one in FORMATS)),
    )
    for path, handler, media_type, summary in (
        ("/tap/capabilities", capabilities, vosi.MEDIA_TYPE, "What the TAP service can do (VOSI)"),
        ("/tap/availability", availability, vosi.MEDIA_TYPE, "Whether the TAP service answers (VOSI)"),
        ("/tap/tables", tables, vosi.MEDIA_TYPE, "Tables and columns of the TAP service (VOSI)"),
        ("/tap/tables/{name}", table, vosi.MEDIA_TYPE, "Columns of one table of the TAP service (VOSI)"),
        ("/tap/examples", examples, EXAMPLES_MEDIA_TYPE, "Queries to begin with (DALI)"),
    ):
        add_routes(routes, path, handler, summary=summary, responses=answers(votable.MEDIA_TYPE, media_type), posted=False)
    routes.add_api_route("/tap", base, methods=["GET", "HEAD"], include_in_schema=False)
    add_job_routes(routes, context, jobs, write)
    return routes


def tap_limits(context: Context) -> TapLimits:
    """What the service's settings allow."""
    most, jobs = context.config.limits.rows, context.config.jobs
    return TapLimits(min(DEFAULT_ROWS, most), most, jobs.seconds, jobs.seconds, jobs.hours * 3600, jobs.hours * 3600)


def parameters_of(limits: TapLimits) -> tuple[QueryParameter, ...]:
    """The protocol's parameters."""
    return (
        QueryParameter("QUERY", "A query in ADQL.", required=True),
        QueryParameter("LANG", "ADQL [default]."),
        QueryParameter("MAXREC", f"Most rows, up to {limits.most_rows} [default: {limits.default_rows}].", "integer"),
        QueryParameter("RESPONSEFORMAT", "votable [default], votable/td, csv, tsv or a media type."),
    )


def _pieces(service: TapService, query: TapQuery) -> Iterator[bytes]:
    try:
        yield from service.answered(query)
    except AdqlError as error:
        raise BadRequestError(str(error)) from None


def _write(service: TapService, query: TapQuery, path: Path, most_bytes: int) -> None:
    """Write an answer to a file, whole or not at all."""
    try:
        with path.open("wb") as file:
            file.writelines(bounded(service.answered(query, reports_errors=False), most_bytes))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def examples_document() -> bytes:
    """The page."""
    parts = [
        f'<div id="{identifier}" resource="#{identifier}" typeof="example"><h2 property="name">{text(title)}</h2>'
        f'<pre property="query">{text(query)}</pre></div>'
        for identifier, title, query in EXAMPLES
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">\n'
        "<head><title>Examples of queries</title></head>\n"
        f'<body vocab="http://www.ivoa.net/rdf/examples#">\n<h1>Examples of queries</h1>\n{"".join(parts)}\n</body>\n</html>\n'
    ).encode()
