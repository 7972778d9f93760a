"""Files whose SHA-256 a record holds, compared with it before anything reads them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from scanner.atomic_file import cache_folder, file_sha256, remove, write_atomically
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.storage.contract import Store, in_order

#: Files of so many bytes are hashed once on a machine; smaller ones, which take no time, once in a process.
REMEMBERED_BYTES = 16_000_000
#: Device, inode, size, and times of change in nanoseconds: writing to a file changes one of them.
Identity = tuple[int, int, int, int, int]


class VerifiedFiles:
    """The files of one finished folder; many threads may use it.

    DuckDB compares no checksums of Parquet pages, and footers have none: a flipped bit in either is a wrong row, or a missing
    one. So a file is hashed as a whole before it is used for the first time, and again when its inode says that it was written
    to. What rots on the disk meanwhile is found by ``scanner verify``, which hashes everything.

    Parameters
    ----------
    store, key
        The folder.
    sha256
        Of every file, by its name in the folder. None: no record says, and the files are taken as they are.
    remedy
        What makes damaged files whole again, for messages.
    """

    def __init__(self, store: Store, key: str, sha256: Mapping[str, str] | None, remedy: str) -> None:
        self.store, self.key, self.sha256, self.remedy = store, key, sha256, remedy
        self._known: dict[str, Identity] = {}
        self._memory: _Memory | None = None
        self._lock = threading.Lock()

    def below(self, name: str) -> VerifiedFiles:
        """Those of one folder in it."""
        inside = None
        if self.sha256 is not None:
            start = f"{name}/"
            inside = {file.removeprefix(start): sha256 for file, sha256 in self.sha256.items() if file.startswith(start)}
        return VerifiedFiles(self.store, self.key_of(name), inside, self.remedy)

    def where(self, name: str) -> str:
        """Path or URL of a file, for messages."""
        return self.store.where(self.key_of(name))

    def read(self, name: str) -> bytes:
        """Content of a small file.

        Raises
        ------
        InputMissingError
            It is not there.
        ContentError
            It is not the file that was written.
        """
        try:
            content = self.store.read(self.key_of(name))
        except FileNotFoundError:
            raise self._missing(name) from None
        if not self._is_it(name, hashlib.sha256(content).hexdigest()):
            raise self._damaged(name)
        return content

    def paths(self, names: Iterable[str], copies: Path) -> list[Path]:
        """Local paths of files.

        Parameters
        ----------
        names
            Of the files.
        copies
            Folder that keeps those of an object store, by name; one that is damaged there is fetched again.

        Raises
        ------
        InputMissingError, ContentError
            As :meth:`read`.
        """
        found = {name: self._path(name, copies) for name in names}
        new = [name for name, path in found.items() if self._known.get(str(path), "") != _identity(path)]
        for _ in in_order(lambda name: self._make_sure(name, found[name]), new):
            pass
        if self._memory is not None:
            self._memory.save()
        return list(found.values())

    def verify(self, name: str) -> int:
        """Hash a file, whatever is known of it; returns its size in bytes. Raises what :meth:`read` does."""
        path = self.store.local(self.key_of(name))
        if path is None:
            return len(self.read(name))
        self._hash(name, path)
        return path.stat().st_size

    def key_of(self, name: str) -> str:
        """Key of a file in the store."""
        return f"{self.key}/{name}" if self.key else name

    def _path(self, name: str, copies: Path) -> Path:
        return self.store.local(self.key_of(name)) or copies / name

    def _make_sure(self, name: str, path: Path) -> None:
        """Verify a file; one of an object store is fetched if need be."""
        is_copy = self.store.local(self.key_of(name)) is None
        if not is_copy or path.exists():
            try:
                self._verify(name, path)
                return
            except ContentError:
                if not is_copy:
                    raise
                remove(path)
        try:
            self.store.fetch(self.key_of(name), path)
        except FileNotFoundError:
            raise self._missing(name) from None
        try:
            self._verify(name, path)
        except ContentError:
            remove(path)
            raise

    def _verify(self, name: str, path: Path) -> None:
        identity = _identity(path)
        if identity is None:
            raise self._missing(name)
        is_large = self.sha256 is not None and identity[2] >= REMEMBERED_BYTES
        if not (is_large and self._remembered(path, name) == identity):
            self._hash(name, path)
            if is_large and self._memory is not None:
                self._memory.add(str(path), self._expected(name), identity)
        self._known[str(path)] = identity

    def _remembered(self, path: Path, name: str) -> Identity | None:
        with self._lock:
            if self._memory is None:
                local = self.store.local(self.key)
                self._memory = _Memory(self.store.where(self.key) if local is None else str(local.resolve()))
        return self._memory.get(str(path), self._expected(name))

    def _hash(self, name: str, path: Path) -> None:
        if self.sha256 is None:
            return
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise InputMissingError(f"{path}: cannot be read ({error.strerror or error}).") from None
        if not self._is_it(name, found):
            raise self._damaged(name)

    def _expected(self, name: str) -> str:
        return "" if self.sha256 is None else self.sha256.get(name, "")

    def _is_it(self, name: str, found: str) -> bool:
        return self.sha256 is None or self._expected(name) == found

    def _missing(self, name: str) -> InputMissingError:
        return InputMissingError(f"{self.where(name)}: is not there; {self.remedy}.")

    def _damaged(self, name: str) -> ContentError:
        return ContentError(f"{self.where(name)}: damaged (its SHA-256 is not the one that was recorded); {self.remedy}.")


class _Memory:
    """Which files were verified on this machine before, for one folder; best effort, as it only saves time."""

    def __init__(self, where: str) -> None:
        self._file = cache_folder("verified") / f"{hashlib.sha256(where.encode()).hexdigest()[:32]}.json"
        self._found: dict[str, tuple[str, Identity]] = {}
        self._is_new = False
        with suppress(OSError, ValueError, TypeError, AttributeError):
            listed = json.loads(self._file.read_bytes())
            self._found = {path: (sha256, tuple(identity)) for path, (sha256, identity) in listed.items()}

    def get(self, path: str, sha256: str) -> Identity | None:
        known = self._found.get(path)
        return known[1] if known is not None and known[0] == sha256 else None

    def add(self, path: str, sha256: str, identity: Identity) -> None:
        self._found[path] = (sha256, identity)
        self._is_new = True

    def save(self) -> None:
        if self._is_new:
            self._is_new = False
            with suppress(OutputError):
                write_atomically(self._file, json.dumps(dict(self._found)).encode())


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
