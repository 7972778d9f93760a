"""Locations: local paths and ``s3://`` URLs, as text.

In: a location. Out: whether it is remote, its folder and name, one below another. Refused: nothing; what makes no sense is
refused when it is opened.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

REMOTE = "s3://"


def is_remote(location: str) -> bool:
    """Whether a location lies on an object store."""
    return location.lower().startswith(REMOTE)


def join(location: str, key: str) -> str:
    """Location of a relative key; a URL stands for itself, and an absolute path beside a local location."""
    if is_remote(key) or not is_remote(location):
        return key if is_remote(key) else str(Path(location) / key)
    return f"{location.rstrip('/')}/{posixpath.normpath(key)}"


def split(location: str) -> tuple[str, str]:
    """Folder and last name of a location."""
    if is_remote(location):
        bucket, _, key = location[len(REMOTE) :].rstrip("/").partition("/")
        folder, _, name = key.rpartition("/")
        return f"{REMOTE}{bucket}/{folder}".rstrip("/"), name
    path = Path(location)
    return str(path.parent), path.name
