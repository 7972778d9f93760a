"""Labelled datasets on an object store, copied once to this machine.

In: locations of datasets, local folders or ``s3://…``, and a folder for copies. Out: local folders. A dataset that was replaced
on the store is copied anew, as its copy is named by the versions of its description and truth. Refused: a place without a
dataset (:class:`~scanner.errors.InputMissingError`), and what :mod:`scanner.storage.contract` lists.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from scanner.config import StorageConfig
from scanner.errors import InputMissingError
from scanner.labelled_set import CUTOUTS, DESCRIPTION, TRUTH
from scanner.storage.location import is_remote, split
from scanner.storage.open import open_store


def local_datasets(locations: Sequence[str], copies: Path, storage: StorageConfig) -> tuple[Path, ...]:
    """The folders of datasets, in order; those on an object store are copied below ``copies`` unless they are there."""
    return tuple(_copied(one, copies, storage) if is_remote(one) else Path(one) for one in locations)


def _copied(location: str, copies: Path, storage: StorageConfig) -> Path:
    store = open_store(location, storage)
    versions = []
    for part in (DESCRIPTION, TRUTH, CUTOUTS):
        entry = store.entry(part)
        if entry is None:
            raise InputMissingError(
                f"{location}: not a dataset, {part} is missing; upload what 'scanner simulate dataset' makes."
            )
        versions.append(entry.version)
    name = split(location)[1]
    copy = copies / f"{name}-{hashlib.sha256(' '.join([location, *versions]).encode()).hexdigest()[:12]}"
    if not copy.exists():
        store.fetch("", copy)
    return copy
