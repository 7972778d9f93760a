"""The run folder: what was asked, what is done, and nothing in between.

In: a store, a :class:`RunRecord`, tiles. Out: the layout of the run folder, on a disk or on an object store (``run.json``,
``tiles/<id>/…``, the results). A tile is there whole, with its ``commit.json``, or not at all. Refused: records that are
damaged, tables that are not those of the commit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.config import RunConfig
from scanner.cutouts.store import CutoutStore
from scanner.errors import ContentError, InputMissingError
from scanner.records import CommitRecord, Record
from scanner.storage import Staging, Store, split
from scanner.survey.folder.cost import RunCost
from scanner.survey.folder.passing import passing_beside

RUN_RECORD = "run.json"
TILES = "tiles"
COMMIT = "commit.json"
SCORES = "scores.parquet"
CUTOUTS = "cutouts.zarr"
HANDOVER = "handover"
_ID_CHARACTERS, _ID_HEX_DIGITS = 64, 8


class RunRecord(Record):
    """``run.json``: everything that is needed to do the run again, and, once it is through, what it cost."""

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
    cost: RunCost | None = None

    @property
    def run_id(self) -> str:
        """Name of the run in catalogues: the tile list's, and a hash of settings, bundle and tiles; fit for a URL.

        Neither where the run lies nor when it was made is in it: runs of one id give the same results from the same files.
        """
        stem = split(self.tile_list)[1].rpartition(".")[0] or split(self.tile_list)[1]
        named = re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip(".-")[:_ID_CHARACTERS] or "run"
        made_with = "\n".join((self.config_fingerprint, self.bundle_fingerprint, *self.tile_ids))
        return f"{named}-{hashlib.sha256(made_with.encode()).hexdigest()[:_ID_HEX_DIGITS]}"

    @property
    def bundle(self) -> str:
        """Name and version of the bundle, as catalogues have them."""
        return f"{self.bundle_name} {self.bundle_version}"


class RunFolder:
    """One run's folder in a store; written to by one driver at a time, and its workers."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def location(self) -> str:
        """Path or URL of the folder."""
        return self.store.root

    def record(self) -> RunRecord:
        """Read ``run.json``.

        Raises
        ------
        InputMissingError
            There is no run in this folder.
        ContentError
            It is not a run record.
        """
        try:
            content = self.store.read(RUN_RECORD)
        except FileNotFoundError:
            raise InputMissingError(f"{self.location}: not a run folder (it has no run.json); name another one.") from None
        return RunRecord.from_bytes(content, self.store.where(RUN_RECORD), "start a new run folder")

    def write_record(self, record: RunRecord) -> None:
        """Make or replace ``run.json``."""
        self.store.write(RUN_RECORD, record.to_bytes())

    def tile(self, tile_id: str) -> str:
        """Key of a tile's folder."""
        return f"{TILES}/{tile_id}"

    def handover(self, tile_id: str) -> str:
        """Key of the folder in which a tile's cutouts wait to be scored elsewhere."""
        return f"{HANDOVER}/{tile_id}"

    def committed(self) -> tuple[str, ...]:
        """Ids of the tiles that have a folder, from one listing; :meth:`commit_of` has the last word."""
        return tuple(entry.name for entry in self.store.entries(TILES) if entry.is_folder)

    def commit_of(self, tile_id: str) -> CommitRecord | None:
        """The commit record of a tile, or None where the tile is not done.

        Raises
        ------
        ContentError
            It is damaged.
        """
        key = f"{self.tile(tile_id)}/{COMMIT}"
        try:
            content = self.store.read(key)
        except FileNotFoundError:
            return None
        folder = self.store.where(self.tile(tile_id))
        return CommitRecord.from_bytes(content, self.store.where(key), f"remove {folder} and run again")

    @contextmanager
    def staged_tile(self, tile_id: str, scratch: Path | None = None) -> Iterator[Staging]:
        """A folder to write one tile into, ``commit.json`` too; it becomes the tile when the block ends without an error."""
        with self.store.staged(self.tile(tile_id), COMMIT, scratch) as staging:
            yield staging

    def scores(self, commit: CommitRecord) -> pa.Table:
        """The table of a committed tile.

        Raises
        ------
        ContentError
            It is missing, or not the one that was committed.
        """
        key = self._file(commit, SCORES)
        folder = self.store.where(self.tile(commit.tile_id))
        try:
            content = self.store.read(key)
        except FileNotFoundError:
            raise ContentError(f"{self.store.where(key)}: missing; remove {folder} and run again.") from None
        if hashlib.sha256(content).hexdigest() != commit.sha256.get(SCORES):
            raise ContentError(
                f"{self.store.where(key)}: not the file that was committed (its checksum differs); "
                f"remove {folder} and run again."
            )
        return pq.read_table(pa.BufferReader(content))

    def cutouts(self, commit: CommitRecord, scratch: Path) -> CutoutStore | None:
        """The kept cutouts of a committed tile, read in place or fetched into ``scratch``; None where none were kept."""
        if not any(name.startswith(f"{CUTOUTS}/") for name in commit.sha256):
            return None
        key = self._file(commit, CUTOUTS)
        path = self.store.local(key)
        if path is None:
            path = scratch / f"{commit.tile_id}-{CUTOUTS}"
            with suppress(FileNotFoundError):
                self.store.fetch(key, path)
        return CutoutStore(path)

    @contextmanager
    def staged_results(self, scratch: str | None = None) -> Iterator[Path]:
        """A folder to write the results into; each takes the place of an older one when the block ends without an error."""
        with passing_beside(self.store, scratch) as passing:
            staging = passing / "results"
            staging.mkdir()
            yield staging
            for path in sorted(staging.iterdir()):
                self.store.publish(path, path.name)

    def _file(self, commit: CommitRecord, name: str) -> str:
        return "/".join(part for part in (self.tile(commit.tile_id), commit.place, name) if part)
