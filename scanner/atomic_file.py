"""Files that appear whole or not at all: written beside their place, brought to the disk, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from scanner.errors import OutputError

PARTIAL_PREFIX = ".partial-"


def partial_name(path: Path) -> Path:
    """A name beside ``path`` that no other process, thread or machine uses; hidden, ends with the process id."""
    return path.with_name(f"{PARTIAL_PREFIX}{path.name}-{uuid4().hex[:12]}-{os.getpid()}")


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Name a file beside ``path`` to write to; it takes the place of ``path`` when the block ends, and goes if that fails."""
    partial = partial_name(path)
    try:
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole; its folder is made if need be.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as partial:
            partial.write_bytes(content)


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a failed write into one sentence.

    Raises
    ------
    OutputError
        Any failed system call: full disk, no permission, read-only file system.
    """
    try:
        yield
    except OSError as error:
        raise OutputError.of(path, error) from error


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all below; what is not there, or others remove meanwhile, counts as removed."""
    while path.is_dir() and not path.is_symlink():
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def remove_at_once(path: Path) -> None:
    """Remove a file or folder under another name, so that who still writes into it cannot bring a part of it into its place."""
    aside = path.with_name(f"{PARTIAL_PREFIX}removed-{uuid4().hex}")
    with suppress(FileNotFoundError, NotADirectoryError):
        path.rename(aside)
        remove(aside)


def flush_tree(path: Path) -> None:
    """Bring a file, or a folder with all below, to the disk."""
    for parent, _, names in os.walk(path):
        for name in names:
            flush(Path(parent, name))
        flush(Path(parent))
    if path.is_file():
        flush(path)


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder(part: str) -> Path:
    """Where this user's copies of what can be had again are kept: ``$XDG_CACHE_HOME/scanner/PART``, or below ``~/.cache``."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path("~/.cache").expanduser()) / "scanner" / part


def data_folder(part: str) -> Path:
    """Where this user's own data are kept: ``$XDG_DATA_HOME/scanner/PART``, or below ``~/.local/share``."""
    given = os.environ.get("XDG_DATA_HOME")
    return (Path(given) if given else Path("~/.local/share").expanduser()) / "scanner" / part


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
