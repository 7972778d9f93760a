"""Writes ``scores.parquet`` batch by batch, in bounded memory.

In: tables of :data:`~scanner.catalogue.columns.SCORE_SCHEMA`, in order. Out: one Parquet file in row groups of
:data:`ROW_GROUP_ROWS`; the same rows give the same bytes, however they were divided into batches. Refused: what the disk
refuses is raised as it is (OSError).
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue import columns

#: 11 MB of rows in memory; all but the fullest tiles are one group.
ROW_GROUP_ROWS = 65_536


class ScoreTableWriter:
    """Writes one table; a context manager."""

    def __init__(self, path: Path, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        self._writer = pq.ParquetWriter(path, columns.SCORE_SCHEMA, compression="zstd")
        self._row_group_rows = row_group_rows
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None and self._n_waiting:
                self._write(pa.concat_tables(self._waiting))
        finally:
            self._writer.close()

    def append(self, rows: pa.Table) -> None:
        """Add rows."""
        self._waiting.append(rows)
        self._n_waiting += len(rows)
        if self._n_waiting >= self._row_group_rows:
            table = pa.concat_tables(self._waiting)
            whole = len(table) - len(table) % self._row_group_rows
            for start in range(0, whole, self._row_group_rows):
                self._write(table.slice(start, self._row_group_rows))
            self._waiting, self._n_waiting = [table.slice(whole)], len(table) - whole

    def _write(self, rows: pa.Table) -> None:
        # Pages end where chunks do: one chunk a column, so that batches leave no trace.
        self._writer.write_table(rows.combine_chunks(), row_group_size=self._row_group_rows)
