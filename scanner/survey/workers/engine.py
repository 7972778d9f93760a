"""Scan tiles on Dask workers, a sliding window of them at a time.

In: :class:`TileJob` records, consumed as they are needed. Out: one :class:`TileOutcome` a tile, as they finish; never a
``passing`` one, and nothing after a ``fatal`` one. Tiles whose worker died or whose store did not answer are tried again after
a pause, during which others go on; after ``engine.attempts`` they have failed for this run. Only small records travel; the
window follows the number of workers, so that the scheduler's memory does not depend on the length of the tile list. Refused:
see :mod:`scanner.survey.workers.cluster`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any

from scanner.config import RunConfig
from scanner.errors import ContentError, error_with_code
from scanner.survey.messages import TileJob, TileOutcome, TileProgress
from scanner.survey.scan.scoring import with_parallel_scores
from scanner.survey.scan.tile_work import GPU_PROVIDERS
from scanner.survey.workers import cluster, versions
from scanner.survey.workers.attempts import Attempt, Attempts
from scanner.survey.workers.cluster import Cluster, worker_count
from scanner.survey.workers.tiles import TILES
from scanner.survey.workers.work import Work, cut_step, fetch_step, scan_step, score_step
from scanner.survey.workers.workforce import COUNT_SECONDS, Workforce

__all__ = ["scan_tiles", "worker_count"]

#: Tiles in flight a worker: one running and one being fetched, so that no worker idles between tiles.
TILES_IN_FLIGHT = 2
#: What is to be begun first where one worker has several steps before it.
PRIORITY = {"score": 2, "fetch": 1, "scan": 0, "cut": 0}

logger = logging.getLogger(__name__)


def scan_tiles(
    jobs: Iterable[TileJob],
    n_jobs: int,
    config: RunConfig,
    on_progress: Callable[[TileProgress], None] = lambda progress: None,
    work: Work = TILES,
) -> Generator[TileOutcome, None, None]:
    """Scan every job; yield outcomes in order of completion.

    Parameters
    ----------
    jobs, n_jobs
        The tiles, consumed lazily, and how many there are.
    config
        The run's configuration; its engine section says how many workers, or where the standing scheduler is.
    on_progress
        Called in this process, from another thread, as batches are done.
    work
        What is done with a tile.

    Raises
    ------
    UnavailableError
        The scheduler does not answer, or went away in the middle of the run: the same command goes on later.
    ScannerError
        It cannot be spoken to: certificates, addresses.
    """
    pending = iter(jobs)
    first = next(pending, None)
    if first is None:
        return
    try:
        with cluster.connected(config.engine, n_jobs) as connected:
            run = _Run(connected, first, n_jobs, config, on_progress, work)
            with run:
                yield from run.outcomes(chain([first], pending))
    finally:
        if config.engine.starts_workers:
            work.sweep(config)


class _Run:
    """One run on one cluster."""

    def __init__(
        self,
        connected: Cluster,
        job: TileJob,
        n_jobs: int,
        config: RunConfig,
        on_progress: Callable[[TileProgress], None],
        work: Work,
    ) -> None:
        self._client, self._address = connected.client, connected.address
        self._work, self._on_progress = work, on_progress
        self._split = config.engine.placement == "split"
        # The workers of this machine share its cores; a standing one has its own.
        self._sharing = worker_count(config.engine, n_jobs) if connected.address is None else None
        self._job = self._shared(job)
        # What scores: the one slot of a worker's GPU; where nothing runs on a GPU, as for any other tile, a worker's SCAN slot.
        self._scoring = {"GPU": 1} if job.provider in GPU_PROVIDERS else {"SCAN": 1}
        # Keys and topic of this run: what an earlier one left running under a standing scheduler is not to be taken for ours.
        self._token = uuid.uuid4().hex[:12]
        self._topic = f"scanner-{self._token}"
        self._attempts = Attempts(config.engine.attempts, config.engine.backoff_s)
        self._running: dict[str, Attempt] = {}
        self._events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._workforce = Workforce(connected, {"SCAN": 1} if self._split else {"SCAN": 1} | self._scoring, self._scoring)

    def __enter__(self) -> None:
        from scanner.survey.workers.worker_plugin import NAME, RunPlugin

        self._client.subscribe_topic(self._topic, self._hear)
        drivers = versions.current(self._job.bundle_fingerprint)
        try:
            self._client.register_plugin(RunPlugin(self._job.model_dump_json(), self._work, drivers, self._topic), name=NAME)
        except Exception as error:
            where = self._address or "this machine's cluster"
            raise ContentError(
                f"{where}: a worker does not even understand this driver ({type(error).__name__}: {error}); "
                "install the same version of scanner everywhere."
            ) from None

    def __exit__(self, *error: object) -> None:
        from scanner.survey.workers.worker_plugin import NAME

        if self._client.status != "running":
            return
        futures = [future for attempt in self._running.values() for future in attempt.futures]
        if futures:
            # Workers let go of what nobody waits for, at its next batch.
            self._client.cancel(futures, force=True)
        if self._address is not None:
            # The workers are told; that they are ready with it is for the next run to wait for.
            with suppress(OSError, TimeoutError):
                forget = self._client.scheduler.unregister_worker_plugin
                self._client.sync(forget, name=NAME, callback_timeout=cluster.CLOSE_SECONDS)

    def outcomes(self, jobs: Iterator[TileJob]) -> Iterator[TileOutcome]:
        """Keep the window full and tell what comes out of it."""
        fresh = (Attempt(job) for job in jobs)
        exhausted = False
        while True:
            window = TILES_IN_FLIGHT * self._workforce.count()
            while len(self._running) < window:
                # Tiles in a pause hold back new ones: while a store is away, few tiles are tried and none of the others.
                attempt = self._attempts.due()
                if attempt is None and not exhausted and len(self._attempts) < window:
                    attempt = next(fresh, None)
                    exhausted = attempt is None
                if attempt is None:
                    break
                self._submit(attempt)
            if exhausted and not self._running and not len(self._attempts):
                return
            for kind, content in self._heard(room=len(self._running) < window):
                outcome = self._handle(kind, content)
                if outcome is not None:
                    yield outcome
                    if outcome.fatal is not None:
                        return

    def _submit(self, attempt: Attempt) -> None:
        attempt.began = False
        key = f"{attempt.job.tile.tile_id}/{attempt.number}"
        self._running[key] = attempt
        job, work = self._shared(attempt.job), self._work
        job_json = job.model_dump_json()

        def step(name: str, function: Any, step_function: Any, resources: dict[str, int], *inputs: Any) -> Any:
            future = self._client.submit(
                function,
                step_function,
                job_json,
                *inputs,
                key=(f"scanner-{name}", attempt.job.tile.tile_id, attempt.number, self._token),
                resources=resources,
                priority=PRIORITY[name],
                pure=False,
            )
            attempt.futures.append(future)
            return future

        fetched = [step("fetch", fetch_step, work.fetch, {"FETCH": 1})] if work.remote(job) else []
        if self._split:
            cut = step("cut", cut_step, work.cut, {"SCAN": 1}, self._topic, key, *fetched)
            last = step("score", score_step, work.score, self._scoring, self._topic, key, cut)
        else:
            last = step("scan", scan_step, work.scan, {"SCAN": 1} | self._scoring, self._topic, key, *fetched)
        last.add_done_callback(lambda future: self._events.put(("over", (key, future))))

    def _shared(self, job: TileJob) -> TileJob:
        return with_parallel_scores(job, self._sharing) if self._sharing else job

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        """A message of a worker; called in the client's thread, in the order in which they were sent."""
        message = event[1]
        if "progress" in message:
            self._on_progress(TileProgress.model_validate_json(message["progress"]))
        elif "began" in message:
            if attempt := self._running.get(message["began"]):
                attempt.began = True
        else:
            self._events.put(("said", message))

    def _heard(self, *, room: bool) -> Iterator[tuple[str, Any]]:
        """What has happened since, at the latest when the next tile is due or the workers are to be counted."""
        patience = min(self._attempts.seconds_to_next(), COUNT_SECONDS) if room else COUNT_SECONDS
        try:
            yield self._events.get(timeout=patience)
            while True:
                yield self._events.get_nowait()
        except Empty:
            return

    def _handle(self, kind: str, content: Any) -> TileOutcome | None:
        if kind == "over":
            return self._over(*content)
        if "refused" in content:
            if self._address is None:
                raise error_with_code(content["exit_code"], content["refused"])
            logger.warning("%s", content["refused"])
            return None
        attempt = self._running.pop(content["ended"], None)
        if attempt is None:
            return None
        outcome = TileOutcome.model_validate_json(content["outcome"])
        attempt.release()
        return self._attempts.settle(attempt, outcome)

    def _over(self, key: str, future: Any) -> TileOutcome | None:
        """Dask says that a tile's last task is through. Nothing is left to do where its outcome has been heard."""
        attempt = self._running.get(key)
        if attempt is None:
            return None
        if future.status in ("cancelled", "lost"):
            raise self._workforce.lost()
        error = future.exception() if future.status == "error" else RuntimeError("it gave no outcome")
        del self._running[key]
        attempt.release()
        if type(error).__name__ == "KilledWorker":
            return self._attempts.died(attempt)
        return attempt.failed(f"the worker could not run it: {type(error).__name__}: {error}")
