"""One row for each object, where tiles overlap.

In: the rows of all tiles. Out: the rows that are kept, in the order given. Nothing is refused.

The rule. Two rows of *different* tiles are the same object if they lie within the duplicate radius, or within
:data:`SAME_ID_RADIUS_ARCSEC` if they also have the same ``target_id``. Rows of one tile are never the same object: the tile's
own catalogue tells them apart. Rows are looked at from the most to the least preferred, and one is kept if no row kept so far
is the same object. Preferred are scored rows, then the smaller worst bad fraction of the four bands (in steps of
:data:`BAD_FRACTION_STEP`), then the lower ``tile_id``, then the lower ``target_id``. So the result depends neither on the order
of the rows nor on that of the tiles; no two rows of different tiles that are left are the same object; and every row that went
has lost to one that is left.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import KDTree

from scanner.catalogue import columns
from scanner.catalogue.rank import text_order
from scanner.records import Int64
from scanner.sphere import chord, unit_vectors

#: Two tiles' catalogues place one object this close even where their deblending differs.
SAME_ID_RADIUS_ARCSEC = 3.0
#: Bad fractions are compared in these steps, so that a few pixels do not choose the tile.
BAD_FRACTION_STEP = 0.001


def deduplicate(rows: pa.Table, radius_arcsec: float) -> pa.Table:
    """Keep one row of each object.

    Parameters
    ----------
    rows
        N rows with finite positions; (``target_id``, ``tile_id``) unique.
    radius_arcsec
        Rows of two tiles this close are one object.

    Returns
    -------
    pyarrow.Table
        The rows that are kept, in their order.
    """
    return rows.filter(pa.array(kept(rows, radius_arcsec)))


def kept(rows: pa.Table, radius_arcsec: float) -> NDArray[np.bool_]:
    """Which rows are kept, (N,) bool; see :func:`deduplicate`."""
    keep = np.ones(len(rows), dtype=np.bool_)
    if len(rows) < 2:
        return keep
    tile = text_order(rows["tile_id"])
    preference = _preference(rows, tile)
    pairs = _same_objects(rows, tile, radius_arcsec)
    better = np.minimum(preference[pairs[:, 0]], preference[pairs[:, 1]])
    worse = np.maximum(preference[pairs[:, 0]], preference[pairs[:, 1]])
    by_better = np.lexsort((worse, better))
    alive = np.ones(len(rows), dtype=np.bool_)
    # When the pairs of a row come up, all pairs in which it could lose have been seen: its fate is known.
    for winner, loser in zip(better[by_better].tolist(), worse[by_better].tolist(), strict=True):
        if alive[winner]:
            alive[loser] = False
    return np.asarray(alive[preference], dtype=np.bool_)


def _preference(rows: pa.Table, tile: Int64) -> Int64:
    """Place of each row from the most (0) to the least preferred, (N,) int64."""
    worst = np.max([rows[column.name].to_numpy() for column in columns.BAD_COLUMNS], axis=0)
    steps = np.rint(np.nan_to_num(worst.astype(np.float64), nan=1.0) / BAD_FRACTION_STEP)
    by_preference = np.lexsort((rows["target_id"].to_numpy(), tile, steps, ~columns.scored(rows)))
    place = np.empty(len(rows), dtype=np.int64)
    place[by_preference] = np.arange(len(rows))
    return place


def _same_objects(rows: pa.Table, tile: Int64, radius_arcsec: float) -> Int64:
    """Pairs of row numbers that are the same object, (M, 2) int64."""
    vectors = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    target = rows["target_id"].to_numpy()
    reach = max(radius_arcsec, SAME_ID_RADIUS_ARCSEC)
    pairs = KDTree(vectors).query_pairs(chord(reach), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    close = np.linalg.norm(vectors[first] - vectors[second], axis=1) <= chord(radius_arcsec)
    same = (tile[first] != tile[second]) & (close | (target[first] == target[second]))
    return np.asarray(pairs[same], dtype=np.int64)
