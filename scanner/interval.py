"""A measured value with its 95% interval: of shares, of normal errors, of resamples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.records import Record

CONFIDENCE = 0.95
#: Quantiles of resamples between which the interval lies.
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


class Interval(Record):
    """A measured value and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson_interval(successes: float, n: float) -> Interval:
    """Share ``successes / n`` with the interval of Wilson (1927); NaN within 0 and 1 where ``n`` is 0.

    Numbers that are not whole are those of as many independent trials as would say as much.
    """
    # Half a second to import, which --help should not wait for.
    from scipy.special import ndtri

    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0)
    share, z2 = successes / n, float(ndtri(TAILS[1])) ** 2
    middle = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (share * (1 - share) * n + z2 / 4)) / (n + z2)
    # Rounding leaves neither end beyond what is possible, nor short of it.
    return Interval(
        value=share, low=max(0.0, middle - half) if successes else 0.0, high=min(1.0, middle + half) if successes < n else 1.0
    )


def exact_interval(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Share ``successes / n`` with the exact interval of Clopper and Pearson (1934); NaN within 0 and 1 where ``n`` is 0."""
    from scipy.stats import binomtest

    if n == 0:
        return Interval(value=math.nan, low=0.0, high=1.0)
    ends = binomtest(successes, n).proportion_ci(confidence, "exact")
    return Interval(value=successes / n, low=float(ends.low), high=float(ends.high))


def normal_interval(
    value: float, error: float, confidence: float = CONFIDENCE, *, low: float = -math.inf, high: float = math.inf
) -> Interval:
    """A value with a normal error of standard deviation ``error``; the interval is cut at ``low`` and ``high``."""
    from scipy.special import ndtri

    half = float(ndtri(0.5 + confidence / 2)) * error
    return Interval(value=value, low=max(low, value - half), high=min(high, value + half))


def resampled_interval(value: float, resamples: NDArray[Any]) -> Interval:
    """A value with the quantiles of its resamples (R,), widened where needed to hold the value itself."""
    low, high = np.quantile(resamples, TAILS)
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))
