"""The ranking of objects, best first: a total order, so that no run depends on the order in which tiles were done.

Scored rows come before rows that were not scored; rows of the preferred bundle before those of others, whose probabilities
cannot be compared with its own; then calibrated probability from high to low, grid value from high to low (of both, what is not
known comes last), ``target_id``, ``tile_id`` and ``run`` from low to high. So the grid decides who is a candidate, and the
probability, which measures better at the head of the list, who is first. An evaluation ranks by the same probability, see
:meth:`scanner.ensemble.calibration.Calibration.ranking_score`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scanner.records import Int64

#: Columns that the order needs beside those of the rows: whether a row is scored, and its bundle's place.
SCORED, BUNDLE_PLACE = "scored", "bundle_place"
#: From the best row to the worst. Texts are compared by code points, as DuckDB does by default. What is not known is
#: found by isfinite: isnan is folded away wherever statistics, which leave NaN out, say that there is none.
BEST_FIRST = (
    f"{SCORED} DESC, {BUNDLE_PLACE}, NOT isfinite(p_calibrated), p_calibrated DESC, "
    "NOT isfinite(grid_value), grid_value DESC, target_id, tile_id, run"
)


def bundle_place(bundle: pa.ChunkedArray, bundles: Sequence[str]) -> Int64:
    """Each bundle's place among those named, from 0; the number of these where it is not, (N,) int64."""
    found = pc.fill_null(pc.index_in(bundle, value_set=pa.array(bundles, pa.string())), len(bundles))
    return np.asarray(found.to_numpy(), dtype=np.int64)


def text_order(values: pa.ChunkedArray) -> Int64:
    """Each text's place among the distinct texts in code point order, (N,) int64."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    places = np.argsort(np.argsort(np.asarray(encoded.dictionary.to_pylist(), dtype=str)))
    return np.asarray(places[encoded.indices.to_numpy()], dtype=np.int64)
