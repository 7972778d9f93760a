"""``status.json``: how far a run is. Its driver writes it every few seconds; anyone reads it."""

from __future__ import annotations

import heapq
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime

from scanner.errors import InputMissingError, OutputError, ScannerError
from scanner.records import FailedTile, Record
from scanner.storage import Store
from scanner.survey.folder.cost import RunCost
from scanner.survey.messages import Event, MergeStarted, RunStarted, TileFinished, TileProgress

if TYPE_CHECKING:
    import pyarrow as pa

    from scanner.survey.folder.ledger import RunFolder, RunRecord

STATUS = "status.json"
#: A driver that has not written for so many intervals is silent.
SILENT_INTERVALS = 10

State = Literal["running", "merging", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class RunReport:
    """What came of a run.

    ``n_unique``, ``n_candidates``: objects, counted once whatever tiles they are in. ``listed``: the table of the best objects,
    candidates or not, as many as the settings let it hold. ``last_candidate_rank``: 0 where there is no candidate.
    ``sky_prevalence``: share of lenses that probabilities are stated for.
    """

    n_tiles: int
    failed: tuple[FailedTile, ...]
    n_targets: int
    n_scored: int
    n_unique: int
    n_candidates: int
    last_candidate_rank: int
    sky_prevalence: float | None
    sky_area_deg2: float
    notes: tuple[str, ...]
    listed: pa.Table
    cost: RunCost


class RunTotals(Record):
    """What came of a run; see :class:`RunReport`."""

    n_targets: int
    n_scored: int
    n_unique: int
    n_candidates: int
    sky_area_deg2: float
    cost: RunCost


class RunStatus(Record):
    """``status.json``.

    ``reason``: why the run failed. ``started``, ``updated``: of this session of the run, by the driver's clock; a driver that
    is alive writes every ``interval_s``. ``n_done`` counts the tiles of earlier sessions too; ``failed`` holds the first
    thousand of ``n_failed`` tiles, ``failed-tiles.ecsv`` all of them. ``objects_per_s``: over the last minutes; ``eta_s``:
    None where nothing is known.
    """

    format_version: Literal[1] = 1
    state: State
    reason: str | None
    tile_list: str
    host: str
    pid: int
    started: AwareDatetime
    updated: AwareDatetime
    interval_s: float
    n_tiles: int
    n_done: int
    n_failed: int
    failed: tuple[FailedTile, ...]
    running: tuple[TileProgress, ...]
    objects_per_s: float
    eta_s: float | None
    totals: RunTotals | None

    @property
    def is_over(self) -> bool:
        """Whether the driver has ended, and said how."""
        return self.state not in ("running", "merging")

    @property
    def driver_is_gone(self) -> bool:
        """Whether the driver ran on this machine, and ended without saying how."""
        return not self.is_over and self.host == socket.gethostname() and not _is_alive(self.pid)

    def driver_is_silent(self, now: datetime) -> bool:
        """Whether the driver seems not to write any more; its clock and the reader's may differ, in either direction."""
        return not self.is_over and abs(now - self.updated) > timedelta(seconds=SILENT_INTERVALS * self.interval_s)


def read(store: Store) -> RunStatus:
    """The status of a run.

    Raises
    ------
    InputMissingError
        There is no run in this folder.
    ContentError
        The file is damaged.
    """
    try:
        content = store.read(STATUS)
    except FileNotFoundError:
        raise InputMissingError(f"{store.root}: there is no run here (no {STATUS}); name a run folder.") from None
    return RunStatus.from_bytes(content, store.where(STATUS), "remove it")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


WINDOW_S = 600.0


class Pace:
    """Objects and tiles a second over the last minutes: workers come and go, so older history says little of the future."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._n_objects = self._n_tiles = 0
        #: (time, objects, tiles with the parts of those under way) at each call of :meth:`now`.
        self._seen: deque[tuple[float, int, float]] = deque([(clock(), 0, 0.0)])

    def objects(self, number: int) -> None:
        """Count objects."""
        self._n_objects += number

    def tile_done(self) -> None:
        """Count a tile that is through."""
        self._n_tiles += 1

    def now(self, under_way: float) -> tuple[float, float]:
        """Objects and tiles a second over the last minutes.

        Parameters
        ----------
        under_way
            Tiles that are being scanned, each counted by the part of it that is done.
        """
        time_now, tiles = self._clock(), self._n_tiles + under_way
        self._seen.append((time_now, self._n_objects, tiles))
        while len(self._seen) > 2 and time_now - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()
        since, objects_then, tiles_then = self._seen[0]
        seconds = max(time_now - since, 1e-3)
        return (self._n_objects - objects_then) / seconds, max(tiles - tiles_then, 0.0) / seconds


LOCAL_INTERVAL_S = 2.0
REMOTE_INTERVAL_S = 15.0
#: Failed tiles that the status and the contact sheet name, so that they stay small.
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
                case MergeStarted():
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
                failed=tuple(self._failed[tile_id] for tile_id in heapq.nsmallest(NAMED_FAILURES, self._failed)),
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
            self._folder.store.write(STATUS, self.status().to_bytes())
            self._refused = None
        except OutputError as error:
            self._refused = error
        except ScannerError as error:
            _log.warning("the status cannot be written: %s", error)
