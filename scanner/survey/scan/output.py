"""What a tile leaves in the run folder: its table, the cutouts that are kept, its commit record; and the hand-over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scanner.atomic_file import tree_sha256
from scanner.catalogue import columns
from scanner.catalogue.rank import LEAST_LISTED
from scanner.config import CutoutsConfig
from scanner.cutouts.store import CutoutStore, CutoutWriter
from scanner.errors import ContentError, InputMissingError, UnavailableError
from scanner.records import (
    Band,
    CodecName,
    CommitRecord,
    CutoutBatch,
    Flag,
    Float32,
    Float64,
    Int64,
    Record,
    Scores,
    SealedRecord,
)
from scanner.storage import Staging
from scanner.survey.folder.ledger import COMMIT, CUTOUTS, HANDOVER_RECORD, SCORES, RunFolder
from scanner.survey.scan.pipeline import Stopwatch

#: 11 MB of rows in memory; all but the fullest tiles are one group.
ROW_GROUP_ROWS = 65_536


class ScoreTableWriter:
    """Writes one table; a context manager."""

    def __init__(self, path: Path, row_group_rows: int = ROW_GROUP_ROWS, further: Sequence[str] = ()) -> None:
        schema = columns.with_further(columns.SCORE_SCHEMA, further)
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True)
        self._row_group_rows = row_group_rows
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._n_waiting:
                self._write(pa.concat_tables(self._waiting))
        finally:
            self._writer.close()

    def append(self, rows: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        if self._n_waiting >= self._row_group_rows:
            table = pa.concat_tables(self._waiting)
            whole = len(table) - len(table) % self._row_group_rows
            for start in range(0, whole, self._row_group_rows):
                self._write(table.slice(start, self._row_group_rows))
            self._waiting, self._n_waiting = [table.slice(whole)], len(table) - whole

    def _write(self, rows: pa.Table) -> None:
        # Pages end where chunks do: one chunk a column, so that batches leave no trace.
        self._writer.write_table(rows.combine_chunks(), row_group_size=self._row_group_rows)


def kept_rows(keep: str, target_id: Int64, is_candidate: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Choose the rows to store at once; :class:`Best` keeps what lists show beside candidates.

    A sample keeps an object by a hash of its id: the same objects whatever the order, the tile or the number of workers, and a
    sample of 0.1 is part of a sample of 0.2. Candidates are part of every sample.

    Parameters
    ----------
    keep
        The rule.
    target_id, is_candidate
        (N,) int64 and (N,) bool.
    """
    if keep == "all":
        return np.ones(len(target_id), np.bool_)
    if keep == "none":
        return np.zeros(len(target_id), np.bool_)
    if keep == "candidates":
        return is_candidate.copy()
    return is_candidate | (_uniform(target_id) < kept_fraction(keep))


def kept_fraction(keep: str) -> float:
    """Expected share of the objects that a rule keeps, candidates (about one in a hundred) aside."""
    if keep.startswith("sample:"):
        return float(keep.removeprefix("sample:"))
    return 1.0 if keep == "all" else 0.0


class Best:
    """The best of the cutouts that are not stored yet: lists show them, though no threshold is passed.

    Any object among the best of a run is among the best of its tile, so that no mosaic is opened again to draw the lists. It
    holds 40 MB at most.
    """

    def __init__(self) -> None:
        self._most = LEAST_LISTED
        self._parts: list[CutoutBatch] = []
        self._probability = np.empty(0, dtype=np.float32)
        self._target_id = np.empty(0, dtype=np.int64)

    def add(self, batch: CutoutBatch, probability: Float32) -> None:
        """Consider a batch of N objects and their calibrated probabilities, (N,); NaN is never among the best."""
        least = self._probability.min() if len(self._probability) >= self._most else -np.inf
        wanted = probability >= least
        if not wanted.any():
            return
        self._parts.append(batch.take(wanted))
        self._probability = np.append(self._probability, probability[wanted])
        self._target_id = np.append(self._target_id, batch.targets.target_id[wanted])
        if len(self._probability) > self._most:
            # As ranks are: the most probable first, then by id. Kept in the order in which they came.
            best = np.sort(np.lexsort((self._target_id, -self._probability))[: self._most])
            self._parts = [CutoutBatch.joined(self._parts).take(best)]
            self._probability, self._target_id = self._probability[best], self._target_id[best]

    def batches(self) -> list[CutoutBatch]:
        """What was kept, in the order in which it came."""
        return self._parts


def _uniform(target_id: Int64) -> Float64:
    """A number in [0, 1) per id: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = target_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)) * 2.0**-53, dtype=np.float64)


class CutTile(Record):
    """What is known of a tile once it is cut, and goes into its commit record, whichever worker scores it.

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
    further
        Names of the bundle's members beyond the paper's seven.
    """

    def __init__(self, staging: Staging, cut_tile: CutTile, config: CutoutsConfig, further: Sequence[str] = ()) -> None:
        self._staging, self._cut_tile, self._config, self._further = staging, cut_tile, config, further
        self._tally = {"n_targets": 0, "n_scored": 0, "n_screened": 0, "n_flagged": 0, "n_decided": 0}
        self._open = ExitStack()
        self._best = Best()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            self._table = opening.enter_context(ScoreTableWriter(self._staging.path / SCORES, further=self._further))
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
        self._table.append(columns.score_table(batch, scores, self._cut_tile.tile_id, self._further))
        kept = kept_rows(self._config.keep, batch.targets.target_id, scores.decision)
        if self._cutouts is not None:
            if kept.any():
                self._cutouts.append(batch.take(kept))
            if not kept.all():
                self._best.add(batch.take(~kept), scores.calibrated[~kept])
        flags = batch.flags | scores.flags
        for name, chosen in (
            ("n_targets", np.ones(len(batch), np.bool_)),
            ("n_scored", np.isfinite(scores.calibrated)),
            ("n_screened", (flags & Flag.SCREENED) != 0),
            ("n_flagged", (flags & ~np.uint32(Flag.SCREENED)) != 0),
            ("n_decided", scores.decision),
        ):
            self._tally[name] += int(np.count_nonzero(chosen))

    def close(self) -> None:
        """Finish the table and the cutouts: the best of those that were not kept come last."""
        if self._cutouts is not None:
            for batch in self._best.batches():
                self._cutouts.append(batch)
        self._open.close()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file, by its path in the folder."""
        return tree_sha256(self._staging.path)

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


class HandoverRecord(SealedRecord):
    """``handover.json``: written last; cutouts without it are not there. Times are those of the cutting."""

    tile: CutTile
    place: str
    seconds: dict[str, float]
    core_seconds: dict[str, float]


def write_record(staging: Staging, cut_tile: CutTile, watch: Stopwatch) -> None:
    """Write the record beside the cutouts."""
    record = HandoverRecord(tile=cut_tile, place=staging.place, seconds=watch.seconds, core_seconds=watch.core_seconds)
    (staging.path / HANDOVER_RECORD).write_bytes(record.to_bytes())


def find(folder: RunFolder, tile_id: str, input_fingerprint: str, config_fingerprint: str) -> HandoverRecord | None:
    """The handover of a tile, where there is one of these inputs and settings."""
    try:
        content = folder.store.read(f"{folder.handover(tile_id)}/{HANDOVER_RECORD}")
        record = HandoverRecord.from_bytes(content, folder.handover(tile_id), "cut the tile again")
    except (FileNotFoundError, ContentError):
        return None
    made_with = (record.tile.input_fingerprint, record.tile.config_fingerprint)
    return record if made_with == (input_fingerprint, config_fingerprint) else None


def batches(folder: RunFolder, record: HandoverRecord, scratch: Path, batch_size: int) -> Iterator[CutoutBatch]:
    """Read the cutouts, in the order they were cut in.

    Parameters
    ----------
    folder, record
        Whose handover.
    scratch
        The tile's folder, into which they are copied from an object store.
    batch_size
        Objects at a time.

    Raises
    ------
    UnavailableError
        They are gone or damaged; they have been removed.
    """
    key = "/".join(part for part in (folder.handover(record.tile.tile_id), record.place, CUTOUTS) if part)
    path = folder.store.local(key)
    if path is None:
        path = scratch / CUTOUTS
        # Where there is nothing, the store of cutouts says so below.
        with suppress(FileNotFoundError):
            folder.store.fetch(key, path)
    try:
        yield from CutoutStore(path).batches(batch_size)
    except (ContentError, InputMissingError):
        remove(folder, record.tile.tile_id)
        raise gone(folder, record.tile.tile_id) from None
    # zarr reads what is removed meanwhile as empty pixels.
    if find(folder, record.tile.tile_id, record.tile.input_fingerprint, record.tile.config_fingerprint) != record:
        raise gone(folder, record.tile.tile_id)


def gone(folder: RunFolder, tile_id: str) -> UnavailableError:
    """Say that a tile has to be cut again."""
    where = folder.store.where(folder.handover(tile_id))
    return UnavailableError(f"{where}: the cutouts that were to be scored are gone or damaged; the tile has to be cut again.")


def remove(folder: RunFolder, tile_id: str) -> None:
    """Remove a handover and what attempts at it left; none is fine."""
    folder.store.delete(folder.handover(tile_id))
