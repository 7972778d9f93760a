"""A store on S3 or a server that speaks as S3 does.

In: a location ``s3://bucket/prefix``. Out: a :class:`~scanner.storage.contract.Store` that many threads may use. Refused:
see the contract; a location without a bucket (:class:`~scanner.errors.UsageError`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore.store
from obstore.exceptions import AlreadyExistsError, PermissionDeniedError
from pydantic import ValidationError

from scanner.atomic_file import partial_name, remove, writing_to
from scanner.config import StorageConfig
from scanner.errors import UsageError
from scanner.storage import attempts
from scanner.storage.contract import Entry, Staging
from scanner.storage.failures import asking
from scanner.storage.lease import Lease, LeaseRecord
from scanner.storage.location import REMOTE
from scanner.storage.transfer import Download, download, upload, uploads_of

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config


_LOCK = ".lock"


class S3Store:
    """A bucket, or what lies below a prefix of it."""

    def __init__(self, location: str, config: StorageConfig) -> None:
        bucket, _, prefix = location[len(REMOTE) :].partition("/")
        if not bucket:
            raise UsageError(f"{location}: names no bucket; write s3://bucket/folder.")
        self.root = location.rstrip("/")
        environment = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
        self.bucket = _bucket(bucket, config, tuple(environment))
        self._prefix = prefix.strip("/")
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
        if found is None or attempts.is_fence(found[0]):
            raise FileNotFoundError(errno.ENOENT, "There is no such object", self.where(key))
        return found[0]

    def versioned(self, key: str) -> tuple[bytes, str | None] | None:
        """Content and version of an object, None where there is none."""
        if not self.path(key):
            return None
        try:
            with asking(self.where(key), "read"):
                found = self.bucket.get(self.path(key))
                return bytes(found.bytes()), found.meta["e_tag"]
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
                listed.append(Entry(name, meta["size"], _version(meta), is_folder=False))
        return tuple(sorted((entry for entry in listed if not entry.name.startswith(".")), key=lambda entry: entry.name))

    def names(self, key: str) -> set[str]:
        """Names of all objects of a folder, without the folder's."""
        return {meta["path"].removeprefix(self.path(key)).lstrip("/") for meta in self.below(key)}

    def entry(self, key: str) -> Entry | None:
        """What lies at a key."""
        name = key.rstrip("/").rpartition("/")[2]
        meta = self._head(key)
        if meta is not None:
            return Entry(name, meta["size"], _version(meta), is_folder=False)
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
                self.bucket.delete(sorted(paths))

    def staged(
        self, key: str, record: str, scratch: Path | None = None, hold: str | None = None
    ) -> AbstractContextManager[Staging]:
        """A local folder that is uploaded when the block ends; see :mod:`scanner.storage.attempts`."""
        return attempts.staged(self, key, record, scratch, hold)

    def sweep(self, key: str, record: str) -> None:
        """Remove the files of attempts, at the folders directly below a key, that no record names."""
        attempts.sweep(self, key, record)

    def revoke(self, key: str, record: str) -> None:
        """Put a fence in the place of a record, and remove the files of all attempts."""
        attempts.revoke(self, key, record)

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
def _bucket(name: str, config: StorageConfig, environment: tuple[tuple[str, str], ...]) -> obstore.store.S3Store:
    """The library's client; what the configuration leaves open it finds in the environment.

    One is shared by all stores of a bucket, and with it the connections that stand.
    """
    given: S3Config = {}
    if config.endpoint is not None:
        # The second goes before the first, also where it comes from the environment.
        given["endpoint"] = given["aws_endpoint_url_s3"] = config.endpoint
    if config.region is not None:
        given["region"] = config.region
    if config.anonymous:
        given["skip_signature"] = True
    limit = timedelta(seconds=config.timeout_s)
    client: ClientConfig = {"allow_http": True, "timeout": limit / 2, "connect_timeout": min(limit / 2, timedelta(seconds=5))}
    retry: RetryConfig = {"max_retries": config.retries, "retry_timeout": limit}
    return obstore.store.S3Store(name, config=given, client_options=client, retry_config=retry)


def _version(meta: ObjectMeta) -> str:
    return meta["e_tag"] or f"{meta['size']}-{meta['last_modified'].isoformat()}"
