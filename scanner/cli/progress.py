"""A run's progress: a bar with an ETA on a terminal, one line a tile elsewhere.

In: the events of :mod:`scanner.survey.run`. Out: what the user sees, on standard error, so that standard output stays clean.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scanner.survey.messages import TileProgress
from scanner.survey.run import Event, Merging, RunStarted, TileFinished

#: Seconds between two lines about a tile that is being scanned, where there is no terminal.
QUIET_SECONDS = 60.0


class RunDisplay:
    """Shows a run while it goes on; a context manager that is called with each event."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting workers", total=None, note="")
        self._lock = threading.Lock()
        self._running: dict[str, TileProgress] = {}
        self._n_tiles = self._n_finished = self._n_objects = 0
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> RunDisplay:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._started(event)
                case TileProgress():
                    self._progressed(event)
                case TileFinished():
                    self._finished(event)
                case Merging():
                    self._say("merging and ranking …")
                    self._bar.update(self._task, description="merging and ranking")

    def _started(self, event: RunStarted) -> None:
        self._n_tiles = event.n_tiles
        self._n_finished = event.n_done_before
        if event.n_done_before:
            self._say(f"{event.n_done_before} of {event.n_tiles} tiles were done before; going on with the others")
        self._say(f"scanning on {event.n_workers} worker{'s' * (event.n_workers != 1)} ({event.provider})")
        # The bar counts this session's tiles only: its ETA must not profit from what an earlier one did.
        self._bar.update(self._task, description="scanning", total=max(event.n_tiles - event.n_done_before, 1))

    def _progressed(self, event: TileProgress) -> None:
        known = self._running.get(event.tile_id)
        self._n_objects += event.n_done - (known.n_done if known else 0)
        self._running[event.tile_id] = event
        self._update()
        if not self._console.is_terminal and time.monotonic() - self._last_line > QUIET_SECONDS:
            self._say(f"tile {event.tile_id}: {event.n_done:,} of {event.n_targets:,} objects")

    def _finished(self, event: TileFinished) -> None:
        self._running.pop(event.tile_id, None)
        self._n_finished += 1
        counter = f"[{self._n_finished}/{self._n_tiles}]"
        if event.failed is not None:
            self._say(f"{counter} tile {event.tile_id} FAILED: {event.failed.reason}")
        elif event.commit is not None:
            commit = event.commit
            self._say(f"{counter} tile {commit.tile_id}: {commit.n_scored:,} scored, {commit.n_decided:,} above the threshold")
        self._update()

    def _update(self) -> None:
        started = sum(tile.n_done / max(tile.n_targets, 1) for tile in self._running.values())
        task = self._bar.tasks[0]
        before = self._n_tiles - int(task.total or self._n_tiles)
        rate = self._n_objects / max(time.monotonic() - self._start, 1e-3)
        note = f"{self._n_finished}/{self._n_tiles} tiles, {self._n_objects:,} objects, {rate:,.0f}/s"
        self._bar.update(self._task, completed=self._n_finished - before + started, note=note)

    def _say(self, line: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(line, markup=False)
