"""How far a run is, for anyone who asks: the driver's own word, and whether the driver is still there.

In: a run folder's store. Out: :class:`RunStatus`, as ``status.json`` holds it; :mod:`scanner.survey.status_file` writes it.
Refused: a folder without a run (InputMissingError), a damaged file (ContentError).
"""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from scanner.errors import ContentError, InputMissingError
from scanner.records import FailedTile, Record
from scanner.storage import Store
from scanner.survey.folder.cost import RunCost
from scanner.survey.messages import TileProgress

STATUS = "status.json"
#: A driver that has not written for so many intervals is silent.
SILENT_INTERVALS = 10

State = Literal["running", "merging", "done", "failed", "interrupted"]


class RunTotals(Record):
    """What came of a run; see :class:`~scanner.survey.finish.RunReport`."""

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
        """Whether the driver has said its last word."""
        return self.state not in ("running", "merging")

    def driver_is_lost(self, now: datetime) -> bool:
        """Whether the driver ended without a word: silent for long, or, on this machine, no longer there."""
        if self.is_over:
            return False
        gone = self.host == socket.gethostname() and not _is_alive(self.pid)
        return gone or now - self.updated > timedelta(seconds=SILENT_INTERVALS * self.interval_s)


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
        return RunStatus.model_validate_json(store.read(STATUS))
    except FileNotFoundError:
        raise InputMissingError(f"{store.root}: there is no run here (no {STATUS}); name a run folder.") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ContentError(f"{store.where(STATUS)}: damaged ({first['loc']}: {first['msg']}); remove it.") from None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
