"""A run told in log lines: begun, each tile done or failed, merging, finished.

In: the events of :mod:`scanner.survey.run`. Out: records of the logger ``scanner.run``, with the tile's id as ``tile`` and the
figures as fields of their own, so that nobody has to take a sentence apart. Refused: nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from scanner.records import CommitRecord
from scanner.survey.events import Event, Merging, RunStarted, TileFinished
from scanner.survey.messages import TileProgress

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
                case Merging():
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
