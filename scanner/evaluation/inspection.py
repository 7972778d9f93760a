"""What inspecting the best N of a million objects of the sky would yield: completeness and purity.

In: scores of lenses and non-lenses, a prevalence. Out: :class:`~scanner.evaluation.results.YieldPoint` for N from ten to all.
Refused: a class without objects (``ValueError``).

At a threshold that a share R of the lenses and F of the non-lenses pass, a million objects with a prevalence π of lenses put
N = 10^6 (π R + (1 - π) F) on the list, of which a share π R 10^6 / N are lenses. Sets hold far more lenses than the sky, so
both classes are weighted. Intervals are from resamples of both classes, in which every threshold is taken anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.labelled_data import Truth
from scanner.evaluation.metrics import CONFIDENCE, Interval
from scanner.evaluation.results import Pairing, Positives, Yield, YieldPoint
from scanner.evaluation.scores import ScoredBundle, lenses
from scanner.records import Float64, Int64

MILLION = 1_000_000
INSPECTED = np.round(np.logspace(1, 6, 31))
RESAMPLES = 200


def inspect(
    positive: NDArray[Any],
    negative: NDArray[Any],
    prevalence: float,
    *,
    inspected: Float64 = INSPECTED,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[YieldPoint, ...]:
    """Completeness and purity where ``inspected`` of a million objects are looked at.

    Parameters
    ----------
    positive, negative
        (P,) and (N,) scores of lenses and of non-lenses.
    prevalence
        Share of lenses on the sky.
    inspected
        (K,) how many of a million are looked at.
    resamples, seed
        Of the bootstrap.
    """
    if not len(positive) or not len(negative):
        raise ValueError("needs lenses and non-lenses")
    values, group = np.unique(-np.concatenate([positive, negative]), return_inverse=True)
    of_lenses, of_others = group[: len(positive)], group[len(positive) :]
    found, n_false = _completeness(of_lenses, of_others, len(values), prevalence, inspected)
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, len(inspected)))
    for row in drawn:
        row[:], _ = _completeness(
            of_lenses[generator.integers(0, len(of_lenses), len(of_lenses))],
            of_others[generator.integers(0, len(of_others), len(of_others))],
            len(values),
            prevalence,
            inspected,
        )
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(drawn, tails, axis=0)
    # The number inspected is fixed, so the purity is the completeness in another unit.
    unit = MILLION * prevalence / inspected
    return tuple(
        YieldPoint(
            inspected=float(inspected[k]),
            completeness=_ordered(found[k], low[k], high[k]),
            purity=_ordered(found[k] * unit[k], low[k] * unit[k], high[k] * unit[k]),
            n_false=int(n_false[k]),
        )
        for k in range(len(inspected))
    )


def _ordered(value: float, low: float, high: float) -> Interval:
    return Interval(value=float(value), low=float(min(low, value)), high=float(max(high, value)))


def _completeness(
    of_lenses: Int64, of_others: Int64, n_values: int, prevalence: float, inspected: Float64
) -> tuple[Float64, Int64]:
    """Completeness where N are inspected, (K,), and non-lenses of the set above that place.

    Within a group of equal scores the list is in random order, so the counts grow linearly through it.
    """
    lenses = np.pad(np.cumsum(np.bincount(of_lenses, minlength=n_values)), (1, 0))
    others = np.pad(np.cumsum(np.bincount(of_others, minlength=n_values)), (1, 0))
    listed = MILLION * (prevalence * lenses / lenses[-1] + (1.0 - prevalence) * others / others[-1])
    return (
        np.interp(inspected, listed, lenses / lenses[-1]),
        np.floor(np.interp(inspected, listed, others)).astype(np.int64),
    )


def yields(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing], prevalence: float
) -> tuple[Yield, ...]:
    """What inspecting the lists of the leading scores would yield, for all lenses and for visible ones, of every pairing."""
    choices: tuple[Positives, ...] = ("visible", "all")
    found = []
    for pairing in pairings:
        for positives in choices:
            chosen = lenses(truths[pairing.lenses], positives)
            if not chosen.any():
                continue
            for scored in bundles:
                for name in scored.leading:
                    negative = scored.scores[pairing.others][name][~truths[pairing.others].is_lens]
                    found.append(
                        Yield(
                            bundle=scored.name,
                            pairing=pairing,
                            positives=positives,
                            score=name,
                            prevalence=prevalence,
                            points=inspect(scored.scores[pairing.lenses][name][chosen], negative, prevalence),
                        )
                    )
    return tuple(found)
