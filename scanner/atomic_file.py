"""Files that appear whole or not at all.

In: a path and bytes. Out: the file, in place of an older one. Refused: places that cannot be written (OutputError).
"""

from __future__ import annotations

from pathlib import Path

from scanner.errors import OutputError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` as a whole; its folder is made if need be.

    Raises
    ------
    OutputError
        The folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise OutputError.of(path, error) from None
