"""Bundles on an object store, copied once to this machine.

In: the URL of a bundle's folder. Out: a local folder with its files, named by the fingerprint of its ``bundle.json``, so that a
new version of a bundle never meets an old copy; damaged copies are made again. Refused: no bundle there
(:class:`~scanner.errors.InputMissingError`), files that are missing or altered (:class:`~scanner.errors.ContentError`), a cache
that cannot be written (:class:`~scanner.errors.OutputError`), and what :mod:`scanner.storage.contract` lists.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.config import StorageConfig
from scanner.ensemble.manifest import MANIFEST_FILE, BundleManifest, parse
from scanner.errors import ContentError, InputMissingError, OutputError
from scanner.storage.checksum import file_sha256
from scanner.storage.contract import Store
from scanner.storage.open import open_store


def cache_folder() -> Path:
    """Where copies are kept: ``$XDG_CACHE_HOME/scanner/bundles``, or below ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "scanner" / "bundles"


def cached(location: str, storage: StorageConfig) -> Path:
    """Copy a bundle to this machine, unless it is there.

    Parameters
    ----------
    location
        URL of its folder.
    storage
        How object stores are reached.

    Returns
    -------
    Path
        Local folder, in which all files are what ``bundle.json`` says.

    Raises
    ------
    ScannerError
        See the module.
    """
    store = open_store(location, storage)
    try:
        text = store.read(MANIFEST_FILE)
    except FileNotFoundError:
        raise InputMissingError(f"{location}: no such bundle folder ({MANIFEST_FILE} is not in it).") from None
    manifest = parse(text, store.where(MANIFEST_FILE))
    folder = cache_folder() / hashlib.sha256(text).hexdigest()
    if _is_whole(folder, text, manifest):
        return folder
    with _new_folder(folder) as partial:
        (partial / MANIFEST_FILE).write_bytes(text)
        for name, expected in manifest.sha256.items():
            _fetch(store, name, partial / name)
            if file_sha256(partial / name) != expected:
                raise ContentError(
                    f"{store.where(name)}: altered (its SHA-256 is not the one in {MANIFEST_FILE}); upload the bundle again."
                )
    return folder


def _fetch(store: Store, name: str, target: Path) -> None:
    try:
        store.fetch(name, target)
    except FileNotFoundError:
        raise ContentError(f"{store.where(name)}: is missing; upload the bundle again.") from None


def _is_whole(folder: Path, text: bytes, manifest: BundleManifest) -> bool:
    expected = {MANIFEST_FILE: hashlib.sha256(text).hexdigest(), **manifest.sha256}
    try:
        return all(file_sha256(folder / name) == sha256 for name, sha256 in expected.items())
    except OSError:
        return False


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder in the making, which takes the name ``folder`` when the block ends; of several processes the first one wins."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-", ignore_cleanup_errors=True) as partial:
            yield Path(partial)
            if not folder.exists():
                Path(partial).rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder.parent}: cannot keep a copy of the bundle there ({error.strerror}); set XDG_CACHE_HOME to another folder."
        ) from None
