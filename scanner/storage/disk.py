"""A store in a local folder: files and folders are written under a temporary name, brought to the disk, and renamed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from scanner.atomic_file import (
    PARTIAL_PREFIX,
    flush,
    flush_tree,
    partial_name,
    remove,
    remove_at_once,
    write_atomically,
    writing_to,
)
from scanner.errors import InputMissingError, OutputError
from scanner.storage.contract import Entry, Staging, held_by_another, overtaken, superseded

_LOCK = ".lock"
# What a file system answers that cannot make hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


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
        with _reading(self._path(key)):
            return self._path(key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        """Make or replace a file."""
        write_atomically(self._path(key), content)

    def create(self, key: str, content: bytes) -> bool:
        """Make a file that is not there yet."""
        path = self._path(key)
        partial = partial_name(path)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                partial.write_bytes(content)
                flush(partial)
                _link(partial, path, content)
            except FileExistsError:
                return False
            finally:
                partial.unlink(missing_ok=True)
            flush(path.parent)
        return True

    def entries(self, key: str = "") -> tuple[Entry, ...]:
        """What lies directly below a folder, hidden names aside."""
        listed = []
        with suppress(FileNotFoundError), _reading(self._path(key)), os.scandir(self._path(key)) as found:
            for item in found:
                # What cannot be found any more was removed since, or is a link to nothing.
                with suppress(FileNotFoundError):
                    listed.append(_described(item.name, item.stat()))
        return tuple(sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda entry: entry.name))

    def names(self, key: str) -> set[str]:
        """Names of all files below a folder."""
        path = self._path(key)
        with _reading(path):
            return {Path(parent, name).relative_to(path).as_posix() for parent, _, names in os.walk(path) for name in names}

    def entry(self, key: str) -> Entry | None:
        """What lies at a path."""
        path = self._path(key)
        try:
            with _reading(path):
                return _described(path.name, path.stat())
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """Whether a path is there."""
        with _reading(self._path(key)):
            return self._path(key).exists()

    def fetch(self, key: str, target: Path) -> None:
        """Copy a file or folder."""
        source = self._path(key)
        with _reading(source):
            # Before anything is copied: from then on, errors are those of the target.
            next(source.iterdir(), None) if source.is_dir() else source.open("rb").close()
        with writing_to(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = partial_name(target)
            try:
                _copy(source, partial)
                remove(target)
                partial.replace(target)
            finally:
                remove(partial)

    def publish(self, source: Path, key: str) -> None:
        """Move a file or folder into its place; from another file system it is copied."""
        path = self._path(key)
        copy, aside = partial_name(path), partial_name(path)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                if source.stat().st_dev != path.parent.stat().st_dev:
                    _copy(source, copy)
                    source = copy
                flush_tree(source)
                if path.is_dir():
                    path.rename(aside)
                source.replace(path)
                flush(path.parent)
            finally:
                remove(copy)
                _put_back_unless_replaced(aside, path)
                remove(aside)

    def delete(self, key: str) -> None:
        """Remove a file or folder."""
        with writing_to(self._path(key)):
            remove_at_once(self._path(key))

    @contextmanager
    def staged(self, key: str, record: str, scratch: Path | None = None, hold: str | None = None) -> Iterator[Staging]:
        """A hidden folder beside its place, renamed when the block ends; who renames it first, block or sweep, has it."""
        path = self._path(key)
        before = _identity(path / record)
        if hold is not None and before is not None:
            raise overtaken(self.where(key))
        staging = partial_name(path)
        with writing_to(path):
            staging.mkdir(parents=True)
            # Open, so that no other folder gets its number.
            made = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield Staging(path=staging, place="")
                # Into a folder that was swept meanwhile one may write on: zarr makes every folder that is not there again.
                if not _is_still(made, staging):
                    raise overtaken(self.where(key))
                flush_tree(staging)
                if hold is None:
                    self._replace(key, record, staging, before)
                # After the folder was made: a holder since then has swept it, or will.
                elif self.holder() != hold:
                    raise superseded(self.where(key))
                elif not _rename_unless_taken(staging, path):
                    raise overtaken(self.where(key))
                flush(path.parent)
            except (OSError, OutputError):
                if not _is_still(made, staging):
                    raise overtaken(self.where(key)) from None
                raise
            finally:
                os.close(made)
                remove(staging)

    def _replace(self, key: str, record: str, staging: Path, before: tuple[int, int] | None) -> None:
        """Bring a folder into its place if what is there is what was there before."""
        path = self._path(key)
        aside = partial_name(path)
        try:
            # Before as well as after: what came first is not even moved, unless it came between the two.
            if _identity(path / record) != before:
                raise overtaken(self.where(key))
            with suppress(FileNotFoundError):
                path.rename(aside)
            if _identity(aside / record) != before:
                _rename_unless_taken(aside, path)
                raise overtaken(self.where(key))
            if not _rename_unless_taken(staging, path):
                raise overtaken(self.where(key))
        finally:
            _put_back_unless_replaced(aside, path)
            remove(aside)

    def sweep(self, key: str, record: str) -> None:
        """Remove half-written files and folders directly below a folder."""
        with writing_to(self._path(key)):
            for leftover in self._path(key).glob(f"{PARTIAL_PREFIX}*"):
                remove_at_once(leftover)

    def revoke(self, key: str, record: str) -> None:
        """Remove a folder."""
        self.delete(key)

    @contextmanager
    def held(self, name: str = _LOCK) -> Iterator[str]:
        """Lock a file of the folder, which holds the token; the system lets go of it when the process ends, however it ends."""
        token = uuid4().hex
        with writing_to(self._path(name)):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = self._path(name).open("a+")
        with lock:
            with writing_to(self._path(name)):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.seek(0)
                    raise held_by_another(self.root, lock.read().partition("\n")[0]) from None
                lock.truncate(0)
                lock.write(f"process {os.getpid()} on {socket.gethostname()}\n{token}")
                lock.flush()
                os.fsync(lock.fileno())
            try:
                yield token
            finally:
                lock.truncate(0)

    def holder(self) -> str:
        """The token in the locked file."""
        try:
            return self.read(_LOCK).decode(errors="replace").partition("\n")[2]
        except FileNotFoundError:
            return ""

    def _path(self, key: str) -> Path:
        return self.path / key


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "There is no such file", str(path)) from None
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None


def _link(whole: Path, path: Path, content: bytes) -> None:
    """Give a file its name unless that is taken; a hard link, unlike a rename, fails then."""
    try:
        path.hardlink_to(whole)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Some network shares have no links: one writer still wins, but a reader may come before the content.
        with path.open("xb") as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                path.unlink()
                raise


def _rename_unless_taken(folder: Path, name: Path) -> bool:
    try:
        folder.rename(name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _put_back_unless_replaced(aside: Path, path: Path) -> None:
    """What was moved aside returns if nothing has taken its place: the replacing failed, or was interrupted."""
    if aside.exists() and not path.exists():
        aside.rename(path)


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)


def _is_still(made: int, path: Path) -> bool:
    """Whether an open folder has this name."""
    try:
        return os.path.samestat(os.fstat(made), path.stat())
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells one writing of a file from the next."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns


def _described(name: str, status: os.stat_result) -> Entry:
    if stat.S_ISDIR(status.st_mode):
        return Entry(name, 0, "", is_folder=True)
    return Entry(name, status.st_size, f"{status.st_size}-{status.st_mtime_ns}", is_folder=False)
