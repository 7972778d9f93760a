"""A store on an object store: S3 and servers that speak as it does, Google Cloud Storage, Azure Blob Storage."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import obstore.store
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError
from pydantic import ValidationError

from scanner.atomic_file import partial_name, remove, writing_to
from scanner.config import StorageConfig
from scanner.errors import InputMissingError, ScannerError, UsageError
from scanner.storage.contract import SCHEMES, Entry, Staging, bucket_and_key, overtaken, scheme_of, superseded
from scanner.storage.lease import Lease, LeaseRecord
from scanner.storage.requests import Download, asking, download, in_parallel, lacks_bucket, upload, uploads_of, version_of

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Bucket

_PLACE = re.compile(rb"attempt-[0-9a-f]{12}")
_FENCE = b"fence "
FENCE_BYTES = len(_FENCE) + 32
# Content and version of a record.
_Record = tuple[bytes, "UpdateVersion"]
_LOCK = ".lock"


class ObjectStore:
    """A bucket, or what lies below a prefix of it.

    Folders that are there whole or not at all (:meth:`ObjectStore.staged`): an attempt uploads its files under a name of its
    own, ``folder/attempt-…/``, and then puts the record, ``folder/record``, which holds that name, on condition that what is
    there is what was there when the attempt began. So of attempts that overlap one is published. Whoever is to remove the files
    of an attempt that no record names first puts a *fence* in the place of the record: no two fences are equal, so that no
    attempt that began before can be published any more. A fence is not a record to any reader.
    """

    def __init__(self, location: str, config: StorageConfig) -> None:
        bucket, self._prefix = bucket_and_key(location)
        scheme = scheme_of(location)
        if bucket.endswith("://"):
            raise UsageError(f"{location}: names no bucket; write {scheme}://bucket/folder.")
        self.root = location.rstrip("/")
        environment = {name: value for name, value in os.environ.items() if name.startswith(SCHEMES[scheme].environment)}
        self.bucket = _bucket(bucket, config, tuple(sorted(environment.items())))
        self._lease: Lease | None = None

    def where(self, key: str) -> str:
        """URL of a key."""
        return f"{self.root}/{key}" if key else self.root

    def path(self, key: str) -> str:
        """Name of a key's object in its bucket."""
        return "/".join(part for part in (self._prefix, key.strip("/")) if part)

    def local(self, key: str) -> Path | None:
        """None: nothing is read in place."""
        return None

    def read(self, key: str) -> bytes:
        """Content of an object."""
        found = self.versioned(key)
        if found is None or _is_fence(found[0]):
            raise FileNotFoundError(errno.ENOENT, "There is no such object", self.where(key))
        return found[0]

    def versioned(self, key: str) -> tuple[bytes, UpdateVersion] | None:
        """Content and version of an object, None where there is none."""
        if not self.path(key):
            return None
        try:
            with asking(self.where(key), "read"):
                found = self.bucket.get(self.path(key))
                return bytes(found.bytes()), version_of(found.meta)
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Make or replace an object."""
        with self.writing(key):
            self.bucket.put(self.path(key), content, use_multipart=False)

    def create(self, key: str, content: bytes) -> bool:
        """Make an object that is not there yet."""
        writer = uuid4().hex
        with self.writing(key):
            while True:
                try:
                    self.bucket.put(self.path(key), content, mode="create", attributes={"writer": writer})
                    return True
                except AlreadyExistsError:
                    # Where the answer to a first try was lost, what is there already is this very object. Where nothing is
                    # there, another request was at work on it.
                    with suppress(FileNotFoundError):
                        return self.bucket.get(self.path(key), options={"head": True}).attributes.get("writer") == writer

    def entries(self, key: str = "") -> tuple[Entry, ...]:
        """What lies directly below a key, hidden names aside."""
        with asking(self.where(key), "read"):
            found = self.bucket.list_with_delimiter(self.path(key) or None)
        folders = {prefix.rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"]}
        listed = [Entry(name, 0, "", is_folder=True) for name in folders]
        for meta in found["objects"]:
            name = meta["path"].rpartition("/")[2]
            # Some tools mark a folder by an empty object of its own name.
            if meta["path"] != self.path(key) and not (name in folders and meta["size"] == 0):
                listed.append(Entry(name, meta["size"], _version_of(meta), is_folder=False))
        return tuple(sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda entry: entry.name))

    def names(self, key: str) -> set[str]:
        """Names of all objects of a folder, without the folder's."""
        return {meta["path"].removeprefix(self.path(key)).lstrip("/") for meta in self.below(key)}

    def entry(self, key: str) -> Entry | None:
        """What lies at a key."""
        name = key.rstrip("/").rpartition("/")[2]
        meta = self._head(key)
        if meta is not None:
            return Entry(name, meta["size"], _version_of(meta), is_folder=False)
        return Entry(name, 0, "", is_folder=True) if next(self.below(key), None) is not None else None

    def exists(self, key: str) -> bool:
        """Whether there is an object of this key, or below it."""
        return self.entry(key) is not None

    def below(self, key: str) -> Iterator[ObjectMeta]:
        """All objects of a folder; their paths begin with the folder's."""
        path = self.path(key)
        with asking(self.where(key), "read"):
            for listed in self.bucket.list(path or None, chunk_size=1000):
                yield from (meta for meta in listed if meta["path"] != path)

    def fetch(self, key: str, target: Path) -> None:
        """Copy an object or a folder to the disk."""
        partial = partial_name(target)
        meta = self._head(key)
        if meta is not None:
            downloads = [Download(meta["path"], self.where(key), meta["size"], meta["e_tag"], partial)]
        else:
            downloads = [self._download(found, key, partial) for found in self.below(key)]
            parents = {str(parent) for one in downloads for parent in PurePosixPath(one.path).parents}
            downloads = [one for one in downloads if not (one.size == 0 and one.path in parents)]
        if not downloads:
            raise FileNotFoundError(errno.ENOENT, "There is no such object", self.where(key))
        try:
            download(self.bucket, downloads)
            with writing_to(target):
                remove(target)
                partial.replace(target)
        finally:
            remove(partial)

    def publish(self, source: Path, key: str) -> None:
        """Upload a file or folder, then remove what else was there."""
        uploads = uploads_of(source, self.path(key), self.where(key))
        self._check_lease()
        upload(self.bucket, uploads)
        stale = {meta["path"] for meta in self.below(key)} - {one.path for one in uploads}
        if source.is_dir():
            stale.add(self.path(key))
        self.remove_objects(key, stale)

    def delete(self, key: str) -> None:
        """Remove an object, or a folder with all below, also what is written there meanwhile."""
        paths, before = {self.path(key)} - {""}, set[str]()
        while paths - before:
            self.remove_objects(key, paths)
            before, paths = paths, {meta["path"] for meta in self.below(key)}

    def remove_objects(self, key: str, paths: Collection[str]) -> None:
        """Remove objects of a key by their paths."""
        if paths:
            with self.writing(key):
                try:
                    self.bucket.delete(sorted(paths))
                except FileNotFoundError as error:
                    if lacks_bucket(error):
                        raise
                    # To S3 what is not there counts as removed. Other stores stop there.
                    for path in sorted(paths):
                        with suppress(FileNotFoundError):
                            self.bucket.delete(path)

    @contextmanager
    def staged(self, key: str, record: str, scratch: Path | None = None, hold: str | None = None) -> Iterator[Staging]:
        """A local folder that is uploaded when the block ends, its record last."""
        before = self.versioned(f"{key}/{record}")
        if hold is not None and before is not None and not _is_fence(before[0]):
            raise overtaken(self.where(key))
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
            _publish(self, key, folder, place, record, content, before, hold)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, key: str, record: str) -> None:
        """Remove attempts' files that no record names, in every folder directly below a key."""
        attempts: dict[str, set[str]] = {}
        standing: set[str] = set()
        start = len(self.path(key)) + 1 if self.path(key) else 0
        for meta in self.below(key):
            folder, *rest = meta["path"][start:].split("/")
            if len(rest) > 1 and _PLACE.fullmatch(rest[0].encode()):
                attempts.setdefault(folder, set()).add(rest[0])
            elif rest == [record] and meta["size"] != FENCE_BYTES:
                standing.add(folder)

        def clean(folder: str) -> None:
            where = f"{key}/{folder}".lstrip("/")
            for place in attempts[folder] - _fenced(self, f"{where}/{record}", standing=True):
                self.delete(f"{where}/{place}")

        # A folder with a record and files of one attempt needs no look: a record's files are there.
        in_parallel(clean, [folder for folder, places in attempts.items() if len(places) > 1 or folder not in standing])

    def revoke(self, key: str, record: str) -> None:
        """Put a fence in the place of a folder's record, and remove the files of all attempts."""
        if not (entries := self.entries(key)):
            return
        _fenced(self, f"{key}/{record}", standing=False)
        for entry in entries:
            if entry.name != record:
                self.delete(f"{key}/{entry.name}")

    @contextmanager
    def held(self, name: str = _LOCK) -> Iterator[str]:
        """Keep a lease; see :mod:`scanner.storage.lease`."""
        lease = Lease(self.bucket, self.path(name), self.root)
        lease.acquire()
        self._lease = lease
        try:
            yield lease.token
            lease.check()
        finally:
            self._lease = None
            lease.release()

    def holder(self) -> str:
        """The token in the lease."""
        found = self.versioned(_LOCK)
        try:
            return "" if found is None else LeaseRecord.model_validate_json(found[0]).token
        except ValidationError:
            return ""

    @contextmanager
    def writing(self, key: str) -> Iterator[None]:
        """Turn a failed write into one sentence; none is made once the store was lost to another holder."""
        self._check_lease()
        with asking(self.where(key), "write"):
            yield

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _head(self, key: str) -> ObjectMeta | None:
        path = self.path(key)
        try:
            with asking(self.where(key), "read"):
                try:
                    return self.bucket.head(path) if path else None
                except PermissionDeniedError:
                    # Only an answer with a body says why: this object, or the credentials.
                    return self.bucket.get(path).meta
        except FileNotFoundError:
            return None

    def _download(self, meta: ObjectMeta, key: str, folder: Path) -> Download:
        name = meta["path"].removeprefix(self.path(key)).lstrip("/")
        return Download(meta["path"], self.where(f"{key}/{name}"), meta["size"], meta["e_tag"], folder / name)


@lru_cache(maxsize=16)
def _bucket(url: str, config: StorageConfig, environment: tuple[tuple[str, str], ...]) -> Bucket:
    """The library's client; what the configuration leaves open it finds in the environment.

    One is shared by all stores of a bucket, and with it the connections that stand.
    """
    scheme = scheme_of(url)
    given: Any = {}
    if config.endpoint is not None:
        given[SCHEMES[scheme].endpoint] = config.endpoint
        if scheme == "s3":
            # Goes before the other, also where it comes from the environment; from_url does not take it.
            given["aws_endpoint_url_s3"] = config.endpoint
    if config.region is not None and scheme == "s3":
        given["region"] = config.region
    if config.anonymous:
        given["skip_signature"] = True
    limit = timedelta(seconds=config.timeout_s)
    client: ClientConfig = {"allow_http": True, "timeout": limit / 2, "connect_timeout": min(limit / 2, timedelta(seconds=5))}
    retry: RetryConfig = {"max_retries": config.retries, "retry_timeout": limit}
    try:
        if scheme == "s3":
            name = url.removeprefix("s3://")
            return obstore.store.S3Store(name, config=given, client_options=client, retry_config=retry)
        bucket: Bucket = obstore.store.from_url(url, config=given, client_options=client, retry_config=retry)
    except BaseError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputMissingError(f"{url}: cannot be reached ({reason}); set {SCHEMES[scheme].credentials}.") from None
    return bucket


def _version_of(meta: ObjectMeta) -> str:
    return meta["e_tag"] or f"{meta['size']}-{meta['last_modified'].isoformat()}"


def _publish(
    store: ObjectStore,
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
        # After the upload: a holder since then has found these files and fenced them, or will.
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


def _is_fence(content: bytes) -> bool:
    """Whether an object in the place of a record is a fence."""
    return len(content) == FENCE_BYTES and content.startswith(_FENCE)


def _put_record(store: ObjectStore, key: str, place: str, content: bytes, before: _Record | None) -> bool:
    with store.writing(key):
        try:
            store.bucket.put(store.path(key), content, mode=_if_still(before))
        except (AlreadyExistsError, PreconditionError):
            # Where the answer to a first try was lost, the record that is there is this one.
            return store.versioned(key) is not None and place in _places(store.versioned(key))
    return True


def _discard(store: ObjectStore, key: str, place: str) -> None:
    """Remove an attempt's files as far as the store can be reached; they are of no consequence."""
    with suppress(ScannerError):
        store.delete(f"{key}/{place}")


def _withdraw(store: ObjectStore, key: str, places: set[str]) -> None:
    """Remove a record that names files which are gone."""
    if _places(store.versioned(key)) & places:
        store.delete(key)


def _places(record: _Record | None) -> set[str]:
    return set() if record is None else {place.decode() for place in _PLACE.findall(record[0])}


def _fenced(store: ObjectStore, key: str, *, standing: bool) -> set[str]:
    """Put a fence in the place of a record, unless there is one that is to stand; returns the places that this one names."""
    while True:
        found = store.versioned(key)
        if standing and found is not None and not _is_fence(found[0]):
            return _places(found)
        with store.writing(key), suppress(AlreadyExistsError, PreconditionError):
            store.bucket.put(store.path(key), _FENCE + uuid4().hex.encode(), mode=_if_still(found))
            return set()


def _if_still(before: _Record | None) -> PutMode:
    """The condition that an object is as it was."""
    return "create" if before is None else before[1]
