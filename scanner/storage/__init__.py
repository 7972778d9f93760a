"""Files by key, on a disk or on an object store: what a run reads and writes, wherever it lies.

A location is a local path or a URL such as ``s3://bucket/folder`` (:data:`scanner.storage.contract.SCHEMES`). Code that holds
a :class:`Store` need not know which it is; :mod:`scanner.storage.contract` says what every store promises.
"""

from __future__ import annotations

from pathlib import Path

from scanner.config import StorageConfig
from scanner.storage.contract import Entry, Staging, Store, absolute, is_remote, join, split
from scanner.storage.disk import LocalStore

__all__ = ["Entry", "Staging", "Store", "absolute", "fetch_file", "is_remote", "join", "open_store", "read_file", "split"]


def open_store(location: str, config: StorageConfig) -> Store:
    """The store of a folder, which need not be there yet.

    Raises
    ------
    UsageError
        A URL without a bucket.
    InputMissingError
        The object store cannot be reached with what is set.
    """
    if not is_remote(location):
        return LocalStore(Path(location))
    from scanner.storage.object_store import ObjectStore

    return ObjectStore(location, config)


def read_file(location: str, config: StorageConfig) -> bytes:
    """Content of one small file."""
    folder, name = split(location)
    return open_store(folder, config).read(name)


def fetch_file(location: str, target: Path, config: StorageConfig) -> None:
    """Copy one file to a local path, whole or not at all."""
    folder, name = split(location)
    open_store(folder, config).fetch(name, target)
