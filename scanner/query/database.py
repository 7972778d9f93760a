"""DuckDB within limits: which files it may read, how much memory, how many threads and how much time a query may use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import duckdb

from scanner.errors import ContentError, UnavailableError, UsageError
from scanner.processes import ctrl_c_interrupts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatabaseLimits:
    """What one database may use: memory in MB, threads."""

    memory_mb: int = 2048
    threads: int = 2


DEFAULT_LIMITS = DatabaseLimits()
#: Largest part of an answer that is held at a time, as far as one row is not larger.
BATCH_BYTES = 16_000_000
#: Pause between two interruptions of a query that goes on, in seconds.
AGAIN_S = 0.1


@dataclass(frozen=True)
class DatabaseFiles:
    """What a database reads: ``paths``, files and folders, and ``attached``, database files with the names of their schemas.

    ``state``: differs between two states of the same files.
    """

    paths: tuple[Path, ...]
    attached: tuple[tuple[str, Path], ...] = ()
    state: str = ""
    limits: DatabaseLimits = DEFAULT_LIMITS


def open_database(
    paths: Sequence[Path],
    limits: DatabaseLimits = DEFAULT_LIMITS,
    *,
    reads: Mapping[str, Path] | None = None,
    writes: Mapping[str, Path] | None = None,
) -> duckdb.DuckDBPyConnection:
    """Open a database in memory that can read some files, those below some folders, and no other file or address.

    It loads no extensions and spills to no disk; its settings cannot be changed any more. Nothing keeps it from *writing* into
    the folders, so it must be given queries only (:mod:`scanner.query.sql` makes sure of that for what users write).

    Parameters
    ----------
    paths
        Files and folders, absolute.
    limits
        Memory and threads. They count for all cursors of the connection together, of which each thread needs its own.
    reads, writes
        Database files by the names of their schemas. Beside those that are written, DuckDB may spill what does not fit into its
        memory.
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
    for name, file in (reads or {}).items():
        connection.execute(f"ATTACH '{escaped(str(file))}' AS {name} (READ_ONLY)")
    for name, file in (writes or {}).items():
        connection.execute(f"ATTACH '{escaped(str(file))}' AS {name}")
        connection.execute("SET temp_directory = ?", [str(file.parent / "spilled")])
    connection.execute("SET allowed_directories = ?", [[f"{path}/" for path in paths if not path.is_file()]])
    connection.execute("SET allowed_paths = ?", [[str(path) for path in paths if path.is_file()]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


_latest: tuple[DatabaseFiles, duckdb.DuckDBPyConnection] | None = None


@contextmanager
def opened(files: DatabaseFiles) -> Iterator[duckdb.DuckDBPyConnection]:
    """A cursor of a database for this block, which stays open until this process opens another; of one thread.

    Raises
    ------
    OutOfMemoryError
        The block's query needs more memory than the database may use.
    """
    global _latest
    if _latest is None or _latest[0] != files:
        if _latest is not None:
            _latest[1].close()
            _latest = None
        _latest = files, open_database(files.paths, files.limits, reads=dict(files.attached))
    connection = _latest[1].cursor()
    try:
        with interruptible(connection):
            yield connection
    except Exception as error:
        if any(isinstance(one, duckdb.InternalException | duckdb.FatalException) for one in (error, error.__context__)):
            # It answers nothing any more.
            _latest[1].close()
            _latest = None
        raise
    finally:
        connection.close()


def unreadable(where: str, error: Exception) -> ContentError:
    """What to say where the database cannot read files: one was damaged since it was verified."""
    reason = " ".join(str(error).partition("\n")[0].split()).rstrip(".")
    return ContentError(f"{where}: cannot be read ({reason}); 'scanner verify' names the file.")


def escaped(text: str) -> str:
    """A text as SQL writes it between its quotes."""
    return text.replace("'", "''")


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


class OutOfTimeError(UnavailableError):
    """A query took longer than it may."""


class OutOfMemoryError(UsageError):
    """A query needs more memory than it may use."""

    @classmethod
    def of_query(cls) -> OutOfMemoryError:
        """The error with its sentence."""
        return cls("The query needs more memory than it may use; ask for less, or for a smaller part of the sky.")


class Deadline:
    """A time limit for the queries of a piece of work, which several threads may do one after the other.

    It belongs to the thread that has entered it, so code that queries need not be handed one: it says :func:`interruptible`.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.over = False
        self._lock = threading.Lock()
        self._running: list[Callable[[], None]] = []

    def end(self) -> None:
        """Interrupt the queries that run, until they have ended, and let no other begin; from any thread."""
        with self._lock:
            self.over = True
            for interrupt in self._running:
                interrupt()
            if self._running:
                # DuckDB forgets an interruption that comes a moment before its query begins.
                again = threading.Timer(AGAIN_S, self.end)
                again.daemon = True
                again.start()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this deadline count for the queries of this thread."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call a function if the time is up in this block; what the block then raises becomes an :class:`OutOfTimeError`."""
        with self._lock:
            if self.over:
                raise self.error()
            self._running.append(interrupt)
        try:
            yield
        except Exception:
            if self.over:
                raise self.error() from None
            raise
        finally:
            with self._lock:
                self._running.remove(interrupt)

    def error(self) -> OutOfTimeError:
        """What a query that it ended raises."""
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
def interrupted_by(interrupt: Callable[[], None]) -> Iterator[None]:
    """Call a function if the deadline of this thread, where it has one, is over in this block; then: OutOfTimeError."""
    deadline = _current.get()
    with nullcontext() if deadline is None else deadline.interrupting(interrupt):
        yield


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
    try:
        with ctrl_c_interrupts(), interrupted_by(connection.interrupt):
            yield
    except duckdb.OutOfMemoryException as error:
        log.warning("a query has too little memory: %s", error)
        raise OutOfMemoryError.of_query() from None
