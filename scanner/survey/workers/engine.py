"""Jobs on Dask workers, in a sliding window; each is tried again if its worker dies or a store does not answer."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Generic

from scanner.config import EngineConfig, RunConfig
from scanner.errors import ContentError, UnavailableError, error_with_code
from scanner.survey import metrics
from scanner.survey.folder import fingerprint
from scanner.survey.messages import TileProgress
from scanner.survey.scan.tile import parallel_scores
from scanner.survey.workers import cluster
from scanner.survey.workers.cluster import Cluster
from scanner.survey.workers.steps import JobT, OnProgress, OutcomeT, Steps, do_step, fetch_step, with_engine
from scanner.survey.workers.transport import CLOSE_SECONDS

#: Jobs in flight a worker: one running and one being fetched, so that no worker idles between two.
JOBS_IN_FLIGHT = 2
#: What is to be begun first where one worker has several steps before it.
PRIORITY = {"score": 2, "fetch": 1, "whole": 0, "cut": 0}
#: Longest pause before an attempt.
LONGEST_PAUSE_SECONDS = 600.0
#: The death of a worker that had not begun with the job counts for so much of an attempt: most often another job killed it.
WAITING_DEATH = 1 / 4
#: So many jobs in a row given up because a store or a machine did not answer: it is not the jobs.
ROW_OF_UNAVAILABLE = 5
#: How often the workers are counted.
COUNT_SECONDS = 1.0
#: Without a worker for so long, the run says so, once, and goes on waiting.
PATIENCE_SECONDS = 30.0

logger = logging.getLogger(__name__)


def run_on_workers(
    jobs: Iterable[JobT],
    n_jobs: int,
    config: RunConfig,
    steps: Steps[JobT, OutcomeT],
    on_progress: OnProgress = lambda progress: None,
    *,
    on_gpu: bool = False,
) -> Generator[OutcomeT, None, None]:
    """Do every job on the workers that the configuration names; yield outcomes in order of completion.

    Only small records travel. The window follows the number of workers, so that the scheduler's memory does not depend on the
    length of the tile list.

    Close the generator when the rest is not wanted any more: workers then give up the jobs they are doing.

    Parameters
    ----------
    jobs, n_jobs
        The jobs, consumed as they are needed, and how many there are.
    config
        The run's configuration; its engine section says how many workers, or where the standing scheduler is, and how often a
        job is tried.
    steps
        What is done with a job.
    on_progress
        Called in this process, from another thread, as batches are done.
    on_gpu
        Whether the networks run on a GPU: one job at a time scores on it.

    Raises
    ------
    UnavailableError
        The scheduler does not answer, or went away in the middle of the run; a store or a machine does not answer whatever the
        job. The same command goes on later.
    ScannerError
        The cluster cannot be spoken to (certificates, addresses), or its workers cannot do such jobs.
    """
    pending = iter(jobs)
    first = next(pending, None)
    if first is None:
        return
    try:
        with cluster.connected(config.engine, n_jobs) as connected:
            window = _Window(connected, first, n_jobs, config, steps, on_progress, on_gpu)
            with window:
                yield from window.outcomes(chain([first], pending))
    finally:
        if config.engine.starts_workers:
            steps.sweep(config)


@dataclass
class _Attempt(Generic[JobT]):
    """A job being tried. ``number``: from 1; ``tries``: those that count; ``began``: a worker said that it works on it."""

    job: JobT
    serial: int
    number: int = 1
    tries: float = 0.0
    began: bool = False
    futures: list[Any] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What worker and driver call this attempt."""
        return f"{self.serial}/{self.number}"

    def release(self) -> None:
        """Let the scheduler forget the job's tasks."""
        for future in self.futures:
            future.release()
        self.futures.clear()


class _Window(Generic[JobT, OutcomeT]):
    """The jobs in flight on one cluster."""

    def __init__(
        self,
        connected: Cluster,
        job: JobT,
        n_jobs: int,
        config: RunConfig,
        steps: Steps[JobT, OutcomeT],
        on_progress: OnProgress,
        on_gpu: bool,
    ) -> None:
        self._client, self._address = connected.client, connected.address
        self._steps, self._on_progress, self._on_gpu = steps, on_progress, on_gpu
        self._job_type = type(job)
        # Two halves of a job on two workers: the one that cuts need not have a GPU.
        self._split = config.engine.placement == "split" and steps.cut is not None
        # The workers of this machine share its cores; a standing one has its own.
        self._sharing = cluster.worker_count(config.engine, n_jobs) if connected.address is None else None
        self._job = self._shared(job)
        # What scores: the one slot of a worker's GPU; where nothing runs on a GPU, as for any other tile, a worker's SCAN slot.
        self._scoring = {"GPU": 1} if on_gpu else {"SCAN": 1}
        # Keys and topic of this run: what an earlier one left running under a standing scheduler is not to be taken for ours.
        self._token = uuid.uuid4().hex[:12]
        self._topic = f"scanner-{self._token}"
        self._retries: _Retries[JobT, OutcomeT] = _Retries(config.engine, steps)
        self._running: dict[str, _Attempt[JobT]] = {}
        self._events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._workforce = _Workforce(connected, {"SCAN": 1} if self._split else {"SCAN": 1} | self._scoring, self._scoring)

    def __enter__(self) -> None:
        from scanner.survey.workers.worker import PLUGIN_NAME, RunPlugin

        self._client.subscribe_topic(self._topic, self._hear)
        drivers = fingerprint.current_versions(self._job.bundle_fingerprint)
        # A worker that only cuts need not be able to open a session.
        anyone_scores = not (self._split and self._on_gpu)
        plugin = RunPlugin(self._job, self._steps, anyone_scores, drivers, self._topic)
        try:
            self._client.register_plugin(plugin, name=PLUGIN_NAME)
        except Exception as error:
            where = self._address or "this machine's cluster"
            raise ContentError(
                f"{where}: a worker does not even understand this driver ({type(error).__name__}: {error}); "
                "install the same version of scanner everywhere."
            ) from None

    def __exit__(self, *error: object) -> None:
        from scanner.survey.workers.worker import PLUGIN_NAME

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
                self._client.sync(forget, name=PLUGIN_NAME, callback_timeout=CLOSE_SECONDS)

    def outcomes(self, jobs: Iterator[JobT]) -> Iterator[OutcomeT]:
        """Keep the window full and yield what comes out of it."""
        fresh = (_Attempt(job, serial) for serial, job in enumerate(jobs))
        exhausted = False
        while True:
            size = JOBS_IN_FLIGHT * self._workforce.count()
            while len(self._running) < size:
                # Jobs in a pause hold back new ones: while a store is away, few jobs are tried and none of the others.
                attempt = self._retries.due()
                if attempt is None and not exhausted and len(self._retries) < size:
                    attempt = next(fresh, None)
                    exhausted = attempt is None
                if attempt is None:
                    break
                self._submit(attempt)
            if exhausted and not self._running and not len(self._retries):
                return
            for kind, content in self._heard(room=len(self._running) < size):
                outcome = self._handle(kind, content)
                if outcome is not None:
                    yield outcome

    def _submit(self, attempt: _Attempt[JobT]) -> None:
        attempt.began = False
        self._running[attempt.key] = attempt
        job, steps = self._shared(attempt.job), self._steps
        described = (self._job_type, job.model_dump_json())

        def submit(name: str, function: Any, resources: Mapping[str, int], *words: Any) -> Any:
            future = self._client.submit(
                function,
                *words,
                key=(f"scanner-{name}", job.tile.tile_id, attempt.serial, attempt.number, self._token),
                resources=resources,
                priority=PRIORITY[name],
                pure=False,
            )
            attempt.futures.append(future)
            return future

        def step(name: str, function: Any, resources: Mapping[str, int], *before: Any, is_last: bool = True) -> Any:
            return submit(name, do_step, resources, function, *described, self._topic, attempt.key, is_last, *before)

        before = [submit("fetch", fetch_step, {"FETCH": 1}, steps.fetch, *described)] if steps.remote(job) else []
        if self._split:
            before = [step("cut", steps.cut, {"SCAN": 1}, *before, is_last=False)]
            last = step("score", steps.score, self._scoring, *before)
        else:
            last = step("whole", steps.whole, {"SCAN": 1} | self._scoring, *before)
        key = attempt.key
        last.add_done_callback(lambda future: self._events.put(("over", (key, future))))

    def _shared(self, job: JobT) -> JobT:
        """The job as a worker does it that has its cores with others."""
        return with_engine(job, parallel_scores=parallel_scores(job.config, self._sharing)) if self._sharing else job

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
        """What has happened since, at the latest when the next job is due or the workers are to be counted."""
        patience = min(self._retries.seconds_to_next(), COUNT_SECONDS) if room else COUNT_SECONDS
        try:
            yield self._events.get(timeout=patience)
            while True:
                yield self._events.get_nowait()
        except Empty:
            return

    def _handle(self, kind: str, content: Any) -> OutcomeT | None:
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
        attempt.release()
        return self._retries.settle(attempt, self._steps.outcome.model_validate_json(content["outcome"]))

    def _over(self, key: str, future: Any) -> OutcomeT | None:
        """Dask says that a job's last task is through. Nothing is left to do where its outcome has been heard."""
        attempt = self._running.get(key)
        if attempt is None:
            return None
        if future.status in ("cancelled", "lost"):
            raise self._workforce.lost()
        error = future.exception() if future.status == "error" else RuntimeError("it gave no outcome")
        del self._running[key]
        attempt.release()
        if type(error).__name__ == "KilledWorker":
            return self._retries.died(attempt)
        reason = f"the worker could not run it: {type(error).__name__}: {error}"
        return self._steps.outcome.given_up(attempt.job.tile.tile_id, reason)


class _Retries(Generic[JobT, OutcomeT]):
    """The jobs in a pause between two attempts: pauses double, and after ``engine.attempts`` a job is given up."""

    def __init__(self, engine: EngineConfig, steps: Steps[JobT, OutcomeT]) -> None:
        self._most, self._backoff_s, self._steps = engine.attempts, engine.backoff_s, steps
        self._paused: list[tuple[float, int, _Attempt[JobT]]] = []
        self._order = itertools.count()
        self._unavailable_in_a_row = 0

    def __len__(self) -> int:
        return len(self._paused)

    def due(self) -> _Attempt[JobT] | None:
        """An attempt whose pause is over."""
        return heapq.heappop(self._paused)[2] if self._paused and self._paused[0][0] <= time.monotonic() else None

    def seconds_to_next(self) -> float:
        """Until the next attempt is due."""
        return max(self._paused[0][0] - time.monotonic(), 0.0) if self._paused else float("inf")

    def settle(self, attempt: _Attempt[JobT], outcome: OutcomeT) -> OutcomeT | None:
        """What an outcome comes to: itself, or another attempt (None).

        Raises
        ------
        UnavailableError
            :data:`ROW_OF_UNAVAILABLE` jobs in a row came to nothing.
        """
        reason = outcome.retry_reason
        if reason is None:
            self._unavailable_in_a_row = 0
            return outcome
        settled = self._again(attempt, 1.0, reason)
        if settled is not None:
            self._unavailable_in_a_row += 1
            if self._unavailable_in_a_row >= ROW_OF_UNAVAILABLE:
                raise UnavailableError(
                    f"{ROW_OF_UNAVAILABLE} tiles in a row could not be had or kept, the last one because: {reason}"
                )
        return settled

    def died(self, attempt: _Attempt[JobT]) -> OutcomeT | None:
        """What the death of a job's worker comes to."""
        reason = f"the worker process died while {self._steps.doing} it; give it more memory with --memory-gb"
        return self._again(attempt, 1.0 if attempt.began else WAITING_DEATH, reason)

    def _again(self, attempt: _Attempt[JobT], tries: float, reason: str) -> OutcomeT | None:
        attempt.tries += tries
        if attempt.tries >= self._most:
            last = f"{reason} (given up after {self._most} attempts)" if self._most > 1 else reason
            return self._steps.outcome.given_up(attempt.job.tile.tile_id, last)
        attempt.number += 1
        pause = min(self._backoff_s * 2 ** (int(attempt.tries) - 1), LONGEST_PAUSE_SECONDS) if attempt.tries >= 1 else 0.0
        metrics.tile_retried()
        logger.warning("trying again in %.0f s: %s", pause, reason, extra={"tile": attempt.job.tile.tile_id})
        heapq.heappush(self._paused, (time.monotonic() + pause, next(self._order), attempt))
        return None


class _Workforce:
    """The workers of a run, counted as they come and go.

    Parameters
    ----------
    connected
        Their cluster.
    beginning, scoring
        What a worker has to offer to be given a job, and to score one.
    """

    def __init__(self, connected: Cluster, beginning: Mapping[str, int], scoring: Mapping[str, int]) -> None:
        self._client, self._address = connected.client, connected.address
        self._beginning, self._scoring = beginning, scoring
        self._n_workers = self._n_usable = 0
        self._counted = float("-inf")
        self._idle_since: float | None = None
        self._complained = False

    def count(self) -> int:
        """Workers that can be given a tile, as of a second ago."""
        now = time.monotonic()
        if now - self._counted < COUNT_SECONDS:
            return self._n_usable
        self._counted = now
        if self._client.status != "running":
            raise self.lost()
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        ready = [worker["resources"] for worker in workers if worker["status"] == "running" and worker["resources"].get("SCAN")]
        if len(ready) < self._n_workers:
            metrics.worker_lost()
        if len(ready) != self._n_workers:
            metrics.workers(len(ready))
        self._n_workers = len(ready)
        self._n_usable = sum(all(offered.get(name) for name in self._beginning) for offered in ready)
        n_scoring = sum(all(offered.get(name) for name in self._scoring) for offered in ready)
        self._complain(now, nobody=not ready, no_gpu=not n_scoring)
        return self._n_usable

    def lost(self) -> UnavailableError:
        """The scheduler went away."""
        return UnavailableError(
            f"{self._address or 'the scheduler'}: the Dask scheduler went away; committed tiles stay: "
            "give the same command again once it is back."
        )

    def _complain(self, now: float, *, nobody: bool, no_gpu: bool) -> None:
        if not no_gpu and not nobody:
            self._idle_since, self._complained = None, False
            return
        self._idle_since = self._idle_since or now
        if now - self._idle_since < PATIENCE_SECONDS or self._complained:
            return
        self._complained = True
        if self._address is None:
            logger.warning("no worker process runs, though each is started again; waiting for one")
        elif nobody:
            logger.warning("no worker is connected to %s; waiting for one ('scanner worker %s')", self._address, self._address)
        else:
            logger.warning("no worker of %s offers a GPU; waiting for one ('scanner worker --gpu')", self._address)
