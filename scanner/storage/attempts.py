"""Folders of an object store that are there whole or not at all.

In: a local folder with a record in it. Out: its files under a name of this attempt, ``folder/attempt-…/``, and then the record,
``folder/record``, which holds that name: whoever reads the record finds the files. Refused: a folder that another attempt was
published to meanwhile; :mod:`scanner.storage.failures`.

The record is written on condition that it is as it was when the attempt began, so of two attempts one is published. Whoever
removes files without a record looks for the record afterwards, and who has written a record looks for the files: one of the
two sees the other, and removes the record. Files that no record names are of no consequence until :func:`sweep` removes them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from obstore.exceptions import AlreadyExistsError, PreconditionError

from scanner.atomic_file import writing_to
from scanner.errors import ScannerError
from scanner.storage.contract import Staging, overtaken
from scanner.storage.transfer import in_parallel, upload, uploads_of

if TYPE_CHECKING:
    from obstore import PutMode

    from scanner.storage.s3 import S3Store

_PLACE = re.compile(rb"attempt-[0-9a-f]{12}")
# Content and version of a record.
_Record = tuple[bytes, str | None]


@contextmanager
def staged(store: S3Store, key: str, record: str, scratch: Path | None) -> Iterator[Staging]:
    """Yield a local folder, and publish what it holds when the block ends without an error."""
    before = store.versioned(f"{key}/{record}")
    place = f"attempt-{uuid4().hex[:12]}"
    with writing_to(scratch or Path(tempfile.gettempdir())):
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="scanner-upload-", dir=scratch))
    try:
        with writing_to(folder):
            yield Staging(path=folder, place=place)
            content = (folder / record).read_bytes()
            (folder / record).unlink()
        _publish(store, key, folder, place, record, content, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(store: S3Store, key: str, folder: Path, place: str, record: str, content: bytes, before: _Record | None) -> None:
    uploads = uploads_of(folder, store.path(f"{key}/{place}"), store.where(f"{key}/{place}"))
    if uploads and place not in content.decode():
        raise ValueError(f"the record {record} does not hold the place of its files, {place}")
    expected = {one.path: one.source.stat().st_size for one in uploads}
    try:
        upload(store.bucket, uploads)
    except BaseException:
        _discard(store, key, place)
        raise
    # An error of this line says nothing of whether the record was written: the files stay for it, or for the next sweep.
    if not _put_record(store, f"{key}/{record}", place, content, before):
        _discard(store, key, place)
        raise overtaken(store.where(key))
    there = {meta["path"]: meta["size"] for meta in store.below(f"{key}/{place}")}
    if not expected.items() <= there.items():
        _withdraw(store, f"{key}/{record}", {place})
        _discard(store, key, place)
        raise overtaken(store.where(key))
    for old in _places(before) - {place}:
        _discard(store, key, old)


def _put_record(store: S3Store, key: str, place: str, content: bytes, before: _Record | None) -> bool:
    mode: PutMode = "create" if before is None else {"e_tag": before[1]}
    with store.writing(key):
        try:
            store.bucket.put(store.path(key), content, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            # Where the answer to a first try was lost, the record that is there is this one.
            return store.versioned(key) is not None and place in _places(store.versioned(key))
    return True


def _discard(store: S3Store, key: str, place: str) -> None:
    """Remove an attempt's files as far as the store can be reached; they are of no consequence."""
    with suppress(ScannerError):
        store.delete(f"{key}/{place}")


def _withdraw(store: S3Store, key: str, places: set[str]) -> None:
    """Remove a record that names files which are gone."""
    if _places(store.versioned(key)) & places:
        store.delete(key)


def _places(record: _Record | None) -> set[str]:
    return set() if record is None else {place.decode() for place in _PLACE.findall(record[0])}


def sweep(store: S3Store, key: str) -> None:
    """Remove attempts' files that no record names, in every folder directly below a key."""
    attempts: dict[str, set[str]] = {}
    records: dict[str, set[str]] = {}
    start = len(store.path(key)) + 1 if store.path(key) else 0
    for meta in store.below(key):
        folder, *rest = meta["path"][start:].split("/")
        if len(rest) > 1 and _PLACE.fullmatch(rest[0].encode()):
            attempts.setdefault(folder, set()).add(rest[0])
        elif len(rest) == 1 and not _PLACE.fullmatch(rest[0].encode()):
            records.setdefault(folder, set()).add(rest[0])

    def clean(folder: str) -> None:
        names = [f"{key}/{folder}/{name}".lstrip("/") for name in records.get(folder, ())]
        named = {place for name in names for place in _places(store.versioned(name))}
        orphans = attempts[folder] - named
        for place in orphans:
            store.delete(f"{key}/{folder}/{place}".lstrip("/"))
        if orphans:
            for entry in store.entries(f"{key}/{folder}".lstrip("/")):
                if not entry.is_folder:
                    _withdraw(store, f"{key}/{folder}/{entry.name}".lstrip("/"), orphans)

    # A folder with a record and files of one attempt needs no look: a record's files are there.
    in_parallel(clean, [folder for folder, places in attempts.items() if len(places) > 1 or folder not in records])
