"""What runs in a worker process: Dask's worker and nanny as a survey needs them, and a run's plugin."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from distributed import Nanny, Worker, WorkerPlugin
from distributed.core import Status

from scanner.config import EngineConfig
from scanner.errors import ContentError, ScannerError
from scanner.survey import metrics
from scanner.survey.folder import fingerprint
from scanner.survey.folder.fingerprint import Versions
from scanner.survey.scan.scratch import worker_scratch
from scanner.survey.workers.steps import Job, Steps, own_job
from scanner.survey.workers.transport import CLOSE_SECONDS, DASK_FOLDER

#: After the grace, until the tile in hand comes to its next batch and can be given up.
GIVING_UP_SECONDS = 5.0
#: Finished results that the driver has not fetched yet are waited for.
FETCHED_SECONDS = 2.0
#: Longest time that each of the last two steps may take: telling the scheduler, and closing.
PARTING_SECONDS = 5.0
WATCH_SECONDS = 0.5
#: Why a worker is closed by a scheduler that goes on without it.
SENT_AWAY = ("scheduler-close-worker", "scheduler-remove-worker")
#: Above this part of its memory a worker ends itself, before the system ends something else.
MEMORY_FRACTION = 0.97

logger = logging.getLogger(__name__)


class SurveyWorker(Worker):
    """Dask's worker, which gives its tile up when it is closed and keeps an eye on its memory.

    ``giving_up``: tiles being scanned are left at their next sign of progress. ``refusal``: why it does not work for a driver.
    ``sent_away``: the scheduler goes on without it. ``scratch``: its own scratch folder; None: the run's, or the system's.
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
        self.sent_away = False
        self.scratch = scratch
        self._owned = ExitStack()
        folder = self._owned.enter_context(worker_scratch(EngineConfig(scratch=scratch)).scanning(DASK_FOLDER))
        # Dask's own folder lies among those of the tiles, so that the sweep after a killed worker finds it there.
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
        """Give up the tiles being scanned and close."""
        self.giving_up = True
        # Of one that is retired, most often to be taken away, the connection is closed like that of one whose scheduler died.
        self.sent_away |= self.status == Status.closing_gracefully or settings.get("reason") in SENT_AWAY
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
        if self.tiles_in_hand and not self._is_closing:
            logger.info("%s is not done within %.0f s; another worker begins it again", self._named(), grace_s)
            self.giving_up = True
            await self._until(lambda: not self.tiles_in_hand, GIVING_UP_SECONDS)
        await self._until(lambda: not self.data, FETCHED_SECONDS)
        # The scheduler may be told to stop at the same time, and then never answers.
        await for_a_while(self._retire())
        await for_a_while(self.close(executor_wait=False, reason="told to stop"))

    async def _retire(self) -> None:
        """Retire: a worker that goes unexpectedly counts as a death of its tiles; a retired one does not."""
        await self.scheduler.retire_workers(
            workers=[self.address], close_workers=False, remove=True, stimulus_id=f"told-to-stop-{self.address}"
        )

    @property
    def has_let_go(self) -> bool:
        """Whether the threads of a closed worker have ended; that of a tile which could not be given up has not."""
        executor: Any = self.executors["default"]
        return not any(thread.is_alive() for thread in executor._threads)

    @property
    def tiles_in_hand(self) -> list[str]:
        """Tiles that are being scanned, cut or scored; what is only fetched ahead can be fetched by another."""
        keys = [task.key for task in self.state.executing]
        return sorted(str(key[1]) for key in keys if isinstance(key, tuple) and key[0] != "scanner-fetch")

    def _number(self) -> int:
        """A worker's number among those of this machine, from 1."""
        return 1 + self.name if isinstance(self.name, int) else 0

    def _named(self) -> str:
        return f"tile {', '.join(self.tiles_in_hand)}"

    @property
    def _is_closing(self) -> bool:
        return self.status in (Status.closing, Status.closed, Status.failed)

    async def _until(self, ready: Any, timeout_s: float | None) -> None:
        """Wait until it is ready, or has lost its scheduler and gives up anyway."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not (ready() or self._is_closing) and (deadline is None or loop.time() < deadline):
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


async def for_a_while(step: Coroutine[Any, Any, Any]) -> None:
    """Wait for a step, but not for ever: not even until it has let itself be cancelled."""
    task = asyncio.create_task(step)
    done, _ = await asyncio.wait({task}, timeout=PARTING_SECONDS)
    for ended in done:
        if error := ended.exception():
            logger.debug("while parting: %s", error)


class WorkerProcess(Nanny):
    """Dask's nanny, which ends its process quickly: a tile in hand would keep it for ever."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings | {"worker_class": SurveyWorker})

    async def kill(self, timeout: float = CLOSE_SECONDS, reason: str = "nanny-kill") -> None:
        """End the process, politely for ``CLOSE_SECONDS`` at most; one that is only being started has nothing to lose."""
        process: Any = self.process
        if process is not None and process.status == Status.starting and process.process is not None:
            await process.process.kill()
        await super().kill(timeout=min(timeout, CLOSE_SECONDS), reason=reason)


#: One name for all runs: the plugin of a driver that was killed is replaced by that of the next.
PLUGIN_NAME = "scanner"
#: How long tiles of an earlier run are waited for, which were cancelled and end at their next batch.
TEARDOWN_SECONDS = 20.0


class RunPlugin(WorkerPlugin):
    """What a driver does to each worker before it gets a job, whenever it joins, and when the run is over.

    A worker has bundle and session loaded before its first job, so that no job pays for it. One with other versions than the
    driver's, or which cannot load the networks, reports it in one line, to the driver too, gets no job and leaves.

    Parameters
    ----------
    job
        Any job of the run: it names bundle, provider and settings.
    steps
        The functions of the run.
    anyone_scores
        Whether a worker without a GPU scores as well.
    drivers
        Versions of the driver.
    topic
        Where the driver listens.
    """

    def __init__(self, job: Job, steps: Steps[Any, Any], anyone_scores: bool, drivers: Versions, topic: str) -> None:
        self._job_type, self._job_json = type(job), job.model_dump_json()
        self._steps, self._anyone_scores = steps, anyone_scores
        self._drivers = drivers.model_dump_json()
        self._topic = topic

    async def setup(self, worker: Any) -> None:
        """Load what the run needs, compare versions; refuse the worker where they differ."""
        try:
            found = await asyncio.to_thread(self._prepare, worker)
        except ScannerError as error:
            self._refuse(worker, type(error)(f"worker {worker.name}: {error}"))
        except Exception as error:
            reason = f"worker {worker.name} cannot work for this run ({type(error).__name__}: {error})."
            self._refuse(worker, ContentError(reason))
        else:
            if found:
                reason = f"worker {worker.name} has {', '.join(found)}; it gets no tile: install the same, and start it again."
                self._refuse(worker, ContentError(reason))

    async def teardown(self, worker: Any) -> None:
        """Release what the run needed, once its tiles have been given up; a worker that closes does not wait."""
        for _ in range(int(TEARDOWN_SECONDS / 0.05)):
            if worker.giving_up or not worker.state.executing:
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._steps.close, self._job(worker).config)

    def _job(self, worker: Any) -> Job:
        return own_job(self._job_type, self._job_json, worker.scratch)

    def _prepare(self, worker: Any) -> tuple[str, ...]:
        """What the worker has otherwise than the driver."""
        drivers = Versions.model_validate_json(self._drivers)
        # The libraries first: another version of scanner may not even read the bundle.
        if found := fingerprint.version_differences(fingerprint.current_versions(drivers.bundle), drivers):
            return found
        scores = self._anyone_scores or "GPU" in worker.state.total_resources
        bundle = self._steps.prepare(self._job(worker), scores)
        return fingerprint.version_differences(fingerprint.current_versions(bundle), drivers)

    def _refuse(self, worker: Any, refusal: ScannerError) -> None:
        worker.refusal = refusal
        logger.error("%s", refusal)
        # Paused at once: Dask may have promised it tiles already.
        worker.status = Status.paused
        worker.log_event(self._topic, {"refused": str(refusal), "exit_code": refusal.exit_code})
        worker.loop.add_callback(worker.leave, 0.0)
