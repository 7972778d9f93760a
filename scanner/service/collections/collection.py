"""One run or survey as the service has it open: its catalogue, its candidates at hand, its tiles.

In: a :class:`~scanner.survey.published.Published`. Out: a :class:`Collection`, which many threads may ask. Candidates are
copied into the catalogue's own database, compressed and by rank, so that a list of them never reads files; all other objects
are read from the catalogue's files. Refused: what cannot be opened (:class:`~scanner.errors.ScannerError`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.errors import ContentError, UsageError
from scanner.query import deadline
from scanner.query.catalogue import Catalogue
from scanner.query.database import DatabaseLimits
from scanner.service.collections.identifiers import CandidateId
from scanner.service.settings import ServiceConfig
from scanner.survey.published import CATALOGUE, FOOTPRINT, TILES_TABLE, Published, open_published

if TYPE_CHECKING:
    from mocpy import MOC

#: The candidates, in the database of :meth:`Collection.connection`.
CANDIDATES = "served.candidates"


@dataclass(frozen=True)
class Collection:
    """An open run or survey.

    ``slug``: its name in URLs; ``title``: for people. ``tiles``: one row a tile of its lists. ``n_candidates``: rows of
    :data:`CANDIDATES`, which has the catalogue's columns. ``state``: differs from that of the same folder once it has changed.
    """

    slug: str
    title: str
    published: Published
    catalogue: Catalogue
    tiles: pa.Table
    n_candidates: int
    state: str

    @property
    def n_objects(self) -> int:
        """Rows of the catalogue."""
        return self.catalogue.n_rows

    @property
    def schema(self) -> pa.Schema:
        """The catalogue's columns, with units, descriptions and UCDs."""
        return self.catalogue.schema

    @cached_property
    def footprint(self) -> MOC:
        """The sky that was scanned."""
        from mocpy import MOC

        with tempfile.NamedTemporaryFile(suffix=".fits") as file:
            file.write(self.footprint_fits())
            file.flush()
            return MOC.from_fits(file.name)

    def footprint_fits(self) -> bytes:
        """The same as its FITS file."""
        return self.published.store.read(self.published.key(FOOTPRINT))

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """Ask the catalogue's database, within the deadline of this thread.

        Parameters
        ----------
        sql
            A query of this package; what clients send are ``parameters``, never SQL.
        parameters
            Values of its ``?``.

        Returns
        -------
        pyarrow.Table
            The answer, without the metadata of the columns.
        """
        connection = self.catalogue.connection()
        try:
            with deadline.watching(connection):
                answer: pa.Table = connection.sql(sql, params=list(parameters)).to_arrow_table()
                return answer
        finally:
            connection.close()

    def row(self, wanted: CandidateId) -> pa.Table | None:
        """The row of one object, which need not be a candidate; None where there is none."""
        condition = "run = ? AND tile_id = ? AND target_id = ?"
        values = (wanted.run, wanted.tile_id, wanted.target_id)
        rows = self.query(f"SELECT * FROM {CANDIDATES} WHERE {condition}", values)
        if not len(rows) and wanted.run in self.published.run_folders:
            objects = self.catalogue.source().relation
            rows = self.query(f"SELECT * FROM {objects.sql} WHERE {condition}", (*objects.parameters, *values))
        return rows.slice(0, 1).cast(self.schema) if len(rows) else None


def open_collection(location: str, config: ServiceConfig, slug: str | None = None) -> Collection:
    """Open a run or survey folder.

    Parameters
    ----------
    location
        A local path or ``s3://…``.
    config
        The service's settings.
    slug
        Its name in URLs; the folder's own by default.

    Raises
    ------
    ScannerError
        It cannot be opened; the message says why and what to do.
    """
    import duckdb

    try:
        return _opened(location, config, slug)
    except (duckdb.Error, pa.ArrowException) as error:
        raise ContentError(
            f"{location}: its catalogue cannot be read ({str(error).splitlines()[0]}); make it again."
        ) from error


def _opened(location: str, config: ServiceConfig, slug: str | None) -> Collection:
    published = open_published(location, storage=config.storage)
    state = state_of(published)
    cache = None if config.files.cache is None else Path(config.files.cache)
    limits = DatabaseLimits(config.limits.memory_mb, config.limits.threads)
    catalogue = Catalogue.open(published.store, published.key(CATALOGUE), cache, limits)
    return Collection(
        slug=slug or published.slug,
        title=published.title,
        published=published,
        catalogue=catalogue,
        tiles=pq.read_table(pa.BufferReader(published.store.read(published.key(TILES_TABLE)))),
        n_candidates=keep_candidates(catalogue),
        state=state,
    )


def state_of(published: Published) -> str:
    """Which state of a folder this is."""
    entry = published.store.entry(published.key(f"{CATALOGUE}/dataset/_metadata"))
    return f"{published.root_key} {entry.version if entry else ''}"


def keep_candidates(catalogue: Catalogue) -> int:
    """Copy a catalogue's candidates into its database as :data:`CANDIDATES`, and count them."""
    objects = catalogue.source().relation
    rows = f"SELECT * FROM {objects.sql} WHERE is_candidate ORDER BY rank"
    connection = catalogue.connection()
    try:
        with deadline.watching(connection):
            connection.execute("ATTACH ':memory:' AS served (COMPRESS)")
            connection.execute(f"CREATE TABLE {CANDIDATES} AS {rows}", list(objects.parameters))
            connection.execute("CHECKPOINT served")
            counted = connection.execute(f"SELECT count(*) FROM {CANDIDATES}").fetchone()
    except deadline.OutOfMemoryError:
        memory_mb = catalogue.limits.memory_mb
        raise UsageError(f"{catalogue.where}: its candidates take more than {memory_mb} MB; raise limits.memory_mb.") from None
    finally:
        connection.close()
    return int(counted[0]) if counted else 0
