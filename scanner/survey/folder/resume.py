"""Which committed tiles still stand: whole, made with the run's settings, and from input files that have not changed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from scanner.config import StorageConfig
from scanner.errors import ContentError, TileError
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.storage.in_order import in_order
from scanner.survey.folder import fingerprint
from scanner.survey.folder.ledger import DamagedTileError, RunFolder, RunRecord

#: Seconds that a run waits for the checks before it starts to scan: small runs are refused before any work is done.
HEAD_START_S = 10.0
#: Commit records read at a time: they are small, so that all the time is waiting.
READERS = 32
logger = logging.getLogger(__name__)
_MEND = "run with --restart, or name a new folder with --out."


def committed_inputs(folder: RunFolder, record: RunRecord) -> dict[str, str]:
    """Ids of the run's committed tiles, and the fingerprint of the inputs that each was made from.

    A tile whose record is damaged, or whose files are not all there, is discarded, with a line in the log: it is scanned again.

    Raises
    ------
    ContentError
        One was committed with other settings or another bundle.
    """
    planned = set(record.tile_ids)
    inputs: dict[str, str] = {}
    committed = (tile_id for tile_id in folder.committed() if tile_id in planned)
    for tile_id, commit in in_order(lambda tile_id: (tile_id, _whole(folder, tile_id)), committed, READERS):
        if commit is None:
            folder.discard(tile_id)
        else:
            refuse_other_settings(folder, record, commit)
            inputs[tile_id] = commit.input_fingerprint
    return inputs


def _whole(folder: RunFolder, tile_id: str) -> CommitRecord | None:
    """The commit of a tile that is not damaged."""
    try:
        commit = folder.commit_of(tile_id)
        if commit is not None:
            folder.verify(commit)
        return commit
    except DamagedTileError as error:
        logger.warning("%s", error, extra={"tile": tile_id})
        return None


def refuse_other_settings(folder: RunFolder, record: RunRecord, commit: CommitRecord) -> None:
    """Raise ContentError where a tile was not committed with the run's own settings and bundle."""
    changes = []
    if commit.config_fingerprint != record.config_fingerprint:
        changes.append(f"settings {commit.config_fingerprint} instead of {record.config_fingerprint}")
    if commit.bundle_fingerprint != record.bundle_fingerprint:
        changes.append(f"bundle {commit.bundle_fingerprint} instead of {record.bundle_fingerprint}")
    if changes:
        where = folder.store.where(folder.tile(commit.tile_id))
        raise ContentError(
            f"{where}: was committed with others than the run's ({'; '.join(changes)}); remove it and run again, {_MEND}"
        )


class InputChecks:
    """Compares the input files of committed tiles with what they were, in the background."""

    def __init__(self, found: Future[list[FailedTile]]) -> None:
        self._found = found

    def raise_if_changed(self) -> None:
        """Raise what the checks have found so far; returns at once."""
        if self._found.done():
            self._found.result()

    def wait(self, seconds: float) -> None:
        """Wait for the checks, though not longer than this; raises what they found."""
        wait([self._found], seconds)
        self.raise_if_changed()

    def unreadable(self) -> list[FailedTile]:
        """The tiles whose input files cannot be read any more; waits for all checks."""
        return self._found.result()


@contextmanager
def input_checks(
    folder: RunFolder, tiles: Sequence[Tile], inputs: Mapping[str, str], storage: StorageConfig
) -> Iterator[InputChecks]:
    """Check committed tiles while the block runs.

    Parameters
    ----------
    folder
        The run.
    tiles
        The tiles of the list; those without an entry in ``inputs`` are passed over.
    inputs
        Fingerprint of the inputs that a tile was committed with.
    storage
        How object stores are reached.
    """
    stop = threading.Event()

    def check_all() -> list[FailedTile]:
        committed = (tile for tile in tiles if tile.tile_id in inputs and not stop.is_set())
        found = in_order(lambda tile: _check(folder, tile, inputs[tile.tile_id], storage), committed)
        return [failed for failed in found if failed is not None]

    with ThreadPoolExecutor(1) as pool:
        try:
            yield InputChecks(pool.submit(check_all))
        finally:
            stop.set()


def _check(folder: RunFolder, tile: Tile, expected: str, storage: StorageConfig) -> FailedTile | None:
    try:
        files = fingerprint.of_files(tile, storage)
    except TileError as error:
        reason = f"{error} It was scanned before, but whether from these files cannot be told: left out of the results."
        return FailedTile(tile_id=tile.tile_id, reason=reason)
    if fingerprint.combined(files) == expected:
        return None
    commit = folder.commit_of(tile.tile_id)
    before = commit.input_files if commit is not None else {}
    named = tile.files
    changed = [f"{named[role]} ({role})" for role in sorted(files) if files[role] != before.get(role)]
    gone = [f"no {role} any more" for role in sorted(before) if role not in files]
    where = folder.store.where(folder.tile(tile.tile_id))
    raise ContentError(
        f"{where}: the tile's input files have changed since it was scanned: {', '.join(changed + gone)}; {_MEND}"
    )
