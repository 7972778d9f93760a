"""What inspecting the best N of a million objects of the sky would yield: completeness and purity.

In: scores of lenses and non-lenses, a prevalence. Out: :class:`~scanner.evaluation.ranking_results.YieldPoint` for N from
ten to all. Refused: a class without objects (``ValueError``).

At a threshold that a share R of the lenses and F of the non-lenses pass, a million objects with a prevalence π of lenses put
N = 10^6 (π R + (1 - π) F) on the list, of which a share π R 10^6 / N are lenses. Sets hold far more lenses than the sky, so
both classes are weighted. Intervals are from resamples of both classes, in which every threshold is taken anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.metrics import CONFIDENCE, Interval
from scanner.evaluation.ranking_results import Pairing, Positives, Yield, YieldPoint
from scanner.evaluation.resampling import widened
from scanner.evaluation.scores import ScoredBundle, lenses
from scanner.labelled_set import Truth
from scanner.records import Float64, Int64

MILLION = 1_000_000
INSPECTED = np.round(np.logspace(1, 6, 31))
RESAMPLES = 400
#: Non-lenses from the top that are told apart; what the list is like further down is known well enough in coarser steps.
EXACT = 1000


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
    counts = _steps(np.asarray(positive, np.float64), np.asarray(negative, np.float64))
    found, n_false = _completeness(counts[0][None], counts[1][None], prevalence, inspected)
    generator = np.random.default_rng(seed)
    drawn = [generator.multinomial(part.sum(), part / part.sum(), resamples) for part in counts]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(_completeness(drawn[0], drawn[1], prevalence, inspected)[0], tails, axis=0)
    points = []
    for k, number in enumerate(inspected):
        share = widened(float(found[0, k]), float(low[k]), float(high[k]), len(positive))
        # The number inspected is fixed, so the purity is the completeness in another unit.
        unit = MILLION * prevalence / float(number)
        points.append(
            YieldPoint(
                inspected=float(number),
                completeness=share,
                purity=Interval(value=share.value * unit, low=share.low * unit, high=min(1.0, share.high * unit)),
                n_false=int(n_false[0, k]),
            )
        )
    return tuple(points)


def _steps(positive: Float64, negative: Float64) -> tuple[Int64, Int64]:
    """Lenses and non-lenses between and at the scores of non-lenses, best first, (2 K + 1,) each.

    Every one of the first :data:`EXACT` non-lenses is a step of its own; further down, a step is a per cent of the list above.
    """
    falling = np.sort(negative)[::-1]
    ranks = np.unique(np.round(np.geomspace(EXACT, max(EXACT, len(falling)), 400)).astype(np.int64))
    ranks = np.concatenate([np.arange(EXACT), ranks])
    barriers = np.unique(-falling[ranks[ranks < len(falling)]])
    counts = []
    for values in (positive, negative):
        place = np.searchsorted(barriers, -values, side="left") + np.searchsorted(barriers, -values, side="right")
        counts.append(np.bincount(place, minlength=2 * len(barriers) + 1).astype(np.int64))
    return counts[0], counts[1]


def _completeness(lenses: Int64, others: Int64, prevalence: float, inspected: Float64) -> tuple[Float64, Int64]:
    """Completeness where K are inspected, (R, K), and non-lenses of the set above that place, for R draws of steps.

    Within a step the list is in random order, so the counts grow linearly through it.
    """
    found = np.empty((len(lenses), len(inspected)))
    n_false = np.empty(found.shape, dtype=np.int64)
    for row, (true, false) in enumerate(zip(np.cumsum(lenses, axis=1), np.cumsum(others, axis=1), strict=True)):
        true, false = np.append(0, true), np.append(0, false)
        listed = MILLION * (prevalence * true / true[-1] + (1.0 - prevalence) * false / false[-1])
        found[row] = np.interp(inspected, listed, true / true[-1])
        n_false[row] = np.floor(np.interp(inspected, listed, false))
    return found, n_false


def yields(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing], prevalence: float
) -> tuple[Yield, ...]:
    """What inspecting the lists of the combinations would yield, for all lenses and for visible ones, of every pairing."""
    choices: tuple[Positives, ...] = ("visible", "all")
    found = []
    for pairing in pairings:
        for positives in choices:
            chosen = lenses(truths[pairing.lenses], positives)
            if not chosen.any():
                continue
            for scored in bundles:
                negative = scored.combined[pairing.others][~truths[pairing.others].is_lens]
                found.append(
                    Yield(
                        bundle=scored.name,
                        pairing=pairing,
                        positives=positives,
                        points=inspect(scored.combined[pairing.lenses][chosen], negative, prevalence),
                    )
                )
    return tuple(found)
