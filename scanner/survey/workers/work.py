"""What Dask calls on a worker for one tile, and how a worker lets go of a tile in the middle.

In: a :class:`Work`, which names the functions; jobs as JSON. Out: messages on the run's topic, as a tile begins, goes on and
ends: its outcome travels with them, so that a worker may die the moment after and nothing is done twice. Refused: nothing.

A tile is given up at its next sign of progress when its worker has to leave or nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scanner.config import RunConfig
from scanner.survey.messages import TileJob, TileOutcome, TileProgress

OnProgress = Callable[[TileProgress], None]


class GivenUp(BaseException):
    """The tile in hand is to be left as it is. Not an :class:`Exception`: nobody may take it for the tile's own failure."""


@dataclass(frozen=True)
class Work:
    """The functions that make a run of tiles; tests and benchmarks bring others than ``tiles.TILES``.

    ``prepare(job, scores)``: on each worker before its first tile: the bundle and, where it is to score, a session; gives the
    bundle's fingerprint. ``close(config)``: on each worker when the run is over. ``remote(job)``: in the driver: whether
    ``fetch`` has something to do. ``fetch(job)``: bring the files near; raises nothing, since the step after meets the same and
    tells. Then, in one placement, ``scan(job, on_progress)``; in the other ``cut(job, on_progress)`` on any worker and, with
    what it returned (small), ``score(job, cut, on_progress)`` on one with a GPU. ``sweep(config)``: in the driver, when the
    workers of this machine are gone.
    """

    prepare: Callable[[TileJob, bool], str]
    close: Callable[[RunConfig], None]
    remote: Callable[[TileJob], bool]
    fetch: Callable[[TileJob], None]
    scan: Callable[[TileJob, OnProgress], TileOutcome]
    cut: Callable[[TileJob, OnProgress], Any]
    score: Callable[[TileJob, Any, OnProgress], TileOutcome]
    sweep: Callable[[RunConfig], None]


def own_job(job_json: str) -> TileJob:
    """A job as this worker does it: with its own scratch folder, where it was given one."""
    from distributed import get_worker

    worker: Any = get_worker()
    return in_scratch(TileJob.model_validate_json(job_json), worker.scratch)


def in_scratch(job: TileJob, scratch: str | None) -> TileJob:
    """The job with another scratch folder; None: the run's."""
    return job if scratch is None else job.with_engine(scratch=scratch)


def fetch_step(function: Callable[[TileJob], None], job_json: str) -> None:
    """Prefetch a tile."""
    function(own_job(job_json))


def cut_step(function: Callable[..., Any], job_json: str, topic: str, key: str, fetched: None = None) -> Any:
    """First half of a tile, after its fetching where that was needed."""
    return _call(function, job_json, topic, key)


def scan_step(function: Callable[..., TileOutcome], job_json: str, topic: str, key: str, fetched: None = None) -> None:
    """A whole tile, after its fetching where that was needed; tells the outcome."""
    _tell(_call(function, job_json, topic, key), topic, key)


def score_step(function: Callable[..., TileOutcome], job_json: str, topic: str, key: str, cut: Any) -> None:
    """Second half of a tile; tells the outcome."""
    _tell(_call(function, job_json, topic, key, cut), topic, key)


def _tell(outcome: TileOutcome, topic: str, key: str) -> None:
    from distributed import get_worker

    get_worker().log_event(topic, {"ended": key, "outcome": outcome.model_dump_json()})


def _call(function: Callable[..., Any], job_json: str, topic: str, key: str, *inputs: Any) -> Any:
    from distributed import Reschedule, get_worker

    worker: Any = get_worker()
    job = own_job(job_json)
    task = worker.get_current_task()

    def on_progress(progress: TileProgress) -> None:
        if _unwanted(worker, task):
            raise GivenUp
        worker.log_event(topic, {"progress": progress.model_dump_json()})

    worker.log_event(topic, {"began": key})
    try:
        result = function(job, *inputs, on_progress)
    except GivenUp:
        result = None
    # Begun again on another worker if the run goes on; a task that was cancelled is simply over. A failure that comes while the
    # worker clears up behind it is not the tile's.
    if result is None or (_unwanted(worker, task) and getattr(result, "commit", None) is None):
        raise Reschedule
    return result


def _unwanted(worker: Any, task: Any) -> bool:
    if worker.giving_up:
        return True
    state = worker.state.tasks.get(task)
    return state is None or state.state == "cancelled"
