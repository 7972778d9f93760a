"""A published catalogue, opened to be asked: which files hold which part of the sky, and searches without SQL."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue.columns import (
    BEST_OF_EQUALS,
    HEALPIX_COLUMN,
    IDENTITY,
    MODEL_COLUMNS,
    MODEL_SCHEMA,
    NAME_COLUMN,
    NOT_MODELLED,
    RANK_COLUMN,
    Column,
)
from scanner.catalogue.hats import partition_path
from scanner.errors import ContentError, UsageError
from scanner.query.database import DEFAULT_LIMITS, DatabaseLimits, interruptible, open_database, unreadable
from scanner.query.region import Cone, Region, SqlPart, all_of, few, merged, overlapping
from scanner.records import TILE_ID_PATTERN, Int64
from scanner.sphere import HEALPIX_ORDER, PREFIX, parse_designation
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


SEPARATION_COLUMN = Column("separation", "float64", "arcsec", "Distance from the centre of the search", "pos.angDistance")
# Designations are truncated, by up to 0.15″ and 0.1″.
_DESIGNATION_RADIUS_DEG = 0.5 / 3600
#: As numbers are written: another way of writing one would name the same object differently.
TARGET_ID_PATTERN = r"^(?:0|-?[1-9][0-9]{0,18})$"
_CANDIDATE_ID = re.compile(
    rf"(?P<run>[^/\x00-\x1f\x7f]{{1,300}})/(?P<tile_id>{TILE_ID_PATTERN.strip('^$')})/(?P<target_id>{TARGET_ID_PATTERN.strip('^$')})"
)

#: SQL of the text of a row's id.
CANDIDATE_ID_SQL = "run || '/' || tile_id || '/' || target_id::VARCHAR"


@dataclass(frozen=True)
class CandidateId:
    """Which object: the run that scored it, its tile, and its id there; ``run/tile_id/target_id`` is unique among all runs."""

    run: str
    tile_id: str
    target_id: int

    def __str__(self) -> str:
        return f"{self.run}/{self.tile_id}/{self.target_id}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CandidateId:
        """The id of a row of a catalogue."""
        return cls(str(row["run"]), str(row["tile_id"]), int(row["target_id"]))

    @classmethod
    def parse(cls, text: str) -> CandidateId | None:
        """Read an id; None where the text is none."""
        match = _CANDIDATE_ID.fullmatch(text)
        if match is None or not -(2**63) <= int(match["target_id"]) < 2**63:
            return None
        return cls(match["run"], match["tile_id"], int(match["target_id"]))

    @property
    def condition(self) -> SqlPart:
        """That a row is this object's."""
        return SqlPart("run = ? AND tile_id = ? AND target_id = ?", (self.run, self.tile_id, self.target_id))


@dataclass(frozen=True)
class Search:
    """What is wanted; None: any.

    ``min_score``: least ``p_calibrated``. ``top``: most rows. ``name``: a designation, the beginning of one, or the name of a
    known lens. ``candidate_id``: ``run/tile_id/target_id``. ``candidates_only``: those with ``is_candidate``. ``columns``: by
    default all, and ``separation`` (arcsec) where the region is a cone. ``order``: the column to sort by, from low to high, or
    with ``-`` before it from high to low; unknown values come last.
    """

    region: Region | None = None
    min_score: float | None = None
    top: int | None = None
    name: str | None = None
    candidate_id: str | None = None
    rank: int | None = None
    candidates_only: bool = False
    columns: tuple[str, ...] | None = None
    order: str = RANK_COLUMN.name


def search(catalogue: Catalogue, question: Search) -> pa.Table:
    """Find objects.

    Returns
    -------
    pyarrow.Table
        The objects, in the order that was asked for; fields keep unit, description and UCD.

    Raises
    ------
    UsageError
        There are no such columns, or the name, id or order makes no sense.
    """
    fields = _fields(catalogue, question)
    source, where = _asked(catalogue, question, {field.name for field in fields} - {SEPARATION_COLUMN.name})
    order = _order(catalogue, question)
    shown = [_expression(field.name, question) for field in fields]
    sql = f"SELECT {', '.join(one.sql for one in shown)} FROM {source.relation.sql} WHERE {where.sql} ORDER BY {order.sql}"
    parameters = [value for part in (*shown, source.relation, where, order) for value in part.parameters]
    if question.top is not None:
        sql, parameters = f"{sql} LIMIT ?", [*parameters, question.top]
    return catalogue.query(sql, parameters).cast(pa.schema(fields))


def count(catalogue: Catalogue, question: Search) -> int:
    """Number of objects that a search would find without ``top``."""
    source, where = _asked(catalogue, replace(question, top=None), ())
    sql = f"SELECT count(*) AS n FROM {source.relation.sql} WHERE {where.sql}"
    return int(catalogue.query(sql, (*source.relation.parameters, *where.parameters))["n"][0].as_py())


def unknown_column(name: str, known: Iterable[str]) -> UsageError:
    """Say that there is no such column, and which one may have been meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
    return UsageError(f'There is no column "{name}"; {hint}')


def _asked(catalogue: Catalogue, question: Search, columns: Iterable[str]) -> tuple[Source, SqlPart]:
    """Where the rows are looked for, of which some columns are shown, and which of them are meant."""
    conditions: list[SqlPart] = []
    region = question.region
    if question.name is not None:
        place, named = _named(question.name)
        conditions.append(named)
        if region is not None:
            conditions.append(region.condition())
        region = place or region
    elif region is not None:
        conditions.append(region.condition())
    if question.candidate_id is not None:
        conditions.append(_identified(question.candidate_id))
    if question.rank is not None:
        conditions.append(SqlPart(f"{RANK_COLUMN.name} = ?", (question.rank,)))
    if question.min_score is not None:
        # To DuckDB NaN is larger than any number, and isnan() does not see it in Parquet files.
        conditions.append(SqlPart("isfinite(p_calibrated) AND p_calibrated >= ?::FLOAT", (question.min_score,)))
    if question.candidates_only:
        conditions.append(SqlPart("is_candidate"))
    if question.top is not None and not conditions and question.order == RANK_COLUMN.name:
        # Ranks go from 1 without gaps, so the files' statistics lead to the first ones.
        conditions.append(SqlPart(f"{RANK_COLUMN.name} <= ?", (question.top,)))
    order = question.order.removeprefix("-")
    read = {*columns, *((order,) if order in catalogue.schema.names else ())}
    source = catalogue.source(None if region is None else region.ranges(), read)
    return source, all_of([source.within, *conditions])


def _named(name: str) -> tuple[Region | None, SqlPart]:
    """Where an object of this name lies, if it is a full designation, and the condition that a row has the name."""
    text = " ".join(name.split())
    if not text:
        raise UsageError(f"An empty name was given; write a designation such as '{PREFIX} J100024.00+021200.0'.")
    designation = parse_designation(text)
    if designation is None:
        beginning = f"(starts_with({NAME_COLUMN.name}, ?) OR contains({NAME_COLUMN.name}, ?))"
        return None, SqlPart(f"{beginning} OR lower(known_name) = lower(?)", (text.upper(), f" {text.upper()}", text))
    full_name, ra, dec = designation
    return Cone(ra, dec, _DESIGNATION_RADIUS_DEG), SqlPart(
        f"({NAME_COLUMN.name} = ? OR ends_with({NAME_COLUMN.name}, ?))", (full_name, f" {full_name}")
    )


def _identified(candidate_id: str) -> SqlPart:
    wanted = CandidateId.parse(candidate_id)
    if wanted is None:
        raise UsageError(f'"{candidate_id[:80]}" is no id of an object; write run/tile_id/target_id.')
    return wanted.condition


def _fields(catalogue: Catalogue, question: Search) -> list[pa.Field]:
    known = {field.name: field for field in catalogue.schema}
    if isinstance(question.region, Cone):
        known[SEPARATION_COLUMN.name] = SEPARATION_COLUMN.field()
    wanted = catalogue.schema.names if question.columns is None else question.columns
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError("Name at least one column, and each only once.")
    for name in wanted:
        if name not in known:
            raise unknown_column(name, known)
    return [known[name] for name in wanted]


def _expression(name: str, question: Search) -> SqlPart:
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return SqlPart(f"{separation.sql} AS {name}", separation.parameters)
    return SqlPart(f'"{name}"')


def _order(catalogue: Catalogue, question: Search) -> SqlPart:
    name = question.order.removeprefix("-")
    direction = "DESC" if question.order.startswith("-") else "ASC"
    ties = ", ".join(BEST_OF_EQUALS)
    if name == SEPARATION_COLUMN.name and isinstance(question.region, Cone):
        separation = question.region.separation()
        return SqlPart(f"{separation.sql} {direction}, {ties}", separation.parameters)
    if name not in catalogue.schema.names:
        raise unknown_column(name, catalogue.schema.names)
    unknown = f'NOT isfinite("{name}"), ' if pa.types.is_floating(catalogue.schema.field(name).type) else ""
    return SqlPart(f'{unknown}"{name}" {direction}, {ties}')
