"""The metrics of a process as Prometheus reads them, and the calls that keep them.

Without :func:`serve` the calls do nothing. Labels come from fixed sets: the number of series does not grow with tiles.
"""

from __future__ import annotations

import math
import platform
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from scanner import __version__
from scanner.records import CommitRecord
from scanner.storage.contract import is_remote
from scanner.survey.messages import Event, MergeStarted, RunStarted, Stage, TileFinished, TileProgress

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Role = Literal["worker", "driver"]
TileState = Literal["waiting", "running", "done", "failed"]
RunState = Literal["starting", "scanning", "merging", "done", "failed", "interrupted"]
Disk = Literal["scratch", "run_folder"]
#: Stages over the candidates of a run that is through.
CandidateStage = Literal["modelling", "explaining"]
CANDIDATE_STAGES: tuple[CandidateStage, ...] = get_args(CandidateStage)
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
        See :func:`scanner.survey.metrics_page.served`.

    Raises
    ------
    UsageError
        The port is taken or the address is not this machine's.
    """
    global _process, _work, _run
    from prometheus_client import CollectorRegistry, disable_created_metrics

    from scanner.survey.metrics_page import served

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
    """Report the file system of an existing folder: its free bytes are read when the page is."""
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


def candidate_done(stage: CandidateStage, seconds: float) -> None:
    """A candidate is explained, or modelled, by this process."""
    if _work is not None:
        _work.candidate_seconds.labels(stage).observe(seconds)


def run_candidates(stage: CandidateStage, n_done: int, n_wanted: int) -> None:
    """So many candidates of the run are through a stage, of so many."""
    if _run is not None:
        _run.candidates.labels(stage, "done").set(n_done)
        _run.candidates.labels(stage, "waiting").set(n_wanted - n_done)


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


#: A batch on a GPU takes hundredths of a second, fetching a tile of 20 GB minutes.
STAGE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
#: From a tile of a test to a whole Euclid tile on one core.
TILE_BUCKETS = (1, 3, 10, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200, 14400)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ProcessInstruments:
    """Metrics of driver and workers alike."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import ProcessCollector

        make = InstrumentMaker(registry)
        ProcessCollector(registry=registry)
        self.build = make.gauge("build_info", "Always 1; the labels tell what runs in this process.", "version", "python")
        self.build.labels(__version__, platform.python_version()).set(1)
        self.bundle = make.gauge("bundle_info", "Always 1; the labels tell the bundle that scores.", "name", "version")
        self.provider = make.gauge("provider_info", "Always 1; the label tells what runs the networks.", "provider")
        self.disk_free = make.gauge("disk_free_bytes", "Free bytes of the file system that holds a folder of the run.", "disk")
        self.disk_size = make.gauge(
            "disk_size_bytes", "Size in bytes of the file system that holds a folder of the run.", "disk"
        )

    def watch_disk(self, name: Disk, folder: Path) -> None:
        """Tell of the file system of a folder: its bytes are read when the page is."""
        self.disk_free.labels(name).set_function(lambda: _usage(folder)[1])
        self.disk_size.labels(name).set_function(lambda: _usage(folder)[0])


class WorkInstruments:
    """Metrics of a worker; sums over workers count nothing twice."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = InstrumentMaker(registry)
        self.objects_cut = make.counter("objects_cut", "Objects cut out of the mosaics by this process.")
        self.objects_scored = make.counter("objects_scored", "Objects scored by the networks in this process.")
        self.objects_flagged = make.counter(
            "objects_flagged", "Objects with at least one quality flag, in tiles committed here."
        )
        self.objects_decided = make.counter("objects_decided", "Objects at or above the threshold, in tiles committed here.")
        self.read_bytes = make.counter("read_bytes", "Bytes of mosaics and catalogues read or fetched, as stored (compressed).")
        self.tiles_done = make.counter("tiles_done", "Tiles committed by this process.")
        self.tiles_failed = make.counter("tiles_failed", "Attempts at a tile that failed in this process.")
        self.tiles_in_progress = make.gauge("tiles_in_progress", "Tiles that this process is scanning now.")
        self.tile_seconds = make.histogram(
            "tile_seconds", "Seconds on the clock from a tile's start to its commit.", TILE_BUCKETS
        )
        self.tile_success = make.gauge("tile_last_success_timestamp_seconds", "Unix time of the last commit here; 0: none yet.")
        self.stage_seconds = make.histogram(
            "stage_seconds",
            "Seconds on the clock of one piece of work: a tile (fetch, open, targets, commit) or a batch (cut, score, store).",
            STAGE_BUCKETS,
            "stage",
        )
        self.gpu_expected = make.gauge("gpu_expected", "1 where this process was started to score on a GPU, else 0.")
        self.memory_limit = make.gauge(
            "memory_limit_bytes", "Memory that this process may use, in bytes; 0: no limit is known."
        )
        self.queue_depth = make.gauge("queue_depth_batches", "Batches that are ready and wait for a stage.", "stage")
        self.batch_size = make.histogram("batch_size_objects", "Objects scored together in one batch.", BATCH_BUCKETS)
        self.candidate_seconds = make.histogram(
            "candidate_seconds",
            "Seconds on the clock in which one candidate was explained or modelled here.",
            STAGE_BUCKETS,
            "stage",
        )
        start_at_zero(self.stage_seconds, STAGES)
        start_at_zero(self.queue_depth, QUEUES)
        start_at_zero(self.candidate_seconds, CANDIDATE_STAGES)


class RunInstruments:
    """Metrics of the driver: the whole run, one figure for all workers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        make = InstrumentMaker(registry)
        self.state = make.gauge("run_state", "1 for the state that the run is in, 0 for the others.", "state")
        self.tiles = make.gauge("run_tiles", "Tiles of the run by state; together they are the tile list.", "state")
        self.retries = make.counter("run_tile_retries", "Attempts at a tile after its first one.")
        self.tiles_done = make.counter("run_tiles_done", "Tiles committed since this driver started.")
        self.tiles_failed = make.counter("run_tiles_failed", "Tiles given up since this driver started.")
        self.objects = make.counter("run_objects", "Objects that workers reported as gone through, repeated attempts included.")
        self.area = make.counter("run_area_square_degrees", "Sky of the tiles committed since this driver started.")
        self.workers = make.gauge("run_workers", "Workers connected to the scheduler.")
        self.workers_wanted = make.gauge(
            "run_workers_wanted", "Workers that the run can keep busy; 0 before there are tiles to scan, and when none is left."
        )
        self.workers_lost = make.counter("run_workers_lost", "Workers that left while the run still had work for them.")
        self.start = make.gauge("run_start_timestamp_seconds", "Unix time at which this driver started; 0: not yet.")
        self.success = make.gauge("run_last_success_timestamp_seconds", "Unix time at which the run was done; 0: not yet.")
        self.candidates = make.gauge(
            "run_candidates", "Candidates by the stage that deals with them, done and waiting.", "stage", "state"
        )
        start_at_zero(self.tiles, TILE_STATES)
        start_at_zero(self.state, RUN_STATES)


class InstrumentMaker:
    """Makes metrics in one registry, under one prefix; without labels they are there from the start, at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A number that only grows; Prometheus sees it as ``scanner_NAME_total``."""
        from prometheus_client import Counter

        return Counter(f"scanner_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A number that comes and goes."""
        from prometheus_client import Gauge

        return Gauge(f"scanner_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        """How often a number was how large."""
        from prometheus_client import Histogram

        return Histogram(f"scanner_{name}", text, labels, buckets=buckets, registry=self._registry)


def start_at_zero(metric: Counter | Gauge | Histogram, values: Sequence[str]) -> None:
    """Make the series of each value of a metric's label, at zero."""
    for value in values:
        metric.labels(value)


def _usage(folder: Path) -> tuple[float, float]:
    """Size and free bytes of a folder's file system; NaN where the folder is not there."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return math.nan, math.nan
    return usage.total, usage.free


class RunMetrics:
    """Keeps the metrics of a run; called with each event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._n_tiles = self._n_done = self._n_failed = 0
        run_state("starting")

    def __call__(self, event: Event) -> None:
        """Take one event in; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._n_tiles, self._n_done = event.n_tiles, event.n_done_before
                    scores_with(event.provider, event.bundle_name, event.bundle_version)
                    if not is_remote(event.run_folder):
                        disk("run_folder", Path(event.run_folder))
                    run_state("scanning")
                case TileProgress():
                    run_objects(max(event.n_done - self._running.get(event.tile_id, 0), 0))
                    self._running[event.tile_id] = event.n_done
                case TileFinished():
                    self._running.pop(event.tile_id, None)
                    self._n_done += event.commit is not None
                    self._n_failed += event.commit is None
                    run_tile(event.commit)
                case MergeStarted():
                    self._running.clear()
                    run_state("merging")
            self._count_tiles()

    def ended(self, error: BaseException | None) -> None:
        """The run is over; ``error`` is what stopped it."""
        if error is None:
            run_state("done")
        else:
            run_state("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")

    def _count_tiles(self) -> None:
        tiles("running", len(self._running))
        tiles("done", self._n_done)
        tiles("failed", self._n_failed)
        tiles("waiting", self._n_tiles - self._n_done - self._n_failed - len(self._running))
