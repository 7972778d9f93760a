"""Arrays of explanations on disk: a zarr group that is there whole or not at all.

In: a path, arrays. Out: the group, in the place of an older one when the block ends. Refused: places that cannot be written
(OSError).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from scanner.atomic_file import partial_name, remove, remove_at_once


@contextmanager
def replaced_group(path: Path) -> Iterator[zarr.Group]:
    """Write a zarr group; when the block ends without an error it takes the place of what is there."""
    partial = partial_name(path)
    try:
        yield zarr.create_group(partial, zarr_format=3)
        if path.exists():
            remove_at_once(path)
        partial.rename(path)
    finally:
        if partial.exists():
            remove(partial)


def put(group: zarr.Group, name: str, values: NDArray[Any]) -> None:
    """Add an array to a group."""
    group.create_array(name, data=np.ascontiguousarray(values))
