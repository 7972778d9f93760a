"""From a location to its store, or to a single file of it.

In: a location and how object stores are reached. Out: a :class:`~scanner.storage.contract.Store`, bytes, or a local file.
Refused: what :mod:`scanner.storage.contract` lists; a URL without a bucket (:class:`~scanner.errors.UsageError`).
"""

from __future__ import annotations

from pathlib import Path

from scanner.config import StorageConfig
from scanner.storage.contract import Store
from scanner.storage.local import LocalStore
from scanner.storage.location import is_remote, split


def open_store(location: str, config: StorageConfig) -> Store:
    """The store of a folder, which need not be there yet."""
    if not is_remote(location):
        return LocalStore(Path(location))
    from scanner.storage.s3 import S3Store

    store: Store = S3Store(location, config)
    return store


def read_file(location: str, config: StorageConfig) -> bytes:
    """Content of one small file."""
    folder, name = split(location)
    return open_store(folder, config).read(name)


def fetch_file(location: str, target: Path, config: StorageConfig) -> None:
    """Copy one file to a local path, whole or not at all."""
    folder, name = split(location)
    open_store(folder, config).fetch(name, target)
