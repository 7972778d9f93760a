"""The runs and surveys that a service has open, and the names of single objects in them."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.errors import ContentError, ScannerError, UsageError
from scanner.query import database
from scanner.query.catalogue import Catalogue
from scanner.query.database import DatabaseLimits
from scanner.records import TILE_ID_PATTERN
from scanner.service.errors import BusyError, NotFoundError
from scanner.service.instruments import ServiceInstruments
from scanner.service.settings import ServiceConfig
from scanner.survey.published import CATALOGUE, FOOTPRINT, TILES_TABLE, Published, open_published

if TYPE_CHECKING:
    from mocpy import MOC


_TILE_ID = re.compile(TILE_ID_PATTERN)
_RUN = re.compile(r"[^/\x00-\x1f\x7f]{1,300}")
#: As numbers are written: another way of writing one would name the same object differently.
TARGET_ID_PATTERN = r"^(?:0|-?[1-9][0-9]{0,18})$"
_TARGET_ID = re.compile(TARGET_ID_PATTERN)
#: SQL of the name of a row.
IDENTIFIER_SQL = "run || '/' || tile_id || '/' || target_id::VARCHAR"


@dataclass(frozen=True)
class CandidateId:
    """Which object: the run that scored it, its tile, and its id there."""

    run: str
    tile_id: str
    target_id: int

    def __str__(self) -> str:
        return f"{self.run}/{self.tile_id}/{self.target_id}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> CandidateId:
        """The name of a row of a catalogue."""
        return cls(str(row["run"]), str(row["tile_id"]), int(row["target_id"]))

    @classmethod
    def parse(cls, text: str) -> CandidateId | None:
        """Read a name; None where the text is none."""
        parts = text.split("/")
        if len(parts) != 3:
            return None
        run, tile_id, target = parts
        if not (_RUN.fullmatch(run) and _TILE_ID.fullmatch(tile_id) and _TARGET_ID.fullmatch(target)):
            return None
        target_id = int(target)
        return cls(run, tile_id, target_id) if -(2**63) <= target_id < 2**63 else None


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
            with database.watching(connection):
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
        with database.watching(connection):
            connection.execute("ATTACH ':memory:' AS served (COMPRESS)")
            connection.execute(f"CREATE TABLE {CANDIDATES} AS {rows}", list(objects.parameters))
            connection.execute("CHECKPOINT served")
            counted = connection.execute(f"SELECT count(*) FROM {CANDIDATES}").fetchone()
    except database.OutOfMemoryError:
        memory_mb = catalogue.limits.memory_mb
        raise UsageError(f"{catalogue.where}: its candidates take more than {memory_mb} MB; raise limits.memory_mb.") from None
    finally:
        connection.close()
    return int(counted[0]) if counted else 0


#: How often the folders are looked at, in seconds.
RENEWAL_S = 30.0

logger = logging.getLogger(__name__)


class UnknownCollectionError(NotFoundError):
    """There is no collection of this name."""


class UnknownCandidateError(NotFoundError):
    """There is no object of this name."""


class Collections:
    """The open collections; :meth:`open_all` or :meth:`start` opens them."""

    def __init__(self, locations: Sequence[str], config: ServiceConfig, instruments: ServiceInstruments) -> None:
        self._config, self._instruments = config, instruments
        self._named_as = tuple(locations)
        self._waits = config.files.wait
        # Folders that make no sense are refused at once; large ones take a while to open.
        self._locations = {} if self._waits else self._by_slug()
        self._open: dict[str, Collection] = {}
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: What kept a folder from being opened, for whoever waits for it.
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Collection]:
        return iter([self.get(slug) for slug in self._known()])

    def __len__(self) -> int:
        return len(self._named_as)

    @property
    def is_ready(self) -> bool:
        """Whether all are open."""
        return self._opened.is_set() and self.error is None

    @property
    def default(self) -> Collection:
        """The first one."""
        return self.get(next(iter(self._known())))

    def get(self, slug: str) -> Collection:
        """One collection.

        Raises
        ------
        UnknownCollectionError
            There is none of this name.
        BusyError
            It is not open yet.
        """
        if slug not in self._known():
            raise UnknownCollectionError("There is no collection of this name; /api/v1/collections lists them.")
        if slug not in self._open:
            raise _not_yet()
        return self._open[slug]

    def find(self, candidate_id: str) -> tuple[Collection, pa.Table]:
        """The first collection that has an object, and its row; blocks.

        Parameters
        ----------
        candidate_id
            ``run/tile_id/target_id``.

        Raises
        ------
        UnknownCandidateError
            None has it.
        """
        wanted = CandidateId.parse(candidate_id)
        for collection in self if wanted is not None else ():
            row = collection.row(wanted) if wanted is not None else None
            if row is not None:
                return collection, row
        raise UnknownCandidateError("There is no object of this id (run/tile_id/target_id).")

    def start(self) -> None:
        """Open all in the background, and look after them from then on; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_after, name="collections", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all are open, or one cannot be; False where that takes longer."""
        return self._opened.wait(seconds)

    def close(self) -> None:
        """Look after them no more."""
        self._closing.set()

    def open_all(self) -> None:
        """Open all; where the service waits for its folders, this may be tried again.

        Raises
        ------
        ScannerError
            A folder cannot be opened.
        """
        try:
            self._locations = self._locations or self._by_slug()
            for slug, location in self._locations.items():
                if slug not in self._open:
                    self._put(open_collection(location, self._config, slug))
        except Exception as error:
            if not self._may_pass(error):
                self.error = error
                self._opened.set()
            raise
        self._opened.set()
        self._instruments.ready.set(1)

    def renew(self) -> None:
        """Open those anew whose folders have changed."""
        for slug, location in self._locations.items():
            try:
                if state_of(open_published(location, storage=self._config.storage)) != self._open[slug].state:
                    self._put(open_collection(location, self._config, slug))
                    self._instruments.renewals.inc()
                    logger.info("%s: opened again, as it has changed", slug)
            except (ScannerError, OSError) as error:
                logger.warning("%s: stays as it was: %s", slug, error)
            except Exception:
                # Whatever it is, the others are to be looked at, and this one again.
                logger.exception("%s: stays as it was", slug)

    def _put(self, collection: Collection) -> None:
        self._open[collection.slug] = collection
        self._instruments.objects.labels(collection.slug).set(collection.n_objects)
        self._instruments.candidates.labels(collection.slug).set(collection.n_candidates)

    def _by_slug(self) -> dict[str, str]:
        slugs = _distinct([open_published(location, storage=self._config.storage).slug for location in self._named_as])
        return dict(zip(slugs, self._named_as, strict=True))

    def _known(self) -> dict[str, str]:
        """The folders by name; what a folder is called, it says itself."""
        if not self._locations:
            raise _not_yet()
        return self._locations

    def _may_pass(self, error: Exception) -> bool:
        """Whether the folders may be what they should later: they are not there yet, or their store does not answer."""
        return self._waits and isinstance(error, ScannerError | OSError)

    def _look_after(self) -> None:
        while not self.is_ready:
            try:
                self.open_all()
            except Exception as error:
                if not self._may_pass(error):
                    logger.error("cannot serve: %s", error)
                    return
                logger.warning("not served yet: %s", error)
                if self._closing.wait(RENEWAL_S):
                    return
        while not self._closing.wait(RENEWAL_S):
            self.renew()


def _not_yet() -> BusyError:
    return BusyError("The catalogue is being opened; try again in a moment.", {"Retry-After": "2"})


def _distinct(slugs: Sequence[str]) -> list[str]:
    """Names, those that came before with a number added."""
    distinct: list[str] = []
    for slug in slugs:
        number = 1
        name = slug
        while name in distinct:
            number += 1
            name = f"{slug}-{number}"
        distinct.append(name)
    return distinct
