"""The cutout of a candidate: from the store of its tile where it was kept, else cut again from mosaics on this machine's disks.

In: a run folder and a row of its catalogue. Out: :class:`FramedCutout`; the last few hundred are kept in memory. Refused:
an object whose cutout was not kept and whose mosaics lie elsewhere, have gone or are damaged (:class:`NoCutoutError`; its
message is for whoever asked, what was wrong with which file is for the service's log); one that others wait before to be cut
again, or whose store does not answer (:class:`BusyError`).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa

from scanner.cutouts.framed import FramedCutout, of_store
from scanner.errors import InputMissingError, ScannerError, UnavailableError
from scanner.records import Tile
from scanner.service.cutouts.open_stores import OpenStores
from scanner.service.errors import BusyError
from scanner.sky import tile_list
from scanner.sky.local_files import ScratchFolder, remote_files
from scanner.survey.folder.ledger import RunFolder, RunRecord

#: Cutouts kept in memory: 212 kB each.
KEPT = 256
#: Tiles whose stores are kept open.
OPEN_TILES = 16
#: Tiles whose mosaics are opened at a time to cut an object again: each takes seconds, and memory for a resampled band.
CUT_AT_A_TIME = 1
#: Longest wait for one's turn, in seconds: requests that wait hold threads that others need.
LONGEST_WAIT_S = 5.0

_log = logging.getLogger(__name__)


class NoCutoutError(InputMissingError):
    """There is no cutout of this candidate to be had."""


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
        NoCutoutError, BusyError
            See the module.
        """
        tile_id, target_id = row["tile_id"][0].as_py(), row["target_id"][0].as_py()
        key = (folder.location, tile_id, target_id)
        if (known := self._known(key)) is not None:
            return known
        try:
            found = self._stored(folder, tile_id, target_id) or self._cut(folder, row, key)
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

    def close(self) -> None:
        """Forget all, and remove what was fetched."""
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

    def _stored(self, folder: RunFolder, tile_id: str, target_id: int) -> FramedCutout | None:
        with self._stores.reading(folder, tile_id) as store:
            if store is None:
                return None
            rows = np.flatnonzero(store.target_id == target_id)
            return of_store(store.read(rows[:1]), store.attributes) if len(rows) else None

    def _cut(self, folder: RunFolder, row: pa.Table, key: tuple[str, str, int]) -> FramedCutout:
        record = folder.record()
        tile = _tile(record, key[1])
        if remote := remote_files(tile):
            raise InputMissingError(f"{remote[0]}: is not fetched for one cutout; keep candidates' cutouts (cutouts.keep).")
        # Detection and resampling come with it, which a service that keeps its cutouts never needs.
        from scanner.survey.candidate_cutouts import framed_again

        if not self._cutting.acquire(timeout=LONGEST_WAIT_S):
            raise BusyError("Other cutouts are being made again; ask again in a moment.", {"Retry-After": "5"})
        try:
            # A page asks for every band of an object at once.
            found = self._known(key) or framed_again(row, tile, record.config)
            self._keep(key, found)
            return found
        finally:
            self._cutting.release()


def _tile(record: RunRecord, tile_id: str) -> Tile:
    for tile in tile_list.read(record.tile_list, record.config.storage).tiles:
        if tile.tile_id == tile_id:
            return tile
    raise InputMissingError(f"{record.tile_list}: has no tile {tile_id} any more.")
