"""DuckDB within limits: which files it may read, how much memory, how many threads and how much time a query may use."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from scanner.errors import UnavailableError, UsageError
from scanner.processes import ctrl_c_interrupts

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class DatabaseLimits:
    """What one database may use: memory in MB, threads."""

    memory_mb: int = 2048
    threads: int = 2


DEFAULT_LIMITS = DatabaseLimits()


def open_database(folders: Sequence[Path], limits: DatabaseLimits = DEFAULT_LIMITS) -> DuckDBPyConnection:
    """A database in memory that can read what lies below some folders.

    Other threads use its ``cursor()``: connections of their own, with the same limits, which count for all of them together.

    Parameters
    ----------
    folders
        Absolute paths.
    limits
        Memory and threads.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{limits.memory_mb}MB",
        "threads": limits.threads,
        "temp_directory": "",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    # What the files say of themselves is kept: catalogues do not change while they are open.
    connection.execute("SET parquet_metadata_cache = true")
    connection.execute("SET allowed_directories = ?", [[f"{folder}/" for folder in folders]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


class OutOfTimeError(UnavailableError):
    """A query took longer than it may."""


class OutOfMemoryError(UsageError):
    """A query needs more memory than it may use."""


class Deadline:
    """The end of a piece of work that several threads may do one after the other; :meth:`end` brings it about."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._watched: list[duckdb.DuckDBPyConnection] = []

    def end(self) -> None:
        """Interrupt what is being waited for, and let nothing more begin; from any thread."""
        with self._lock:
            self.over = True
            for connection in self._watched:
                connection.interrupt()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let :func:`watching` in this thread mean this deadline."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def watching(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Interrupt a connection's query if the time is up before the block ends."""
        with self._lock:
            if self.over:
                raise self._error()
            self._watched.append(connection)
        try:
            yield
        except duckdb.InterruptException:
            raise self._error() from None
        finally:
            with self._lock:
                self._watched.remove(connection)

    def _error(self) -> OutOfTimeError:
        return OutOfTimeError(f"the query took longer than {self.seconds:g} s; ask for less, or for a smaller part of the sky.")


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[Deadline]:
    """Stop the block's queries after so many seconds.

    Raises
    ------
    OutOfTimeError
        The time is up.
    OutOfMemoryError
        The query needs too much.
    """
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
def watching(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let the block's queries be stopped by the :class:`Deadline` that this thread has entered, if it has entered one.

    Raises
    ------
    OutOfTimeError
        The time is up.
    OutOfMemoryError
        The query needs too much.
    """
    deadline = _current.get()
    try:
        with ctrl_c_interrupts(), nullcontext() if deadline is None else deadline.watching(connection):
            yield
    except duckdb.OutOfMemoryException:
        raise OutOfMemoryError(
            "The query needs more memory than it may use; ask for less, or for a smaller part of the sky."
        ) from None
