"""Files that appear whole or not at all.

In: a path, and bytes or whatever writes a file. Out: the file, in place of an older one. Refused: places that cannot be written
(OSError of :func:`replacement`, OutputError of :func:`write_atomically`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.errors import OutputError


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Name a file beside ``path`` to write to; it takes the place of ``path`` when the block ends, and goes if that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole; its folder is made if need be.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OutputError.of(path, error) from None
