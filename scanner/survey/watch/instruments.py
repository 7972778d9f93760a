"""The metrics of one process: names, units, buckets and help texts, in a registry of their own.

In: a registry. Out: :class:`ProcessInstruments` of every process, :class:`WorkInstruments` of a worker and
:class:`RunInstruments` of the driver; :class:`InstrumentMaker` makes those of other processes. Every time series is there from
the start, at zero: a rate is right from the first event on, and an alert can tell "none yet" from "not there". Refused:
nothing; labels come from the fixed sets of :mod:`scanner.survey.watch.metrics`, so that the number of series does not grow with
tiles. Imported where a page is served only.
"""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from scanner import __version__
from scanner.survey.watch.metrics import QUEUES, RUN_STATES, STAGES, TILE_STATES, Disk

#: A batch on a GPU takes hundredths of a second, fetching a tile of 20 GB minutes.
STAGE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
#: From a tile of a test to a whole Euclid tile on one core.
TILE_BUCKETS = (1, 3, 10, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200, 14400)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ProcessInstruments:
    """What driver and workers both tell of themselves."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
    """What a worker did; sums over workers count nothing twice."""

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
        begin(self.stage_seconds, STAGES)
        begin(self.queue_depth, QUEUES)


class RunInstruments:
    """What the driver knows of the whole run: one figure for all workers."""

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
        begin(self.tiles, TILE_STATES)
        begin(self.state, RUN_STATES)


class InstrumentMaker:
    """Makes metrics in one registry, under one prefix; without labels they are there from the start, at zero."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A number that only grows; Prometheus sees it as ``scanner_NAME_total``."""
        return Counter(f"scanner_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A number that comes and goes."""
        return Gauge(f"scanner_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        """How often a number was how large."""
        return Histogram(f"scanner_{name}", text, labels, buckets=buckets, registry=self._registry)


def begin(metric: Counter | Gauge | Histogram, values: Sequence[str]) -> None:
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
