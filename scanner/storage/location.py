"""Locations, as text: local paths, and URLs of object stores with their schemes."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import NamedTuple


class Scheme(NamedTuple):
    """A kind of object store.

    ``credentials``: environment variables that hold them, for messages. ``environment``: how the variables begin that its
    client reads. ``endpoint``: its client's setting for the address of a server.
    """

    credentials: str
    environment: str
    endpoint: str


#: By the URL's scheme: Amazon S3 and servers that speak as it does, Google Cloud Storage, Azure Blob Storage. What follows is
#: the bucket (of Azure, the container) and a key. A new one is one that :func:`obstore.store.from_url` knows.
SCHEMES = {
    "s3": Scheme("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN", "AWS_", "endpoint"),
    "gs": Scheme("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_", "base_url"),
    "az": Scheme("AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", "AZURE_", "endpoint"),
}


def scheme_of(location: str) -> str:
    """Scheme of an object store's URL, as in :data:`SCHEMES`; "" of everything else."""
    scheme, separator, _ = location.partition("://")
    return scheme.lower() if separator and scheme.lower() in SCHEMES else ""


def is_remote(location: str) -> bool:
    """Whether a location lies on an object store."""
    return bool(scheme_of(location))


def absolute(location: str) -> str:
    """A location as any process of a run's machines can use it, whatever folder it works in."""
    return location if is_remote(location) else str(Path(location).resolve())


def bucket_and_key(location: str) -> tuple[str, str]:
    """``s3://bucket`` and ``key`` of the URL ``s3://bucket/key``, without slashes at the end."""
    scheme, _, rest = location.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme.lower()}://{bucket}", key.strip("/")


def join(location: str, key: str) -> str:
    """Location of a relative key; a URL stands for itself, and an absolute path beside a local location."""
    if is_remote(key) or not is_remote(location):
        return key if is_remote(key) else str(Path(location) / key)
    return f"{location.rstrip('/')}/{posixpath.normpath(key)}"


def split(location: str) -> tuple[str, str]:
    """Folder and last name of a location."""
    if is_remote(location):
        bucket, key = bucket_and_key(location)
        folder, _, name = key.rpartition("/")
        return f"{bucket}/{folder}".rstrip("/"), name
    path = Path(location)
    return str(path.parent), path.name
