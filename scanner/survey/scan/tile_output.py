"""What a tile leaves in the run folder: its table, the cutouts that are kept, its commit record.

In: batches of cutouts with their scores, in order. Out: the files of one tile in its staging folder; the same objects give the
same bytes, however they were divided into batches and wherever they were cut. Refused: what cannot be written
(:class:`~scanner.errors.OutputError`, or OSError as it is).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from scanner.atomic_file import file_sha256
from scanner.catalogue import columns
from scanner.config import CutoutsConfig
from scanner.cutouts.store import CutoutWriter
from scanner.records import Band, CodecName, CommitRecord, CutoutBatch, Record, Scores
from scanner.storage import Staging
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, SCORES
from scanner.survey.scan import keep
from scanner.survey.scan.score_table import ScoreTableWriter


class CutTile(Record):
    """What is known of a tile once it is cut, and goes into its commit record whoever scores it.

    ``wcs``, ``zero_points``, ``units``: as in :class:`~scanner.cutouts.store.StoreAttributes`.
    """

    tile_id: str
    input_fingerprint: str
    input_files: dict[str, str]
    config_fingerprint: str
    target_source: str
    n_seen: int
    n_outside: int
    n_rejected: int
    notes: tuple[str, ...]
    n_targets: int
    sky_area_deg2: float
    s_region: str
    bytes_read: int
    wcs: str
    zero_points: dict[Band, float | None]
    units: dict[Band, str]


class TileOutput:
    """The files of one tile in the making; a context manager.

    After the last batch :meth:`close` finishes table and cutouts, and :meth:`commit` writes the record.

    Parameters
    ----------
    staging
        The folder.
    cut_tile
        The tile.
    config
        What is kept of it, and how.
    """

    def __init__(self, staging: Staging, cut_tile: CutTile, config: CutoutsConfig) -> None:
        self._staging, self._cut_tile, self._config = staging, cut_tile, config
        self._tally = {"n_targets": 0, "n_scored": 0, "n_flagged": 0, "n_decided": 0}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._table = opening.enter_context(ScoreTableWriter(self._staging.path / SCORES))
            self._cutouts: CutoutWriter | None = None
            if self._config.keep != "none":
                self._cutouts = opening.enter_context(
                    cutout_writer(self._staging.path / CUTOUTS, self._cut_tile, self._config.codec)
                )
            self._open = opening.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._open.__exit__(kind, error, traceback)

    def append(self, batch: CutoutBatch, scores: Scores) -> None:
        """Add the objects of a batch, in their order."""
        self._table.append(columns.score_table(batch, scores, self._cut_tile.tile_id))
        kept = keep.select(self._config.keep, batch.targets.target_id, scores.decision)
        if self._cutouts is not None and kept.any():
            self._cutouts.append(batch.take(kept))
        for name, chosen in (
            ("n_targets", np.ones(len(batch), np.bool_)),
            ("n_scored", np.isfinite(scores.calibrated)),
            ("n_flagged", (batch.flags | scores.flags) != 0),
            ("n_decided", scores.decision),
        ):
            self._tally[name] += int(np.count_nonzero(chosen))

    def close(self) -> None:
        """Finish the table and the cutouts."""
        self._open.close()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file, by its path in the folder."""
        found = {}
        for path in sorted(self._staging.path.rglob("*")):
            if path.is_file():
                found[path.relative_to(self._staging.path).as_posix()] = file_sha256(path)
        return found

    def commit(self, **others: Any) -> CommitRecord:
        """Write the commit record.

        Parameters
        ----------
        **others
            The fields of :class:`~scanner.records.CommitRecord` that neither the tile nor its objects tell.
        """
        told = self._cut_tile.model_dump(exclude={"n_targets", "wcs", "zero_points", "units"})
        commit = CommitRecord(**told, **self._tally, place=self._staging.place, **others)
        (self._staging.path / COMMIT).write_bytes(commit.to_bytes())
        return commit


def cutout_writer(path: Path, cut_tile: CutTile, codec: CodecName) -> CutoutWriter:
    """A writer of a tile's cutouts."""
    zero_points: Mapping[Band, float] = {
        band: np.nan if value is None else value for band, value in cut_tile.zero_points.items()
    }
    return CutoutWriter(
        path, tile_id=cut_tile.tile_id, wcs_header=cut_tile.wcs, zero_points=zero_points, units=cut_tile.units, codec=codec
    )
