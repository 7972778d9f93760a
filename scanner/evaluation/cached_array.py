"""Arrays that took long to compute, kept in files.

In: a path and a float32 array. Out: the array, or None where the file is missing, damaged or of another shape: it is computed
again then. Refused: folders that cannot be written (OutputError).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from scanner.atomic_file import write_atomically
from scanner.records import Float32


def read(path: Path, shape: tuple[int, ...]) -> Float32 | None:
    """Read an array if it is there, whole, and of this shape."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return values if values.dtype == np.float32 and values.shape == shape else None


def write(path: Path, values: Float32) -> None:
    """Keep an array; its folder is made if need be.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    write_atomically(path, stream.getvalue())
