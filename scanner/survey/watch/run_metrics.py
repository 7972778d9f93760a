"""The driver's metrics, kept from what the run says of itself.

In: the events of :mod:`scanner.survey.run`. Out: calls of :mod:`scanner.survey.watch.metrics`. Refused: nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path

from scanner.storage.location import is_remote
from scanner.survey.events import Event, Merging, RunStarted, TileFinished
from scanner.survey.messages import TileProgress
from scanner.survey.watch import metrics


class RunMetrics:
    """Keeps the metrics of a run; called with each event."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, int] = {}
        self._n_tiles = self._n_done = self._n_failed = 0
        metrics.run_state("starting")

    def __call__(self, event: Event) -> None:
        """Take one event in; called from the driver and from the thread that listens to the workers."""
        with self._lock:
            match event:
                case RunStarted():
                    self._n_tiles, self._n_done = event.n_tiles, event.n_done_before
                    metrics.scores_with(event.provider, event.bundle_name, event.bundle_version)
                    if not is_remote(event.run_folder):
                        metrics.disk("run_folder", Path(event.run_folder))
                    metrics.run_state("scanning")
                case TileProgress():
                    metrics.run_objects(max(event.n_done - self._running.get(event.tile_id, 0), 0))
                    self._running[event.tile_id] = event.n_done
                case TileFinished():
                    self._running.pop(event.tile_id, None)
                    self._n_done += event.commit is not None
                    self._n_failed += event.commit is None
                    metrics.run_tile(event.commit)
                case Merging():
                    self._running.clear()
                    metrics.run_state("merging")
            self._tell()

    def ended(self, error: BaseException | None) -> None:
        """The run is over; ``error`` is what stopped it."""
        if error is None:
            metrics.run_state("done")
        else:
            metrics.run_state("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")

    def _tell(self) -> None:
        metrics.tiles("running", len(self._running))
        metrics.tiles("done", self._n_done)
        metrics.tiles("failed", self._n_failed)
        metrics.tiles("waiting", self._n_tiles - self._n_done - self._n_failed - len(self._running))
