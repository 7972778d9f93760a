"""What a service offers: runs and surveys, their databases, and the cutouts of their candidates."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from scanner.catalogue.rank import listed
from scanner.cutouts.framed import FramedCutout, of_store
from scanner.cutouts.store import CutoutStore
from scanner.errors import ContentError, InputMissingError, ScannerError, UnavailableError, UsageError
from scanner.query.catalogue import CandidateId, Catalogue
from scanner.query.database import DatabaseFiles, DatabaseLimits, OutOfMemoryError, interruptible, open_database
from scanner.query.processes import ProcessDatabase, QueryProcesses
from scanner.query.region import SqlPart
from scanner.service.errors import BusyError, NotFoundError
from scanner.service.security import ServiceInstruments
from scanner.service.settings import LimitsConfig, ServiceConfig
from scanner.sky import tile_list
from scanner.sky.local_files import ScratchFolder, remote_files
from scanner.storage import open_store
from scanner.survey.folder.ledger import DamagedTileError, RunFolder
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


#: Cutouts kept in memory: 212 kB each.
KEPT = 512
#: Tiles whose stores are kept open.
OPEN_TILES = 16
#: Tiles whose mosaics are opened at a time to cut an object again: each takes seconds, and memory for a resampled band.
CUT_AT_A_TIME = 1
#: Longest wait for one's turn, in seconds: requests that wait hold threads that others need.
LONGEST_WAIT_S = 5.0
_log = logging.getLogger(__name__)


class NoCutoutError(InputMissingError):
    """The cutout of this candidate was not kept and cannot be made again."""


class Cutouts:
    """Finds cutouts; for many threads.

    Parameters
    ----------
    scratch
        Parent of the folder for what is fetched from object stores; None: the system's.
    kept, open_tiles
        Most cutouts in memory, most stores open.
    """

    def __init__(self, scratch: Path | None = None, kept: int = KEPT, open_tiles: int = OPEN_TILES) -> None:
        self._scratch = ScratchFolder(None, scratch)
        self._stores = OpenStores(self._scratch, open_tiles)
        self._most = kept
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], FramedCutout] = OrderedDict()
        self._cutting = threading.Semaphore(CUT_AT_A_TIME)

    def find(self, folder: RunFolder, row: pa.Table) -> FramedCutout:
        """Find one object's cutout.

        Parameters
        ----------
        folder
            The run that scored it.
        row
            Its row, with the columns of :mod:`scanner.catalogue.columns`.

        Raises
        ------
        NoCutoutError
            It was not kept, and its mosaics lie elsewhere, have gone or are damaged; the log has the reason.
        BusyError
            Others wait already for a cutout to be made again, or the store does not answer.
        """
        tile_id, target_id = row["tile_id"][0].as_py(), row["target_id"][0].as_py()
        key = (folder.location, tile_id, target_id)
        if (known := self._known(key)) is not None:
            return known
        try:
            found = self._kept_at_scan(folder, tile_id, target_id) or self._cut(folder, row, key)
        except UnavailableError as error:
            _log.warning("no cutout of %s/%s now: %s", tile_id, target_id, error)
            raise BusyError(
                "Where the cutouts are kept does not answer; ask again in a moment.", {"Retry-After": "10"}
            ) from error
        except ScannerError as error:
            _log.warning("no cutout of %s/%s: %s", tile_id, target_id, error)
            raise NoCutoutError(
                f"The cutout of object {target_id} of tile {tile_id} was not kept, and its mosaics are not at hand any more."
            ) from error
        self._keep(key, found)
        return found

    def handed(self, handout: str, find: Callable[[], FramedCutout]) -> FramedCutout:
        """What was handed out under a name: found once, and then in memory, so that no wait tells where it lies."""
        key = ("", handout, 0)
        found = self._known(key) or find()
        self._keep(key, found)
        return found

    def close(self) -> None:
        """Close all stores, and remove what was fetched."""
        self._stores.close()
        self._kept.clear()
        self._scratch.close()

    def _known(self, key: tuple[str, str, int]) -> FramedCutout | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _keep(self, key: tuple[str, str, int], found: FramedCutout) -> None:
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def _kept_at_scan(self, folder: RunFolder, tile_id: str, target_id: int) -> FramedCutout | None:
        """The cutout that the scan kept; None where it kept none, or what it kept is damaged."""
        try:
            return self._stored(folder, tile_id, target_id)
        except DamagedTileError as error:
            _log.warning("a cutout of tile %s is made again: %s", tile_id, error)
            return None

    def _stored(self, folder: RunFolder, tile_id: str, target_id: int) -> FramedCutout | None:
        with self._stores.reading(folder, tile_id) as store:
            if store is None:
                return None
            rows = np.flatnonzero(store.target_id == target_id)
            return of_store(store.read(rows[:1]), store.attributes) if len(rows) else None

    def _cut(self, folder: RunFolder, row: pa.Table, key: tuple[str, str, int]) -> FramedCutout:
        record = folder.record()
        tile = tile_list.read(record.tile_list, record.config.storage).tile(key[1])
        if remote := remote_files(tile):
            raise InputMissingError(f"{remote[0]}: is not fetched for one cutout; keep candidates' cutouts (cutouts.keep).")
        # Detection and resampling come with it, which a service that keeps its cutouts never needs.
        from scanner.survey.objects import framed_again

        if not self._cutting.acquire(timeout=LONGEST_WAIT_S):
            raise BusyError("Other cutouts are being made again; ask again in a moment.", {"Retry-After": "5"})
        try:
            # A page asks for every band of an object at once.
            found = self._known(key) or framed_again(row, tile, record.config)
            self._keep(key, found)
            return found
        finally:
            self._cutting.release()


class OpenStores:
    """Opened stores of at most ``most`` tiles; what has to be fetched lies below ``scratch``. For many threads."""

    def __init__(self, scratch: ScratchFolder, most: int) -> None:
        self._scratch = scratch
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._numbered = 0

    @contextmanager
    def reading(self, folder: RunFolder, tile_id: str) -> Iterator[CutoutStore | None]:
        """The store of a tile, for this block alone; None where no cutout was kept.

        A tile that was scanned again since it was opened is opened again.

        Raises
        ------
        ScannerError
            The tile's record or store is damaged, or cannot be fetched.
        """
        entry = self._entry((folder.location, tile_id))
        with entry.lock:
            commit = folder.commit_of(tile_id)
            fingerprint = None if commit is None else commit.model_dump_json()
            if commit is None or fingerprint != entry.fingerprint:
                entry.store = entry.fingerprint = None
            if commit is not None and entry.fingerprint is None:
                entry.store = self._opened(entry, lambda place: folder.cutouts(commit, place))
                entry.fingerprint = fingerprint
            yield entry.store

    def close(self) -> None:
        """Close all."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
        for entry in entries:
            entry.close()

    def _entry(self, key: tuple[str, str]) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            closed = [self._entries.popitem(last=False)[1] for _ in range(len(self._entries) - self._most)]
        for old in closed:
            old.close()
        return entry

    def _opened(self, entry: _Entry, opened: Callable[[Path], CutoutStore | None]) -> CutoutStore | None:
        if entry.folder is None:
            with self._lock:
                self._numbered += 1
                entry.folder = self._scratch.path / f"store-{self._numbered}"
        shutil.rmtree(entry.folder, ignore_errors=True)
        entry.folder.mkdir(parents=True)
        return opened(entry.folder)


class _Entry:
    """One tile's store; ``lock`` is held while it is opened, read or removed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.store: CutoutStore | None = None
        self.fingerprint: str | None = None
        self.folder: Path | None = None

    def close(self) -> None:
        with self.lock:
            self.store = self.fingerprint = None
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
