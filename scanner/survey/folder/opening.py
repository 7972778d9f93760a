"""Opening a run folder: made, or gone on with, and held by one driver at a time.

In: a location and what the run is. Out: a :class:`~scanner.survey.folder.ledger.RunFolder` that no other driver writes to.
Refused: a folder that another process writes to, one made with other settings or another bundle (the message says what
changed), one that holds other things, one that cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from scanner.config import StorageConfig
from scanner.errors import ContentError, OutputError, ScannerError
from scanner.storage import Store, open_store
from scanner.storage.in_order import in_order
from scanner.survey.folder.ledger import COMMIT, HANDOVER, HANDOVER_RECORD, RUN_RECORD, TILES, RunFolder, RunRecord


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
            _refuse_changes(folder, record)
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


def _refuse_changes(folder: RunFolder, record: RunRecord) -> None:
    old = folder.record()
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
        if old[section][key] != new[section][key] and key not in ("provider", "bundle")
    ]
