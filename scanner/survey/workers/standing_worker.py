"""A worker process that stands: scans tiles for whichever run comes to a scheduler's address, one after the other.

In: a :class:`WorkerRequest`, certificates. Out: nothing but log lines; returns when told to stop (SIGTERM, SIGINT, its
lifetime). A scheduler that is not there yet, or goes away, is looked for at the same address, which the next driver may have.
Refused: a ``--gpu`` worker whose ONNX Runtime has no GPU, a scheduler that does not answer in time or sends it away, other
versions than the driver's, ports that are taken.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import signal
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from scanner.errors import UnavailableError, UsageError
from scanner.survey import metrics
from scanner.survey.workers.cluster import DASK_SETTINGS, OFFERED, THREADS, silence_dask
from scanner.survey.workers.transport import RETRY_SECONDS, Certificates, await_scheduler, security
from scanner.survey.workers.worker import PARTING_SECONDS, SurveyWorker

LIFETIME = "lifetime"
#: Reasons of the system for which a port cannot be had.
NO_PORT = (errno.EADDRINUSE, errno.EACCES)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerRequest:
    """What ``scanner worker`` is told.

    ``port``: where scheduler and other workers reach it; 0: any free one. ``lifetime_s``: leave after it, give or take
    ``lifetime_stagger_s``. ``death_timeout_s``: how long a scheduler is looked for; None: for ever.
    """

    scheduler: str
    gpu: bool = False
    memory_gb: float = 3.0
    scratch: str | None = None
    name: str | None = None
    port: int = 0
    metrics_port: int | None = None
    metrics_address: str | None = None
    lifetime_s: float | None = None
    lifetime_stagger_s: float = 0.0
    death_timeout_s: float | None = 60.0
    grace_s: float = 110.0


def serve(request: WorkerRequest, certificates: Certificates | None) -> None:
    """Work for the schedulers of an address until told to stop; the process is to end with it.

    Raises
    ------
    UnavailableError
        No scheduler answers in time, or it sent this worker away.
    UsageError
        The scheduler's address or the certificates do not fit; a port is taken; a GPU was asked for and there is none.
    ContentError
        The driver runs other versions.
    """
    import dask

    silence_dask()
    if request.gpu:
        _open_gpu()
    port, address = request.metrics_port, request.metrics_address
    # Not the worker's own: who scrapes it, or asks whether it is alive, finds it also while it waits for a scheduler.
    with dask.config.set(DASK_SETTINGS), nullcontext() if port is None else metrics.serve(port, "worker", address):
        metrics.gpu_expected(request.gpu)
        asyncio.run(_serve(request, certificates))


async def _serve(request: WorkerRequest, certificates: Certificates | None) -> None:
    told = _told_to_stop(request)
    if request.death_timeout_s is None:
        logger.info("looking for a scheduler at %s", request.scheduler)
    while True:
        await _find(request, certificates, told)
        if told.done():
            logger.info("told to stop (%s); there is no scheduler", told.result())
            return _end_in_time(0)
        worker = await _register(request, certificates, told)
        if worker is not None and await _work(worker, request, told):
            return _end_in_time(0)
        if not told.done():
            logger.warning("%s: the scheduler is gone; looking for it again", request.scheduler)


def _told_to_stop(request: WorkerRequest) -> asyncio.Future[str]:
    """Becomes the reason for which the worker is to stop."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[str] = loop.create_future()

    def tell(reason: str) -> None:
        if told.done():
            os._exit(128 + signal.SIGINT)  # Told twice: at once.
        told.set_result(reason)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number.name)
    if request.lifetime_s is not None:
        stagger = random.uniform(-request.lifetime_stagger_s, request.lifetime_stagger_s)
        loop.call_later(max(request.lifetime_s + stagger, 0.0), lambda: None if told.done() else told.set_result(LIFETIME))
    return told


async def _find(request: WorkerRequest, certificates: Certificates | None, told: asyncio.Future[str]) -> None:
    """Wait until a scheduler answers, or the worker is told to stop."""
    stop = threading.Event()
    look = asyncio.to_thread(await_scheduler, request.scheduler, certificates, request.death_timeout_s, stop)
    looking = asyncio.create_task(look)
    await _first(looking, told)
    stop.set()
    if looking.done():
        looking.result()


async def _register(
    request: WorkerRequest, certificates: Certificates | None, told: asyncio.Future[str]
) -> SurveyWorker | None:
    """The worker, known to the scheduler; None where that went away at this moment, or the worker is told to stop."""
    worker = SurveyWorker(
        request.scheduler,
        nthreads=THREADS,
        name=request.name,
        port=request.port,
        resources=OFFERED | ({"GPU": 1} if request.gpu else {}),
        memory_limit=f"{request.memory_gb}GB",
        security=security(certificates),
        death_timeout=request.death_timeout_s,
        scratch=request.scratch,
    )
    starting = asyncio.create_task(worker.start())  # type: ignore[no-untyped-call]
    await _first(starting, told)
    await asyncio.wait({starting}, timeout=PARTING_SECONDS)
    if not starting.done():
        return None
    try:
        starting.result()
    except Exception as error:
        # Dask puts what happened behind a "failed to start".
        cause = error.__cause__ or error
        if isinstance(cause, OSError) and cause.errno in NO_PORT:
            raise UsageError(f"--worker-port {request.port}: cannot listen there ({cause.strerror}); choose another.") from None
        if worker.refusal is not None:
            raise worker.refusal from None
        if not (isinstance(cause, OSError) and request.death_timeout_s is None):
            raise UnavailableError(f"{request.scheduler}: the scheduler does not take this worker ({error}).") from None
        await asyncio.sleep(RETRY_SECONDS)
        return None
    logger.info("connected to %s as %s, offering %s", request.scheduler, worker.name, ", ".join(worker.state.total_resources))
    return worker


async def _work(worker: SurveyWorker, request: WorkerRequest, told: asyncio.Future[str]) -> bool:
    """Work until told to stop (True), or the scheduler is gone (False)."""
    finished = asyncio.create_task(worker.finished())  # type: ignore[no-untyped-call]
    await _first(finished, told)
    if told.done():
        in_hand = f"finishing tile {', '.join(worker.tiles_in_hand)}" if worker.tiles_in_hand else "no tile in hand"
        logger.info("told to stop (%s); %s", told.result(), in_hand)
        await worker.leave(None if told.result() == LIFETIME else request.grace_s)
        logger.info("closed")
        return True
    reason = worker.refusal
    if reason is None and worker.sent_away:
        reason = UnavailableError(f"{request.scheduler}: the scheduler sent this worker away; start it again.")
    if reason is None and not worker.has_let_go:
        reason = UnavailableError(
            f"{request.scheduler}: the scheduler is gone and its tile cannot be given up; start it again."
        )
    if reason is not None:
        _end_in_time(reason.exit_code)
        raise reason
    return False


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _end_in_time(exit_code: int) -> None:
    """The thread of a tile that could not be given up does not keep the process: it ends soon, or is ended."""
    timer = threading.Timer(PARTING_SECONDS, os._exit, (exit_code,))
    timer.daemon = True
    timer.start()


def _open_gpu() -> None:
    from scanner.ensemble import bundles
    from scanner.ensemble.session import open_session

    open_session(bundles.load(None), "cuda")
