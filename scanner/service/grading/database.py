"""The SQLite file that grades are kept in: its tables, how it is opened, and how several processes write to it.

In: a path. Out: connections. History is append-only: triggers refuse to change or remove a row, whoever asks. Processes write
one after the other (write-ahead log, up to :data:`BUSY_S` of waiting for their turn); readers never wait. Refused: a file that
is something else (ContentError), a folder that cannot be written (OutputError), a file that stays locked (UnavailableError).
The write-ahead log needs a local disk: network file systems do not share memory.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from scanner.errors import ContentError, OutputError, ScannerError, UnavailableError

#: How long a writer waits for its turn, in seconds.
BUSY_S = 20.0
VERSION = 1
#: Tells a file of grades from other SQLite files: "grad".
APPLICATION_ID = 0x67726164

_TABLES = ("objects", "sightings", "entries")
_DEFINITIONS = """
-- What was graded, at the position of the row that was graded first.
CREATE TABLE objects (object INTEGER PRIMARY KEY, ra REAL NOT NULL, dec REAL NOT NULL);
CREATE INDEX objects_by_dec ON objects (dec);

-- Rows of catalogues that stood for an object when it was graded.
CREATE TABLE sightings (
    candidate_id TEXT PRIMARY KEY,
    object INTEGER NOT NULL REFERENCES objects,
    name TEXT NOT NULL, ra REAL NOT NULL, dec REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX sightings_by_object ON sightings (object);

-- The history. An entry is a grade, or takes an earlier one back.
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    object INTEGER NOT NULL REFERENCES objects,
    candidate_id TEXT NOT NULL REFERENCES sightings,
    grader TEXT NOT NULL,
    grade TEXT CHECK (grade IN ('A', 'B', 'C', 'X')),
    comment TEXT NOT NULL,
    given TEXT NOT NULL,
    catalogue TEXT NOT NULL,
    blind INTEGER NOT NULL CHECK (blind IN (0, 1)),
    undoes INTEGER REFERENCES entries,
    CHECK ((grade IS NULL) = (undoes IS NOT NULL))
);
CREATE INDEX entries_by_object ON entries (object, grader);
-- Of these only: an index of all would be taken for "undoes IS NULL", which nearly every entry is.
CREATE UNIQUE INDEX entries_undone ON entries (undoes) WHERE undoes IS NOT NULL;
"""


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that alone may write; the file and its tables are made if need be, whoever else is doing that.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See the module.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.of(path, error) from None
    with connection(path) as opened:
        if not _is_ready(opened, path):
            _to_write_ahead(opened)
        with transaction(opened):
            if not _is_ready(opened, path):
                _make_tables(opened)
            yield opened


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose statements all see one state of the file; empty tables where nobody has written yet.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See the module.
    """
    if path.exists():
        with connection(path) as opened:
            opened.execute("BEGIN")
            if _is_ready(opened, path):
                yield opened
                return
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as nothing:
        _make_tables(nothing)
        yield nothing


def _is_ready(opened: sqlite3.Connection, path: Path) -> bool:
    (version,), (application,), (n_tables,) = (
        opened.execute(asked).fetchone()
        for asked in ("PRAGMA user_version", "PRAGMA application_id", "SELECT count(*) FROM sqlite_schema")
    )
    if (version, application, n_tables) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise ContentError(f"{path}: not a file of grades; name another file.")
    if version != VERSION:
        raise ContentError(f"{path}: made by another version of scanner (layout {version}); update scanner.")
    return True


def _make_tables(opened: sqlite3.Connection) -> None:
    for statement in _DEFINITIONS.split(";\n"):
        opened.execute(statement)
    refusal = "SELECT RAISE(ABORT, 'the history of grades is append-only')"
    for table in _TABLES:
        for change in ("UPDATE", "DELETE"):
            opened.execute(f"CREATE TRIGGER no_{change.lower()}_of_{table} BEFORE {change} ON {table} BEGIN {refusal}; END")
    opened.execute(f"PRAGMA user_version = {VERSION}")
    opened.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _to_write_ahead(opened: sqlite3.Connection) -> None:
    """Change the file's mode; SQLite does not wait for its turn here, so we do."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            opened.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


@contextmanager
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of one's own, closed at the end; what SQLite refuses becomes one sentence.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See the module.
    """
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)) as opened:
            opened.execute("PRAGMA foreign_keys = ON")
            # With a write-ahead log, every commit reaches the disk only so.
            opened.execute("PRAGMA synchronous = FULL")
            yield opened
    except sqlite3.Error as error:
        raise _sentence(path, error) from None


def _sentence(path: Path, error: sqlite3.Error) -> ScannerError:
    match error.sqlite_errorcode & 0xFF if hasattr(error, "sqlite_errorcode") else None:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return UnavailableError(f"{path}: locked by another process for {BUSY_S:.0f} s; try again.")
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            return ContentError(f"{path}: not a file of grades, or damaged; name another file or bring back a copy.")
        case sqlite3.SQLITE_FULL:
            return OutputError(f"{path}: the disk is full; make space and give the grade again.")
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_IOERR:
            return OutputError(f"{path}: cannot be written ({error}); choose another place.")
    raise error


@contextmanager
def transaction(opened: sqlite3.Connection) -> Iterator[None]:
    """Hold the right to write from the first statement on: what is read inside is what is written upon."""
    opened.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        opened.execute("ROLLBACK")
        raise
    opened.execute("COMMIT")
