"""Dataclasses of arrays as ``npz`` files, without pickle.

In: a dataclass whose fields are all arrays. Out: an ``npz`` file whose bytes depend on the arrays alone, and back. Refused:
files that are no ``npz``, that lack a field, or that would need pickle.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from scanner.errors import ContentError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def save(path: Path, record: DataclassInstance) -> None:
    """Write all fields of a dataclass of arrays."""
    with path.open("wb") as file:
        np.savez(file, **{field.name: getattr(record, field.name) for field in fields(record)})


def load(path: Path, kind: type[DataclassInstance], what: str) -> dict[str, NDArray[Any]]:
    """Read the fields of the dataclass ``kind``, called ``what`` in the message.

    Raises
    ------
    ContentError
        The file is missing, is no ``npz``, lacks a field, or holds objects.
    """
    try:
        # numpy leaves a file that it opened itself open when it cannot read it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {field.name: archive[field.name] for field in fields(kind)}
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, BadZipFile) as error:
        raise ContentError(f"{path}: not {what} ({error}); export the bundle again.") from None
