"""Scratch folders of a worker process: one for each tile that it has in hand, gone with the tile."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from scanner.config import EngineConfig, RunConfig
from scanner.sky.local_files import HELD_FILE, scratch_error
from scanner.survey.scan.pipeline import Stopwatch

PREFIX = "scanner-"
CLOSING_TRIES, CLOSING_PAUSE_S = 10, 0.05


class TileScratch:
    """The folders of this process below one scratch folder; there is one of these a process and scratch folder.

    Parameters
    ----------
    parent
        The scratch folder; it is made when the first tile comes, and then freed of what killed processes left there.
    """

    def __init__(self, parent: Path) -> None:
        self.path = parent / f"{PREFIX}{socket.gethostname()}-{os.getpid()}"
        self._parent = parent
        self._lock_file: IO[str] | None = None
        self._users: Counter[str] = Counter()
        self._watches: dict[str, Stopwatch] = {}
        self._changing = threading.RLock()

    @contextmanager
    def fetching(self, tile_id: str) -> Iterator[Path]:
        """The folder of a tile that will be scanned later; those that were fetched before and are not in use make room."""
        with self._in_use(tile_id) as folder:
            self.forget_all()
            yield folder

    @contextmanager
    def scanning(self, tile_id: str) -> Iterator[Path]:
        """The folder of a tile; what is in it is removed when the block ends."""
        try:
            with self._in_use(tile_id) as folder:
                yield folder
        finally:
            self.forget(tile_id)

    def watch(self, tile_id: str) -> Stopwatch:
        """The stopwatch of a tile, which starts when it is first asked for and is forgotten with the tile."""
        with self._changing:
            return self._watches.setdefault(tile_id, Stopwatch())

    def forget(self, tile_id: str) -> None:
        """Remove the folder of a tile unless it is in use."""
        with self._changing:
            if not self._users[tile_id]:
                self._watches.pop(tile_id, None)
                shutil.rmtree(self.path / tile_id, ignore_errors=True)

    def forget_all(self) -> None:
        """Remove the folders of all tiles that are not in use."""
        with self._changing:
            for tile_id in tuple(self._watches):
                self.forget(tile_id)

    def close(self) -> None:
        """Remove everything."""
        with self._changing:
            if self._lock_file is not None:
                # A process that ends may still be fetching in another thread, which fails when its folder has gone.
                for _ in range(CLOSING_TRIES):
                    if _remove(self.path):
                        break
                    time.sleep(CLOSING_PAUSE_S)
                self._lock_file.close()
                self._lock_file = None

    @contextmanager
    def _in_use(self, tile_id: str) -> Iterator[Path]:
        folder = self.path / tile_id
        with self._changing:
            try:
                self._claim()
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise scratch_error(self._parent, error) from None
            self.watch(tile_id)
            self._users[tile_id] += 1
        try:
            yield folder
        finally:
            with self._changing:
                self._users -= Counter([tile_id])

    def _claim(self) -> None:
        """Make the folder of this process and lock it; tried once more if a sweep removes it at that moment."""
        while self._lock_file is None:
            self.path.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError, BlockingIOError), ExitStack() as closing:
                lock_file = closing.enter_context((self.path / HELD_FILE).open("a", encoding="ascii"))
                fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (self.path / HELD_FILE).exists():
                    closing.pop_all()
                    self._lock_file = lock_file
                    atexit.register(self.close)
                    sweep(self._parent)


def sweep(parent: Path) -> None:
    """Remove the folders of processes that are no more."""
    for folder in parent.glob(f"{PREFIX}*/"):
        # A folder without a lock is that of a process which is just making it, or no process's.
        with suppress(OSError), (folder / HELD_FILE).open("r+", encoding="ascii") as lock_file:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)


def _remove(folder: Path) -> bool:
    """Remove a process's folder, its lock last; where something is left, that stays too, for the next sweep to find it by."""
    lock = folder / HELD_FILE
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry != lock:
                shutil.rmtree(entry, ignore_errors=True)
        lock.unlink()
        try:
            folder.rmdir()
        except OSError:
            lock.touch()
    return not lock.exists()


def scratch_root(config: EngineConfig) -> Path:
    """The folder that the processes of a run share."""
    return Path(config.scratch) if config.scratch else Path(tempfile.gettempdir())


def sweep_scratch(config: RunConfig) -> None:
    """Remove what killed workers of this machine left in the scratch folder of a run."""
    sweep(scratch_root(config.engine))


def worker_scratch(config: EngineConfig) -> TileScratch:
    """The scratch folders of this process."""
    return _worker_scratch(scratch_root(config), os.getpid())


@cache
def _worker_scratch(parent: Path, pid: int) -> TileScratch:
    return TileScratch(parent)
