"""Scan tiles on Dask workers, a sliding window of them at a time.

In: :class:`TileJob` records. Out: one :class:`TileOutcome` a tile, as they finish. Only small records travel; the window
keeps the scheduler's memory constant however long the tile list is. Refused: a scheduler that cannot be reached.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from scanner.config import EngineConfig, RunConfig
from scanner.errors import InputMissingError
from scanner.records import FailedTile
from scanner.survey.messages import TileJob, TileOutcome, TileProgress
from scanner.survey.tile_task import scan_tile

PROGRESS_TOPIC = "scanner-progress"
#: Tiles in flight a worker: one running and one waiting, so that no worker idles between tiles.
TILES_IN_FLIGHT = 2
#: A worker that dies this often on one tile (killed for memory, a crash in a library) condemns the tile.
ALLOWED_DEATHS = 2
CONNECT_SECONDS = 30


def scan_tiles(
    jobs: Iterable[TileJob], n_jobs: int, config: RunConfig, on_progress: Callable[[TileProgress], None]
) -> Iterator[TileOutcome]:
    """Scan every job; yield outcomes in order of completion.

    Parameters
    ----------
    jobs, n_jobs
        The tiles, consumed lazily, and how many there are.
    config
        The run's configuration; its engine section says how many workers, or where the standing scheduler is.
    on_progress
        Called in this process, from another thread, as batches are done.

    Raises
    ------
    InputMissingError
        No scheduler answers at ``config.scheduler``.
    """
    from distributed import as_completed

    pending = iter(jobs)
    with _client(config.engine, n_jobs) as client:
        client.subscribe_topic(PROGRESS_TOPIC, lambda event: on_progress(TileProgress.model_validate_json(event[1])))
        n_workers = max(len(client.scheduler_info(n_workers=-1)["workers"]), 1)
        first = [_submit(client, job) for job in islice(pending, TILES_IN_FLIGHT * n_workers)]
        running = as_completed(first, loop=client.loop, raise_errors=False)
        for future in running:
            yield _outcome(future)
            future.release()
            for job in islice(pending, 1):
                running.add(_submit(client, job))


def worker_count(config: EngineConfig, n_jobs: int) -> int:
    """Worker processes of a local run: one a core, never more than tiles."""
    return max(min(config.workers or len(os.sched_getaffinity(0)), n_jobs), 1)


def _submit(client: Any, job: TileJob) -> Any:
    # The job travels as JSON: a worker of another version then refuses it by name instead of failing to unpickle.
    return client.submit(_scan_on_worker, job.model_dump_json(), key=f"tile-{job.tile.tile_id}", pure=False)


def _scan_on_worker(job_json: str) -> str:
    from distributed import get_worker

    worker = get_worker()
    job = TileJob.model_validate_json(job_json)
    outcome = scan_tile(job, lambda progress: worker.log_event(PROGRESS_TOPIC, progress.model_dump_json()))
    return outcome.model_dump_json()


def _outcome(future: Any) -> TileOutcome:
    if future.status == "finished":
        return TileOutcome.model_validate_json(future.result())
    tile_id = future.key.removeprefix("tile-")
    error = future.exception() if future.status == "error" else RuntimeError(f"task was {future.status}")
    if type(error).__name__ == "KilledWorker":
        reason = "the worker process died while scanning it, more than once; give it more memory with --memory-gb"
    else:
        reason = f"the worker could not run it: {type(error).__name__}: {error}"
    return TileOutcome(failed=FailedTile(tile_id=tile_id, reason=reason))


@contextmanager
def _client(config: EngineConfig, n_jobs: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        "distributed.scheduler.work-stealing": False,
        # Scoring holds the GIL for seconds; a starved heartbeat must not look like a death.
        "distributed.scheduler.worker-ttl": "15 minutes",
        "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
    }
    with dask.config.set(settings):
        if config.scheduler is not None:
            try:
                client = Client(config.scheduler, timeout=f"{CONNECT_SECONDS}s", set_as_default=False)
            except (OSError, TimeoutError, ValueError) as error:
                raise InputMissingError(f"{config.scheduler}: no Dask scheduler answers there ({error}).") from None
            with client:
                yield client
            return
        with (
            _interrupts_ignored(),
            LocalCluster(
                n_workers=worker_count(config, n_jobs),
                threads_per_worker=1,
                memory_limit=f"{config.memory_limit_gb}GB",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
            _interrupts_restored(),
        ):
            yield client


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let Ctrl-C reach this process only: a child inherits an ignored signal, and prints no traceback of its own."""
    with _interrupts_handled_by(signal.SIG_IGN):
        yield


@contextmanager
def _interrupts_restored() -> Iterator[None]:
    with _interrupts_handled_by(signal.default_int_handler):
        yield


@contextmanager
def _interrupts_handled_by(handler: Any) -> Iterator[None]:
    # Python lets only the main thread touch signal handlers; elsewhere (a notebook's thread) Ctrl-C is not ours anyway.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
