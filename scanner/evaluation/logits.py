"""Log-odds of a bundle's members for rows of a dataset.

In: an open session, a dataset, row numbers. Out: (n, 7) float32 in the order of the rows. Refused: what the store refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from scanner.ensemble.augmentation import augment
from scanner.ensemble.session import EnsembleSession
from scanner.records import MEMBERS, CutoutBatch, Float32, Int64

BATCH = 128


class Cutouts(Protocol):
    """What can be scored: a dataset, or several as one."""

    def batches(self, rows: Int64, size: int) -> Iterator[tuple[CutoutBatch, Float32, Float32]]:
        """Read rows: batches of at most ``size``, with VIS and NISP free of NaN."""
        ...


def dataset_logits(
    session: EnsembleSession,
    dataset: Cutouts,
    rows: Int64,
    orientations: Int64 | None = None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Score rows of a dataset.

    Parameters
    ----------
    session
        See :func:`scanner.ensemble.session.open_session`.
    dataset, rows
        What to score, (n,) row numbers.
    orientations
        How each is turned, (n,) of 0..7 as in :func:`scanner.ensemble.augmentation.turn`, and then scored as it is; None: as a
        scan scores it, with a second look where the bundle takes one.
    report
        Called with the number of objects after every batch.

    Returns
    -------
    numpy.ndarray
        (n, 7) float32 lens log-odds, in the order of :data:`~scanner.records.MEMBERS`.
    """
    logits = np.empty((len(rows), len(MEMBERS)), dtype=np.float32)
    start = 0
    for batch, vis, nisp in dataset.batches(rows, BATCH):
        these = slice(start, start + len(batch))
        if orientations is None:
            logits[these] = session.logits(vis, nisp, batch.sky, batch.sigma)
        else:
            turned = augment(vis, orientations[these]), augment(nisp, orientations[these])
            logits[these] = session.one_look(*turned, batch.sky, batch.sigma)
        start += len(batch)
        report(len(batch))
    return logits
