"""Which cutouts of a tile are stored: ``all``, ``candidates``, ``none`` or ``sample:<fraction>``.

In: the rule and the rows of a batch. Out: a boolean mask. The rule's form was checked by :mod:`scanner.config`. Every object's
position and scores are kept in any case, so that any cutout can be made again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scanner.records import Float64, Int64


def select(keep: str, target_id: Int64, is_candidate: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Choose the rows to store.

    A sample keeps an object by a hash of its id: the same objects whatever the order, the tile or the number of workers, and a
    sample of 0.1 is part of a sample of 0.2. Candidates are part of every sample.

    Parameters
    ----------
    keep
        The rule.
    target_id, is_candidate
        (N,) int64 and (N,) bool.
    """
    if keep == "all":
        return np.ones(len(target_id), np.bool_)
    if keep == "none":
        return np.zeros(len(target_id), np.bool_)
    if keep == "candidates":
        return is_candidate.copy()
    return is_candidate | (_uniform(target_id) < kept_fraction(keep))


def kept_fraction(keep: str) -> float:
    """Expected share of the objects that a rule keeps, candidates (about one in a hundred) aside."""
    if keep.startswith("sample:"):
        return float(keep.removeprefix("sample:"))
    return 1.0 if keep == "all" else 0.0


def _uniform(target_id: Int64) -> Float64:
    """A number in [0, 1) per id: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = target_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return np.asarray((z >> np.uint64(11)) * 2.0**-53, dtype=np.float64)
