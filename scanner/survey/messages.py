"""What driver and workers tell one another, as JSON, and the events that a driver tells of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scanner.config import RunConfig
from scanner.records import CommitRecord, FailedTile, Record, Tile


class TileJob(Record):
    """What a worker needs to scan one tile; ``hold``: token of the driver that holds the run folder."""

    tile: Tile
    run_folder: str
    hold: str = ""
    config: RunConfig
    provider: str
    bundle: str
    config_fingerprint: str
    bundle_fingerprint: str


class TileProgress(Record):
    """How far a worker is with its tile; ``doing``: what it does before there are objects to count."""

    tile_id: str
    n_done: int
    n_targets: int
    doing: str = ""


class FatalError(Record):
    """What must stop the whole run: no other tile could fare better."""

    message: str
    exit_code: int


class TileOutcome(Record):
    """One of four: the tile is committed, it failed, it failed for a temporary reason, or the run has to stop.

    ``temporary``: a temporary failure, such as a store that does not answer; the engine makes another attempt.
    """

    commit: CommitRecord | None = None
    failed: FailedTile | None = None
    temporary: FailedTile | None = None
    fatal: FatalError | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the tile is committed."""
        return self.commit is not None

    @property
    def retry_reason(self) -> str | None:
        """Why it failed, where another attempt may fare better."""
        return None if self.temporary is None else self.temporary.reason

    @classmethod
    def given_up(cls, tile_id: str, reason: str) -> TileOutcome:
        """The outcome of a tile that is not tried any more."""
        return cls(failed=FailedTile(tile_id=tile_id, reason=reason))


class CutOutcome(Record):
    """What became of cutting a tile that is scored elsewhere: handed over, with the fingerprint of its inputs, or a failure.

    ``failed``, ``temporary``, ``fatal``: as in :class:`TileOutcome`; where one is given, nothing was handed over.
    """

    tile_id: str
    input_fingerprint: str = ""
    failed: FailedTile | None = None
    temporary: FailedTile | None = None
    fatal: FatalError | None = None


Stage = Literal["fetch", "open", "targets", "cut", "score", "store", "commit"]


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
class MergeStarted:
    """All tiles are through; their tables are being merged."""


Event = RunStarted | TileProgress | TileFinished | MergeStarted
