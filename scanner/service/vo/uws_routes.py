"""The routes of TAP's jobs, below ``/tap/async``.

In: forms. Out: jobs as XML, single values as text, results as files; what changes a job answers with the way back to it (303).
Refused: see :mod:`uws`; values that are none (400).

Source: UWS 1.1, section 2.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from scanner.service.context import Context
from scanner.service.errors import BadRequestError, NotFoundError
from scanner.service.security.viewer import viewer
from scanner.service.vo import uws_documents, votable
from scanner.service.vo.parameters import Parameters, is_whole_number
from scanner.service.vo.tap_request import kept
from scanner.service.vo.uws import Job, JobBook

_XML = "text/xml"
#: Writes the answer to some parameters, with the service's root, to a file, within some seconds; gives its media type.
Write = Callable[[Mapping[str, str], str, Path, float], Awaitable[str]]


def add(routes: APIRouter, context: Context, jobs: JobBook, write: Write) -> None:
    """Add the routes."""
    handlers = _Handlers(context, jobs, write)
    one = "/tap/async/{identifier}"
    for path, methods, handler in (
        ("/tap/async", ("GET", "HEAD"), handlers.listed),
        ("/tap/async", ("POST",), handlers.create),
        (one, ("GET", "HEAD"), handlers.job),
        (one, ("POST",), handlers.change),
        (one, ("DELETE",), handlers.remove),
        (f"{one}/results/{uws_documents.RESULT}", ("GET", "HEAD"), handlers.result),
        (f"{one}/error", ("GET", "HEAD"), handlers.error),
        (f"{one}/{{part}}", ("GET", "HEAD"), handlers.part),
        (f"{one}/{{part}}", ("POST",), handlers.change),
    ):
        routes.add_api_route(path, handler, methods=list(methods), response_class=Response, include_in_schema=False)


class _Handlers:
    """What the routes do."""

    def __init__(self, context: Context, jobs: JobBook, write: Write) -> None:
        self._context, self._jobs, self._write = context, jobs, write
        # Whoever has no name shares the list with all who have none: at one's own machine that is oneself.
        self._is_local = context.config.is_local

    async def listed(self, request: Request) -> Response:
        """The jobs of whoever asks."""
        owner, parameters = viewer(request).name, await Parameters.of(request)
        phases = tuple(phase.upper() for phase in parameters.all("PHASE"))
        found = [] if owner is None and not self._is_local else list(self._jobs.of(owner))
        found = [job for job in found if not phases or job.phase in phases]
        after, last = parameters.one("AFTER"), parameters.one("LAST")
        if after is not None:
            found = [job for job in found if job.created > _moment(after)]
        if last is not None:
            found = found[: _whole("LAST", last)]
        return Response(uws_documents.list_document(found, self._list_url(request)), media_type=_XML)

    async def create(self, request: Request) -> Response:
        """A new job."""
        parameters = await Parameters.of(request)
        job = self._jobs.create(kept(parameters), viewer(request).name, parameters.one("RUNID") or "")
        if (parameters.one("PHASE") or "").upper() == "RUN":
            self._start(request, job)
        return self._to(request, job)

    async def job(self, request: Request, identifier: str) -> Response:
        """A job as it stands, or once it has changed (WAIT)."""
        job, parameters = self._jobs.get(identifier), await Parameters.of(request)
        seconds = parameters.one("WAIT")
        if seconds is not None:
            await self._jobs.wait(job, float("inf") if seconds == "-1" else _whole("WAIT", seconds), parameters.one("PHASE"))
        return Response(uws_documents.job_document(job, self._list_url(request)), media_type=_XML)

    async def change(self, request: Request, identifier: str, part: str = "") -> Response:
        """Start, abort, remove a job; or change its parameters, its destruction time, how long it may take."""
        job, parameters = self._jobs.get(identifier), await Parameters.of(request)
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
        self._jobs.remove(self._jobs.get(identifier))
        return RedirectResponse(self._list_url(request), 303)

    async def part(self, request: Request, identifier: str, part: str) -> Response:
        """One of the things that are known of a job."""
        job = self._jobs.get(identifier)
        texts = {
            "phase": job.phase,
            "executionduration": str(job.duration_s),
            "destruction": uws_documents.moment(job.destruction),
            "quote": "",
            "owner": job.owner or "",
        }
        if part in texts:
            return Response(texts[part], media_type="text/plain")
        if part == "parameters":
            return Response(uws_documents.parameters_document(job), media_type=_XML)
        if part == "results":
            return Response(uws_documents.results_document(job, self._list_url(request)), media_type=_XML)
        raise NotFoundError("A job has no such part.")

    async def error(self, request: Request, identifier: str) -> Response:
        """What went wrong, as a VOTable."""
        job = self._jobs.get(identifier)
        if job.phase != "ERROR":
            raise NotFoundError("The job has no error.")
        return Response(votable.error_document(job.error), media_type=votable.MEDIA_TYPE)

    async def result(self, request: Request, identifier: str) -> Response:
        """The answer."""
        job = self._jobs.get(identifier)
        if job.phase != "COMPLETED":
            raise NotFoundError(f"The job has no result; its phase is {job.phase}.")
        return FileResponse(self._jobs.result(job), media_type=job.media_type)

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
