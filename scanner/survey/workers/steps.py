"""The steps of a job on a worker, those of a tile among them, and how Dask calls them.

An outcome travels with the message that the job has ended, so a worker that dies just after it loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.records import Tile
from scanner.sky.local_files import remote_files
from scanner.survey import metrics
from scanner.survey.messages import TileJob, TileOutcome, TileProgress
from scanner.survey.scan import scratch, tile

OnProgress = Callable[[TileProgress], None]


class Job(Protocol):
    """What every job has: a pydantic record of one tile, or of a part of one."""

    @property
    def tile(self) -> Tile: ...  # noqa: D102
    @property
    def config(self) -> RunConfig: ...  # noqa: D102
    @property
    def bundle_fingerprint(self) -> str: ...  # noqa: D102
    def model_dump_json(self) -> str: ...  # noqa: D102
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...  # noqa: D102
    @classmethod
    def model_validate_json(cls, json_data: str) -> Self: ...  # noqa: D102


class Outcome(Protocol):
    """What every outcome says of its job: a pydantic record."""

    @property
    def succeeded(self) -> bool:
        """Whether nothing of the job is left to do."""

    @property
    def retry_reason(self) -> str | None:
        """Why it failed, where another attempt may fare better."""

    @classmethod
    def given_up(cls, tile_id: str, reason: str) -> Self:
        """The outcome of a job that is not tried any more."""

    def model_dump_json(self) -> str: ...  # noqa: D102
    @classmethod
    def model_validate_json(cls, json_data: str) -> Self: ...  # noqa: D102


JobT = TypeVar("JobT", bound=Job)
OutcomeT = TypeVar("OutcomeT", bound=Outcome)


def _nothing(_: Any) -> None:
    """Where there is nothing to be done."""


def _never(_: Any) -> bool:
    return False


@dataclass(frozen=True)
class Steps(Generic[JobT, OutcomeT]):
    """The functions that make one kind of job; Dask carries them to the workers by name.

    ``outcome``: type of what ``whole`` and ``score`` return. ``doing``: a word for people, e.g. "scanning".

    ``prepare(job, scores)``: on each worker before its first job; loads the bundle and, where the worker is to score, opens a
    session; returns the bundle's fingerprint. ``close(config)``: on each worker when the run is over. ``sweep(config)``: in the
    driver, when the workers of this machine are gone.

    ``remote(job)``: in the driver: whether ``fetch`` has something to do. ``fetch(job)``: brings the files near; raises
    nothing, as the next step meets the same and reports it. Then, with placement "whole", ``whole(job, on_progress)``; with
    "split", where the job has two halves, ``cut(job, on_progress)`` on any worker and, with what that returned (small),
    ``score(job, cut, on_progress)`` on one with a GPU.
    """

    outcome: type[OutcomeT]
    doing: str
    prepare: Callable[[JobT, bool], str]
    whole: Callable[[JobT, OnProgress], OutcomeT]
    cut: Callable[[JobT, OnProgress], Any] | None = None
    score: Callable[[JobT, Any, OnProgress], OutcomeT] | None = None
    remote: Callable[[JobT], bool] = _never
    fetch: Callable[[JobT], None] = _nothing
    close: Callable[[RunConfig], None] = _nothing
    sweep: Callable[[RunConfig], None] = _nothing


def _prepare(job: TileJob, scores: bool) -> str:
    """Load what a worker's tiles need, once; returns the bundle's fingerprint."""
    metrics.disk("scratch", scratch.scratch_root(job.config.engine))
    if not scores:
        return bundles.load(job.bundle, job.config.storage).fingerprint
    scorer = tile.load_scorer(job)
    metrics.scores_with(scorer.provider, scorer.bundle.manifest.name, scorer.bundle.manifest.version)
    return scorer.bundle.fingerprint


def _close(config: RunConfig) -> None:
    """Release what a run's tiles needed on a worker, which may wait for the next run."""
    scratch.worker_scratch(config.engine).forget_all()
    tile.forget_scorer()


def _is_remote(job: TileJob) -> bool:
    """Whether a tile has files to fetch."""
    return bool(remote_files(job.tile))


#: Of a run of tiles.
SCANNING = Steps(
    outcome=TileOutcome,
    doing="scanning",
    prepare=_prepare,
    close=_close,
    sweep=scratch.sweep_scratch,
    remote=_is_remote,
    fetch=tile.prefetch_tile,
    whole=tile.scan_tile,
    cut=tile.cut_tile,
    score=tile.score_tile,
)


class GivenUp(BaseException):
    """The current job is to be left as it is. Not an :class:`Exception`: nobody may take it for the job's own failure."""


def with_engine(job: JobT, **changes: Any) -> JobT:
    """The job with other settings of the engine."""
    engine = job.config.engine.model_copy(update=changes)
    return job.model_copy(update={"config": job.config.model_copy(update={"engine": engine})})


def own_job(job_type: type[JobT], job_json: str, scratch: str | None) -> JobT:
    """A job as a worker does it: with its own scratch folder, where it was given one."""
    job = job_type.model_validate_json(job_json)
    return job if scratch is None else with_engine(job, scratch=scratch)


def fetch_step(fetch: Callable[[JobT], None], job_type: type[JobT], job_json: str) -> None:
    """Bring the files of a job near; called by Dask."""
    from distributed import get_worker

    worker: Any = get_worker()
    fetch(own_job(job_type, job_json, worker.scratch))


def do_step(
    step: Callable[..., Any], job_type: type[JobT], job_json: str, topic: str, key: str, is_last: bool, *before: Any
) -> Any:
    """Do a step of a job; called by Dask.

    It is given up at its next sign of progress when its worker has to leave or nobody waits for it any more.

    Parameters
    ----------
    step
        One of the functions of :class:`Steps`.
    job_type, job_json
        The job.
    topic, key
        Where the driver listens, and what it calls this attempt.
    is_last
        Whether the step returns the job's outcome, which is then reported; else what it returns is for the step after.
    *before
        Results of the steps before; fetching has none (None).
    """
    from distributed import Reschedule, get_worker

    worker: Any = get_worker()
    task = worker.get_current_task()

    def on_progress(progress: TileProgress) -> None:
        if _is_unwanted(worker, task):
            raise GivenUp
        worker.log_event(topic, {"progress": progress.model_dump_json()})

    worker.log_event(topic, {"began": key})
    inputs = [result for result in before if result is not None]
    try:
        result = step(own_job(job_type, job_json, worker.scratch), *inputs, on_progress)
    except GivenUp:
        result = None
    # Begun again on another worker if the run goes on; a task that was cancelled is simply over. A failure that comes while the
    # worker clears up behind it is not the job's.
    if result is None or (_is_unwanted(worker, task) and not (is_last and result.succeeded)):
        raise Reschedule
    if not is_last:
        return result
    worker.log_event(topic, {"ended": key, "outcome": result.model_dump_json()})
    return None


def _is_unwanted(worker: Any, task: Any) -> bool:
    if worker.giving_up:
        return True
    state = worker.state.tasks.get(task)
    return state is None or state.state == "cancelled"
