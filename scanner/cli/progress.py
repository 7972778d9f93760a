"""How far work is: a bar on a terminal, log lines, metrics; and SIGTERM as Ctrl-C."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from scanner.config import EngineConfig
from scanner.records import CommitRecord
from scanner.survey import metrics
from scanner.survey.messages import Event, MergeStarted, RunStarted, TileFinished, TileProgress
from scanner.survey.metrics import RunMetrics

#: Seconds between two lines about tiles that are being scanned; a finished tile is a line of its own.
QUIET_SECONDS = 60.0

logger = logging.getLogger("scanner.run")


class RunLog:
    """Writes a run down while it goes on; called with each event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_tiles = self._n_finished = self._n_failed = 0
        self._start = self._last_line = time.monotonic()
        self._begun = False

    def __call__(self, event: Event) -> None:
        """Write one event down; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._started(event)
                case TileProgress() if event.n_done and time.monotonic() - self._last_line > QUIET_SECONDS:
                    message = f"tile {event.tile_id}: {event.n_done:,} of {event.n_targets:,} objects"
                    self._say(message, tile=event.tile_id, n_done=event.n_done, n_targets=event.n_targets)
                case TileFinished():
                    self._finished(event)
                case MergeStarted():
                    self._say("merging and ranking …")

    def ended(self, error: BaseException | None) -> None:
        """The run is over; ``error`` is what stopped it. A run that was refused before it began is no line."""
        if not self._begun:
            return
        seconds = round(time.monotonic() - self._start, 3)
        n_done = self._n_finished - self._n_failed
        figures: dict[str, Any] = {"n_tiles": self._n_tiles, "n_done": n_done, "n_failed": self._n_failed, "seconds": seconds}
        if error is None:
            self._say(f"finished: {n_done} of {self._n_tiles} tiles done, {self._n_failed} failed", **figures)
        else:
            reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
            # The reason is the last line of the command, in plain words, whatever the log's format.
            self._say(f"stopped with {n_done} of {self._n_tiles} tiles done", logging.ERROR, reason=reason, **figures)

    def _started(self, event: RunStarted) -> None:
        self._begun = True
        self._n_tiles, self._n_finished = event.n_tiles, event.n_done_before
        before = f"{event.n_done_before} of {event.n_tiles} tiles were done before; " if event.n_done_before else ""
        workers = "the scheduler's workers"
        if event.n_workers is not None:
            workers = f"{event.n_workers} worker{'s' * (event.n_workers != 1)}"
        self._say(
            f"{before}scanning on {workers} ({event.provider})",
            n_tiles=event.n_tiles,
            n_done_before=event.n_done_before,
            n_workers=event.n_workers,
            provider=event.provider,
            bundle=f"{event.bundle_name} {event.bundle_version}",
            run_folder=event.run_folder,
        )

    def _finished(self, event: TileFinished) -> None:
        self._n_finished += 1
        counter = f"[{self._n_finished}/{self._n_tiles}]"
        if event.commit is not None:
            commit = event.commit
            result = f"{commit.n_scored:,} scored, {commit.n_decided:,} above the threshold"
            self._say(f"{counter} tile {event.tile_id}: {result}", tile=event.tile_id, **_figures(commit))
        else:
            self._n_failed += 1
            reason = event.failed.reason if event.failed is not None else "unknown"
            self._say(f"{counter} tile {event.tile_id} FAILED: {reason}", logging.ERROR, tile=event.tile_id, reason=reason)

    def _say(self, message: str, level: int = logging.INFO, **fields: Any) -> None:
        self._last_line = time.monotonic()
        logger.log(level, "%s", message, extra=fields)


def _figures(commit: CommitRecord) -> dict[str, Any]:
    counts = commit.model_dump(include={"n_targets", "n_scored", "n_flagged", "n_decided", "bytes_read"})
    stages = dict(commit.seconds)
    return counts | {"seconds": stages.pop("tile", None), "stage_seconds": stages}


@contextmanager
def explaining_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar for candidates that are being explained; on no terminal, nothing. Yields what is told (done, of how many)."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (
        TextColumn("explaining"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("explaining", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class RunBar:
    """Shows a run while it goes on; a context manager that is called with each event."""

    def __init__(self) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False, soft_wrap=True),
        )
        self._task = self._bar.add_task("starting workers", total=None, note="")
        self._lock = threading.Lock()
        self._running: dict[str, TileProgress] = {}
        self._n_tiles = self._n_finished = self._n_before = self._n_objects = 0
        self._start = time.monotonic()

    def __enter__(self) -> RunBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._n_tiles = event.n_tiles
                    self._n_finished = self._n_before = event.n_done_before
                    # The bar counts this session's tiles only: its ETA must not profit from what an earlier one did.
                    total = max(event.n_tiles - event.n_done_before, 1)
                    self._bar.update(self._task, description="scanning", total=total)
                case TileProgress():
                    known = self._running.get(event.tile_id)
                    self._n_objects += max(event.n_done - (known.n_done if known else 0), 0)
                    self._running[event.tile_id] = event
                    self._update()
                case TileFinished():
                    self._running.pop(event.tile_id, None)
                    self._n_finished += 1
                    self._update()
                case MergeStarted():
                    self._bar.update(self._task, description="merging and ranking")

    def _update(self) -> None:
        started = sum(tile.n_done / max(tile.n_targets, 1) for tile in self._running.values())
        rate = self._n_objects / max(time.monotonic() - self._start, 1e-3)
        note = f"{self._n_finished}/{self._n_tiles} tiles, {self._n_objects:,} objects, {rate:,.{1 if rate < 10 else 0}f}/s"
        self._bar.update(self._task, completed=self._n_finished - self._n_before + started, note=note)


#: Longest wait for Prometheus's next visit at the end of a run, so that it sees how the run ended. It comes every 15 to 60 s.
LAST_VISIT_SECONDS = 60.0


@contextmanager
def driver_metrics(engine: EngineConfig) -> Iterator[None]:
    """Serve the driver's metrics where a port is set.

    Raises
    ------
    UsageError
        The port is taken.
    """
    if engine.metrics_port is None:
        yield
        return
    with metrics.serve(engine.metrics_port, "driver", engine.metrics_address, LAST_VISIT_SECONDS):
        yield


@contextmanager
def watched(log_format: str) -> Iterator[Callable[[Event], None]]:
    """Tell of a run: give what this yields to ``run_survey``.

    Parameters
    ----------
    log_format
        As for :func:`scanner.cli.output.log_lines`, which is entered before.
    """
    with ExitStack() as stack:
        log, figures = RunLog(), RunMetrics()
        listeners: list[Callable[[Event], None]] = [log, figures]
        if log_format != "json" and sys.stderr.isatty():
            listeners.append(stack.enter_context(RunBar()))

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        try:
            yield tell
        except BaseException as error:
            figures.ended(error)
            log.ended(error)
            raise
        figures.ended(None)
        log.ended(None)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where the block is when SIGTERM comes; for the main thread."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


_PLAIN_SECONDS = 10.0


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the remaining time on a terminal; elsewhere a line now and then, on standard error."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"drawing {unit}", total=None)

            def move(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            yield move
    else:
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > _PLAIN_SECONDS:
                last = now
                click.echo(f"{done} of {total} {unit}", err=True)

        yield line
