"""A tile's cutouts on their way from the worker that cuts to the worker that scores, in ``handover/<tile id>/``.

They are kept without loss (190 kB an object), count only for the inputs and settings that they were cut with, and are removed
when the tile is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scanner.cutouts.store import CutoutStore
from scanner.errors import ContentError, InputMissingError, UnavailableError
from scanner.records import CutoutBatch, SealedRecord
from scanner.storage import Staging
from scanner.survey.folder.ledger import CUTOUTS, HANDOVER_RECORD, RunFolder
from scanner.survey.scan.output import CutTile
from scanner.survey.scan.pipeline import Stopwatch


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
