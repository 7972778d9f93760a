"""How far long work is: a bar on a terminal, the same in a notebook, log lines, metrics; in a pipe, no bar."""

from __future__ import annotations

import html
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from scanner.survey.messages import Event, MergeStarted, RunStarted, TileFinished, TileProgress

if TYPE_CHECKING:
    from scanner.records import CommitRecord

#: Seconds between two lines about long work where no bar can be seen; a finished tile is a line of its own.
QUIET_SECONDS = 60.0
#: Seconds between two updates of a notebook's bar: each is a message to a browser.
NOTEBOOK_SECONDS = 0.2

logger = logging.getLogger("scanner.run")


class Move(Protocol):
    """Moves a bar: ``done`` of ``total``, what is being done, and a note beside the bar."""

    def __call__(self, done: float, total: float | None = None, what: str | None = None, note: str = "") -> None:
        """Move the bar; what is left out stays as it is."""
        ...


def display() -> Literal["terminal", "notebook", "none"]:
    """Where a bar can be seen: a notebook's cell, a terminal's standard error, or nowhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is not None:
        return "notebook"
    return "terminal" if sys.stderr.isatty() else "none"


@contextmanager
def bar(what: str, *, shown: bool | None = None, unit: str | None = None, many: bool = False) -> Iterator[Move]:
    """Show how far something is while the block lasts.

    Parameters
    ----------
    what
        What is being done, before the bar.
    shown
        None: where it can be seen, see :func:`display`. True: in a pipe too, as a line on standard error every
        :data:`QUIET_SECONDS`. False: nowhere.
    unit
        What is counted, for these lines; None: none are written, as a log has them.
    many
        Whether each ``what`` has a bar of its own; otherwise there is one, whose name changes.

    Yields
    ------
    Move
        What moves the bar; any thread may call it.
    """
    where = "none" if shown is False else display()
    if where == "terminal":
        with _terminal_bar(what, many) as move:
            yield move
    elif where == "notebook":
        with _notebook_bar(what, many) as move:
            yield move
    else:
        yield _lines(what, unit) if unit is not None and shown else _nothing


@contextmanager
def followed(shown: bool | None = None) -> Iterator[Callable[[Event], None]]:
    """Follow a run: log lines of the logger ``scanner.run``, metrics, and a bar unless ``shown`` is False.

    Yields
    ------
    Callable
        What is given to :func:`scanner.survey.run.run_survey`.
    """
    from scanner.survey.metrics import RunMetrics

    with bar("starting workers", shown=shown) as move:
        log, metrics, run_bar = RunLog(), RunMetrics(), RunBar(move)
        listeners: tuple[Callable[[Event], None], ...] = (log, metrics, run_bar)

        def tell(event: Event) -> None:
            for listener in listeners:
                listener(event)

        try:
            yield tell
        except BaseException as error:
            metrics.ended(error)
            log.ended(error)
            raise
        metrics.ended(None)
        log.ended(None)
        run_bar.ended()


class RunBar:
    """Moves a bar with the events of a run: tiles, objects, rate."""

    def __init__(self, move: Move) -> None:
        self._move = move
        self._lock = threading.Lock()
        self._running: dict[str, TileProgress] = {}
        self._n_tiles = self._n_finished = self._n_before = self._n_objects = 0
        self._start = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Show one event; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._n_tiles = event.n_tiles
                    self._n_finished = self._n_before = event.n_done_before
                    # The bar counts this session's tiles only: its remaining time must not profit from an earlier one.
                    self._move(0, max(event.n_tiles - event.n_done_before, 1), "scanning")
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
                    self._update("merging and ranking")

    def ended(self) -> None:
        """The run is through."""
        with self._lock:
            self._update("scanned")

    def _update(self, what: str | None = None) -> None:
        started = sum(tile.n_done / max(tile.n_targets, 1) for tile in self._running.values())
        if what is None and self._running:
            waiting = [tile.doing for tile in self._running.values() if tile.doing]
            what = waiting[-1] if len(waiting) == len(self._running) else "scanning"
        rate = self._n_objects / max(time.monotonic() - self._start, 1e-3)
        note = f"{self._n_finished}/{self._n_tiles} tiles, {self._n_objects:,} objects, {rate:,.{1 if rate < 10 else 0}f}/s"
        self._move(self._n_finished - self._n_before + started, what=what, note=note)


class RunLog:
    """Writes a run into the log ``scanner.run``: begun, each tile done or failed, merging, finished.

    A record has the tile's id as ``tile`` and every figure as a field of its own, so that nobody has to parse a sentence.
    """

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
                case TileProgress() if time.monotonic() - self._last_line > QUIET_SECONDS:
                    message = f"tile {event.tile_id}: {event.doing or f'{event.n_done:,} of {event.n_targets:,} objects'}"
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


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever gives a small number."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 tile``, ``2,000 tiles``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _nothing(done: float, total: float | None = None, what: str | None = None, note: str = "") -> None:
    """Show nothing."""


def _lines(doing: str, unit: str) -> Move:
    """Write a line on standard error every :data:`QUIET_SECONDS`."""
    start = last = time.monotonic()

    def line(done: float, total: float | None = None, what: str | None = None, note: str = "") -> None:
        nonlocal last
        if time.monotonic() - last > QUIET_SECONDS:
            last = time.monotonic()
            left = _left(last - start, done, total)
            counts = note or (f"{done:,g}" if total is None else f"{done:,g} of {total:,g} {unit}").rstrip()
            print(f"{what or doing}: {counts}{left}", file=sys.stderr, flush=True)

    return line


@contextmanager
def _terminal_bar(what: str, many: bool) -> Iterator[Move]:
    """Bars on standard error; log lines that are written meanwhile appear above them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False, soft_wrap=True)) as shown:
        tasks = {} if many else {"": shown.add_task(what, total=None, note="")}

        def move(done: float, total: float | None = None, what: str | None = None, note: str = "") -> None:
            key = what or "" if many else ""
            if key not in tasks:
                tasks[key] = shown.add_task(key, total=total, note="")
            known = next(task for task in shown.tasks if task.id == tasks[key])
            total = known.total if total is None else total
            shown.update(known.id, completed=done, total=total, description=what, note=note or _counted(done, total))

        yield move


class _Row(NamedTuple):
    """One bar of a notebook: ``done`` of ``total``, what is being done, and a note."""

    what: str
    done: float = 0.0
    total: float | None = None
    note: str = ""


@contextmanager
def _notebook_bar(what: str, many: bool) -> Iterator[Move]:
    """Bars in the cell that is being run: HTML that is replaced, which JupyterLab and VS Code show without extensions."""
    show: Any = import_module("IPython.display").display
    lock, start = threading.Lock(), time.monotonic()
    rows = {} if many else {"": _Row(what)}
    handle = show(_html(rows, start), raw=True, display_id=True)
    last = start

    def move(done: float, total: float | None = None, what: str | None = None, note: str = "") -> None:
        nonlocal last
        with lock:
            key = what or "" if many else ""
            known = rows.get(key, _Row(key))
            rows[key] = _Row(what or known.what, done, known.total if total is None else total, note)
            if time.monotonic() - last > NOTEBOOK_SECONDS:
                last = time.monotonic()
                handle.update(_html(rows, start), raw=True)

    try:
        yield move
        rows = {key: row._replace(done=row.done if row.total is None else row.total) for key, row in rows.items()}
    finally:
        handle.update(_html(rows, start), raw=True)


def _html(rows: Mapping[str, _Row], start: float) -> dict[str, str]:
    seconds = time.monotonic() - start
    shown, plain = [], []
    for what, done, total, note in rows.values():
        text = ", ".join(part for part in (note or _counted(done, total), duration(seconds)) if part)
        text += _left(seconds, done, total)
        value = f' value="{done:g}" max="{total:g}"' if total else ""
        shown.append(f"<div>{html.escape(what)} <progress{value}></progress> {html.escape(text)}</div>")
        plain.append(f"{what}: {text}")
    return {"text/html": "".join(shown), "text/plain": "\n".join(plain)}


def _left(seconds: float, done: float, total: float | None) -> str:
    """How long it will take yet, after so many seconds."""
    return f", {duration(seconds * (total - done) / done)} to go" if total and 0 < done < total else ""


def _counted(done: float, total: float | None) -> str:
    return "" if total is None else f"{done:,g}/{total:,g}"
