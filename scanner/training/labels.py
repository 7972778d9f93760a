"""What a trainer knows of an object besides its pixels, and which rows train, choose the weights, or are left to calibration.

In: truth tables, numbers of rows. Out: :class:`Labels`, :class:`Split`. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from scanner.records import Float32, Int64

#: Every member is trained on the same rows, whatever its seed: one set of calibration objects is left to the ensemble.
SPLIT_SEED = 0
#: Shares of the rows that go to training and validation; calibration gets the rest.
TRAIN_SHARE, VALIDATION_SHARE = 0.84, 0.06


@dataclass(frozen=True)
class Labels:
    """What is known of ``N`` objects.

    ``is_lens`` (N,) bool. ``arc_snr`` (N,) float32: signal-to-noise ratio of the lensed light in VIS, of the brighter system
    where there are two; NaN where a person labelled it. ``visible`` (N,) bool: lenses whose arcs a person could see.
    ``position`` (N, 2) float32: (y, x) of the object off the cutout's centre, arcsec.
    """

    is_lens: NDArray[np.bool_]
    arc_snr: Float32
    visible: NDArray[np.bool_]
    position: Float32

    def __len__(self) -> int:
        return len(self.is_lens)


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of several sets, one after the other."""
    return Labels(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Labels)})


@dataclass(frozen=True)
class Split:
    """Row numbers, (n,) int64 each and ascending: no row is in two of them."""

    train: Int64
    validation: Int64
    calibration: Int64


def split(n: int, seed: int = SPLIT_SEED) -> Split:
    """Split ``n`` rows at random by the shares above; the same for the same ``n`` and ``seed``."""
    order = np.random.default_rng((seed, n)).permutation(n).astype(np.int64)
    first, second = round(n * TRAIN_SHARE), round(n * (TRAIN_SHARE + VALIDATION_SHARE))
    return Split(*(np.sort(part) for part in (order[:first], order[first:second], order[second:])))


def joined_splits(sizes: Sequence[int]) -> Split:
    """Splits of several sets, each by itself, with rows numbered through: adding a set moves no row of another."""
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [split(n) for n in sizes]
    return Split(
        *(
            np.concatenate([getattr(part, item.name) + start for part, start in zip(parts, starts, strict=False)])
            for item in fields(Split)
        )
    )
