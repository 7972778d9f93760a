"""A folder for what is only needed while a store is written to.

In: a store. Out: a folder beside the place where results go, so that they need not be copied, else in the scratch folder; it is
gone when the block ends. What a killed process left is swept with the store. Refused: places that cannot be written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scanner.atomic_file import PARTIAL_PREFIX, writing_to
from scanner.sky.local_files import temporary_folder
from scanner.storage import Store


@contextmanager
def passing_beside(store: Store, scratch: str | None = None) -> Iterator[Path]:
    """Make the folder.

    Parameters
    ----------
    store
        Where results go.
    scratch
        For stores that are not on this machine; None: the system's folder for passing files.

    Raises
    ------
    OutputError
        It cannot be written, or what is written while the block lasts.
    """
    home = store.local("")
    with writing_to(home or Path(scratch or tempfile.gettempdir())):
        if home is None:
            with temporary_folder(scratch) as folder:
                yield folder
        else:
            home.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=home, prefix=f"{PARTIAL_PREFIX}results-") as name:
                yield Path(name)
