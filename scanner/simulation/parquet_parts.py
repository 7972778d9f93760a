"""Parquet files that were written in parts, by whichever process, put together without holding them.

In: files of one schema. Out: one file with their rows, part after part. Refused: nothing; what the disk refuses is raised as it
is (OSError).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.atomic_file import replacement


def write_part(path: Path, table: pa.Table) -> None:
    """Write one file, whole or not at all."""
    with replacement(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def join_parts(path: Path, parts: Sequence[Path], per_group: int = 1) -> None:
    """Put the rows of parts into one file, ``per_group`` of them a row group."""
    with replacement(path) as partial, pq.ParquetWriter(partial, pq.read_schema(parts[0]), compression="zstd") as writer:
        for first in range(0, len(parts), per_group):
            writer.write_table(pa.concat_tables(pq.read_table(part) for part in parts[first : first + per_group]))
