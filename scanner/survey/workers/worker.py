"""A worker process: scans tiles for whichever run comes, and leaves without losing any.

In: the address of a scheduler and a :class:`WorkerRequest`. Out: nothing but log lines; returns when told to stop. Told to stop
(SIGTERM, SIGINT, its lifetime), it takes no new tile and finishes those in hand if the grace allows, else gives them up to
another worker. Refused: a ``--gpu`` worker whose ONNX Runtime has no GPU, a scheduler that does not answer, other versions than
the driver's.

One process and two threads: one scans, one fetches the tile after.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from distributed import Worker
from distributed.core import Status

from scanner.config import EngineConfig
from scanner.errors import ScannerError, UnavailableError
from scanner.survey.scan.tile_scratch import worker_scratch
from scanner.survey.watch import metrics
from scanner.survey.workers.cluster import DASK_FOLDER, DASK_SETTINGS, OFFERED, THREADS, silence_dask
from scanner.survey.workers.transport import Certificates, await_scheduler, security

#: After the grace, until the tile in hand comes to its next batch and can be given up.
GIVING_UP_SECONDS = 5.0
#: Finished results that the driver has not fetched yet are waited for.
FETCHED_SECONDS = 2.0
#: Longest time that each of the last two steps may take: telling the scheduler, and closing.
PARTING_SECONDS = 5.0
WATCH_SECONDS = 0.5
#: Above this part of its memory a worker ends itself, before the system ends something else.
MEMORY_FRACTION = 0.97

LIFETIME = "lifetime"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerRequest:
    """What ``scanner worker`` is told; ``lifetime_s``: leave after it, give or take ``lifetime_stagger_s``."""

    scheduler: str
    gpu: bool = False
    memory_gb: float = 3.0
    scratch: str | None = None
    name: str | None = None
    metrics_port: int | None = None
    metrics_address: str | None = None
    lifetime_s: float | None = None
    lifetime_stagger_s: float = 0.0
    death_timeout_s: float = 60.0
    grace_s: float = 110.0


class SurveyWorker(Worker):
    """Dask's worker, which gives its tile up when it is closed and keeps an eye on its memory.

    ``giving_up``: tiles in hand are to be left at their next sign of progress. ``refusal``: why it does not work for a driver.
    ``scratch``: its own scratch folder; None: the run's, or the system's.
    """

    def __init__(
        self,
        *words: Any,
        scratch: str | None = None,
        metrics_port: int | None = None,
        metrics_address: str | None = None,
        **settings: Any,
    ) -> None:
        self.giving_up = False
        self.refusal: ScannerError | None = None
        self.scratch = scratch
        self._owned = ExitStack()
        folder = self._owned.enter_context(worker_scratch(EngineConfig(scratch=scratch)).scanning(DASK_FOLDER))
        # Dask's own folder lies among those of the tiles, so that whoever sweeps up after a killed worker finds it there.
        super().__init__(*words, **settings | {"local_directory": str(folder)})
        if metrics_port is not None:
            self._owned.enter_context(metrics.serve(metrics_port and metrics_port + self._number(), "worker", metrics_address))
            metrics.memory_limit(int(self.memory_manager.memory_limit or 0))
        self._watching: asyncio.Task[None] | None = None

    async def start_unsafe(self) -> Any:
        """Start, and watch the memory from then on."""
        started = await super().start_unsafe()  # type: ignore[no-untyped-call]
        self._watching = asyncio.create_task(self._watch_memory())
        return started

    async def close(self, *words: Any, **settings: Any) -> Any:
        """Give up what is in hand and close."""
        self.giving_up = True
        try:
            return await super().close(*words, **settings)
        finally:
            if self._watching is not None:
                self._watching.cancel()
            self._owned.close()

    async def leave(self, grace_s: float | None) -> None:
        """Take no new tile, finish those in hand within the grace (None: however long it takes), close."""
        if self.status == Status.running:
            self.status = Status.paused
        await self._until(lambda: not self.tiles_in_hand, grace_s)
        if self.tiles_in_hand:
            logger.info("%s is not done within %.0f s; another worker begins it again", self._named(), grace_s)
            self.giving_up = True
            await self._until(lambda: not self.tiles_in_hand, GIVING_UP_SECONDS)
        await self._until(lambda: not self.data, FETCHED_SECONDS)
        # The scheduler may be told to stop at the same time, and then never answers.
        await _for_a_while(self._retire())
        await _for_a_while(self.close(executor_wait=False, reason="told to stop"))

    async def _retire(self) -> None:
        """Whoever goes unexpectedly counts as a death of its tiles; whoever is retired does not."""
        await self.scheduler.retire_workers(
            workers=[self.address], close_workers=False, remove=True, stimulus_id=f"told-to-stop-{self.address}"
        )

    @property
    def tiles_in_hand(self) -> list[str]:
        """Tiles that are being scanned, cut or scored; what is only fetched ahead can be fetched by another."""
        keys = [task.key for task in self.state.executing]
        return sorted(str(key[1]) for key in keys if isinstance(key, tuple) and key[0] != "fetch")

    def _number(self) -> int:
        """A local worker's number, from 1; a standing worker is alone on its port."""
        return 1 + self.name if isinstance(self.name, int) else 0

    def _named(self) -> str:
        return f"tile {', '.join(self.tiles_in_hand)}"

    async def _until(self, ready: Any, timeout_s: float | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not ready() and (deadline is None or loop.time() < deadline):
            await asyncio.sleep(0.05)

    async def _watch_memory(self) -> None:
        limit = self.memory_manager.memory_limit
        while limit:
            await asyncio.sleep(WATCH_SECONDS)
            memory = self.monitor.proc.memory_info()
            # Pages of memory-mapped mosaics do not count: the system takes them back where it needs them.
            used = memory.rss - getattr(memory, "shared", 0)
            if used > MEMORY_FRACTION * limit:
                logger.error("this worker uses %.1f GB of its %.1f; it ends, its tile is tried again", used / 1e9, limit / 1e9)
                os.kill(os.getpid(), signal.SIGKILL)


async def _for_a_while(step: Coroutine[Any, Any, Any]) -> None:
    """Wait for a step, but not for ever: not even until it has let itself be cancelled."""
    task = asyncio.create_task(step)
    done, _ = await asyncio.wait({task}, timeout=PARTING_SECONDS)
    for ended in done:
        if error := ended.exception():
            logger.debug("while parting: %s", error)


def _end_in_time(exit_code: int) -> None:
    """The thread of a tile that could not be given up does not keep the process: it ends soon, or is ended."""
    timer = threading.Timer(PARTING_SECONDS, os._exit, (exit_code,))
    timer.daemon = True
    timer.start()


def serve(request: WorkerRequest, certificates: Certificates | None) -> None:
    """Work for a scheduler until told to stop; the process is to end with it.

    Raises
    ------
    UnavailableError
        No scheduler answers, or it went away.
    UsageError
        The scheduler's address or the certificates do not fit; a GPU was asked for and there is none.
    ContentError
        The driver runs other versions.
    """
    import dask

    silence_dask()
    if request.gpu:
        _open_gpu()
    await_scheduler(request.scheduler, certificates, request.death_timeout_s)
    with dask.config.set(DASK_SETTINGS):
        asyncio.run(_serve(request, certificates))


async def _serve(request: WorkerRequest, certificates: Certificates | None) -> None:
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
    worker = SurveyWorker(
        request.scheduler,
        nthreads=THREADS,
        name=request.name,
        resources=OFFERED | ({"GPU": 1} if request.gpu else {}),
        memory_limit=f"{request.memory_gb}GB",
        security=security(certificates),
        death_timeout=request.death_timeout_s,
        scratch=request.scratch,
        metrics_port=request.metrics_port,
        metrics_address=request.metrics_address,
    )
    metrics.gpu_expected(request.gpu)
    try:
        await worker
    except Exception as error:
        raise UnavailableError(f"{request.scheduler}: the scheduler does not take this worker ({error}).") from None
    logger.info("connected to %s as %s, offering %s", request.scheduler, worker.name, ", ".join(worker.state.total_resources))
    finished = asyncio.create_task(worker.finished())  # type: ignore[no-untyped-call]
    await asyncio.wait({finished, told}, return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        in_hand = f"finishing tile {', '.join(worker.tiles_in_hand)}" if worker.tiles_in_hand else "no tile in hand"
        logger.info("told to stop (%s); %s", told.result(), in_hand)
        await worker.leave(None if told.result() == LIFETIME else request.grace_s)
        logger.info("closed")
        _end_in_time(0)
        return
    gone = UnavailableError(f"{request.scheduler}: the scheduler sent this worker away or is gone; start it again.")
    reason = worker.refusal or gone
    _end_in_time(reason.exit_code)
    raise reason


def _open_gpu() -> None:
    from scanner.ensemble import bundle as bundles
    from scanner.ensemble.session import open_session

    open_session(bundles.load(None), "cuda")
