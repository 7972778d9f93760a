"""The ranking of objects, best first: a total order, so that no run depends on the order in which tiles were done.

Scored rows come before rows that were not scored; rows of the preferred bundle before those of others, whose probabilities
cannot be compared with its own; then calibrated probability from high to low, grid value from high to low (of both, what is not
known comes last), ``target_id``, ``tile_id`` and ``run`` from low to high. So the grid decides who is a candidate, and the
probability, which measures better at the head of the list, who is first. An evaluation ranks by the same probability, see
:meth:`scanner.ensemble.calibration.Calibration.ranking_score`. A run may be ranked as in the paper instead, by the grid value
before the probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy

from scanner.config import RankedBy
from scanner.records import Float64, Int64
from scanner.sphere import chord, unit_vectors

#: Columns that the order needs beside those of the rows: whether a row is scored, and its bundle's place.
SCORED, BUNDLE_PLACE = "scored", "bundle_place"
#: From the best row to the worst. Texts are compared by code points, as DuckDB does by default. What is not known is
#: found by isfinite: isnan is folded away wherever statistics, which leave NaN out, say that there is none.
_BY_PROBABILITY = "NOT isfinite(p_calibrated), p_calibrated DESC"
_BY_GRID = "NOT isfinite(grid_value), grid_value DESC"
BEST_FIRST: Mapping[RankedBy, str] = {
    "probability": f"{SCORED} DESC, {BUNDLE_PLACE}, {_BY_PROBABILITY}, {_BY_GRID}, target_id, tile_id, run",
    "grid": f"{SCORED} DESC, {BUNDLE_PLACE}, {_BY_GRID}, {_BY_PROBABILITY}, target_id, tile_id, run",
}


#: Every list shows so many of the best objects, candidates or not, or one in so many where that is more.
LEAST_LISTED, LISTED_ONE_IN = 200, 500


def listed(n_objects: int) -> str:
    """Which objects lists show (sheet, tables, gallery): all candidates, and the best by rank; a condition in SQL.

    Parameters
    ----------
    n_objects
        Objects of the merged catalogue.
    """
    return f"(is_candidate OR rank <= {max(LEAST_LISTED, -(-n_objects // LISTED_ONE_IN))})"


def bundle_place(bundle: pa.ChunkedArray, bundles: Sequence[str]) -> Int64:
    """Each bundle's place among those named, from 0; the number of these where it is not, (N,) int64."""
    found = pc.fill_null(pc.index_in(bundle, value_set=pa.array(bundles, pa.string())), len(bundles))
    return np.asarray(found.to_numpy(), dtype=np.int64)


class Systems:
    """Which objects are seen because of a better one: a lens fills the cutouts of its neighbours too.

    From the best rank to the worst, an object leads a system unless a better leader lies within the radius: then it belongs to
    that one's system, to the best of them where there are several.

    Parameters
    ----------
    ra, dec
        (N,) degrees, of the objects that may lead, the best first.
    ranks
        (N,) their ranks, rising.
    radius_arcsec
        Of a system.
    """

    def __init__(self, ra: Float64, dec: Float64, ranks: Int64, radius_arcsec: float) -> None:
        places = unit_vectors(ra, dec)
        self._reach = chord(radius_arcsec)
        leads = np.ones(len(places), dtype=np.bool_)
        if len(places):
            pairs = scipy.spatial.KDTree(places).query_pairs(self._reach, output_type="ndarray")
            # By the better of the two: whether that one leads is settled when its turn comes.
            for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
                if leads[better]:
                    leads[worse] = False
        self._ranks = ranks[leads]
        self._tree = scipy.spatial.KDTree(places[leads]) if leads.any() else None

    def of(self, ra: Float64, dec: Float64, ranks: Int64) -> Int64:
        """Rank of the leader of each object's system, (N,) int64: its own where it leads, or no leader is near."""
        if self._tree is None or not len(ranks):
            return ranks.copy()
        # Leaders lie further from one another than the radius, so no more than five lie within it of a point.
        distance, near = self._tree.query(unit_vectors(ra, dec), k=min(6, len(self._ranks)), distance_upper_bound=self._reach)
        distance, near = distance.reshape(len(ranks), -1), near.reshape(len(ranks), -1)
        known = np.append(self._ranks, np.iinfo(np.int64).max)
        leader = known[near].min(axis=1)
        return np.asarray(np.minimum(leader, ranks), dtype=np.int64)


def leaders(rows: pa.Table) -> pa.Table:
    """Rows of a merged catalogue that lead their systems: a list of systems instead of objects."""
    return rows.filter(pc.equal(rows["system_id"], rows["rank"]))


def text_order(values: pa.ChunkedArray) -> Int64:
    """Each text's place among the distinct texts in code point order, (N,) int64."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    places = np.argsort(np.argsort(np.asarray(encoded.dictionary.to_pylist(), dtype=str)))
    return np.asarray(places[encoded.indices.to_numpy()], dtype=np.int64)
