"""A folder that is drawn into belongs to one request, whose record is the first thing in it.

In: a folder, a record and its name. Out: the record that is there now. Refused: a folder that holds something else
(OutputError), and what the reader of records refuses. Whether a record that was found is the one asked for is for the caller to
say.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from scanner.atomic_file import replacement
from scanner.errors import OutputError
from scanner.records import Record

R = TypeVar("R", bound=Record)


def claim(out: Path, name: str, record: R, read: Callable[[Path], R]) -> R:
    """Make the folder and leave the record in it, or read the one that is there.

    Parameters
    ----------
    out, name
        The folder, and the file of its record.
    record
        Of what is asked for.
    read
        Reads a record.

    Raises
    ------
    OutputError
        The folder holds files, but no record.
    OSError
        It cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / name
    if path.exists():
        return read(path)
    if any(out.iterdir()):
        raise OutputError(f"{out}: the folder is not empty and holds no {name}; choose another --out.")
    write_record(path, record)
    return record


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, whole or not at all."""
    with replacement(path) as partial:
        partial.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
