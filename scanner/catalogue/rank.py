"""The ranking: a total order, so that no run depends on the order in which tiles were done.

In: tables of :data:`~scanner.catalogue.columns.SCORE_SCHEMA`. Out: the same rows, best first, with their rank; and of them the
candidates, with their names. Nothing is refused.

The order: scored rows before rows that were not scored; candidates before the rest; then calibrated probability from high to
low, grid value from high to low (of both, what is not known comes last), ``target_id`` and ``tile_id`` from low to high. So the
grid decides who is a candidate, and the probability, which is finer and measures better at the head of the list, who is first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scanner.catalogue import columns
from scanner.records import Int64


def order(rows: pa.Table) -> Int64:
    """Row numbers from the best row to the worst.

    Parameters
    ----------
    rows
        N rows; (``target_id``, ``tile_id``) must be unique for the order to be total.

    Returns
    -------
    numpy.ndarray
        (N,) int64.
    """
    keys = (
        text_order(rows["tile_id"]),
        rows["target_id"].to_numpy(),
        _descending(rows["grid_value"].to_numpy()),
        _descending(rows["p_calibrated"].to_numpy()),
        ~rows["is_candidate"].to_numpy(),
        ~columns.scored(rows),
    )
    return np.asarray(np.lexsort(keys), dtype=np.int64)


def rank(rows: pa.Table) -> pa.Table:
    """Sort rows from best to worst and number them from 1 (column ``rank``, the first)."""
    ranked = rows.take(pa.array(order(rows)))
    return columns.with_column(ranked, columns.RANK_COLUMN, np.arange(1, len(ranked) + 1, dtype=np.int64), position=0)


def text_order(values: pa.ChunkedArray) -> Int64:
    """Each text's place among the distinct texts in code point order, (N,) int64."""
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    places = np.argsort(np.argsort(np.asarray(encoded.dictionary.to_pylist(), dtype=str)))
    return np.asarray(places[encoded.indices.to_numpy()], dtype=np.int64)


def _descending(values: NDArray[Any]) -> NDArray[Any]:
    """Sort key from high to low, NaN last."""
    return np.where(np.isnan(values), np.inf, -values)
