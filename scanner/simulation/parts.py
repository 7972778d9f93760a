"""Work in parts that several processes share: a claimed folder, missing parts, tables joined at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.atomic_file import replacement
from scanner.errors import OutputError
from scanner.records import Record

R = TypeVar("R", bound=Record)
#: Called with (how much is done, how much there is).
Progress = Callable[[int, int], None]
#: Subfolder of what is not joined yet.
PARTS = "parts"


def claim(out: Path, name: str, record: R, read: Callable[[Path], R]) -> R:
    """Make the folder and leave the record in it, or read the one that is there.

    Parameters
    ----------
    out, name
        The folder, and the file of its record.
    record
        Record of the request.
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
        partial.write_bytes(record.to_bytes())


def write_part(path: Path, table: pa.Table) -> None:
    """Write one file, whole or not at all."""
    with replacement(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)


def join_parts(path: Path, parts: Sequence[Path], per_group: int = 1) -> None:
    """Put the rows of parts into one file, ``per_group`` of them a row group."""
    schema = pq.read_schema(parts[0])
    with (
        replacement(path) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for first in range(0, len(parts), per_group):
            writer.write_table(pa.concat_tables(pq.read_table(part) for part in parts[first : first + per_group]))
