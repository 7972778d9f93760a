"""Cutouts of single candidates: from the store of their tile where they were kept, else cut again from local mosaics."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanner.cutouts.framed import FramedCutout, of_store
from scanner.cutouts.store import CutoutStore
from scanner.errors import InputMissingError, ScannerError, UnavailableError
from scanner.service.errors import BusyError
from scanner.sky import tile_list
from scanner.sky.local_files import ScratchFolder, remote_files
from scanner.survey.folder.ledger import DamagedTileError, RunFolder

#: Cutouts kept in memory: 212 kB each.
KEPT = 512
#: Tiles whose stores are kept open.
OPEN_TILES = 16
#: Tiles whose mosaics are opened at a time to cut an object again: each takes seconds, and memory for a resampled band.
CUT_AT_A_TIME = 1
#: Longest wait for one's turn, in seconds: requests that wait hold threads that others need.
LONGEST_WAIT_S = 5.0
_log = logging.getLogger(__name__)


class NoCutoutError(InputMissingError):
    """The cutout of this candidate was not kept and cannot be made again."""


class Cutouts:
    """Finds cutouts; for many threads.

    Parameters
    ----------
    scratch
        Parent of the folder for what is fetched from object stores; None: the system's.
    kept, open_tiles
        Most cutouts in memory, most stores open.
    """

    def __init__(self, scratch: Path | None = None, kept: int = KEPT, open_tiles: int = OPEN_TILES) -> None:
        self._scratch = ScratchFolder(None, scratch)
        self._stores = OpenStores(self._scratch, open_tiles)
        self._most = kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], FramedCutout] = OrderedDict()
        self._cutting = threading.Semaphore(CUT_AT_A_TIME)

    def find(self, folder: RunFolder, row: pa.Table) -> FramedCutout:
        """Find one object's cutout.

        Parameters
        ----------
        folder
            The run that scored it.
        row
            Its row, with the columns of :mod:`scanner.catalogue.columns`.

        Raises
        ------
        NoCutoutError
            It was not kept, and its mosaics lie elsewhere, have gone or are damaged; the log has the reason.
        BusyError
            Others wait already for a cutout to be made again, or the store does not answer.
        """
        tile_id, target_id = row["tile_id"][0].as_py(), row["target_id"][0].as_py()
        key = (folder.location, tile_id, target_id)
        if (known := self._known(key)) is not None:
            return known
        try:
            found = self._kept_at_scan(folder, tile_id, target_id) or self._cut(folder, row, key)
        except UnavailableError as error:
            _log.warning("no cutout of %s/%s now: %s", tile_id, target_id, error)
            raise BusyError(
                "Where the cutouts are kept does not answer; ask again in a moment.", {"Retry-After": "10"}
            ) from error
        except ScannerError as error:
            _log.warning("no cutout of %s/%s: %s", tile_id, target_id, error)
            raise NoCutoutError(
                f"The cutout of object {target_id} of tile {tile_id} was not kept, and its mosaics are not at hand any more."
            ) from error
        self._keep(key, found)
        return found

    def handed(self, handout: str, find: Callable[[], FramedCutout]) -> FramedCutout:
        """What was handed out under a name: found once, and then in memory, so that no wait tells where it lies."""
        key = ("", handout, 0)
        found = self._known(key) or find()
        self._keep(key, found)
        return found

    def close(self) -> None:
        """Close all stores, and remove what was fetched."""
        self._stores.close()
        self._kept.clear()
        self._scratch.close()

    def _known(self, key: tuple[str, str, int]) -> FramedCutout | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, str, int], found: FramedCutout) -> None:
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def _kept_at_scan(self, folder: RunFolder, tile_id: str, target_id: int) -> FramedCutout | None:
        """The cutout that the scan kept; None where it kept none, or what it kept is damaged."""
        try:
            return self._stored(folder, tile_id, target_id)
        except DamagedTileError as error:
            _log.warning("a cutout of tile %s is made again: %s", tile_id, error)
            return None

    def _stored(self, folder: RunFolder, tile_id: str, target_id: int) -> FramedCutout | None:
        with self._stores.reading(folder, tile_id) as store:
            if store is None:
                return None
            rows = np.flatnonzero(store.target_id == target_id)
            return of_store(store.read(rows[:1]), store.attributes) if len(rows) else None

    def _cut(self, folder: RunFolder, row: pa.Table, key: tuple[str, str, int]) -> FramedCutout:
        record = folder.record()
        tile = tile_list.read(record.tile_list, record.config.storage).tile(key[1])
        if remote := remote_files(tile):
            raise InputMissingError(f"{remote[0]}: is not fetched for one cutout; keep candidates' cutouts (cutouts.keep).")
        # Detection and resampling come with it, which a service that keeps its cutouts never needs.
        from scanner.survey.objects import framed_again

        if not self._cutting.acquire(timeout=LONGEST_WAIT_S):
            raise BusyError("Other cutouts are being made again; ask again in a moment.", {"Retry-After": "5"})
        try:
            # A page asks for every band of an object at once.
            found = self._known(key) or framed_again(row, tile, record.config)
            self._keep(key, found)
            return found
        finally:
            self._cutting.release()


class OpenStores:
    """Opened stores of at most ``most`` tiles; what has to be fetched lies below ``scratch``. For many threads."""

    def __init__(self, scratch: ScratchFolder, most: int) -> None:
        self._scratch = scratch
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._numbered = 0

    @contextmanager
    def reading(self, folder: RunFolder, tile_id: str) -> Iterator[CutoutStore | None]:
        """The store of a tile, for this block alone; None where no cutout was kept.

        A tile that was scanned again since it was opened is opened again.

        Raises
        ------
        ScannerError
            The tile's record or store is damaged, or cannot be fetched.
        """
        entry = self._entry((folder.location, tile_id))
        with entry.lock:
            commit = folder.commit_of(tile_id)
            fingerprint = None if commit is None else commit.model_dump_json()
            if commit is None or fingerprint != entry.fingerprint:
                entry.store = entry.fingerprint = None
            if commit is not None and entry.fingerprint is None:
                entry.store = self._opened(entry, lambda place: folder.cutouts(commit, place))
                entry.fingerprint = fingerprint
            yield entry.store

    def close(self) -> None:
        """Close all."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            entry.close()

    def _entry(self, key: tuple[str, str]) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            closed = [self._entries.popitem(last=False)[1] for _ in range(len(self._entries) - self._most)]
        for old in closed:
            old.close()
        return entry

    def _opened(self, entry: _Entry, opened: Callable[[Path], CutoutStore | None]) -> CutoutStore | None:
        if entry.folder is None:
            with self._lock:
                self._numbered += 1
                entry.folder = self._scratch.path / f"store-{self._numbered}"
        shutil.rmtree(entry.folder, ignore_errors=True)
        entry.folder.mkdir(parents=True)
        return opened(entry.folder)


class _Entry:
    """One tile's store; ``lock`` is held while it is opened, read or removed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.store: CutoutStore | None = None
        self.fingerprint: str | None = None
        self.folder: Path | None = None

    def close(self) -> None:
        with self.lock:
            self.store = self.fingerprint = None
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
