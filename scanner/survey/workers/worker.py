"""Dask's worker as a survey needs it: leaves without losing a tile, keeps an eye on its memory.

In: what Dask's own takes, a scratch folder, a port of metrics. Out: a server that works for one scheduler until it is closed.
Told to leave, it takes no new tile and finishes those in hand if the grace allows, else gives them up to another worker.
Refused: a port of metrics that is taken.

One process and two threads: one scans, one fetches the tile after.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from distributed import Worker
from distributed.core import Status

from scanner.config import EngineConfig
from scanner.errors import ScannerError
from scanner.survey import metrics
from scanner.survey.scan.tile_scratch import worker_scratch
from scanner.survey.workers.cluster import DASK_FOLDER

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

    ``giving_up``: tiles in hand are to be left at their next sign of progress. ``refusal``: why it does not work for a driver.
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
        """Whoever goes unexpectedly counts as a death of its tiles; whoever is retired does not."""
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
        return sorted(str(key[1]) for key in keys if isinstance(key, tuple) and key[0] != "fetch")

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
