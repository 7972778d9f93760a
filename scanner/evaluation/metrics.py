"""Figures of merit of a score against labels, with their 95% intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.interval import Interval, normal_interval, resampled_interval, wilson_interval
from scanner.records import Float64, Int64

RESAMPLES = 1000
#: False-positive rates at which the recall is stated.
LOW_FPRS = (1e-2, 1e-3, 1e-4)
#: A threshold that fewer false positives set is stated with a warning: the rate itself is then known to a third at best.
FEW_FALSE = 10


def _parts(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    values, chosen = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if chosen.all() or not chosen.any():
        raise ValueError("needs objects of both classes")
    return values[chosen], values[~chosen]


def auroc(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a lens scores above a non-lens, ties counting half.

    Parameters
    ----------
    scores, labels
        (N,) real and (N,) bool.

    Raises
    ------
    ValueError
        The labels are all of one class.
    """
    return float(_share_below(*_parts(scores, labels)).mean())


def roc_curve(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """False-positive rate and recall at every score that occurs, highest first, from (0, 0) to (1, 1); ties are one step."""
    positive, negative = _parts(scores, labels)
    falling = np.unique(-np.concatenate([positive, negative]))
    above = [np.searchsorted(np.sort(-part), falling, side="right") for part in (negative, positive)]
    fpr, recall = (np.append(0.0, counts / len(part)) for counts, part in zip(above, (negative, positive), strict=True))
    return fpr, recall


def delong(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """AUROCs of several scores of the same objects, and how they vary together (DeLong, DeLong & Clarke-Pearson 1988).

    The covariance is what makes the difference of two AUROCs on the same objects much better known than either.

    Parameters
    ----------
    scores
        (S, N) real; higher is more lens-like.
    labels
        (N,) bool.

    Returns
    -------
    tuple of numpy.ndarray
        (S,) AUROCs and their (S, S) covariance, float64; a class with one object adds no variance of its own.

    Raises
    ------
    ValueError
        The labels are all of one class.
    """
    rows = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    above, below = [], []
    for row in rows:
        positive, negative = _parts(row, labels)
        above.append(_share_below(positive, negative))
        below.append(1.0 - _share_below(negative, positive))
    covariance = np.zeros((len(above), len(above)))
    for parts in (above, below):
        if len(parts[0]) > 1:
            covariance += np.atleast_2d(np.cov(parts)) / len(parts[0])
    return np.mean(above, axis=1), covariance


def _share_below(values: Float64, others: Float64) -> Float64:
    """Share of ``others`` that lies below each value, equals counting half."""
    rising = np.sort(others)
    counts = np.searchsorted(rising, values, side="left") + np.searchsorted(rising, values, side="right")
    return np.asarray(counts / (2 * len(others)))


def auroc_interval(scores: NDArray[Any], labels: NDArray[np.bool_]) -> Interval:
    """AUROC with the interval of :func:`delong`; where one class stands wholly above the other, of Wilson for the smaller one.

    Objects that all do the same have no variance: three lenses above all others would be known to be perfect.
    """
    values, covariance = delong(scores, labels)
    value, fewest = float(values[0]), int(min(labels.sum(), (~labels).sum()))
    if value in (0.0, 1.0):
        return wilson_interval(round(value * fewest), fewest)
    return normal_interval(value, math.sqrt(covariance[0, 0]), low=0.0, high=1.0)


def threshold_at_fpr(negative: NDArray[Any], fpr: float) -> float:
    """Lowest threshold t such that at most a fraction ``fpr`` of the negatives score t or more.

    Ties are not split: negatives that tie with the first one too many are all below the threshold.
    """
    ordered = np.sort(np.asarray(negative, dtype=np.float64))[::-1]
    allowed = math.floor(fpr * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return -math.inf
    return float(np.nextafter(ordered[allowed], math.inf))


def purity(recall: NDArray[Any] | float, fpr: NDArray[Any] | float, prevalence: float) -> Any:
    """Fraction of the objects above a threshold that are lenses, where a fraction ``prevalence`` of all objects are.

    NaN where nothing passes; a number, or an array where one of the rates is one.
    """
    true, false = np.asarray(recall) * prevalence, np.asarray(fpr) * (1.0 - prevalence)
    passing = np.asarray(true + false)
    return np.divide(true, passing, out=np.full(passing.shape, np.nan), where=passing > 0)[()]


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
        """One recall with its interval."""
        return share_interval(float(self.value[score, rate]), self.resampled[score, rate], self.n_lenses)


def share_interval(share: float, resamples: Float64, n: int) -> Interval:
    """A share of ``n`` objects with the interval of its resamples (R,), or of Wilson where all or none are counted.

    Objects that all do the same do so in every resample: their spread would say that nothing is unknown.
    """
    found = resampled_interval(share, resamples)
    if share not in (0.0, 1.0):
        return found
    exact = wilson_interval(round(share * n), n)
    return Interval(value=share, low=min(found.low, exact.low), high=max(found.high, exact.high))


def recalls_at_fpr(
    positive: NDArray[Any],
    negative: NDArray[Any],
    fprs: tuple[float, ...] = LOW_FPRS,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Recalls:
    """Recall where at most a fraction ``fprs`` of the non-lenses pass, with bootstrap intervals; ties are never split.

    A finder of rare objects works where few non-lenses pass, so its threshold rests on few objects. Lenses and non-lenses are
    resampled separately, and the threshold is taken anew each time. All scores see the same resamples: their difference is
    paired, and known much better than either recall. Only the highest non-lenses can set a threshold, so only those are
    counted: 1,000 resamples of 100,000 non-lenses take a second.

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

    Raises
    ------
    ValueError
        There are no lenses, or no non-lenses.
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
        # The others are never needed: how many draws miss them is binomial, and where the rest fall is uniform.
        hits = n_drawn if n_kept == n else generator.binomial(n_drawn, n_kept / n)
        row[:] = np.bincount(generator.integers(0, n_kept, hits, dtype=np.int32), minlength=n_kept)
    return np.ascontiguousarray(counts.T)
