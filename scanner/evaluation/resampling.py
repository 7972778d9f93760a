"""Recall at low false-positive rates, with bootstrap intervals that include the uncertainty of the threshold.

In: scores of lenses and of non-lenses, from any number of scores or bundles for the *same* objects. Out: :class:`Recalls`.
Refused: a class without objects (``ValueError``).

A finder of rare objects works where few non-lenses pass, so its threshold rests on few objects. Lenses and non-lenses are
resampled separately and the threshold is taken anew each time. All scores see the same resamples: their difference is paired,
and known much better than either recall. Only the highest non-lenses can set a threshold, so only those are counted: 1,000
resamples of 100,000 non-lenses take a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.metrics import CONFIDENCE, Interval, wilson
from scanner.records import Float64, Int64

RESAMPLES = 1000
#: False-positive rates at which the recall is stated.
LOW_FPRS = (1e-2, 1e-3, 1e-4)
#: A threshold that fewer false positives set is stated with a warning: the rate itself is then known to a third at best.
FEW_FALSE = 10


@dataclass(frozen=True)
class Recalls:
    """Recall of S scores at F false-positive rates.

    ``value`` (S, F) and ``resampled`` (S, F, R) float64. ``n_false`` (S, F) int64: non-lenses that pass. ``n_allowed`` (F,)
    int64: how many may; 0 where there are too few non-lenses to measure that rate at all. ``n_lenses``: of each score.
    """

    value: Float64
    resampled: Float64
    n_false: Int64
    n_allowed: Int64
    n_lenses: int

    def interval(self, score: int, rate: int) -> Interval:
        """The 95% interval of one recall, from the quantiles of its resamples."""
        low, high = np.quantile(self.resampled[score, rate], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return widened(float(self.value[score, rate]), float(low), float(high), self.n_lenses)


def widened(share: float, low: float, high: float, n: int) -> Interval:
    """The interval of a share of ``n`` objects from its resamples; where all or none passed, Wilson's end takes their place.

    Objects that all do the same do so in every resample: their spread would say that nothing is unknown.
    """
    if share in (0.0, 1.0):
        exact = wilson(round(share * n), n)
        low, high = min(low, exact.low), max(high, exact.high)
    return Interval(value=share, low=min(low, share), high=max(high, share))


def recalls_at_fpr(
    positive: NDArray[Any],
    negative: NDArray[Any],
    fprs: tuple[float, ...] = LOW_FPRS,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Recalls:
    """Recall where at most a fraction ``fprs`` of the non-lenses pass; ties are never split.

    Parameters
    ----------
    positive
        (S, P) scores of lenses, one row per score.
    negative
        (S, N) scores of non-lenses, in the same order of scores.
    fprs
        False-positive rates.
    resamples, seed
        Of the bootstrap; the same seed gives the same resamples.
    """
    lenses, others = np.atleast_2d(np.asarray(positive, np.float64)), np.atleast_2d(np.asarray(negative, np.float64))
    (n_scores, n_lenses), n_others = lenses.shape, others.shape[1]
    if not n_lenses or not n_others:
        raise ValueError("needs lenses and non-lenses")
    allowed = np.array([math.floor(fpr * n_others + 1e-9) for fpr in fprs], dtype=np.int64)
    generator = np.random.default_rng(seed)
    lens_counts = _counts(generator, n_lenses, n_lenses, n_lenses, resamples)

    # Six standard deviations beyond what may pass: no resample reaches further down.
    n_top = min(n_others, int(allowed.max() + 6 * math.sqrt(allowed.max() + 1) + 30))
    tops = [np.argsort(-row, kind="stable")[:n_top] for row in others]
    rows = np.unique(np.concatenate(tops))
    other_counts = _counts(generator, n_others, n_others, len(rows), resamples)

    value = np.empty((n_scores, len(fprs)))
    n_false = np.empty((n_scores, len(fprs)), dtype=np.int64)
    resampled = np.empty((n_scores, len(fprs), resamples))
    for number, (row, top) in enumerate(zip(others, tops, strict=True)):
        order = np.argsort(-lenses[number], kind="stable")
        falling = -lenses[number][order]
        passing = np.cumsum(other_counts[np.searchsorted(rows, top)], axis=0, dtype=np.int32)
        barriers = np.append(row[top], -np.inf) if n_top == n_others else row[top]
        for rate, most in enumerate(allowed):
            barrier = barriers[min(most, len(barriers) - 1)]
            value[number, rate] = np.searchsorted(falling, -barrier) / n_lenses
            n_false[number, rate] = int((row > barrier).sum())
            first = (passing <= most).sum(axis=0)
            found = np.searchsorted(falling, -barriers[np.minimum(first, len(barriers) - 1)])
            resampled[number, rate] = _sums(lens_counts, order, found) / n_lenses
    return Recalls(value, resampled, n_false, allowed, n_lenses)


def _sums(counts: NDArray[np.uint8], order: Int64, lengths: Int64) -> Int64:
    """For every resample (column) r the sum of ``counts[order[:lengths[r]], r]``, (R,)."""
    edges, place = np.unique(lengths, return_inverse=True)
    total = np.zeros((len(edges) + 1, counts.shape[1]), dtype=np.int32)
    before = 0
    for number, edge in enumerate(edges):
        if edge > before:
            total[number + 1] = counts[order[before:edge]].sum(axis=0, dtype=np.int32)
        before = int(edge)
    return np.cumsum(total, axis=0)[place + 1, np.arange(counts.shape[1])].astype(np.int64)


def _counts(generator: np.random.Generator, n_drawn: int, n: int, n_kept: int, resamples: int) -> NDArray[np.uint8]:
    """How often each of the first ``n_kept`` of ``n`` objects is drawn when ``n_drawn`` are, (n_kept, resamples)."""
    counts = np.empty((resamples, n_kept), dtype=np.uint8)  # nothing is drawn 256 times, on average once
    for row in counts:
        # The others are never looked at: how many draws miss them is binomial, and where the rest fall is uniform.
        hits = n_drawn if n_kept == n else generator.binomial(n_drawn, n_kept / n)
        row[:] = np.bincount(generator.integers(0, n_kept, hits, dtype=np.int32), minlength=n_kept)
    return np.ascontiguousarray(counts.T)
