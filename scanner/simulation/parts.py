"""Work in parts that several processes share: a claimed folder, missing parts, tables joined at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.atomic_file import replacement
from scanner.errors import OutputError, ScannerError
from scanner.processes import begin_worker
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


#: What numerical libraries read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(function: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int) -> Iterator[int]:
    """Call ``function`` with every tuple of arguments; yields 1, 2, 3 ... as calls finish, in any order.

    Parameters
    ----------
    function
        Must be importable, and its arguments picklable, if ``workers`` is above 1.
    calls
        Positional arguments of each call.
    workers
        Processes; with one, everything runs in this process.

    Raises
    ------
    ScannerError
        A process was killed from outside.
    """
    if workers <= 1 or len(calls) <= 1:
        for done, arguments in enumerate(calls, start=1):
            function(*arguments)
            yield done
        return
    # Fresh interpreters: forked children of a process with threads (BLAS, progress bars) can hang.
    pool = ProcessPoolExecutor(min(workers, len(calls)), mp_context=get_context("spawn"), initializer=begin_worker)
    try:
        with _one_thread_each():
            futures = [pool.submit(function, *arguments) for arguments in calls]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            yield done
    except BrokenProcessPool:
        raise ScannerError(
            "a worker process was killed, for want of memory perhaps; give the same command again, or with fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """For the processes that start meanwhile: their numerical libraries would fight for the cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
