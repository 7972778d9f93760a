"""The run folder: what was asked, what is done, and nothing in between."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from scanner.atomic_file import PARTIAL_PREFIX, file_sha256, tree_sha256, writing_to
from scanner.catalogue import columns
from scanner.config import RunConfig
from scanner.cutouts.store import CutoutStore
from scanner.ensemble.calibration import DecisionRule
from scanner.errors import ContentError, InputMissingError
from scanner.records import CommitRecord, Flag, Record, SealedRecord
from scanner.sky.local_files import temporary_folder
from scanner.storage import Staging, Store, split
from scanner.storage.verified import VerifiedFiles
from scanner.survey.folder.cost import RunCost


@contextmanager
def temporary_beside(store: Store, scratch: str | None = None) -> Iterator[Path]:
    """A folder for what is only needed while a store is written to, beside the place where results go; gone with the block.

    What a killed process left there is swept with the store.

    Parameters
    ----------
    store
        Where results go.
    scratch
        For stores that are not on this machine; None: the system's folder for temporary files.

    Raises
    ------
    OutputError
        It cannot be written, or what is written while the block lasts.
    """
    home = store.local("")
    with writing_to(home or Path(scratch or tempfile.gettempdir())):
        if home is None:
            with temporary_folder(scratch) as folder:
                yield folder
        else:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=f"{PARTIAL_PREFIX}results-") as name:
                yield Path(name)


RUN_RECORD = "run.json"
TILES = "tiles"
COMMIT = "commit.json"
SCORES = "scores.parquet"
#: Folder of the scores by other bundles: ``rescored/BUNDLE/TILE``, with the commit that makes them count.
RESCORED = "rescored"
CUTOUTS = "cutouts.zarr"
HANDOVER, HANDOVER_RECORD = "handover", "handover.json"
#: What makes a damaged tile whole: every run sees a damaged table or a lost file, and one that hashes them damaged cutouts.
AGAIN, AGAIN_VERIFIED = "'scanner run' scans the tile again", "'scanner run --verify' scans the tile again"
_ID_CHARACTERS, _ID_HEX_DIGITS, _BUNDLE_HEX_DIGITS = 64, 8, 16


class EarlierScores(Record):
    """A bundle that scored the run's objects before; its scores are kept, and count again when they are asked for."""

    bundle_name: str
    bundle_version: str
    bundle_fingerprint: str
    location: str

    @property
    def name(self) -> str:
        """Name and version, as catalogues have them."""
        return f"{self.bundle_name} {self.bundle_version}"


class RunRecord(SealedRecord):
    """``run.json``: everything that is needed to do the run again, and, once it is through, what it cost and what came of it.

    ``decision``: which objects are candidates; it may change without a new scan, as only the scores decide.
    ``earlier``: whose scores counted before, the scan's first; see :mod:`scanner.survey.rescore`.
    ``sky_area_deg2``: with good VIS pixels, overlaps of tiles counted once; None before the run is through.
    ``sha256``: of every file of the results, by its name in the folder; one that it does not list is not there for readers.
    """

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
    decision: DecisionRule
    cost: RunCost | None = None
    sky_area_deg2: float | None = None
    earlier: tuple[EarlierScores, ...] = ()
    sha256: dict[str, str] = Field(default_factory=dict)

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

    def decided(self, rows: pa.Table) -> pa.Table:
        """Rows of a tile's table, their ``is_candidate`` as this run decides: the tile may have been scanned for another β.

        What the bundle has not scored is no candidate of it.
        """
        decision = self.decision.decide(rows["grid_value"].to_numpy(), rows["p_calibrated"].to_numpy())
        decision &= (rows["flags"].to_numpy() & Flag.NOT_RESCORED) == 0
        return columns.with_column(rows, columns.column("is_candidate"), decision, rows.column_names.index("is_candidate"))


class DamagedTileError(ContentError):
    """What is there of a committed tile is not what was committed; scanning ``tile_id`` again makes it whole."""

    def __init__(self, message: str, tile_id: str = "") -> None:
        super().__init__(message)
        self.tile_id = tile_id


class RunFolder:
    """One run's folder in a store; written to by one driver at a time, and its workers.

    A tile is committed by its ``commit.json``, written last, which names files that are there for ever: nothing of a committed
    tile is overwritten or removed but by ``--restart``, or by :meth:`RunFolder.discard` where it is damaged. Each attempt at a
    tile writes under a name of its own, for the driver that asked for it (its *hold*). Who opens the folder takes hold of it,
    then ends all attempts (:mod:`scanner.survey.folder.resume`), and then reads which tiles are committed: no attempt for an
    earlier driver, however long its worker lives, can commit one afterwards.

    Parameters
    ----------
    store
        Where it lies.
    hold
        Token of the driver for which tiles are written, see :meth:`scanner.storage.contract.Store.held`; "": nobody holds it.
    """

    def __init__(self, store: Store, hold: str = "") -> None:
        self.store = store
        self.hold = hold

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

    def rescored(self, bundle_fingerprint: str, tile_id: str = "") -> str:
        """Key of the folder of a tile's scores by another bundle than the scan's; without a tile, of all of them."""
        return "/".join(part for part in (RESCORED, bundle_fingerprint[:_BUNDLE_HEX_DIGITS], tile_id) if part)

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
        DamagedTileError
            It is damaged.
        """
        return self._commit(f"{self.tile(tile_id)}/{COMMIT}", tile_id)

    def rescored_commit(self, bundle_fingerprint: str, tile_id: str) -> CommitRecord | None:
        """The commit that makes the scores of a bundle count for a tile, or None where it has not scored the tile."""
        return self._commit(f"{self.rescored(bundle_fingerprint, tile_id)}/{COMMIT}", tile_id)

    def _commit(self, key: str, tile_id: str) -> CommitRecord | None:
        try:
            content = self.store.read(key)
        except FileNotFoundError:
            return None
        try:
            return CommitRecord.from_bytes(content, self.store.where(key), AGAIN)
        except ContentError as error:
            raise DamagedTileError(str(error), tile_id) from None

    @contextmanager
    def staged_tile(self, tile_id: str, scratch: Path | None = None) -> Iterator[Staging]:
        """A folder to write one tile into, ``commit.json`` too; it becomes the tile when the block ends without an error.

        Raises
        ------
        UnavailableError
            The tile is committed by now, or its attempt was ended by another driver.
        """
        with self.store.staged(self.tile(tile_id), COMMIT, scratch, self.hold) as staging:
            yield staging

    @contextmanager
    def staged_handover(self, tile_id: str, scratch: Path) -> Iterator[Staging]:
        """The same for the cutouts of a tile that are to be scored elsewhere; what was handed over before is removed."""
        self.store.revoke(self.handover(tile_id), HANDOVER_RECORD)
        with self.store.staged(self.handover(tile_id), HANDOVER_RECORD, scratch, self.hold) as staging:
            yield staging

    def discard(self, tile_id: str) -> None:
        """Remove a tile whose files are damaged or gone, and all that attempts at it left; for the driver."""
        for version in self.store.entries(RESCORED):
            if version.is_folder:
                self.store.revoke(f"{RESCORED}/{version.name}/{tile_id}", COMMIT)
        self.store.revoke(self.tile(tile_id), COMMIT)

    def verify(self, commit: CommitRecord, *, deep: bool = False) -> None:
        """Make sure that the files of a committed tile are all there, and that its table is the one that was committed.

        Parameters
        ----------
        commit
            Of the tile.
        deep
            Hash the cutouts too, which may be gigabytes; otherwise they are only looked for, and their readers compare the
            checksum of each part.

        Raises
        ------
        DamagedTileError
            They are not.
        """
        there = self.store.names(self._file(commit, ""))
        for name in commit.sha256:
            if name not in there:
                raise self._damaged(commit, self._file(commit, name), "missing")
        self._table(commit)
        files = self.files_of(commit)
        for name in commit.sha256 if deep else ():
            try:
                files.verify(name)
            except (ContentError, InputMissingError) as error:
                raise DamagedTileError(str(error), commit.tile_id) from None

    def scores(self, commit: CommitRecord) -> pa.Table:
        """The table of a committed tile.

        Raises
        ------
        DamagedTileError
            It is missing, or not the one that was committed.
        """
        return pq.read_table(pa.BufferReader(self._table(commit)))

    def cutouts(self, commit: CommitRecord, scratch: Path) -> CutoutStore | None:
        """The kept cutouts of a committed tile, read in place or fetched into ``scratch``; None where none were kept.

        Raises
        ------
        DamagedTileError
            They are damaged or gone; so does reading from the store.
        """
        if not any(name.startswith(f"{CUTOUTS}/") for name in commit.sha256):
            return None
        key = self._file(commit, CUTOUTS)
        path = self.store.local(key)
        if path is None:
            path = scratch / f"{commit.tile_id}-{CUTOUTS}"
            with suppress(FileNotFoundError):
                self.store.fetch(key, path)
        # Pixels and columns have checksums of their own; what describes them has not.
        for name, sha256 in commit.sha256.items():
            described = path / name.removeprefix(f"{CUTOUTS}/")
            if name.startswith(f"{CUTOUTS}/") and described.name == "zarr.json" and not _is_file(described, sha256):
                raise self._damaged(
                    commit, self._file(commit, name), "missing, or not the file that was committed", AGAIN_VERIFIED
                )
        return CutoutStore(path, lambda reason: self._damaged(commit, key, reason, AGAIN_VERIFIED))

    def files_of(self, commit: CommitRecord) -> VerifiedFiles:
        """All files of a committed tile, as its commit lists them."""
        return VerifiedFiles(self.store, self._file(commit, ""), commit.sha256, AGAIN_VERIFIED)

    def results(self, record: RunRecord) -> VerifiedFiles:
        """The files of the results, as ``run.json`` lists them."""
        return VerifiedFiles(self.store, "", record.sha256, "give the run's command again, which merges its tiles anew")

    @contextmanager
    def staged_results(self, record: RunRecord, scratch: str | None = None) -> Iterator[Path]:
        """A folder to write results into; each takes the place of an older one when the block ends without an error.

        Then ``run.json`` is ``record`` with their checksums. While they are replaced it lists none of them, so who is stopped
        in the middle leaves tiles that are to be merged again, not a mixture that readers take for results.
        """
        with temporary_beside(self.store, scratch) as temporary:
            staging = temporary / "results"
            staging.mkdir()
            yield staging
            replaced = {path.name for path in staging.iterdir()}
            kept = {name: sha256 for name, sha256 in record.sha256.items() if name.partition("/")[0] not in replaced}
            listed = dict(sorted((kept | tree_sha256(staging)).items()))
            if self.record().sha256 != listed:
                self.write_record(record.model_copy(update={"sha256": kept}))
            for path in sorted(staging.iterdir()):
                self.store.publish(path, path.name)
            self.write_record(record.model_copy(update={"sha256": listed}))

    def _table(self, commit: CommitRecord) -> bytes:
        key = self._file(commit, SCORES) if commit.rescored is None else f"{commit.rescored.place}/{SCORES}"
        try:
            content = self.store.read(key)
        except FileNotFoundError:
            raise self._damaged(commit, key, "missing") from None
        if hashlib.sha256(content).hexdigest() != table_sha256(commit):
            raise self._damaged(commit, key, "not the file that was committed (its checksum differs)")
        return content

    def _damaged(self, commit: CommitRecord, key: str, how: str, remedy: str = AGAIN) -> DamagedTileError:
        return DamagedTileError(f"{self.store.where(key)}: {how}; {remedy}.", commit.tile_id)

    def _file(self, commit: CommitRecord, name: str) -> str:
        return "/".join(part for part in (self.tile(commit.tile_id), commit.place, name) if part)


def table_sha256(commit: CommitRecord) -> str | None:
    """Checksum of the table of a tile whose scores count."""
    return commit.sha256.get(SCORES) if commit.rescored is None else commit.rescored.sha256


def _is_file(path: Path, sha256: str) -> bool:
    try:
        return file_sha256(path) == sha256
    except OSError:
        return False
