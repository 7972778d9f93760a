"""DuckDB as it is let at a catalogue: so much memory, so many threads, and no file but those of some folders.

In: folders. Out: a connection whose settings cannot be changed any more. Refused, by DuckDB: to read any other file or address,
to load extensions, to spill to a disk. DuckDB would *write* into the folders if it were told to: only queries may be handed to
it (:mod:`scanner.query.sql` makes sure of that for what users write).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
