"""Going on with a run: its folder is opened and held, its own bundle kept, its committed tiles checked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

from scanner.config import RunConfig, StorageConfig
from scanner.ensemble.bundles import followed, is_pointer
from scanner.errors import ContentError, OutputError, ScannerError, TileError
from scanner.records import CommitRecord, FailedTile, Tile
from scanner.storage import Store, open_store
from scanner.storage.contract import in_order, join, split
from scanner.survey.folder import fingerprint
from scanner.survey.folder.ledger import (
    COMMIT,
    HANDOVER,
    HANDOVER_RECORD,
    RUN_RECORD,
    TILES,
    DamagedTileError,
    RunFolder,
    RunRecord,
)

#: Seconds that a run waits for the checks before it starts to scan: small runs are refused before any work is done.
HEAD_START_S = 10.0
#: Commit records read at a time: they are small, so that all the time is waiting.
READERS = 32
logger = logging.getLogger(__name__)
_MEND = "run with --restart, or name a new folder with --out."


def committed_inputs(folder: RunFolder, record: RunRecord, *, deep: bool = False) -> dict[str, str]:
    """Ids of the run's committed tiles, and the fingerprint of the inputs that each was made from.

    A tile whose record is damaged, or whose files are not all there, is discarded, with a line in the log: it is scanned again;
    so is one whose cutouts are damaged, where these are hashed (``deep``).

    Raises
    ------
    ContentError
        One was committed with other settings or another bundle.
    """
    planned = set(record.tile_ids)
    inputs: dict[str, str] = {}
    committed = (tile_id for tile_id in folder.committed() if tile_id in planned)
    for tile_id, commit in in_order(lambda tile_id: (tile_id, _whole(folder, tile_id, deep)), committed, READERS):
        if commit is None:
            folder.discard(tile_id)
        else:
            refuse_other_settings(folder, record, commit)
            inputs[tile_id] = commit.input_fingerprint
    return inputs


def _whole(folder: RunFolder, tile_id: str, deep: bool) -> CommitRecord | None:
    """The commit of a tile that is not damaged."""
    try:
        commit = folder.commit_of(tile_id)
        if commit is not None:
            folder.verify(commit, deep=deep)
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
    folder: RunFolder, tiles: Mapping[str, Tile], inputs: Mapping[str, str], storage: StorageConfig
) -> Iterator[InputChecks]:
    """Check committed tiles while the block runs.

    Parameters
    ----------
    folder
        The run.
    tiles
        The tiles of the list, by id; those without an entry in ``inputs`` are passed over.
    inputs
        Fingerprint of the inputs that a tile was committed with.
    storage
        How object stores are reached.
    """
    stop = threading.Event()

    def check_all() -> list[FailedTile]:
        committed = (tiles[tile_id] for tile_id in tiles if tile_id in inputs and not stop.is_set())
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
        reason = f"{error} It was scanned before, but it is unknown whether from these files: left out of the results."
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


@contextmanager
def open_run(location: str, storage: StorageConfig, record: RunRecord, *, restart: bool = False) -> Iterator[RunFolder]:
    """Create or reopen a run folder and hold it until the context ends.

    Parameters
    ----------
    location
        The folder, a local path or ``s3://…``; made if it is not there.
    storage
        How object stores are reached.
    record
        What this run is; compared with the folder's own ``run.json`` where there is one.
    restart
        Throw away what the folder holds of an earlier run.

    Raises
    ------
    OutputError
        The folder cannot be written, is in use by another process, or holds files that are not a run's.
    ContentError
        It holds a run with other settings, bundle or scanner version.
    """
    folder = RunFolder(open_store(location, storage))
    store = folder.store
    if not store.exists(RUN_RECORD) and any(not entry.name.startswith(".") for entry in store.entries()):
        raise OutputError(f"{location}: holds files that are not a run's; name a new folder with --out.")
    with store.held() as folder.hold:
        if restart:
            # run.json goes last, by being replaced: a restart that is cut short leaves a run with fewer tiles.
            for _ in in_order(folder.discard, (entry.name for entry in store.entries(TILES))):
                pass
            for entry in store.entries():
                if entry.name not in (RUN_RECORD, TILES):
                    store.delete(entry.name)
        elif store.exists(RUN_RECORD):
            old = folder.record()
            _refuse_changes(folder, old, record)
            if old.tile_ids == record.tile_ids:
                # Until they are replaced, the results of before can be read.
                record = record.model_copy(update={"sha256": old.sha256, "earlier": old.earlier})
        _sweep(store)
        folder.write_record(record)
        try:
            yield folder
        except BaseException:
            with suppress(ScannerError):
                _sweep(store)
            raise
        _sweep(store)
        store.delete(HANDOVER)


def _sweep(store: Store) -> None:
    """End the attempts of workers, which may outlive their drivers, and remove what they left."""
    store.sweep(TILES, COMMIT)
    store.sweep(HANDOVER, HANDOVER_RECORD)
    if store.local("") is not None:
        # Object stores have nothing half-written here, and sweeping would list the whole run.
        store.sweep("", RUN_RECORD)


def _refuse_changes(folder: RunFolder, old: RunRecord, record: RunRecord) -> None:
    changes = []
    if old.scanner_version != record.scanner_version:
        changes.append(f"scanner {old.scanner_version} → {record.scanner_version}")
    if old.bundle_fingerprint != record.bundle_fingerprint:
        changes.append(f"bundle {old.bundle_name} {old.bundle_version} → {record.bundle_name} {record.bundle_version}")
    if old.provider != record.provider:
        changes.append(f"provider {old.provider} → {record.provider}")
    if old.config_fingerprint != record.config_fingerprint:
        changes += _differences(old.config.model_dump(), record.config.model_dump())
    if changes:
        raise ContentError(
            f"{folder.location}: was made with other settings ({'; '.join(changes)}); "
            "use those again, run with --restart, or name a new folder with --out."
        )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        f"{section}.{key} {old[section][key]!r} → {new[section][key]!r}"
        for section in ("targets", "cutouts", "scoring")
        for key in old[section]
        if old[section][key] != new[section][key] and key not in ("provider", "bundle", "beta", "threshold")
    ]


def with_own_bundle(config: RunConfig, run_folder: str, *, restart: bool = False) -> RunConfig:
    """Settings that name one bundle.

    Parameters
    ----------
    config
        As they were given.
    run_folder
        Location of the run's folder, which need not be there.
    restart
        Whether what the folder holds does not count.
    """
    given = config.scoring.bundle
    if given is None or not is_pointer(given):
        return config
    bundle = None if restart else _begun_with(run_folder, split(given)[0], config)
    scoring = config.scoring.model_copy(update={"bundle": bundle or followed(given, config.storage)})
    return config.model_copy(update={"scoring": scoring})


def _begun_with(run_folder: str, bundles: str, config: RunConfig) -> str | None:
    """Location of the bundle of the run in a folder, where it came from this store of bundles."""
    folder = RunFolder(open_store(run_folder, config.storage))
    if not folder.store.exists(RUN_RECORD):
        return None
    record = folder.record()
    location = join(bundles, record.bundle_fingerprint)
    return location if record.config.scoring.bundle == location else None
