"""A store in a local folder.

In: a folder. Out: a :class:`~scanner.storage.contract.Store`. Files and folders are written under a temporary name, flushed
to the disk, and renamed. Refused: see the contract.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.errors import InputMissingError, OutputError
from scanner.storage.contract import Entry, Staging, held_by_another

PARTIAL_PREFIX = ".partial-"


class LocalStore:
    """A folder and what lies below it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = str(path)

    def where(self, key: str) -> str:
        """Path of a key."""
        return str(self._path(key))

    def local(self, key: str) -> Path | None:
        """Path of a key."""
        return self._path(key)

    def read(self, key: str) -> bytes:
        """Content of a file."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from None
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InputMissingError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None

    def write(self, key: str, content: bytes) -> None:
        """Make or replace a file."""
        path = self._path(key)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _written(path, content) as temporary:
                temporary.replace(path)
            flush(path.parent)

    def create(self, key: str, content: bytes) -> bool:
        """Make a file that is not there yet."""
        path = self._path(key)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _written(path, content) as temporary:
                try:
                    # A hard link, unlike a rename, fails where the name is taken.
                    path.hardlink_to(temporary)
                except FileExistsError:
                    return False
            flush(path.parent)
        return True

    def entries(self, key: str = "") -> tuple[Entry, ...]:
        """What lies directly below a folder, hidden names aside."""
        try:
            with os.scandir(self._path(key)) as found:
                listed = sorted((item for item in found if not item.name.startswith(".")), key=lambda item: item.name)
                return tuple(_entry(item) for item in listed)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise InputMissingError(f"{self.where(key)}: cannot be listed ({error.strerror}); check its permissions.") from None

    def exists(self, key: str) -> bool:
        """Whether a path is there."""
        return self._path(key).exists()

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file or folder."""
        source = self._path(key)
        temporary = target.with_name(f"{PARTIAL_PREFIX}{target.name}")
        with writing_to(target):
            remove(temporary)
            try:
                shutil.copytree(source, temporary) if source.is_dir() else shutil.copyfile(source, temporary)
                remove(target)
                temporary.replace(target)
            finally:
                remove(temporary)

    def publish(self, source: Path, key: str) -> None:
        """Move a file or folder into its place; ``source`` must lie on the same file system."""
        path = self._path(key)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            flush_tree(source)
            if path.is_dir():
                remove(path)
            source.replace(path)
            flush(path.parent)

    def delete(self, key: str) -> None:
        """Remove a file or folder."""
        with writing_to(self._path(key)):
            remove(self._path(key))

    @contextmanager
    def staged(self, key: str, record: str, scratch: Path | None = None) -> Iterator[Staging]:
        """A folder beside its place, renamed when the block ends."""
        path = self._path(key)
        staging = path.with_name(f"{PARTIAL_PREFIX}{path.name}-{os.getpid()}")
        with writing_to(path):
            remove(staging)
            staging.mkdir(parents=True)
            try:
                yield Staging(path=staging, place="")
                flush_tree(staging)
                remove(path)
                staging.replace(path)
                flush(path.parent)
            finally:
                remove(staging)

    def sweep(self, key: str) -> None:
        """Remove half-written files and folders directly below a folder."""
        for leftover in self._path(key).glob(f"{PARTIAL_PREFIX}*"):
            remove(leftover)

    @contextmanager
    def held(self, name: str = ".lock") -> Iterator[None]:
        """Lock a file of the folder; the system lets go of it when the process ends, however it ends."""
        with writing_to(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._path(name).open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise held_by_another(self.root) from None
            yield

    def _path(self, key: str) -> Path:
        return self.path / key


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


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    temporary = path.with_name(f"{PARTIAL_PREFIX}{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all below."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush_tree(path: Path) -> None:
    """Bring a file, or a folder with all below, to the disk."""
    for parent, _, names in os.walk(path):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))
    if path.is_file():
        flush(path)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entry(item: os.DirEntry[str]) -> Entry:
    if item.is_dir():
        return Entry(item.name, 0, "", is_folder=True)
    status = item.stat()
    return Entry(item.name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}", is_folder=False)
