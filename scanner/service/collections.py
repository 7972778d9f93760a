"""The runs and surveys that a service has open, and the names of single objects in them."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from scanner.catalogue.rank import listed
from scanner.errors import ContentError, ScannerError, UsageError
from scanner.query.catalogue import Catalogue
from scanner.query.database import DatabaseFiles, DatabaseLimits, OutOfMemoryError, interruptible, open_database
from scanner.query.processes import ProcessDatabase, QueryProcesses
from scanner.query.region import SqlPart
from scanner.query.search import CandidateId
from scanner.service.errors import BusyError, NotFoundError
from scanner.service.security import ServiceInstruments
from scanner.service.settings import LimitsConfig, ServiceConfig
from scanner.storage import open_store
from scanner.survey.published import FOOTPRINT, MOVED, Published, open_published, read_tiles

if TYPE_CHECKING:
    from astropy.table import Table
    from mocpy import MOC

    from scanner.grading.similar import FeatureTable

logger = logging.getLogger(__name__)

#: How often folders are checked for a new state, in seconds.
RENEWAL_S = 30.0


class UnknownCollectionError(NotFoundError):
    """There is no collection of this name."""


class UnknownCandidateError(NotFoundError):
    """There is no object of this name."""


NO_FEATURES = "The objects have no features; 'scanner features' makes those of a run."
NOT_RESCORED = "This was not scored again; 'scanner rescore' does it with another bundle."
#: What lists show, and the tiles, copied into a database file, compressed and in order, so that no list of them reads Parquet.
SERVED = "served"
LISTED, TILES = f"{SERVED}.listed", f"{SERVED}.tiles"
#: What recoveries of the runs say of completeness, if there are any.
COMPLETENESS = f"{SERVED}.completeness"
#: The candidates among them, which are all candidates.
CANDIDATES = f"(FROM {LISTED} WHERE is_candidate)"


@dataclass(frozen=True)
class Recovery:
    """What a run would have found, in ``sentences`` and as a ``page`` (HTML).

    ``completeness``: the recovery's table, with the run as its first column.
    """

    location: str
    run: str
    sentences: str
    completeness: pa.Table
    page: bytes

    @classmethod
    def read(cls, location: str, config: ServiceConfig) -> Recovery:
        """Read a folder of ``scanner recovery``, local or ``s3://…``.

        Raises
        ------
        InputMissingError, ContentError
            It is not finished, or damaged.
        """
        # Fitting takes a second to import.
        from scanner.recovery.selection import read_products

        selection, table, page = read_products(open_store(location, config.storage))
        column = pa.field(
            "run", pa.string(), nullable=False, metadata={"ucd": "meta.id", "description": "Run that was painted"}
        )
        table = table.add_column(0, column, pa.array([selection.run.run] * len(table), pa.string()))
        return cls(location, selection.run.run, selection.sentences(), table, page)


@dataclass(frozen=True)
class Collection:
    """An open run or survey.

    ``slug``: its name in URLs; ``title``: for people. ``tiles``: one row a tile of its lists, as :data:`TILES`.
    ``n_listed``: rows of :data:`LISTED`, which has the catalogue's columns; ``n_candidates`` of them are candidates, the last
    one at ``last_candidate_rank`` (0: there is none). ``database``: of its files and of these
    tables. ``recoveries``: of its runs.
    """

    slug: str
    title: str
    published: Published
    catalogue: Catalogue
    tiles: pa.Table
    n_listed: int
    n_candidates: int
    last_candidate_rank: int
    database: ProcessDatabase
    recoveries: tuple[Recovery, ...] = ()

    @property
    def state(self) -> str:
        """Differs from that of the same folder once it has changed."""
        return self.published.state

    @cached_property
    def features(self) -> FeatureTable:
        """Vectors of the run's objects, as many as there are when they are first asked for; blocks.

        Raises
        ------
        NotFoundError
            There are none.
        """
        from scanner.grading.similar import features_if_any

        found = features_if_any(self.published)
        if found is None:
            raise NotFoundError(NO_FEATURES)
        return found

    @property
    def was_rescored(self) -> bool:
        """Whether there is a table of who moved."""
        return MOVED in (self.published.files.sha256 or {})

    @cached_property
    def moved(self) -> Table:
        """The table of who moved, read when it is first asked for; only to be read from. Blocks.

        Raises
        ------
        NotFoundError
            There is none.
        """
        from astropy.table import Table

        if not self.was_rescored:
            raise NotFoundError(NOT_RESCORED)
        return Table.read(self.published.files.read(MOVED).decode(), format="ascii.ecsv")

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
        return self.published.files.read(FOOTPRINT)

    def row(self, wanted: CandidateId) -> pa.Table | None:
        """The row of one object, which need not be a candidate; None where there is none. Blocks."""
        is_it = wanted.condition
        rows = self.database.query(f"SELECT * FROM {LISTED} WHERE {is_it.sql}", is_it.parameters)
        if not len(rows) and wanted.run in self.published.run_folders:
            objects = self.catalogue.source().relation
            sql = f"SELECT * FROM {objects.sql} WHERE {is_it.sql}"
            rows = self.database.query(sql, (*objects.parameters, *is_it.parameters))
        return rows.slice(0, 1).cast(self.catalogue.schema) if len(rows) else None

    def find(self, candidate_id: str) -> pa.Table:
        """The row of the object ``run/tile_id/target_id``, which need not be a candidate; blocks.

        Raises
        ------
        UnknownCandidateError
            The collection has none of this id.
        """
        wanted = CandidateId.parse(candidate_id)
        row = None if wanted is None else self.row(wanted)
        if row is None:
            raise UnknownCandidateError("There is no object of this id in this collection.")
        return row


def open_collection(
    location: str,
    config: ServiceConfig,
    processes: QueryProcesses,
    slug: str | None = None,
    recoveries: Sequence[Recovery] = (),
) -> Collection:
    """Open a run or survey folder.

    Parameters
    ----------
    location
        A local path or ``s3://…``.
    config
        The service's settings.
    processes
        Where its catalogue is asked.
    slug
        Its name in URLs; the folder's own by default.
    recoveries
        Of any runs; those of its own are shown.

    Raises
    ------
    ScannerError
        It cannot be opened; the message says why and what to do.
    """
    import duckdb

    try:
        published = open_published(location, storage=config.storage)
        catalogue = published.open_catalogue(None if config.files.cache is None else Path(config.files.cache))
        mine = tuple(one for one in recoveries if one.run in published.run_folders)
        return serve(published, catalogue, read_tiles(published.files), config.limits, processes, slug, mine)
    except (duckdb.Error, pa.ArrowException) as error:
        raise ContentError(
            f"{location}: its catalogue cannot be read ({str(error).splitlines()[0]}); make it again."
        ) from error


def serve(
    published: Published,
    catalogue: Catalogue,
    tiles: pa.Table,
    limits: LimitsConfig,
    processes: QueryProcesses,
    slug: str | None = None,
    recoveries: tuple[Recovery, ...] = (),
) -> Collection:
    """Copy what lists show of a catalogue, the tiles and the recoveries' completeness into the file that lists are read from.

    Raises
    ------
    UsageError
        The copy takes more memory than there is.
    """
    objects = catalogue.source().relation
    folder = Path(tempfile.mkdtemp(prefix="scanner-served-"))
    file = folder / "served.duckdb"
    # Nobody asks it yet, so it may use what all queries together may.
    copier = QueryProcesses(limits.memory_mb)
    try:
        whole = DatabaseLimits(limits.memory_mb, limits.threads)
        completeness = pa.concat_tables([one.completeness for one in recoveries]) if recoveries else None
        counts = copier.call(_copied, file, catalogue.paths, objects, listed(catalogue.n_rows), tiles, completeness, whole)
    except OutOfMemoryError:
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(
            f"{catalogue.where}: the objects of its lists take more than {limits.memory_mb} MB; raise limits.memory_mb."
        ) from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        copier.close()
    each = DatabaseLimits(limits.memory_mb_each, limits.threads)
    database = ProcessDatabase(DatabaseFiles(catalogue.paths, ((SERVED, file),), published.state, each), processes)
    name = slug or published.slug
    collection = Collection(name, published.title, published, catalogue, tiles, *counts, database, recoveries)
    weakref.finalize(collection, shutil.rmtree, folder, ignore_errors=True)
    return collection


def _copied(
    file: Path,
    paths: Sequence[Path],
    objects: SqlPart,
    shown: str,
    tiles: pa.Table,
    completeness: pa.Table | None,
    limits: DatabaseLimits,
) -> tuple[int, int, int]:
    """Write the file of lists, tiles and completeness; the number of listed rows and of candidates, and the last one's rank."""
    with closing(open_database(paths, limits, writes={SERVED: file})) as connection, interruptible(connection):
        connection.register("tile_rows", tiles)
        connection.execute(f"CREATE TABLE {TILES} AS SELECT * FROM tile_rows")
        if completeness is not None:
            connection.register("completeness_rows", completeness)
            connection.execute(f"CREATE TABLE {COMPLETENESS} AS SELECT * FROM completeness_rows")
        rows = f"SELECT * FROM {objects.sql} WHERE {shown} ORDER BY rank"
        connection.execute(f"CREATE TABLE {LISTED} AS {rows}", list(objects.parameters))
        connection.execute(f"CHECKPOINT {SERVED}")
        n_listed, n_candidates, last_rank = connection.execute(
            f"SELECT count(*), count(*) FILTER (is_candidate), coalesce(max(rank) FILTER (is_candidate), 0) FROM {LISTED}"
        ).fetchall()[0]
        connection.execute(f"DETACH {SERVED}")
    return int(n_listed), int(n_candidates), int(last_rank)


class Collections:
    """The open collections in the order in which their folders were named; :meth:`open_all` or :meth:`start` opens them.

    A folder that has changed (a survey with a new version, a run that was merged again) is opened again in the background and
    replaces the old state in one step, so an answer is of one state. Where that fails, the old state stays, with a warning.
    """

    def __init__(
        self, locations: Sequence[str], config: ServiceConfig, processes: QueryProcesses, instruments: ServiceInstruments
    ) -> None:
        self._config, self._processes, self._instruments = config, processes, instruments
        self._named_as = tuple(locations)
        self._waits = config.files.wait
        # Folders that make no sense are refused at once; large ones take a while to open.
        self._locations = {} if self._waits else self._by_slug()
        self._open: dict[str, Collection] = {}
        self._recoveries: tuple[Recovery, ...] | None = None
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why a folder could not be opened.
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
        """The first collection that has the object ``run/tile_id/target_id``, and its row; blocks.

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
        """Open all in the background, and renew them from then on; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_current, name="collections", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all are open, or one cannot be; False where that takes longer."""
        return self._opened.wait(seconds)

    def close(self) -> None:
        """Stop renewing them."""
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
            self._read_recoveries()
            for slug, location in self._locations.items():
                if slug not in self._open:
                    self._put(self._opened_from(location, slug))
            self._refuse_strangers()
        except Exception as error:
            if not self._is_temporary(error):
                self.error = error
                self._opened.set()
            raise
        self._opened.set()
        self._instruments.ready.set(1)

    def renew(self) -> None:
        """Open again those whose folders have changed."""
        for slug, location in self._locations.items():
            try:
                if open_published(location, storage=self._config.storage).state != self._open[slug].state:
                    self._put(self._opened_from(location, slug))
                    self._instruments.renewals.inc()
                    logger.info("%s: opened again, as it has changed", slug)
            except (ScannerError, OSError) as error:
                logger.warning("%s: stays as it was: %s", slug, error)
            except Exception:
                # The others must be renewed whatever this is.
                logger.exception("%s: stays as it was", slug)

    def _read_recoveries(self) -> None:
        if self._recoveries is None:
            self._recoveries = tuple(Recovery.read(location, self._config) for location in self._config.files.recoveries)

    def _opened_from(self, location: str, slug: str) -> Collection:
        return open_collection(location, self._config, self._processes, slug, self._recoveries or ())

    def _refuse_strangers(self) -> None:
        """Refuse recoveries of runs that are not served."""
        runs = {run for collection in self._open.values() for run in collection.published.run_folders}
        for one in self._recoveries or ():
            if one.run not in runs:
                raise UsageError(f"{one.location}: is a recovery of the run {one.run}, which is not served; name its run too.")

    def _put(self, collection: Collection) -> None:
        self._open[collection.slug] = collection
        self._instruments.objects.labels(collection.slug).set(collection.catalogue.n_rows)
        self._instruments.candidates.labels(collection.slug).set(collection.n_candidates)

    def _by_slug(self) -> dict[str, str]:
        slugs = _distinct([open_published(location, storage=self._config.storage).slug for location in self._named_as])
        return dict(zip(slugs, self._named_as, strict=True))

    def _known(self) -> dict[str, str]:
        """The folders by the names that they give themselves."""
        if not self._locations:
            raise _not_yet()
        return self._locations

    def _is_temporary(self, error: Exception) -> bool:
        """Whether a wait may help: the folders are not there yet, or their store does not answer."""
        return self._waits and isinstance(error, ScannerError | OSError)

    def _keep_current(self) -> None:
        while not self.is_ready:
            try:
                self.open_all()
            except Exception as error:
                if not self._is_temporary(error):
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
