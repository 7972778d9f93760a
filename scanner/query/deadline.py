"""How long a piece of work may take: when its time is up, the DuckDB queries that it waits for are interrupted.

In: seconds, and the connections that work within them. Out: the work's result. A deadline belongs to the thread that entered
it, so code that queries need not be told of it: it says :func:`watching`, and is stopped where somebody above it set a limit,
and never where nobody did. Refused: queries that take longer (:class:`OutOfTimeError`) and, with or without a deadline, those
that need more memory than their database may use (:class:`OutOfMemoryError`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import duckdb

from scanner.errors import UnavailableError, UsageError, ctrl_c_interrupts


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
