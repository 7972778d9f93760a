"""Bytes between the disk and an object store, several requests at a time.

In: objects and where they go, or files and what they become. Out: files of the size that was announced, or objects. Big ones
are carried in pieces, each a request of its own that is short enough to be given again. Refused: what
:mod:`scanner.storage.failures` tells; a disk that is full; an object that changes while it is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from obstore.exceptions import PreconditionError

from scanner.atomic_file import writing_to
from scanner.errors import UnavailableError
from scanner.storage.failures import asking
from scanner.storage.in_order import in_order

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store as Bucket

# One connection carries a part of what a machine can take; eight pieces bound the memory to 64 MB.
PIECE_BYTES = 8 << 20
PARALLEL = 8
PARALLEL_FILES = 4

Item = TypeVar("Item")


@dataclass(frozen=True)
class Download:
    """One object and the file that it becomes; ``where`` names it in messages."""

    path: str
    where: str
    size: int
    e_tag: str | None
    target: Path


@dataclass(frozen=True)
class Upload:
    """One file and the object that it becomes; ``where`` names it in messages."""

    source: Path
    path: str
    where: str


def in_parallel(work: Callable[[Item], object], items: Iterable[Item], parallel: int = PARALLEL) -> None:
    """Do the same to many; the first failure ends it, once what had begun is through."""
    for _ in in_order(work, items, parallel):
        pass


def download(bucket: Bucket, downloads: Sequence[Download]) -> None:
    """Fetch objects into files."""
    for one in downloads:
        with writing_to(one.target):
            one.target.parent.mkdir(parents=True, exist_ok=True)
            with one.target.open("wb") as file:
                file.truncate(one.size)
    pieces = [(one, start) for one in downloads for start in range(0, one.size, PIECE_BYTES)]
    in_parallel(partial(_download_piece, bucket), pieces)


def _download_piece(bucket: Bucket, piece: tuple[Download, int]) -> None:
    one, start = piece
    end = min(start + PIECE_BYTES, one.size)
    options: GetOptions = {"range": (start, end)}
    if one.e_tag is not None:
        options["if_match"] = one.e_tag
    with asking(one.where, "read"):
        try:
            content = bucket.get(one.path, options=options).bytes()
        except PreconditionError:
            raise UnavailableError(f"{one.where}: was replaced while it was read; give the same command again.") from None
    if len(content) != end - start:
        raise UnavailableError(f"{one.where}: the object store sent {len(content)} of {end - start} bytes; try again.")
    with writing_to(one.target), one.target.open("r+b", buffering=0) as file:
        view = memoryview(content)
        while view:
            written = os.pwrite(file.fileno(), view, start)
            view, start = view[written:], start + written


def uploads_of(source: Path, path: str, where: str) -> list[Upload]:
    """A file, or all files of a folder, and what they become."""
    if source.is_file():
        return [Upload(source, path, where)]
    names = {file: file.relative_to(source).as_posix() for file in sorted(source.rglob("*")) if file.is_file()}
    return [Upload(file, f"{path}/{name}".lstrip("/"), f"{where}/{name}") for file, name in names.items()]


def upload(bucket: Bucket, uploads: Sequence[Upload]) -> None:
    """Put files into objects, in place of older ones."""
    in_parallel(partial(_upload_file, bucket), uploads, PARALLEL_FILES)


def _upload_file(bucket: Bucket, one: Upload) -> None:
    in_pieces = one.source.stat().st_size > PIECE_BYTES
    with asking(one.where, "write"):
        bucket.put(one.path, one.source, use_multipart=in_pieces, chunk_size=PIECE_BYTES, max_concurrency=PARALLEL_FILES)
