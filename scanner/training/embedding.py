"""What turns the members' log-odds into scores: the embedding of the training set, its grid, the calibration, the threshold.

In: log-odds and labels of training objects, and of calibration objects that no member was trained on. Out:
:class:`Combination`. Refused: others without both classes (``ValueError``).

The paper embedded the training set with t-SNE and nothing else (section 3.3). The threshold that maximises F-beta is set on the
calibration objects: on the training set itself the grid would judge its own cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble import calibration as combining
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.embedding_grid import CELLS, EmbeddingGrid, limited
from scanner.ensemble.threshold import OperatingCurve
from scanner.evaluation.decisions import SKY_PREVALENCE
from scanner.records import Float32

PERPLEXITY = 30.0


@dataclass(frozen=True)
class Combination:
    """The grid, the calibration and the operating curve of the grid value on the calibration objects."""

    grid: EmbeddingGrid
    calibration: Calibration
    curve: OperatingCurve


def fit_embedding(logits: Float32, *, seed: int, threads: int = 1) -> Any:
    """Embed log-odds in two dimensions with t-SNE, started from the principal components.

    Parameters
    ----------
    logits
        (N, 7) finite; see :func:`scanner.ensemble.embedding_grid.limited`.
    seed, threads
        Of openTSNE; the same seed and number of threads give the same positions.

    Returns
    -------
    openTSNE.TSNEEmbedding
        (N, 2) float64 positions, with openTSNE's own way to place other rows (``transform``).
    """
    from openTSNE import TSNE

    perplexity = min(PERPLEXITY, (len(logits) - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=seed, n_jobs=threads).fit(limited(logits).astype(np.float64))


def embed(logits: Float32, *, seed: int, threads: int = 1) -> Float32:
    """Positions of :func:`fit_embedding`, (N, 2) float32."""
    return np.asarray(fit_embedding(logits, seed=seed, threads=threads), dtype=np.float32)


def combine(
    train_logits: Float32,
    train_labels: NDArray[np.bool_],
    held_out_logits: Float32,
    held_out_labels: NDArray[np.bool_],
    *,
    seed: int,
    cells: int = CELLS,
    threads: int = 1,
) -> Combination:
    """Make the grid from training objects; calibrate and set the operating curve on held-out ones.

    Parameters
    ----------
    train_logits, train_labels
        (N, 7) and (N,) of objects the members were trained on.
    held_out_logits, held_out_labels
        (K, 7) and (K,) of others.
    seed, threads
        See :func:`embed`.
    cells
        Of the grid along each axis.

    Raises
    ------
    ValueError
        The others lack one class.
    """
    grid = EmbeddingGrid.build(
        train_logits,
        embed(train_logits, seed=seed, threads=threads),
        train_labels,
        held_out=held_out_logits,
        cells=cells,
        seed=seed,
    )
    return Combination(
        grid=grid,
        calibration=combining.fit(held_out_logits, held_out_labels, sky_prevalence=SKY_PREVALENCE),
        curve=OperatingCurve.of(grid.lookup(held_out_logits).value, held_out_labels),
    )
