"""Figures of merit of a score against labels, with their intervals.

In: scores (N,) and labels (N,) bool. Out: numbers and :class:`Interval`. Refused: labels of one class only (``ValueError``).

Recalls at low false-positive rates, whose thresholds are uncertain too, are in :mod:`scanner.evaluation.resampling`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from scanner.records import Float64, Record

CONFIDENCE = 0.95


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
    return float(_share_below(*_parts(scores, labels)).mean())


def roc_curve(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """False-positive rate and recall at every score that occurs, highest first, from (0, 0) to (1, 1); ties are one step."""
    positive, negative = _parts(scores, labels)
    falling = np.unique(-np.concatenate([positive, negative]))
    above = [np.searchsorted(np.sort(-part), falling, side="right") for part in (negative, positive)]
    fpr, recall = (np.append(0.0, counts / len(part)) for counts, part in zip(above, (negative, positive), strict=True))
    return fpr, recall


def delong(scores: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """AUROCs of several scores of the same objects, and how they vary together.

    DeLong, DeLong & Clarke-Pearson (1988). The covariance is what makes the difference of two
    AUROCs on the same objects much better known than either.

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
    """AUROC with the interval of :func:`delong`."""
    values, covariance = delong(scores, labels)
    return normal_interval(float(values[0]), math.sqrt(covariance[0, 0]), low=0.0, high=1.0)


def normal_interval(
    value: float, error: float, confidence: float = CONFIDENCE, *, low: float = -math.inf, high: float = math.inf
) -> Interval:
    """The interval of a normal distribution of standard deviation ``error``, cut at ``low`` and ``high``."""
    half = float(norm.ppf(0.5 + confidence / 2)) * error
    return Interval(value=value, low=max(low, value - half), high=min(high, value + half))


def threshold_at_fpr(negative: NDArray[Any], fpr: float) -> float:
    """Lowest threshold t such that at most a fraction ``fpr`` of the negatives score t or more.

    Ties are not split: negatives that tie with the first one too many are all below the threshold.
    """
    ordered = np.sort(np.asarray(negative, dtype=np.float64))[::-1]
    allowed = math.floor(fpr * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return -math.inf
    return float(np.nextafter(ordered[allowed], math.inf))


def wilson(successes: int, n: int) -> Interval:
    """Fraction ``successes / n`` with the interval of Wilson (1927); 0 to 1 where ``n`` is 0."""
    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0)
    z = float(norm.ppf(0.5 + CONFIDENCE / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and 1 rounding may put an end on the wrong side of the share.
    return Interval(value=share, low=max(0.0, min(share, centre - half)), high=min(1.0, max(share, centre + half)))


def purity(recall: NDArray[Any] | float, fpr: NDArray[Any] | float, prevalence: float) -> Any:
    """Fraction of the objects above a threshold that are lenses, where a fraction ``prevalence`` of all objects are.

    NaN where nothing passes; a number, or an array where one of the rates is one.
    """
    true, false = np.asarray(recall) * prevalence, np.asarray(fpr) * (1.0 - prevalence)
    passing = np.asarray(true + false)
    return np.divide(true, passing, out=np.full(passing.shape, np.nan), where=passing > 0)[()]
