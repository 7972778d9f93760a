"""Which of the published bundles is meant: small files beside them that are moved as a whole.

In: a location ``STORE/current`` or ``STORE/latest``. Out: the location of the bundle that ``STORE/current.json`` or
``STORE/latest.json`` names; any other location as it is. Refused: a pointer that is not there
(:class:`~scanner.errors.InputMissingError`) or does not name a bundle (:class:`~scanner.errors.ContentError`).
:mod:`scanner.ensemble.published_bundles` moves them.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError
from scanner.records import Record
from scanner.storage.contract import Store
from scanner.storage.location import is_remote, join, split
from scanner.storage.open import open_store

#: ``current``: what scans use. ``latest``: what was published last.
Pointer = Literal["current", "latest"]
POINTERS: tuple[Pointer, ...] = get_args(Pointer)


class PublishedBundle(Record):
    """``current.json`` and ``latest.json`` of a store of bundles."""

    bundle: str = Field(pattern="^[0-9a-f]{64}$", description="fingerprint of the bundle, which is its folder's name too")
    name: str
    version: str
    before: str | None = Field(description="fingerprint of the bundle that it took the place of")
    since: datetime


def read_pointer(store: Store, pointer: Pointer) -> PublishedBundle | None:
    """Read a pointer; None where it was never set.

    Raises
    ------
    ContentError
        It does not name a bundle.
    """
    key = f"{pointer}.json"
    try:
        return PublishedBundle.model_validate_json(store.read(key))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise ContentError(
            f"{store.where(key)}: does not name a bundle; set it with 'scanner models rollback --published {store.root} --to'."
        ) from None


def is_pointer(location: str) -> bool:
    """Whether a location is that of a pointer; on a disk, a folder of that name stands for itself."""
    local = None if is_remote(location) else Path(location)
    return split(location)[1] in POINTERS and (local is None or (not local.is_dir() and local.with_suffix(".json").is_file()))


def followed(location: str, storage: StorageConfig) -> str:
    """The location of the bundle that a pointer names now, or the location itself where it is no pointer's.

    Raises
    ------
    InputMissingError
        Nothing was published or promoted there.
    """
    if not is_pointer(location):
        return location
    folder, name = split(location)
    store = open_store(folder, storage)
    found = read_pointer(store, "current" if name == "current" else "latest")
    if found is None:
        raise InputMissingError(
            f"{store.where(f'{name}.json')}: no such file; publish a bundle with 'scanner models publish --to {folder}' and "
            f"promote it with 'scanner models promote latest --published {folder}'."
        )
    return join(folder, found.bundle)
