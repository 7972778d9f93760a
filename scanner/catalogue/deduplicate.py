"""One row for each object where tiles overlap, in one run or in several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from scanner.catalogue import columns
from scanner.catalogue.rank import BUNDLE_PLACE, SCORED, text_order
from scanner.config import SAME_ID_RADIUS_ARCSEC, RankedBy
from scanner.records import Int64
from scanner.sphere import HEALPIX_ORDER, chord, unit_vectors

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
