"""Which rows of a dataset train, which choose the weights, and which are left to calibration and threshold.

In: a number of rows, or a dataset. Out: :class:`Split`. Refused: a dataset of one class only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.errors import ContentError
from scanner.evaluation.labelled_data import TRUTH, Dataset
from scanner.records import Int64

#: Every member is trained on the same rows, whatever its seed: one set of calibration objects is left to the ensemble.
SPLIT_SEED = 0
#: Shares of the rows that go to training and validation; calibration gets the rest.
TRAIN_SHARE, VALIDATION_SHARE = 0.84, 0.06


@dataclass(frozen=True)
class Split:
    """Row numbers, (n,) int64 each and ascending: no row is in two of them."""

    train: Int64
    validation: Int64
    calibration: Int64


def split(n: int, seed: int) -> Split:
    """Split ``n`` rows at random by the shares above; the same for the same ``n`` and ``seed``."""
    order = np.random.default_rng((seed, n)).permutation(n).astype(np.int64)
    first, second = round(n * TRAIN_SHARE), round(n * (TRAIN_SHARE + VALIDATION_SHARE))
    parts = (order[:first], order[first:second], order[second:])
    return Split(*(np.sort(part) for part in parts))


def split_dataset(dataset: Dataset) -> Split:
    """Split a dataset as all members do.

    Raises
    ------
    ContentError
        Its objects are all lenses, or all non-lenses.
    """
    is_lens = dataset.truth.is_lens
    if is_lens.all() or not is_lens.any():
        raise ContentError(
            f"{dataset.path / TRUTH}: needs lenses and non-lenses, but all {len(dataset)} rows are of one class; "
            "train on another dataset."
        )
    return split(len(dataset), SPLIT_SEED)
