"""DuckDB within limits: which files it may read, how much memory, how many threads and how much time a query may use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import duckdb

from scanner.errors import UnavailableError, UsageError
from scanner.processes import ctrl_c_interrupts


@dataclass(frozen=True)
class DatabaseLimits:
    """What one database may use: memory in MB, threads."""

    memory_mb: int = 2048
    threads: int = 2


DEFAULT_LIMITS = DatabaseLimits()


def open_database(folders: Sequence[Path], limits: DatabaseLimits = DEFAULT_LIMITS) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that can read the files below some folders, and no other file or address.

    It loads no extensions and spills to no disk; its settings cannot be changed any more. Nothing keeps it from *writing* into
    the folders, so it must be given queries only (:mod:`scanner.query.sql` makes sure of that for what users write).

    Parameters
    ----------
    folders
        Absolute paths.
    limits
        Memory and threads. They count for all cursors of the connection together, of which each thread needs its own.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{limits.memory_mb}MB",
        "threads": limits.threads,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    # Catalogues do not change while they are open.
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute("SET allowed_directories = ?", [[f"{folder}/" for folder in folders]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


class OutOfTimeError(UnavailableError):
    """A query took longer than it may."""


class OutOfMemoryError(UsageError):
    """A query needs more memory than it may use."""


class Deadline:
    """A time limit for the queries of a piece of work, which several threads may do one after the other.

    It belongs to the thread that has entered it, so code that queries need not be handed one: it says :func:`interruptible`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._running: list[duckdb.DuckDBPyConnection] = []

    def end(self) -> None:
        """Interrupt the queries that run, and let no other begin; from any thread."""
        with self._lock:
            self.over = True
            for connection in self._running:
                connection.interrupt()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this deadline count for the queries of this thread."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def _interrupting(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        with self._lock:
            if self.over:
                raise self._error()
            self._running.append(connection)
        try:
            yield
        except duckdb.InterruptException:
            raise self._error() from None
        finally:
            with self._lock:
                self._running.remove(connection)

    def _error(self) -> OutOfTimeError:
        return OutOfTimeError(f"the query took longer than {self.seconds:g} s; ask for less, or for a smaller part of the sky.")


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[Deadline]:
    """Stop the block's interruptible queries after so many seconds; see :func:`interruptible`."""
    deadline = Deadline(seconds)
    timer = threading.Timer(seconds, deadline.end)
    timer.daemon = True
    timer.start()
    try:
        with deadline.entered():
            yield deadline
    finally:
        timer.cancel()


@contextmanager
def interruptible(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let the block's queries be stopped by Ctrl-C and by the deadline of this thread, where it has one.

    Raises
    ------
    OutOfTimeError
        The time is up.
    OutOfMemoryError
        The query needs more memory than its database may use, with or without a deadline.
    """
    deadline = _current.get()
    try:
        with ctrl_c_interrupts(), nullcontext() if deadline is None else deadline._interrupting(connection):
            yield
    except duckdb.OutOfMemoryException:
        raise OutOfMemoryError(
            "The query needs more memory than it may use; ask for less, or for a smaller part of the sky."
        ) from None
