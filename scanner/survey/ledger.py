"""The run folder: what was asked, what is done, and nothing in between.

In: a :class:`RunRecord` and committed tiles. Out: the layout of the run folder (``run.json``, ``tiles/<id>/…``). A tile is
written under a temporary name, flushed, and renamed: it is there whole or not at all. Refused: a folder that another process
writes to, one made with other settings, bundle or inputs (the message says what changed), one that cannot be written.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scanner.config import RunConfig
from scanner.errors import ContentError, OutputError
from scanner.records import CommitRecord, Record
from scanner.survey.fingerprint import Fingerprints

PARTIAL_PREFIX = ".partial-"


class RunRecord(Record):
    """``run.json``: everything that is needed to do the run again."""

    format_version: Literal[1] = 1
    scanner_version: str
    tile_list: str
    tile_ids: tuple[str, ...]
    bundle_name: str
    bundle_version: str
    bundle_fingerprint: str
    provider: str
    config_fingerprint: str
    config: RunConfig


class RunFolder:
    """One run's folder, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def tiles(self) -> Path:
        """Folder of the committed tiles."""
        return self.path / "tiles"

    def tile(self, tile_id: str) -> Path:
        """Folder of one committed tile."""
        return self.tiles / tile_id

    def record(self) -> RunRecord:
        """Read ``run.json``.

        Raises
        ------
        ContentError
            It is missing or not a run record.
        """
        path = self.path / "run.json"
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except OSError:
            raise ContentError(f"{self.path}: not a run folder (it has no run.json); name another one.") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise ContentError(f"{path}: damaged ({first['loc']}: {first['msg']}); start a new run folder.") from None

    def commit_of(self, tile_id: str) -> CommitRecord | None:
        """The commit record of a tile, or None where the tile is not done."""
        path = self.tile(tile_id) / "commit.json"
        try:
            return CommitRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise ContentError(f"{path}: damaged; remove the folder {path.parent} and run again.") from None

    def done(self, tile_id: str, expected: Fingerprints) -> CommitRecord | None:
        """The commit record of a tile whose result still stands, None where it has to be scanned.

        Raises
        ------
        ContentError
            The tile was committed from other input files.
        """
        commit = self.commit_of(tile_id)
        if commit is not None and commit.input_fingerprint != expected.inputs:
            raise ContentError(
                f"{self.tile(tile_id)}: the tile's input files have changed since it was scanned; "
                "run with --restart, or name a new folder with --out."
            )
        return commit


@contextmanager
def open_run(path: Path, record: RunRecord, *, restart: bool = False) -> Iterator[RunFolder]:
    """Create or reopen a run folder and hold it until the context ends.

    Parameters
    ----------
    path
        The folder; made if it is not there.
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
    folder = RunFolder(path)
    with writing_to(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file; name a folder with --out.")
        if path.is_dir() and any(path.iterdir()) and not (path / "run.json").exists() and not (path / ".lock").exists():
            raise OutputError(f"{path}: holds files that are not a run's; name a new folder with --out.")
        folder.tiles.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: another scanner run is writing to this folder; wait for it or use another.") from None
        with writing_to(path):
            if restart:
                for entry in path.iterdir():
                    if entry.name != ".lock":
                        _remove(entry)
                folder.tiles.mkdir()
            _sweep(folder)
            if (path / "run.json").exists():
                _refuse_changes(folder, record)
            write_atomically(path / "run.json", record.model_dump_json(indent=2).encode() + b"\n")
        try:
            yield folder
        finally:
            _sweep(folder)


def _sweep(folder: RunFolder) -> None:
    """Remove what killed workers left half-written; nobody else writes here while the run holds its folder."""
    for leftover in folder.tiles.glob(f"{PARTIAL_PREFIX}*"):
        _remove(leftover)


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
            f"{folder.path}: was made with other settings ({'; '.join(changes)}); "
            "use those again, run with --restart, or name a new folder with --out."
        )


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        f"{section}.{key} {old[section][key]!r} → {new[section][key]!r}"
        for section in ("targets", "cutouts", "scoring")
        for key in old[section]
        if old[section][key] != new[section][key] and key not in ("provider", "bundle")
    ]


@contextmanager
def staged_tile(folder: RunFolder, tile_id: str) -> Iterator[Path]:
    """A folder to write one tile into; it becomes ``tiles/<id>`` when the context ends without an error."""
    staging = folder.tiles / f"{PARTIAL_PREFIX}{tile_id}-{os.getpid()}"
    with writing_to(folder.path):
        _remove(staging)
        staging.mkdir()
        try:
            yield staging
            _flush(staging)
            staging.replace(folder.tile(tile_id))
            _flush_entry(folder.tiles)
        finally:
            _remove(staging)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    temporary = path.with_name(f"{PARTIAL_PREFIX}{path.name}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush_entry(path.parent)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a failed write into one sentence.

    Raises
    ------
    OutputError
        Any failed system call: full disk, no permission, read-only file system.
    """
    try:
        yield
    except OSError as error:
        raise OutputError.of(path, error) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _flush_entry(Path(parent, name))
        _flush_entry(Path(parent))


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
