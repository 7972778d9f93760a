"""How far graders agree beyond chance: the kappas of Cohen and of Fleiss, with 95% intervals.

In: counts. Out: :class:`Estimate`, or None where a kappa is undefined: nothing to compare, or all grades the same, so that
agreement by chance alone is already complete. Refused: nothing.

Cohen (1960, 1968) compares two graders; its large-sample error is that of Fleiss, Cohen & Everitt (1969). Weights count how far
apart two grades are: 1 on the diagonal, and with ``linear`` weights A against B is half as bad as A against C. Fleiss (1971) is
for any number of graders; here objects may have different numbers of them, from two on: the agreement of an object is the share
of its pairs of graders who agree, objects count equally, and the shares of the grades are those of all grades given. Its
interval is from resampled objects.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.stats import norm

from scanner.records import Float64, Int64, Record

CONFIDENCE = 0.95
RESAMPLES = 2000
Weights = Literal["none", "linear"]
#: Shares are counted in float64: closer to complete chance agreement than this is complete.
_NOTHING = 1e-12


class Estimate(Record):
    """A kappa and its 95% interval: 1 complete agreement, 0 what chance gives, less than 0 fewer than by chance."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def agreement_weights(n_grades: int, weights: Weights) -> Float64:
    """How much two grades agree, (K, K): 1 where they are the same, and with linear weights less the farther they are apart."""
    if weights == "none":
        return np.eye(n_grades)
    place = np.arange(n_grades)
    return np.asarray(1.0 - np.abs(place[:, None] - place) / max(1, n_grades - 1))


def cohen(table: Int64, weights: Weights = "none") -> Estimate | None:
    """Cohen's kappa of two graders.

    Parameters
    ----------
    table
        (K, K) objects that the first grader gave the row's grade and the second the column's.
    weights
        ``linear``: near misses count in part.
    """
    n = int(table.sum())
    if n == 0:
        return None
    weight = agreement_weights(len(table), weights)
    share = table / n
    first, second = share.sum(axis=1), share.sum(axis=0)
    observed, chance = float((weight * share).sum()), float(first @ weight @ second)
    if 1.0 - chance < _NOTHING:
        return None
    kappa = (observed - chance) / (1.0 - chance)
    # Fleiss, Cohen & Everitt (1969), equation 13.
    mean = (weight @ second)[:, None] + (first @ weight)[None, :]
    spread = float((share * (weight - mean * (1.0 - kappa)) ** 2).sum()) - (kappa - chance * (1.0 - kappa)) ** 2
    half = float(norm.ppf(0.5 + CONFIDENCE / 2)) * np.sqrt(max(0.0, spread) / n) / (1.0 - chance)
    return Estimate(value=kappa, low=max(-1.0, kappa - half), high=min(1.0, kappa + half))


def fleiss(votes: Int64, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate | None:
    """Fleiss' kappa of any number of graders.

    Parameters
    ----------
    votes
        (N, K) graders who gave each of N objects each of K grades; objects with fewer than two graders do not count.
    resamples, seed
        Of the bootstrap over objects. Draws in which all grades are the same are left out.
    """
    counted = votes[votes.sum(axis=1) >= 2]
    if not len(counted):
        return None
    n_graders = counted.sum(axis=1)
    agreeing = (counted * (counted - 1)).sum(axis=1) / (n_graders * (n_graders - 1))
    value = _fleiss(np.ones((1, len(counted))), agreeing, counted)[0]
    if not np.isfinite(value):
        return None
    generator = np.random.default_rng(seed)
    drawn: list[Float64] = []
    for _ in range(0, resamples, 100):  # 100 draws at a time: an object is one number in each
        times = generator.multinomial(len(counted), np.full(len(counted), 1.0 / len(counted)), 100)
        drawn.append(_fleiss(times, agreeing, counted))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.nanquantile(np.concatenate(drawn), tails)
    return Estimate(value=float(value), low=min(float(low), float(value)), high=max(float(high), float(value)))


def _fleiss(times: Float64 | Int64, agreeing: Float64, votes: Int64) -> Float64:
    """Kappas, (R,), where each object counts ``times`` (R, N); NaN where all grades are the same."""
    observed = times @ agreeing / times.sum(axis=1)
    of_grade = times @ votes
    chance = ((of_grade / of_grade.sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    possible = 1.0 - chance
    return np.asarray(np.divide(observed - chance, possible, out=np.full(len(possible), np.nan), where=possible > _NOTHING))
