"""Many tables of tiles as one catalogue in bounded memory: one row an object where tiles overlap, ranked, written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from scanner.catalogue import columns, rank
from scanner.catalogue.hats import (
    MARGIN_ARCSEC,
    MARGIN_ORDER,
    MAX_PARTITION_ORDER,
    ROWS_PER_PARTITION,
    HatsWriter,
    Partition,
    hats_writer,
    partition,
    write_collection,
)
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.rank import BUNDLE_PLACE, SCORED, text_order
from scanner.config import SAME_ID_RADIUS_ARCSEC, SYSTEM_RADIUS_ARCSEC, RankedBy
from scanner.errors import ContentError, OutputError
from scanner.processes import ctrl_c_interrupts
from scanner.records import Float64, Int64
from scanner.sphere import HEALPIX_ORDER, PREFIX, chord, designations, healpix_29, unit_vectors

if TYPE_CHECKING:
    import duckdb

#: Bad fractions are compared in these steps, so that a few pixels do not choose the tile.
BAD_FRACTION_STEP = 0.001
#: Columns that the rule needs.
RULE_COLUMNS = (
    "ra",
    "dec",
    "target_id",
    "tile_id",
    "run",
    SCORED,
    BUNDLE_PLACE,
    *(column.name for column in columns.BAD_COLUMNS.values()),
)
#: The fine cells along a cell's edge are this many times wider than pairs are: the narrowest keeps them apart.
_EDGE_WIDTH = 4.0
#: Width of a HEALPix cell of order 0: the root of its area.
_BASE_CELL_ARCSEC = float(np.degrees(np.sqrt(np.pi / 3.0)) * 3600.0)
#: Every second bit of a nested index: the cell's place along one side.
_EVERY_SECOND_BIT = 0x5555_5555_5555_5555


@dataclass(frozen=True)
class Rule:
    """What the rule leaves open.

    Two rows of *different* tiles (of one run, or a tile's rows in two runs) are the same object if they lie within
    the duplicate radius, or within :data:`~scanner.config.SAME_ID_RADIUS_ARCSEC` if they also have the same ``target_id``. Rows
    of one tile of one run are never the same object: the tile's own catalogue tells them apart. Rows are taken from the most to
    the least preferred, and one is kept if no row kept so far is the same object. Preferred are scored rows, then those of the
    bundle that is named first, then the smaller worst bad fraction of the four bands (in steps of :data:`BAD_FRACTION_STEP`),
    then the lower ``tile_id``, then the lower ``target_id``, then the lower ``run``. So the result depends neither on the order
    of the rows nor on that of tiles and runs; no two rows of different tiles that are left are the same object; and every row
    that went has lost to one that is left.

    The fate of a row depends on the rows that it is connected with, from one same object to the next, and on no others. So the
    sky can be done cell by cell: what is connected with a cell's edge is left undecided, to be done together with what lies
    beyond.

    ``radius_arcsec``: rows of two tiles this close are one object. ``bundles``: from the most to the least preferred; those
    that are not named come last, and are alike. ``ranked_by``: what ranks the objects that are left.
    """

    radius_arcsec: float
    bundles: tuple[str, ...] = ()
    ranked_by: RankedBy = "probability"


@dataclass(frozen=True)
class Cell:
    """A HEALPix cell: ``pixel`` of ``order``, nested."""

    order: int
    pixel: int


@dataclass(frozen=True)
class Verdict:
    """What became of N rows; each ``kept`` (N,) bool, else ``undecided`` (N,) bool, else gone."""

    kept: NDArray[np.bool_]
    undecided: NDArray[np.bool_]


def deduplicate(rows: pa.Table, rule: Rule, cell: Cell | None = None) -> Verdict:
    """Decide which rows are kept.

    Parameters
    ----------
    rows
        N rows with the columns :data:`RULE_COLUMNS`, in a cell also ``_healpix_29``; positions are finite, (``run``,
        ``tile_id``, ``target_id``) unique.
    rule
        The rule.
    cell
        All rows lie in this cell, and there may be others beyond; None: these are all.
    """
    n = len(rows)
    undecided = np.zeros(n, dtype=np.bool_)
    if cell is not None:
        undecided = _near_edge(rows[columns.HEALPIX_COLUMN.name].to_numpy(), cell, rule)
    tile = _tiles(rows)
    pairs = _same_objects(rows, tile, rule)
    if not len(pairs):
        return Verdict(~undecided, undecided)
    if undecided.any():
        links = coo_array((np.ones(len(pairs), dtype=np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        _, group = connected_components(links, directed=False)
        reaches_edge = np.zeros(n, dtype=np.bool_)
        reaches_edge[group[undecided]] = True
        undecided = reaches_edge[group]
    preference = _preference(rows)
    better = np.minimum(preference[pairs[:, 0]], preference[pairs[:, 1]])
    worse = np.maximum(preference[pairs[:, 0]], preference[pairs[:, 1]])
    by_better = np.lexsort((worse, better))
    alive = np.ones(n, dtype=np.bool_)
    # When the pairs of a row come up, all pairs in which it could lose have been seen: its fate is known.
    for winner, loser in zip(better[by_better].tolist(), worse[by_better].tolist(), strict=True):
        if alive[winner]:
            alive[loser] = False
    return Verdict(alive[preference] & ~undecided, undecided)


def _tiles(rows: pa.Table) -> Int64:
    """A number for each tile of each run, (N,) int64."""
    return text_order(rows["run"]) * len(rows) + text_order(rows["tile_id"])


def _preference(rows: pa.Table) -> Int64:
    """Place of each row from the most (0) to the least preferred, (N,) int64."""
    worst = np.max([rows[column.name].to_numpy() for column in columns.BAD_COLUMNS.values()], axis=0)
    steps = np.rint(np.nan_to_num(worst.astype(np.float64), nan=1.0) / BAD_FRACTION_STEP)
    by_preference = np.lexsort(
        (
            text_order(rows["run"]),
            rows["target_id"].to_numpy(),
            text_order(rows["tile_id"]),
            steps,
            rows[BUNDLE_PLACE].to_numpy(),
            ~rows[SCORED].to_numpy(),
        )
    )
    place = np.empty(len(rows), dtype=np.int64)
    place[by_preference] = np.arange(len(rows))
    return place


def _same_objects(rows: pa.Table, tile: Int64, rule: Rule) -> Int64:
    """Pairs of row numbers that are the same object, (M, 2) int64."""
    if len(rows) < 2:
        return np.empty((0, 2), dtype=np.int64)
    vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    target = rows["target_id"].to_numpy()
    pairs = KDTree(vectors).query_pairs(chord(_reach_arcsec(rule)), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    close = np.linalg.norm(vectors[first] - vectors[second], axis=1) <= chord(rule.radius_arcsec)
    same = (tile[first] != tile[second]) & (close | (target[first] == target[second]))
    return np.asarray(pairs[same], dtype=np.int64)


def _reach_arcsec(rule: Rule) -> float:
    return max(rule.radius_arcsec, SAME_ID_RADIUS_ARCSEC)


def _near_edge(index: Int64, cell: Cell, rule: Rule) -> NDArray[np.bool_]:
    """Which rows may be the same object as one beyond the cell, (N,) bool: those in the fine cells along its edge."""
    fine = min(int(np.floor(np.log2(_BASE_CELL_ARCSEC / (_EDGE_WIDTH * _reach_arcsec(rule))))), HEALPIX_ORDER)
    if fine <= cell.order:
        return np.ones(len(index), dtype=np.bool_)
    below = index >> 2 * (HEALPIX_ORDER - fine)
    last = 4 ** (fine - cell.order) - 1
    along, up = below & last & _EVERY_SECOND_BIT, (below & last) >> 1 & _EVERY_SECOND_BIT
    far = last & _EVERY_SECOND_BIT
    edge: NDArray[np.bool_] = (along == 0) | (along == far) | (up == 0) | (up == far)
    return edge


#: Rows that are deduplicated together: 100 MB of what the rule needs of them.
ROWS_TOGETHER = 500_000
#: The best one in so many objects can lead a system, beside all candidates; further down no list is read.
LEADERS_ONE_IN = 100
#: What DuckDB may hold in memory, and the threads that share it: more of them would need more.
MEMORY, MOST_THREADS = "1GB", 4
_INDEX = columns.HEALPIX_COLUMN.name
_PIXEL_SHIFT = 2 * (HEALPIX_ORDER - MAX_PARTITION_ORDER)
#: What DuckDB says, among other things, when there is no room in its folder.
_FULL = ("No space left on device", "max_temp_directory_size", "Disk quota exceeded")


class Merging:
    """One merging; a context manager. Tables are added, :meth:`merge` is called once, then the results are asked for.

    What memory does not hold, DuckDB puts into a folder. Rows are sorted by their place on the sky. Every part of the sky that
    holds few enough rows is deduplicated by itself, and what its edge leaves undecided together with that of its neighbours, in
    ever larger parts, until the whole sky is one. So the result is to the byte that of all rows at once, in whatever order they
    came.

    Parameters
    ----------
    folder
        Where what memory does not hold is put; made if need be, and removed at the end.
    rule
        Of deduplication; its bundles order the ranking too.
    known
        Finds known lenses.
    system_radius_arcsec
        Of a system of objects, see :class:`~scanner.catalogue.rank.Systems`.
    rows_together
        Rows that are deduplicated together.
    prefixes
        What designations begin with, see :func:`complete`.

    Attributes
    ----------
    n_rows, n_unique, n_candidates
        Rows that were added; objects, and candidates among them, once they are merged.
    last_candidate_rank
        Rank of the last candidate; 0 where there is none.
    """

    def __init__(
        self,
        folder: Path,
        rule: Rule,
        known: KnownLensMatcher,
        system_radius_arcsec: float = SYSTEM_RADIUS_ARCSEC,
        rows_together: int = ROWS_TOGETHER,
        prefixes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._folder, self._rule, self._known, self._rows_together = folder, rule, known, rows_together
        self._system_radius_arcsec, self._prefixes = system_radius_arcsec, prefixes
        self.n_rows = self.n_unique = self.n_candidates = self.last_candidate_rank = 0

    def __enter__(self) -> Self:
        import duckdb

        settings: dict[str, Any] = {
            "temp_directory": str(self._folder),
            "memory_limit": MEMORY,
            "threads": min(os.cpu_count() or 1, MOST_THREADS),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._database: duckdb.DuckDBPyConnection = duckdb.connect(":memory:", config=settings)
        self._put("CREATE TABLE added AS FROM given", self._prepared(columns.SOURCE_SCHEMA.empty_table()))
        self._further: list[str] = []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._database.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, rows: pa.Table) -> None:
        """Add rows of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA`, unique by ``run``, ``tile_id`` and ``target_id``.

        Columns of further members may come with any of them; in rows without they are NaN.
        """
        for name in columns.further_of(rows.column_names):
            if name not in self._further:
                self._do(f"ALTER TABLE added ADD COLUMN {columns.further_column(name).name} FLOAT DEFAULT 'NaN'::FLOAT")
                self._further.append(name)
        self._put("INSERT INTO added BY NAME FROM given", self._prepared(rows))
        self.n_rows += len(rows)

    def merge(self) -> None:
        """Deduplicate and rank what was added."""
        self._do(f"CREATE TABLE sorted AS FROM added ORDER BY {_INDEX}, target_id, tile_id, run")
        self._do("DROP TABLE added")
        self._deduplicate()
        self._do(
            f"CREATE TABLE ranked AS SELECT sorted.rowid AS id, {_INDEX} FROM sorted "
            f"ANTI JOIN lost ON sorted.rowid = lost.id ORDER BY {rank.BEST_FIRST[self._rule.ranked_by]}"
        )
        # A table keeps the order in which it is made: the row's number is the rank.
        self._do(f"CREATE TABLE ranks AS SELECT id, {_INDEX}, rowid + 1 AS rank FROM ranked ORDER BY id")
        self._do("DROP TABLE ranked")
        self.n_unique = self._count("ranks")
        joined = "sorted JOIN ranks ON sorted.rowid = ranks.id WHERE"
        counted = self._ask(f"SELECT count(*) AS n, coalesce(max(rank), 0) AS last FROM {joined} is_candidate")
        self.n_candidates, self.last_candidate_rank = (counted[name][0].as_py() for name in ("n", "last"))
        best = self._ask(
            f"SELECT ra, dec, rank FROM {joined} is_candidate OR rank <= ? ORDER BY rank", -(-self.n_unique // LEADERS_ONE_IN)
        )
        ra, dec, ranks = (best[name].to_numpy() for name in ("ra", "dec", "rank"))
        self._systems = rank.Systems(ra, dec, ranks, self._system_radius_arcsec)

    def listed(self, maximum: int) -> pa.Table:
        """What lists show, best first, of :data:`~scanner.catalogue.columns.CANDIDATE_SCHEMA`; ``maximum``: most rows."""
        best = self._rows(f"{rank.listed(self.n_unique)} ORDER BY rank LIMIT ?", maximum)
        schema = columns.with_further(columns.CANDIDATE_SCHEMA, self._further)
        return columns.as_schema(complete(best, self._known, self._systems, self._prefixes), schema)

    def write(
        self,
        folder: Path,
        name: str,
        on_rows: Callable[[pa.Table], None] = lambda rows: None,
        rows_per_partition: int = ROWS_PER_PARTITION,
    ) -> None:
        """Write the catalogue, its margin cache and, beside them, that they belong together.

        Parameters
        ----------
        folder, name, rows_per_partition
            See :func:`~scanner.catalogue.hats.hats_writer`.
        on_rows
            Called with every part of the catalogue, of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        schema = columns.with_further(columns.CATALOGUE_SCHEMA, self._further)
        parts = self._partitions("ranks", rows_per_partition)
        with hats_writer(folder, name, schema, rows_per_partition) as writer:
            for part in parts:
                first, end = part.range
                inside = f"sorted.{_INDEX} >= ? AND sorted.{_INDEX} < ? AND ranks.{_INDEX} >= ? AND ranks.{_INDEX} < ?"
                rows = self._rows(f"{inside} ORDER BY sorted.rowid", first, end, first, end)
                rows = complete(rows, self._known, self._systems, self._prefixes)
                writer.write(part, rows)
                on_rows(rows)
        margin = folder.with_name(f"{folder.name}_{MARGIN_ARCSEC}arcs")
        with hats_writer(margin, f"{name} {MARGIN_ARCSEC}arcs", schema, rows_per_partition, folder.name) as writer:
            self._write_margins(writer, parts)
        write_collection(folder.parent, name, folder.name, margin.name if writer.n_rows else None)

    def _write_margins(self, writer: HatsWriter, parts: Sequence[Partition]) -> None:
        """The rows near outside each partition; partitions without any have no file."""
        pixels = [part.margin() for part in parts]
        near = {
            "part": np.repeat(np.arange(len(parts), dtype=np.int64), [len(some) for some in pixels]),
            "pixel": np.concatenate([np.empty(0, dtype=np.int64), *pixels]),
        }
        self._put(
            "CREATE TABLE margins AS SELECT part, id FROM ranks JOIN given "
            f"ON ranks.{_INDEX} >> {2 * (HEALPIX_ORDER - MARGIN_ORDER)} = given.pixel ORDER BY part, id",
            pa.table(near),
        )
        for number in self._ask("SELECT DISTINCT part FROM margins ORDER BY part")["part"].to_pylist():
            rows = self._rows("ranks.id IN (SELECT id FROM margins WHERE part = ?) ORDER BY sorted.rowid", number)
            writer.write(parts[number], complete(rows, self._known, self._systems, self._prefixes))
        self._do("DROP TABLE margins")

    def _deduplicate(self) -> None:
        self._do("CREATE TABLE lost (id BIGINT)")
        self._do(f"CREATE VIEW pending AS SELECT rowid AS id, {_INDEX}, {', '.join(RULE_COLUMNS)} FROM sorted")
        n_pending, together = self.n_rows, self._rows_together
        kind = "VIEW"
        while n_pending:
            self._do("CREATE TABLE undecided AS FROM pending LIMIT 0")
            for cell, rows in self._cells(n_pending, together):
                verdict = deduplicate(rows, self._rule, cell)
                self._put("INSERT INTO undecided FROM given", rows.filter(pa.array(verdict.undecided)))
                gone = ~verdict.kept & ~verdict.undecided
                self._put("INSERT INTO lost FROM given", rows.select(["id"]).filter(pa.array(gone)))
            self._do(f"DROP {kind} pending")
            self._do(f"CREATE TABLE pending AS FROM undecided ORDER BY {_INDEX}")
            self._do("DROP TABLE undecided")
            kind, n_before, n_pending = "TABLE", n_pending, self._count("pending")
            # Where edges are all there is, the parts have to grow even if they hold more.
            together *= 2 if n_pending > n_before // 2 else 1

    def _cells(self, n_pending: int, together: int) -> Iterator[tuple[Cell | None, pa.Table]]:
        """What is pending, part by part of the sky; in one part, None, where that is not too much."""
        if n_pending <= together:
            yield None, self._ask("FROM pending")
            return
        for part in self._partitions("pending", together):
            yield Cell(part.order, part.pixel), self._ask(f"FROM pending WHERE {_INDEX} >= ? AND {_INDEX} < ?", *part.range)

    def _partitions(self, relation: str, most_rows: int) -> tuple[Partition, ...]:
        counts = self._ask(
            f"SELECT {_INDEX} >> {_PIXEL_SHIFT} AS pixel, count(*) AS n FROM {relation} GROUP BY pixel ORDER BY pixel"
        )
        return partition(counts["pixel"].to_numpy() << _PIXEL_SHIFT, most_rows, counts["n"].to_numpy())

    def _prepared(self, rows: pa.Table) -> pa.Table:
        ra, dec = rows["ra"].to_numpy(), rows["dec"].to_numpy()
        if not (np.isfinite(ra) & np.isfinite(dec)).all():
            raise ContentError(f"tile {rows['tile_id'][0].as_py()}: its table holds objects without a position; scan it again.")
        extra = {
            _INDEX: healpix_29(ra, dec),
            rank.SCORED: columns.scored(rows),
            rank.BUNDLE_PLACE: rank.bundle_place(rows["bundle"], self._rule.bundles),
        }
        names = columns.with_further(columns.SOURCE_SCHEMA, columns.further_of(rows.column_names)).names
        return pa.table({name: rows[name] for name in names} | extra)

    def _rows(self, condition: str, *parameters: int) -> pa.Table:
        """Rows of the merged catalogue, with their rank."""
        names = ", ".join(columns.with_further(columns.SOURCE_SCHEMA, self._further).names)
        joined = "sorted JOIN ranks ON sorted.rowid = ranks.id"
        return self._ask(f"SELECT {names}, rank FROM {joined} WHERE {condition}", *parameters)

    def _count(self, relation: str) -> int:
        return int(self._ask(f"SELECT count(*) AS n FROM {relation}")["n"][0].as_py())

    def _ask(self, query: str, *parameters: int) -> pa.Table:
        with _one_sentence(self._folder):
            found: pa.Table = self._database.sql(query, params=list(parameters)).to_arrow_table()
            return found

    def _do(self, statement: str) -> None:
        with _one_sentence(self._folder):
            self._database.execute(statement)

    def _put(self, statement: str, given: pa.Table) -> None:
        """Do something with a table that is called ``given``."""
        self._database.register("given", given)
        self._do(statement)
        self._database.unregister("given")


def complete(
    ranked: pa.Table, known: KnownLensMatcher, systems: rank.Systems, prefixes: Mapping[str, str] = MappingProxyType({})
) -> pa.Table:
    """Add HEALPix index, system, designation and known lens.

    Parameters
    ----------
    ranked
        N rows of :data:`~scanner.catalogue.columns.SOURCE_SCHEMA` with their rank.
    known, systems
        Find known lenses, and the system of an object.
    prefixes
        What designations begin with, by run; of runs that are missing, with Euclid's acronym.

    Returns
    -------
    pyarrow.Table
        N rows of :data:`~scanner.catalogue.columns.CATALOGUE_SCHEMA`, in their order.
    """
    ra, dec = ranked["ra"].to_numpy(), ranked["dec"].to_numpy()
    ranked = columns.with_column(ranked, columns.HEALPIX_COLUMN, healpix_29(ra, dec))
    ranked = columns.with_column(ranked, columns.SYSTEM_COLUMN, systems.of(ra, dec, ranked["rank"].to_numpy()))
    ranked = known.describe(columns.with_column(ranked, columns.NAME_COLUMN, _names(ranked, ra, dec, prefixes)))
    return columns.as_schema(ranked, columns.with_further(columns.CATALOGUE_SCHEMA, columns.further_of(ranked.column_names)))


def _names(ranked: pa.Table, ra: Float64, dec: Float64, prefixes: Mapping[str, str]) -> list[str]:
    runs = ranked["run"].to_pylist() if prefixes else [""] * len(ranked)
    wanted = [prefixes.get(run, PREFIX) for run in runs]
    made = {prefix: designations(ra, dec, prefix) for prefix in set(wanted)}
    return [made[prefix][row] for row, prefix in enumerate(wanted)]


@contextmanager
def _one_sentence(folder: Path) -> Iterator[None]:
    """Turn what DuckDB raises for want of space into one sentence."""
    import duckdb

    try:
        with ctrl_c_interrupts():
            yield
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        if any(sign in str(error) for sign in _FULL):
            raise OutputError.of(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        raise OutputError(f"{folder}: the catalogue cannot be merged here ({str(error).splitlines()[0]}).") from error
