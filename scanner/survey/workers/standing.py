"""Processes that stand and wait for runs: ``scanner worker`` and ``scanner scheduler``."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import signal
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from distributed import Scheduler

from scanner.errors import UnavailableError, UsageError
from scanner.survey import metrics
from scanner.survey.workers.cluster import wanted_by_run
from scanner.survey.workers.transport import (
    DASK_SETTINGS,
    OFFERED,
    RETRY_SECONDS,
    THREADS,
    Certificates,
    await_scheduler,
    parse,
    private_folder,
    security,
    silence_dask,
    stays_here,
)
from scanner.survey.workers.worker import PARTING_SECONDS, SurveyWorker

LIFETIME = "lifetime"
#: Reasons of the system for which a port cannot be had.
NO_PORT = (errno.EADDRINUSE, errno.EACCES)
#: What a scheduler answers over HTTP, and no more.
ROUTES = {"distributed.scheduler.http.routes": ["distributed.http.health", "distributed.http.scheduler.api"]}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerRequest:
    """What ``scanner worker`` is stopping.

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


def serve_worker(request: WorkerRequest, certificates: Certificates | None) -> None:
    """Work for the schedulers of an address until told to stop (SIGTERM, SIGINT, its lifetime); the process is to end with it.

    A scheduler that is not there yet, or goes away, is looked for at the same address, which the next driver may have.

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
        asyncio.run(_serve_worker(request, certificates))


async def _serve_worker(request: WorkerRequest, certificates: Certificates | None) -> None:
    stopping = _stop_requested(request)
    if request.death_timeout_s is None:
        logger.info("looking for a scheduler at %s", request.scheduler)
    while True:
        await _find(request, certificates, stopping)
        if stopping.done():
            logger.info("told to stop (%s); there is no scheduler", stopping.result())
            return _end_in_time(0)
        worker = await _register(request, certificates, stopping)
        if worker is not None and await _work(worker, request, stopping):
            return _end_in_time(0)
        if not stopping.done():
            logger.warning("%s: the scheduler is gone; looking for it again", request.scheduler)


def _stop_requested(request: WorkerRequest) -> asyncio.Future[str]:
    """Becomes the reason for which the worker is to stop."""
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[str] = loop.create_future()

    def stop(reason: str) -> None:
        if stopping.done():
            os._exit(128 + signal.SIGINT)  # Told twice: at once.
        stopping.set_result(reason)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number.name)
    if request.lifetime_s is not None:
        stagger = random.uniform(-request.lifetime_stagger_s, request.lifetime_stagger_s)
        loop.call_later(
            max(request.lifetime_s + stagger, 0.0), lambda: None if stopping.done() else stopping.set_result(LIFETIME)
        )
    return stopping


async def _find(request: WorkerRequest, certificates: Certificates | None, stopping: asyncio.Future[str]) -> None:
    """Wait until a scheduler answers, or the worker is told to stop."""
    stop = threading.Event()
    search = asyncio.to_thread(await_scheduler, request.scheduler, certificates, request.death_timeout_s, stop)
    searching = asyncio.create_task(search)
    await _first(searching, stopping)
    stop.set()
    if searching.done():
        searching.result()


async def _register(
    request: WorkerRequest, certificates: Certificates | None, stopping: asyncio.Future[str]
) -> SurveyWorker | None:
    """The worker, known to the scheduler; None where that went away at this moment, or the worker is told to stop."""
    _, host, _ = parse(request.scheduler, certificates)
    worker = SurveyWorker(
        request.scheduler,
        # Of a scheduler on this machine nobody else needs to reach its workers; left to itself, Dask lets everybody.
        host=host if stays_here(host) else None,
        dashboard_address="127.0.0.1:0",
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
    await _first(starting, stopping)
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


async def _work(worker: SurveyWorker, request: WorkerRequest, stopping: asyncio.Future[str]) -> bool:
    """Work until told to stop (True), or the scheduler is gone (False)."""
    finished = asyncio.create_task(worker.finished())  # type: ignore[no-untyped-call]
    await _first(finished, stopping)
    if stopping.done():
        in_hand = f"finishing tile {', '.join(worker.tiles_in_hand)}" if worker.tiles_in_hand else "no tile in hand"
        logger.info("told to stop (%s); %s", stopping.result(), in_hand)
        await worker.leave(None if stopping.result() == LIFETIME else request.grace_s)
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


class SurveyScheduler(Scheduler):
    """Dask's scheduler, which asks for as many workers as the run says that it could use."""

    def adaptive_target(self, target_duration: Any = None) -> int:
        """Workers that an autoscaler is to provide."""
        return wanted_by_run(self)


def serve_scheduler(host: str, port: int, certificates: Certificates | None, http_port: int | None = None) -> None:
    """Schedule until told to stop (SIGTERM, SIGINT): workers and a driver meet here, and nothing is computed.

    On request it answers an autoscaler over HTTP: ``/health``, and Dask's ``/api/v1``, of which the Dask operator uses
    ``adaptive_target`` and ``retire_workers``. Anyone who reaches that port can dismiss workers.

    Parameters
    ----------
    host, port
        Where to listen; ``0.0.0.0`` for all of this machine's addresses, port 0 for any free one.
    certificates
        With them, only ``tls://`` connections of their authority are let in.
    http_port
        Port for autoscalers, at the same host, without encryption; None: they are not answered.

    Raises
    ------
    UsageError
        The address is taken, or not this machine's.
    """
    import dask

    silence_dask()
    with private_folder(None) as folder, dask.config.set(DASK_SETTINGS | ROUTES | {"temporary-directory": folder}):
        asyncio.run(_serve_scheduler(host, port, certificates, http_port))


async def _serve_scheduler(host: str, port: int, certificates: Certificates | None, http_port: int | None) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    scheme = "tls" if certificates else "tcp"
    with warnings.catch_warnings():
        # Dask would rather answer at another port than be refused this one.
        warnings.filterwarnings("ignore", "Port .* is already in use")
        scheduler = SurveyScheduler(
            host=f"{scheme}://{host}:{port}",
            security=security(certificates),
            dashboard_address="127.0.0.1:0" if http_port is None else f"{host}:{http_port}",
            dashboard=False,
        )
    if http_port is not None and scheduler.http_server.port != http_port:  # type: ignore[attr-defined]
        raise UsageError(f"{host}:{http_port}: cannot answer over HTTP there; choose another --http-port.")
    try:
        await scheduler
    except (OSError, ValueError, RuntimeError) as error:
        # Dask puts what happened behind a "failed to start".
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or cause
        raise UsageError(f"{scheme}://{host}:{port}: cannot listen there ({reason}); choose another host or port.") from None
    logger.info("scheduler listens on %s", scheduler.address)
    await stopping.wait()
    logger.info("told to stop; workers and driver lose it now, committed tiles stay")
    await scheduler.close(reason="told to stop")
