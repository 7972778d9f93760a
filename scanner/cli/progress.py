"""A run's progress bar with an ETA, for terminals.

In: the events of :mod:`scanner.survey.run`. Out: a bar on standard error; log lines that are written meanwhile appear above it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

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

from scanner.survey.events import Event, Merging, RunStarted, TileFinished
from scanner.survey.messages import TileProgress


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
                case Merging():
                    self._bar.update(self._task, description="merging and ranking")

    def _update(self) -> None:
        started = sum(tile.n_done / max(tile.n_targets, 1) for tile in self._running.values())
        rate = self._n_objects / max(time.monotonic() - self._start, 1e-3)
        note = f"{self._n_finished}/{self._n_tiles} tiles, {self._n_objects:,} objects, {rate:,.{1 if rate < 10 else 0}f}/s"
        self._bar.update(self._task, completed=self._n_finished - self._n_before + started, note=note)
