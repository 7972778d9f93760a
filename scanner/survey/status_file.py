"""The driver's side of ``status.json``: written every few seconds, whatever the run is busy with.

In: the events of a run. Out: ``status.json`` in the run folder, a last time when the run ends, however it ends; a driver that
was killed leaves the state ``running`` and falls silent. Refused: a folder that can be written no longer, or is another
driver's by now, at :meth:`StatusFile.raise_if_refused`; a store that does not answer for a while is only logged.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from datetime import UTC, datetime
from types import TracebackType

from scanner.errors import OutputError, ScannerError
from scanner.records import FailedTile
from scanner.survey.events import Event, Merging, RunStarted, TileFinished
from scanner.survey.finish import RunReport
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.messages import TileProgress
from scanner.survey.status import STATUS, RunStatus, RunTotals, State
from scanner.survey.watch.pace import Pace

LOCAL_INTERVAL_S = 2.0
REMOTE_INTERVAL_S = 15.0
#: Failed tiles that the status names, so that it stays small.
NAMED_FAILURES = 1000

_log = logging.getLogger(__name__)


class StatusFile:
    """Keeps ``status.json`` up to date while its block runs; called with each event, from any thread."""

    def __init__(self, folder: RunFolder, record: RunRecord) -> None:
        self._folder = folder
        self._record = record
        self._interval_s = LOCAL_INTERVAL_S if folder.store.local("") is not None else REMOTE_INTERVAL_S
        self._started = datetime.now(UTC)
        self._state: State = "running"
        self._reason: str | None = None
        self._totals: RunTotals | None = None
        self._n_tiles = len(record.tile_ids)
        self._n_done = 0
        self._failed: dict[str, FailedTile] = {}
        self._running: dict[str, TileProgress] = {}
        self._pace = Pace()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._refused: OutputError | None = None
        self._writer = threading.Thread(target=self._keep_writing, name="status", daemon=True)

    def __enter__(self) -> StatusFile:
        self._write()
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._writer.join()
        if isinstance(error, KeyboardInterrupt):
            self._state = "interrupted"
        elif error is not None:
            self._state = "failed"
            self._reason = str(error) if isinstance(error, ScannerError) else f"{type(error).__name__}: {error}"
        self._write()

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        with self._lock:
            match event:
                case RunStarted():
                    self._n_tiles, self._n_done = event.n_tiles, event.n_done_before
                case TileProgress():
                    known = self._running.get(event.tile_id)
                    self._pace.objects(max(event.n_done - (known.n_done if known else 0), 0))
                    self._running[event.tile_id] = event
                case TileFinished():
                    self._running.pop(event.tile_id, None)
                    self._pace.tile_done()
                    if event.failed is not None:
                        self._failed[event.tile_id] = event.failed
                    else:
                        self._n_done += 1
                case Merging():
                    self._state = "merging"
                    self._running.clear()

    def raise_if_refused(self) -> None:
        """Raise what the last writing was refused with: what comes of the run could not be written either."""
        if self._refused is not None:
            raise self._refused

    def finished(self, report: RunReport) -> None:
        """Say that the results are written."""
        with self._lock:
            self._state = "done"
            self._n_done = report.n_tiles - len(report.failed)
            self._failed = {failed.tile_id: failed for failed in report.failed}
            self._totals = RunTotals(
                n_targets=report.n_targets,
                n_scored=report.n_scored,
                n_unique=report.n_unique,
                n_candidates=report.n_candidates,
                sky_area_deg2=report.sky_area_deg2,
                cost=report.cost,
            )

    def status(self) -> RunStatus:
        """The run as it is now."""
        with self._lock:
            running = tuple(self._running[tile_id] for tile_id in sorted(self._running))
            started = sum(tile.n_done / max(tile.n_targets, 1) for tile in running)
            left = max(self._n_tiles - self._n_done - len(self._failed) - started, 0.0)
            objects_per_s, tiles_per_s = self._pace.now(started)
            scanning = self._state == "running"
            return RunStatus(
                state=self._state,
                reason=self._reason,
                tile_list=self._record.tile_list,
                host=socket.gethostname(),
                pid=os.getpid(),
                started=self._started,
                updated=datetime.now(UTC),
                interval_s=self._interval_s,
                n_tiles=self._n_tiles,
                n_done=self._n_done,
                n_failed=len(self._failed),
                failed=tuple(self._failed[tile_id] for tile_id in sorted(self._failed)[:NAMED_FAILURES]),
                running=running,
                objects_per_s=round(objects_per_s, 3) if scanning else 0.0,
                eta_s=round(left / tiles_per_s, 1) if scanning and tiles_per_s > 0 else None,
                totals=self._totals,
            )

    def _keep_writing(self) -> None:
        while not self._over.wait(self._interval_s):
            self._write()

    def _write(self) -> None:
        try:
            self._folder.store.write(STATUS, self.status().model_dump_json(indent=2).encode() + b"\n")
            self._refused = None
        except OutputError as error:
            self._refused = error
        except ScannerError as error:
            _log.warning("the status cannot be written: %s", error)
