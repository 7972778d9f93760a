"""The cutout stores of a few tiles, kept open: opening one costs a hundred times what reading one object does.

In: a run folder and a tile. Out: its opened :class:`CutoutStore`, fetched first where it lies on an object store. The least
recently used is closed, and what was fetched of it removed. Refused: what the store itself refuses; tiles that are not there.
"""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.cutouts.store import CutoutStore
from scanner.sky.local_files import ScratchFolder
from scanner.survey.folder.ledger import RunFolder


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
        """The store of a tile, which nobody else reads from or closes meanwhile; None where no cutout was kept.

        A tile that was scanned anew since it was opened is opened again.

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
