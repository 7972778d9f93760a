"""What the driver tells of a run while it goes on.

In: nothing. Out: small frozen events, in the order in which they happen; whoever shows, writes or counts a run takes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanner.records import CommitRecord, FailedTile
from scanner.survey.messages import TileProgress


@dataclass(frozen=True)
class RunStarted:
    """The first event of a run: how many tiles there are, and how many of them were done before.

    ``n_workers``: of this machine; None where a scheduler brings its own.
    """

    n_tiles: int
    n_done_before: int
    n_workers: int | None
    provider: str
    run_folder: str
    bundle_name: str
    bundle_version: str


@dataclass(frozen=True)
class TileFinished:
    """A tile is committed or has failed."""

    tile_id: str
    commit: CommitRecord | None
    failed: FailedTile | None


@dataclass(frozen=True)
class Merging:
    """All tiles are through; their tables are being merged."""


Event = RunStarted | TileProgress | TileFinished | Merging
