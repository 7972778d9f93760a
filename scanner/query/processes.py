"""Queries in processes of their own, where limits hold: bounded in memory, killed when their time is up, replaced.

DuckDB counts only a part of its memory, and neither its planner nor a step of a query can be interrupted; a process can.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from scanner.errors import UnavailableError
from scanner.processes import script_kept_from_children
from scanner.query.database import BATCH_BYTES, DatabaseFiles, OutOfMemoryError, interrupted_by, opened, unreadable

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Memory beside DuckDB's own limit, in MB: plans, Arrow's batches, what the allocator keeps.
HEADROOM_MB = 128
#: What the processes are forked from has imported these.
_IMPORTED = ("scanner.query.adql.translate",)
#: Longest wait for the end of an answer whose last rows nobody wants, in seconds; else the process is killed.
_END_S = 0.2
_BATCH_ROWS = 65_536
_PR_SET_PDEATHSIG = 1
#: What a message holds.
_ITEM, _SCHEMA, _BATCH, _ERROR, _END, _NO_MEMORY = b"i", b"s", b"b", b"e", b".", b"m"
#: Stands behind the last kind where the process has too little memory left for another question.
_LAST = b"!"


class QueryProcesses:
    """Processes that call functions, each one at a time; as many as threads ask at a time. For many threads.

    Parameters
    ----------
    memory_mb
        What one process may use beside what it begins with, in MB.
    """

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb = memory_mb
        self._lock = threading.Lock()
        self._free: list[_Process] = []
        self._busy: set[_Process] = set()
        self._closed = False

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function in a process; arguments and errors as of :meth:`stream`."""
        results: list[Result] = list(self.stream(_single, function, args))
        return results[0]

    def stream(self, function: Callable[..., Iterator[Item]], *args: Any) -> Iterator[Item]:
        """Call a function that gives one thing after the other, within the deadline of this thread.

        Parameters
        ----------
        function, args
            What to call: a function of a module, and what can be pickled. Where the first argument is
            :class:`~scanner.query.database.DatabaseFiles`, a process is taken that has them open, if one is free.

        Raises
        ------
        OutOfTimeError
            The time is up; the process was killed.
        OutOfMemoryError
            The process died, or could not get the memory that it needed.
        Exception
            What the function raises.
        """
        process = self._taken(next((arg for arg in args if isinstance(arg, DatabaseFiles)), None))
        is_free = False
        try:
            with interrupted_by(process.kill):
                try:
                    yield from process.answer(function, args)
                    is_free = process.is_idle
                except _GoneError as gone:
                    if self._closed:
                        raise UnavailableError("The service is being stopped.") from None
                    log.warning("a query's process has no answer: %s", gone or process.end())
                    raise OutOfMemoryError.of_query() from None
                except GeneratorExit:
                    is_free = process.has_ended(_END_S)
                    raise
                except Exception:
                    is_free = process.is_idle
                    raise
        finally:
            self._given_back(process, is_free and not process.is_killed)

    @property
    def n_busy(self) -> int:
        """How many work on a question."""
        return len(self._busy)

    def close(self) -> None:
        """Kill them all; what they work on fails."""
        with self._lock:
            self._closed = True
            for process in (*self._busy, *self._free):
                process.kill()
            self._free.clear()

    def _taken(self, files: DatabaseFiles | None) -> _Process:
        with self._lock:
            if self._closed:
                raise UnavailableError("The service is being stopped.")
            self._free = [process for process in self._free if process.is_alive]
            fitting = [process for process in self._free if process.files == files] or self._free
            process = fitting[-1] if fitting else None
            if process is not None:
                self._free.remove(process)
                self._busy.add(process)
        if process is None:
            process = _Process(self._memory_mb)
            with self._lock:
                self._busy.add(process)
                if self._closed:
                    process.kill()
        process.files = files or process.files
        return process

    def _given_back(self, process: _Process, is_free: bool) -> None:
        with self._lock:
            self._busy.discard(process)
            if is_free and not self._closed:
                self._free.append(process)
                return
        process.kill()
        process.forget()


class _GoneError(Exception):
    """A process died, or had no memory to go on with."""


class _Process:
    """One process, as its caller sees it."""

    def __init__(self, memory_mb: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(_IMPORTED))
        # For the process that they are forked from, as its imports decide: mimalloc, Arrow's choice, takes 1.1 GB of address
        # space at its first allocation, all that most limits leave.
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, memory_mb), name="query", daemon=True)
        with script_kept_from_children():
            self._process.start()
        theirs.close()
        #: What it has open.
        self.files: DatabaseFiles | None = None
        #: Whether it waits for the next question.
        self.is_idle = True
        self.is_killed = False

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def answer(self, function: Callable[..., Iterator[Item]], args: tuple[Any, ...]) -> Iterator[Item]:
        self.is_idle = False
        try:
            self._connection.send((function, args))
        except OSError:
            raise _GoneError from None
        schema: pa.Schema | None = None
        while True:
            kind, content = self._received()
            if kind == _SCHEMA:
                schema = pa.ipc.read_schema(pa.py_buffer(content))
            elif kind == _BATCH:
                yield pa.ipc.read_record_batch(pa.py_buffer(content), schema)
            elif kind == _ITEM:
                yield pickle.loads(content)
            elif kind == _ERROR:
                raise pickle.loads(content)
            elif kind == _NO_MEMORY:
                raise _GoneError(content.decode())
            else:
                return

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends its answer in so many seconds; the rest of that is dropped."""
        end = time.monotonic() + seconds
        try:
            while not self.is_idle:
                if not self._connection.poll(max(end - time.monotonic(), 0)):
                    return False
                self._received()
        except _GoneError:
            return False
        return True

    def kill(self) -> None:
        self.is_killed = True
        self._process.kill()

    def end(self) -> str:
        """How it ended, in words."""
        self._process.join(_END_S)
        return f"it ended with {self._process.exitcode}"

    def forget(self) -> None:
        """Free what is known of one that was killed."""
        self._process.join()
        self._connection.close()

    def _received(self) -> tuple[bytes, bytes]:
        try:
            kind, content = self._connection.recv_bytes(), self._connection.recv_bytes()
        except (EOFError, OSError):
            raise _GoneError from None
        self.is_idle = kind in (_ERROR, _END)
        return kind.removesuffix(_LAST), content


def _serve(connection: Connection, memory_mb: int) -> None:
    """Answer one question after the other, until nobody is there to ask."""
    # Ctrl-C is for the process that asks, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    most_bytes = _data_bytes() + (memory_mb + HEADROOM_MB) * 1_000_000
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    while True:
        try:
            function, args = connection.recv()
        except (EOFError, OSError):
            return
        try:
            for kind, content in _messages(function(*args)):
                connection.send_bytes(kind)
                connection.send_bytes(content)
            kind, content = _END, b""
        except BrokenPipeError:
            return
        except (MemoryError, SystemError) as error:
            # What else there was no memory for, nobody knows.
            kind, content = _NO_MEMORY, repr(error).encode()
        except Exception as error:
            kind, content = _ERROR, _pickled(error)
        if _data_bytes() > most_bytes - HEADROOM_MB * 500_000:
            # The next question would pay for what this one left behind.
            kind += _LAST
        connection.send_bytes(kind)
        connection.send_bytes(content)


def _messages(items: Iterator[Any]) -> Iterator[tuple[bytes, Any]]:
    """What is sent of each item: its kind, and its bytes."""
    schema = None
    for item in items:
        if not isinstance(item, pa.RecordBatch):
            yield _ITEM, pickle.dumps(item)
            continue
        if schema is None or not item.schema.equals(schema, check_metadata=True):
            schema = item.schema
            yield _SCHEMA, schema.serialize()
        yield from ((_BATCH, part.serialize()) for part in _parts(item))


def _parts(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in parts of :data:`BATCH_BYTES` or so: rows may be of any length."""
    n_parts = min(-(-batch.nbytes // BATCH_BYTES), batch.num_rows) or 1
    rows = -(-batch.num_rows // n_parts) or 1
    yield from (batch.slice(start, rows) for start in range(0, max(batch.num_rows, 1), rows))


def _pickled(error: Exception) -> bytes:
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def _single(function: Callable[..., Result], args: tuple[Any, ...]) -> Iterator[Result]:
    yield function(*args)


def _die_with_parent() -> None:
    """Be killed when the process that asks ends, however that ends: as the process that this one was forked from does then.

    That process waits for the end of a pipe, of which all that were forked hold a copy, too.
    """
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _data_bytes() -> int:
    """Memory that this process has of its own, in bytes; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@dataclass(frozen=True)
class ProcessDatabase:
    """The database of some files, in processes: what a query may ask within limits that hold."""

    files: DatabaseFiles
    processes: QueryProcesses

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Ask a query, as :meth:`scanner.query.catalogue.Catalogue.query` does."""
        return pa.Table.from_batches(list(self.processes.stream(rows_of, self.files, sql, list(parameters)))).combine_chunks()


def rows_of(files: DatabaseFiles, sql: str, parameters: Sequence[Any]) -> Iterator[pa.RecordBatch]:
    """The rows of a query of some files; one batch at least, which has the schema."""
    import duckdb

    try:
        with opened(files) as connection:
            rows = connection.sql(sql, params=parameters).to_arrow_reader(_BATCH_ROWS)
            is_empty = True
            for batch in rows:
                is_empty = False
                yield batch
            if is_empty:
                yield pa.RecordBatch.from_pylist([], schema=rows.schema)
    except (duckdb.IOException, duckdb.InternalException, duckdb.FatalException) as error:
        raise unreadable(str(files.paths[0].parent), error) from None
