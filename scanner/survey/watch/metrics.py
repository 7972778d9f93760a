"""What a process tells Prometheus while it works.

In: calls from the scan path, cheap and never failing, as many as one likes. Out: a page of metrics over HTTP while
:func:`serve` lasts; without it the calls do nothing. Refused: a port that cannot be bound. Labels come from the fixed sets
below; what is not in them is not counted, so that no caller can make the number of series grow.

A worker calls what follows :func:`stage_seconds`; the driver calls what follows :func:`run_state`. Call :func:`serve` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from scanner.records import CommitRecord
from scanner.survey.messages import Stage

if TYPE_CHECKING:
    from scanner.survey.watch.instruments import ProcessInstruments, RunInstruments, WorkInstruments

Role = Literal["worker", "driver"]
TileState = Literal["waiting", "running", "done", "failed"]
RunState = Literal["starting", "scanning", "merging", "done", "failed", "interrupted"]
Disk = Literal["scratch", "run_folder"]
STAGES: tuple[Stage, ...] = get_args(Stage)
#: Stages of the pipeline that have a queue before them.
QUEUES: tuple[Stage, ...] = ("score", "store")
TILE_STATES: tuple[TileState, ...] = get_args(TileState)
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
DISKS: tuple[Disk, ...] = get_args(Disk)

_process: ProcessInstruments | None = None
_work: WorkInstruments | None = None
_run: RunInstruments | None = None


@contextmanager
def serve(port: int, role: Role, address: str | None = None, linger_s: float = 0.0) -> Iterator[int]:
    """Serve this process's metrics until the context ends; yields the port.

    Parameters
    ----------
    role
        Whose metrics these are: a page holds only what its process can know.
    port, address, linger_s
        See :func:`scanner.survey.watch.metrics_page.served`.

    Raises
    ------
    UsageError
        The port is taken or the address is not this machine's.
    """
    global _process, _work, _run
    from prometheus_client import CollectorRegistry, disable_created_metrics

    from scanner.survey.watch.instruments import ProcessInstruments, RunInstruments, WorkInstruments
    from scanner.survey.watch.metrics_page import served

    # Otherwise each counter has a second series with the time at which it was made: that of the process, for all of them.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    process = ProcessInstruments(registry)
    work, run = (WorkInstruments(registry), None) if role == "worker" else (None, RunInstruments(registry))
    with served(registry, port, address, linger_s) as bound_port:
        _process, _work, _run = process, work, run
        try:
            yield bound_port
        finally:
            _process = _work = _run = None


def stage_seconds(stage: Stage, seconds: float) -> None:
    """One piece of work is done: a tile fetched, opened, its targets listed, committed; a batch cut, scored or stored."""
    if _work is not None and stage in STAGES:
        _work.stage_seconds.labels(stage).observe(seconds)


@contextmanager
def tile_in_progress() -> Iterator[None]:
    """A tile is worked on in this process while the context lasts."""
    if (work := _work) is None:
        yield
        return
    with work.tiles_in_progress.track_inprogress():
        yield


def tile_done(commit: CommitRecord) -> None:
    """A tile is committed by this process."""
    if _work is not None:
        _work.tiles_done.inc()
        if (seconds := commit.seconds.get("tile")) is not None:
            _work.tile_seconds.observe(seconds)
        _work.tile_success.set_to_current_time()
        _work.objects_flagged.inc(commit.n_flagged)
        _work.objects_decided.inc(commit.n_decided)


def tile_failed() -> None:
    """An attempt at a tile failed in this process, for good or not."""
    if _work is not None:
        _work.tiles_failed.inc()


def objects_cut(n: int) -> None:
    """So many objects were cut out."""
    if _work is not None:
        _work.objects_cut.inc(n)


def objects_scored(n: int) -> None:
    """So many objects went through the networks; those with too many bad pixels do not."""
    if _work is not None:
        _work.objects_scored.inc(n)


def batch_size(n: int) -> None:
    """A batch of so many objects goes to the networks."""
    if _work is not None:
        _work.batch_size.observe(n)


def queue_depth(stage: Stage, n: int) -> None:
    """So many batches wait for a stage."""
    if _work is not None and stage in QUEUES:
        _work.queue_depth.labels(stage).set(n)


def bytes_read(n: int) -> None:
    """So many bytes of input were read or fetched, as they are stored."""
    if _work is not None:
        _work.read_bytes.inc(n)


def scores_with(provider: str, bundle_name: str, bundle_version: str) -> None:
    """What this process scores with; a second call replaces the first."""
    if _process is not None:
        _process.provider.clear()
        _process.provider.labels(provider).set(1)
        _process.bundle.clear()
        _process.bundle.labels(bundle_name, bundle_version).set(1)


def gpu_expected(expected: bool) -> None:
    """Whether this process was started to score on a GPU."""
    if _work is not None:
        _work.gpu_expected.set(expected)


def memory_limit(n_bytes: int) -> None:
    """Memory that this process may use."""
    if _work is not None:
        _work.memory_limit.set(n_bytes)


def disk(name: Disk, folder: Path) -> None:
    """Watch the file system of a folder that is there: its free bytes are read when the page is."""
    if _process is not None and name in DISKS:
        _process.watch_disk(name, folder)


def run_state(state: RunState) -> None:
    """The run enters a state."""
    if _run is not None:
        for each in RUN_STATES:
            _run.state.labels(each).set(each == state)
        if state == "starting":
            _run.start.set_to_current_time()
        if state == "done":
            _run.success.set_to_current_time()


def tiles(state: TileState, n: int) -> None:
    """So many tiles of the run are in a state."""
    if _run is not None and state in TILE_STATES:
        _run.tiles.labels(state).set(n)


def run_objects(n: int) -> None:
    """Workers report so many more objects as gone through."""
    if _run is not None:
        _run.objects.inc(n)


def run_tile(commit: CommitRecord | None) -> None:
    """A tile of the run is committed; None: given up."""
    if _run is None:
        return
    if commit is None:
        _run.tiles_failed.inc()
    else:
        _run.tiles_done.inc()
        _run.area.inc(commit.sky_area_deg2)


def tile_retried() -> None:
    """A tile is tried once more."""
    if _run is not None:
        _run.retries.inc()


def workers(n: int) -> None:
    """So many workers are connected."""
    if _run is not None:
        _run.workers.set(n)


def workers_wanted(n: int) -> None:
    """So many workers would be kept busy; 0: none is needed yet, or any more."""
    if _run is not None:
        _run.workers_wanted.set(n)


def worker_lost() -> None:
    """A worker left while the run still had work for it."""
    if _run is not None:
        _run.workers_lost.inc()
