"""Folders of an object store that are there whole or not at all.

An attempt uploads its files under a name of its own, ``folder/attempt-…/``, and then puts the record, ``folder/record``, which
holds that name, on condition that what is there is what was there when the attempt began. So of attempts that overlap one is
published. Whoever is to remove the files of an attempt that no record names first puts a *fence* in the place of the record: no
two fences are equal, so that no attempt that began before can be published any more. A fence is not a record to any reader.
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
from scanner.storage.contract import Staging, overtaken, superseded
from scanner.storage.transfer import in_parallel, upload, uploads_of

if TYPE_CHECKING:
    from obstore import PutMode

    from scanner.storage.s3 import S3Store

_PLACE = re.compile(rb"attempt-[0-9a-f]{12}")
_FENCE = b"fence "
FENCE_BYTES = len(_FENCE) + 32
# Content and version of a record.
_Record = tuple[bytes, str | None]


@contextmanager
def staged(store: S3Store, key: str, record: str, scratch: Path | None, hold: str | None) -> Iterator[Staging]:
    """Yield a local folder, and publish what it holds when the block ends without an error."""
    before = store.versioned(f"{key}/{record}")
    if hold is not None and before is not None and not is_fence(before[0]):
        raise overtaken(store.where(key))
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
        _publish(store, key, folder, place, record, content, before, hold)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(
    store: S3Store,
    key: str,
    folder: Path,
    place: str,
    record: str,
    content: bytes,
    before: _Record | None,
    hold: str | None,
) -> None:
    uploads = uploads_of(folder, store.path(f"{key}/{place}"), store.where(f"{key}/{place}"))
    if uploads and place not in content.decode():
        raise ValueError(f"the record {record} does not hold the place of its files, {place}")
    expected = {one.path: one.source.stat().st_size for one in uploads}
    try:
        upload(store.bucket, uploads)
        # After the upload: whoever took hold since has found these files and fenced them, or will.
        if hold is not None and store.holder() != hold:
            raise superseded(store.where(key))
    except BaseException:
        _discard(store, key, place)
        raise
    # An error of this line says nothing of whether the record was written: the files stay for it, or for the next sweep.
    if not _put_record(store, f"{key}/{record}", place, content, before):
        _discard(store, key, place)
        raise overtaken(store.where(key))
    if hold is not None:
        return
    there = {meta["path"]: meta["size"] for meta in store.below(f"{key}/{place}")}
    if not expected.items() <= there.items():
        _withdraw(store, f"{key}/{record}", {place})
        _discard(store, key, place)
        raise overtaken(store.where(key))
    for old in _places(before) - {place}:
        _discard(store, key, old)


def is_fence(content: bytes) -> bool:
    """Whether an object in the place of a record is a fence."""
    return len(content) == FENCE_BYTES and content.startswith(_FENCE)


def _put_record(store: S3Store, key: str, place: str, content: bytes, before: _Record | None) -> bool:
    with store.writing(key):
        try:
            store.bucket.put(store.path(key), content, mode=_if_still(before))
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


def sweep(store: S3Store, key: str, record: str) -> None:
    """Remove attempts' files that no record names, in every folder directly below a key."""
    attempts: dict[str, set[str]] = {}
    standing: set[str] = set()
    start = len(store.path(key)) + 1 if store.path(key) else 0
    for meta in store.below(key):
        folder, *rest = meta["path"][start:].split("/")
        if len(rest) > 1 and _PLACE.fullmatch(rest[0].encode()):
            attempts.setdefault(folder, set()).add(rest[0])
        elif rest == [record] and meta["size"] != FENCE_BYTES:
            standing.add(folder)

    def clean(folder: str) -> None:
        where = f"{key}/{folder}".lstrip("/")
        for place in attempts[folder] - _fenced(store, f"{where}/{record}", standing=True):
            store.delete(f"{where}/{place}")

    # A folder with a record and files of one attempt needs no look: a record's files are there.
    in_parallel(clean, [folder for folder, places in attempts.items() if len(places) > 1 or folder not in standing])


def revoke(store: S3Store, key: str, record: str) -> None:
    """Remove a folder's record, and then the files of all attempts."""
    if not (entries := store.entries(key)):
        return
    _fenced(store, f"{key}/{record}", standing=False)
    for entry in entries:
        if entry.name != record:
            store.delete(f"{key}/{entry.name}")


def _fenced(store: S3Store, key: str, *, standing: bool) -> set[str]:
    """Put a fence in the place of a record, unless there is one that is to stand; returns the places that this one names."""
    while True:
        found = store.versioned(key)
        if standing and found is not None and not is_fence(found[0]):
            return _places(found)
        with store.writing(key), suppress(AlreadyExistsError, PreconditionError):
            store.bucket.put(store.path(key), _FENCE + uuid4().hex.encode(), mode=_if_still(found))
            return set()


def _if_still(before: _Record | None) -> PutMode:
    """The condition that an object is as it was."""
    return "create" if before is None else {"e_tag": before[1]}
