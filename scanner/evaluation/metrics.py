"""Figures of merit of a score against labels, with their intervals.

In: scores (N,) and labels (N,) bool. Out: numbers and :class:`Interval`. Refused: labels of one class only (``ValueError``).

A finder of rare objects is judged at a low false-positive rate, so the recall there comes with an interval that includes the
uncertainty of the threshold: few negatives lie above it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from scanner.records import Float64, Record

CONFIDENCE = 0.95
RESAMPLES = 400


class Interval(Record):
    """A measured value and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def _parts(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    values, chosen = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if chosen.all() or not chosen.any():
        raise ValueError("needs objects of both classes")
    return values[chosen], values[~chosen]


def auroc(scores: NDArray[Any], labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: the chance that a lens scores above a non-lens, ties counting half."""
    positive, negative = _parts(scores, labels)
    ranks = rankdata(np.concatenate([positive, negative]))
    n = len(positive)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * len(negative)))


def auroc_interval(scores: NDArray[Any], labels: NDArray[np.bool_]) -> Interval:
    """AUROC with the interval of DeLong, DeLong & Clarke-Pearson (1988), from mid-ranks (Sun & Xu 2014)."""
    positive, negative = _parts(scores, labels)
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n
    below = 1.0 - (ranks[m:] - rankdata(negative)) / m
    value = float(above.mean())
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance)
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def threshold_at_fpr(negative: NDArray[Any], fpr: float) -> float:
    """Lowest threshold t such that at most a fraction ``fpr`` of the negatives score t or more.

    Ties are not split: negatives that tie with the first one too many are all below the threshold.
    """
    ordered = np.sort(np.asarray(negative, dtype=np.float64))[::-1]
    allowed = math.floor(fpr * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return -math.inf
    return float(np.nextafter(ordered[allowed], math.inf))


def recall_at_fpr(scores: NDArray[Any], labels: NDArray[np.bool_], fpr: float, *, seed: int = 0) -> Interval:
    """Recall at the threshold where a fraction ``fpr`` of the negatives pass, with a bootstrap interval.

    Lenses and non-lenses are resampled separately (:data:`RESAMPLES` times, seeded), the threshold taken anew each time.
    """
    positive, negative = _parts(scores, labels)
    value = float(np.mean(positive >= threshold_at_fpr(negative, fpr)))
    generator = np.random.default_rng(seed)
    recalls = np.empty(RESAMPLES)
    ordered = np.sort(positive)
    for number in range(RESAMPLES):
        threshold = threshold_at_fpr(generator.choice(negative, len(negative)), fpr)
        drawn = generator.integers(0, len(positive), len(positive))
        recalls[number] = np.mean(drawn >= np.searchsorted(ordered, threshold))
    low, high = np.quantile(recalls, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def wilson(successes: int, n: int) -> Interval:
    """Fraction ``successes / n`` with the interval of Wilson (1927); 0 to 1 where ``n`` is 0."""
    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0)
    z = float(norm.ppf(0.5 + CONFIDENCE / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Interval(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def purity(recall: float, fpr: float, prevalence: float) -> float:
    """Fraction of the objects above a threshold that are lenses, where a fraction ``prevalence`` of all objects are.

    NaN where nothing passes.
    """
    lenses, others = recall * prevalence, fpr * (1.0 - prevalence)
    return lenses / (lenses + others) if lenses + others > 0 else math.nan
