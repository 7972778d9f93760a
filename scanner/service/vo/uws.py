"""Jobs of the Universal Worker Service: what is asked now and fetched later.

In: queries. Out: :class:`Job`, each with its phase, and the :class:`JobBook` that keeps a bounded number of them, removes each
at its destruction time, and works on a few at a time. A result is a file in a passing folder, removed with the job or the
service. Refused: more jobs than there is room for while all are worked on (:class:`BusyError`), jobs that are not there
(:class:`NotFoundError`), changes that come too late (:class:`BadRequestError`).

All of it happens in the thread of the event loop, but for the work itself; so whoever polls sees a job as it was before a
change or after it. Source: UWS 1.1, https://www.ivoa.net/documents/UWS/20161024/.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from scanner.errors import ScannerError
from scanner.service.errors import BadRequestError, BusyError, NotFoundError, ServiceError

Phase = Literal["PENDING", "QUEUED", "EXECUTING", "COMPLETED", "ERROR", "ABORTED"]
ACTIVE: tuple[Phase, ...] = ("QUEUED", "EXECUTING")
FINAL: tuple[Phase, ...] = ("COMPLETED", "ERROR", "ABORTED")
#: Longest wait for a change, in seconds.
MAX_WAIT_S = 60

#: Writes a result to a file within some seconds, and gives its media type.
Work = Callable[[Path, float], Awaitable[str]]

logger = logging.getLogger(__name__)


@dataclass
class Job:
    """One job; times are UTC, ``duration_s`` is how long it may be worked on. ``owner``: None for whoever has no name."""

    identifier: str
    owner: str | None
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
    task: asyncio.Task[None] | None = None

    def enter(self, phase: Phase) -> None:
        """Change the phase, and wake whoever waits for that."""
        self.phase = phase
        self.changed.set()
        self.changed = asyncio.Event()


class JobBook:
    """All jobs of a service."""

    def __init__(self, *, at_a_time: int, duration_s: int, retention: timedelta, max_jobs: int) -> None:
        self._max_jobs, self._retention, self.duration_s = max_jobs, retention, duration_s
        self._jobs: dict[str, Job] = {}
        self._places = asyncio.Semaphore(at_a_time)
        self._folder = tempfile.TemporaryDirectory(prefix="scanner-jobs-")

    def create(self, parameters: dict[str, str], owner: str | None, run_id: str = "") -> Job:
        """Make a job that waits to be started.

        Raises
        ------
        BusyError
            All that there is room for are on their way.
        """
        self._sweep()
        if len(self._jobs) >= self._max_jobs:
            idle = [job for job in self._jobs.values() if job.phase not in ACTIVE]
            if not idle:
                raise BusyError("There are too many jobs; try again in a minute.", {"Retry-After": "60"})
            # Those that are over first, then those that nobody started.
            self.remove(min(idle, key=lambda job: (job.phase == "PENDING", job.created)))
        now = _now()
        # Nobody can guess it: to know a job is to be allowed to see it.
        job = Job(secrets.token_hex(12), owner, parameters, now, now + self._retention, self.duration_s, run_id)
        self._jobs[job.identifier] = job
        return job

    def get(self, identifier: str) -> Job:
        """A job.

        Raises
        ------
        NotFoundError
            There is none, or it has been destroyed.
        """
        self._sweep()
        if identifier not in self._jobs:
            raise NotFoundError("There is no such job, or its destruction time has come.")
        return self._jobs[identifier]

    def of(self, owner: str | None) -> Iterator[Job]:
        """The jobs of somebody, newest first."""
        self._sweep()
        return iter(
            sorted((job for job in self._jobs.values() if job.owner == owner), key=lambda job: job.created, reverse=True)
        )

    def start(self, job: Job, work: Work) -> None:
        """Let a job be worked on as soon as there is a place; one that is on its way or over stays as it is."""
        if job.phase == "PENDING":
            job.enter("QUEUED")
            job.task = asyncio.create_task(self._work(job, work))

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
        """Change how long a job may be worked on; 0, which means for ever, is as long as any may.

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

    async def _work(self, job: Job, work: Work) -> None:
        async with self._places:
            job.started = _now()
            job.enter("EXECUTING")
            phase: Phase = "ABORTED"
            try:
                job.media_type = await work(self.result(job), job.duration_s)
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
