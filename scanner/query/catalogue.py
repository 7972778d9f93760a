"""A published catalogue, opened to be asked: which files hold which part of the sky, and the database that reads them."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue.columns import HEALPIX_COLUMN, IDENTITY, MODEL_COLUMNS, MODEL_SCHEMA, NOT_MODELLED
from scanner.catalogue.hats import partition_path
from scanner.errors import ContentError
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits, interruptible, open_database, unreadable
from scanner.query.region import SqlPart, few, merged, overlapping
from scanner.records import Int64
from scanner.sphere import HEALPIX_ORDER
from scanner.storage.verified import VerifiedFiles

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: The schema as a Parquet file without rows.
_SCHEMA_FILE = "_common_metadata"
#: The lens models of a catalogue, beside its folder; and what to say of a table that is not as this version writes it.
MODELS_TABLE = "models.parquet"
OTHER_MODELS = "was made by another version of scanner; give 'scanner model' again"
#: More comparisons take longer than the rows that they spare.
RANGES_PER_FILE = 4
MAX_RANGES = 256


@dataclass(frozen=True, order=True)
class PartitionFile:
    """The file of one HEALPix pixel: all rows whose ``_healpix_29`` is ``start`` or more and less than ``stop``."""

    order: int
    pixel: int

    @property
    def start(self) -> int:
        """First index of the pixel, order 29."""
        return self.pixel << 2 * (HEALPIX_ORDER - self.order)

    @property
    def stop(self) -> int:
        """Index after its last one."""
        return (self.pixel + 1) << 2 * (HEALPIX_ORDER - self.order)

    @property
    def name(self) -> str:
        """Path below ``dataset``."""
        return partition_path(self.order, self.pixel)


@dataclass(frozen=True)
class Source:
    """What a query reads: ``relation`` stands after ``FROM``; by the condition ``within`` it skips parts of files."""

    relation: SqlPart
    within: SqlPart


class Catalogue:
    """A catalogue as :mod:`scanner.catalogue.hats` writes it; it stays as it is while it is open, and many threads may use it.

    Where there are lens models, each object has their columns too: a small table, joined as the objects are read.

    Attributes
    ----------
    schema : pyarrow.Schema
        Columns, with ``unit``, ``description`` and ``ucd`` in the metadata of each field.
    stored : pyarrow.Schema
        Those that the catalogue's own files have: all but the lens models'.
    n_rows : int
        Objects.
    partitions : tuple of PartitionFile
        The files, by place on the sky.
    """

    def __init__(
        self,
        verified: VerifiedFiles,
        n_rows: int,
        partitions: Iterable[PartitionFile],
        folder: Path | None,
        limits: DatabaseLimits,
    ) -> None:
        self.schema = self.stored = pa.schema([])
        self.n_rows = n_rows
        self.partitions = tuple(sorted(partitions, key=lambda one: one.start))
        self.limits = limits
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="scanner-catalogue-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        #: Where its files lie, or are fetched to.
        self.dataset = folder.resolve() / "dataset"
        self._verified, self._folder = verified, folder
        self._models: VerifiedFiles | None = None
        self._starts = np.array([one.start for one in self.partitions], dtype=np.int64)
        self._stops = np.array([one.stop for one in self.partitions], dtype=np.int64)
        self._opening = threading.Lock()

    @classmethod
    def open(
        cls,
        verified: VerifiedFiles,
        cache: Path | None = None,
        limits: DatabaseLimits = DEFAULT_LIMITS,
        models: VerifiedFiles | None = None,
    ) -> Catalogue:
        """Open a catalogue.

        Parameters
        ----------
        verified
            Its files, which are verified before they are read.
        cache
            Where files of an object store are kept, each state of a catalogue in a folder of its own; by default a temporary
            folder, which is removed with the catalogue. Not used for a local catalogue.
        limits
            What its database may use.
        models
            The folder of its :data:`MODELS_TABLE`; None: it has no lens models.

        Raises
        ------
        InputMissingError
            There is no catalogue, or a file of it is missing.
        ContentError
            A file of it is damaged, or cannot be understood.
        """
        where = verified.where("").rstrip("/")
        described, listed = verified.read("hats.properties"), verified.read("partition_info.csv")
        try:
            properties = dict(line.split("=", 1) for line in described.decode().splitlines() if not line.startswith("#"))
            n_rows = int(properties["hats_nrows"])
            partitions = [PartitionFile(*map(int, line.split(","))) for line in listed.decode().splitlines()[1:]]
            folder = verified.store.local(verified.key)
            if folder is None and cache is not None:
                folder = cache / _state(verified, described + listed)
            catalogue = cls(verified, n_rows, partitions, folder, limits)
            catalogue.schema = catalogue.stored = pq.read_schema(catalogue._paths([_SCHEMA_FILE])[0])
        except (ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise ContentError(f"{where}: is no catalogue that scanner wrote ({error}); {verified.remedy}.") from None
        if HEALPIX_COLUMN.name not in catalogue.schema.names:
            raise ContentError(f"{where}: has no column {HEALPIX_COLUMN.name}; {verified.remedy}.")
        if models is not None:
            catalogue._models = models
            if pq.read_schema(catalogue._models_file()).names != MODEL_SCHEMA.names:
                raise ContentError(f"{models.where(MODELS_TABLE)}: {OTHER_MODELS}.")
            catalogue.schema = pa.schema([*catalogue.stored, *(column.field() for column in MODEL_COLUMNS)])
        return catalogue

    @property
    def where(self) -> str:
        """Path or URL, for messages."""
        return self._verified.where("").rstrip("/")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files and folders that a database must be able to read."""
        return (self.dataset,) if self._models is None else (self.dataset, self._models_file())

    @cached_property
    def bounds(self) -> Int64:
        """Ranges of ``_healpix_29`` that hold all rows, (N, 2) int64, half open, ascending."""
        return merged(np.stack([self._starts, self._stops], axis=1))

    def files(self, ranges: Int64 | None = None) -> list[Path]:
        """The files that hold rows of some ranges, on this machine, each verified since it was last written to.

        Parameters
        ----------
        ranges
            (M, 2) half-open ranges of ``_healpix_29`` as :meth:`scanner.query.region.Region.ranges` gives them; None: all.

        Returns
        -------
        list of Path
            By place on the sky. Where no file can hold such rows, one without rows, which has the schema.

        Raises
        ------
        ScannerError
            A file is missing or damaged, or cannot be fetched.
        """
        needed = np.ones(len(self.partitions), bool) if ranges is None else overlapping(ranges, self._starts, self._stops)
        names = [self.partitions[number].name for number in np.flatnonzero(needed)] or [_SCHEMA_FILE]
        return self._paths(names)

    def source(self, ranges: Int64 | None = None, columns: Iterable[str] | None = None) -> Source:
        """The rows of some ranges and as few others as may be, as parts of a query.

        Parameters
        ----------
        ranges
            As in :meth:`files`.
        columns
            Those that the query reads; None: any. Where no lens model's is among them, none is joined: over a whole catalogue
            that takes longer than all else.
        """
        files = [str(path) for path in self.files(ranges)]
        relation = SqlPart("read_parquet(?, hive_partitioning = false)", (files,))
        if self._models is not None and (columns is None or not set(columns) <= set(self.stored.names)):
            relation = SqlPart(_with_models(relation.sql), (*relation.parameters, str(self._models_file())))
        if ranges is None:
            return Source(relation, SqlPart("true"))
        kept = few(ranges, min(RANGES_PER_FILE * len(files), MAX_RANGES))
        column = HEALPIX_COLUMN.name
        sql = " OR ".join(f"({column} >= ? AND {column} < ?)" for _ in kept) or "false"
        return Source(relation, SqlPart(sql, tuple(kept.ravel().tolist())))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Ask the database, within the deadline of this thread.

        Parameters
        ----------
        sql
            A query of this package; what users give are ``parameters``, never SQL.
        parameters
            Values of its ``?``.

        Returns
        -------
        pyarrow.Table
            The answer, without the metadata of the columns.

        Raises
        ------
        OutOfTimeError, OutOfMemoryError
            See :func:`scanner.query.database.interruptible`.
        ContentError
            The database cannot read the catalogue's files.
        """
        import duckdb

        try:
            with closing(self.connection()) as connection, interruptible(connection):
                return connection.sql(sql, params=list(parameters)).to_arrow_table()
        except (duckdb.IOException, duckdb.InternalException, duckdb.FatalException) as error:
            raise unreadable(self.where, error) from error

    def connection(self) -> DuckDBPyConnection:
        """A connection to the catalogue's database, for one thread at a time; see :mod:`scanner.query.database`."""
        with self._opening:
            return self._database.cursor()

    @cached_property
    def _database(self) -> DuckDBPyConnection:
        return open_database(self.paths, self.limits)

    def _models_file(self) -> Path:
        """The file of the lens models, on this machine, verified."""
        assert self._models is not None
        state = (self._models.sha256 or {}).get(MODELS_TABLE, "")[:16]
        return self._models.paths([MODELS_TABLE], self._folder / f"models-{state}")[0].resolve()

    def _paths(self, names: Sequence[str]) -> list[Path]:
        return self._verified.paths([f"dataset/{name}" for name in names], self._folder)


def _with_models(objects: str) -> str:
    """SQL of the rows of a relation, each with its lens model's columns; the last parameter is the file of the models."""
    columns = ", ".join(
        f"coalesce(models.{one.name}, '{NOT_MODELLED[one.dtype]}'::{_SQL_TYPES[one.dtype]}) AS {one.name}"
        for one in MODEL_COLUMNS
    )
    same = " AND ".join(f"objects.{name} = models.{name}" for name in IDENTITY)
    return f"(SELECT objects.*, {columns} FROM {objects} AS objects LEFT JOIN read_parquet(?) AS models ON {same})"


_SQL_TYPES = {"float32": "FLOAT", "int32": "INTEGER", "string": "VARCHAR"}


def _state(verified: VerifiedFiles, content: bytes) -> str:
    """Name of one state of a catalogue: from its place, its description, and the checksums of its files."""
    parts = (verified.where("").encode(), content, str(sorted((verified.sha256 or {}).items())).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
