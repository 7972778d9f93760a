"""Whether calibrated probabilities are true: reliability and expected calibration error, at any prevalence of lenses.

In: calibrated log-odds at a prevalence, labels. Out: :class:`~scanner.evaluation.results.Reliability`. Refused: labels of one
class only (``ValueError``).

A set is brought to a prevalence by weighting its classes. At its own, bins hold equal numbers of objects; at the sky's, where
nearly every object is a certain non-lens and candidates span decades, bins are half decades of the odds. Intervals resample the
objects of each class among the bins. The error of a perfect calibration is not zero but that of counting: with 2,000 objects
in 12 bins about 0.02.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.evaluation.labelled_data import Truth
from scanner.evaluation.metrics import CONFIDENCE, Interval
from scanner.evaluation.results import Reliability, ReliabilityBin
from scanner.evaluation.scores import ScoredBundle
from scanner.records import Float64

EQUAL_BINS = 12
#: Natural log-odds of half decades of the odds, down to one in ten million.
DECADES = np.arange(-7, 3.01, 0.5) * np.log(10.0)
RESAMPLES = 1000


def reliability(
    bundle: str,
    set_name: str,
    log_odds: Float64,
    is_lens: NDArray[np.bool_],
    prevalence: float,
    *,
    at_sky: bool,
    seed: int = 0,
) -> Reliability:
    """Measure calibrated log-odds that are stated for ``prevalence``.

    Parameters
    ----------
    bundle, set_name
        To be quoted.
    log_odds
        (N,) natural log-odds at ``prevalence``.
    is_lens
        (N,) bool.
    prevalence, at_sky
        Share of lenses, and whether it is the sky's, which decides on the bins.
    seed
        Of the resamples.
    """
    n_lenses, n_others = int(is_lens.sum()), int((~is_lens).sum())
    if not n_lenses or not n_others:
        raise ValueError("needs lenses and non-lenses")
    edges = DECADES if at_sky else np.unique(np.quantile(log_odds, np.arange(1, EQUAL_BINS) / EQUAL_BINS))
    cell = np.searchsorted(edges, log_odds, side="right")
    size = len(edges) + 1
    counts = [np.bincount(cell[labels], minlength=size) for labels in (is_lens, ~is_lens)]
    probability = sigmoid(log_odds)
    weight = np.where(is_lens, prevalence / n_lenses, (1.0 - prevalence) / n_others)
    mass = np.bincount(cell, weights=weight, minlength=size)
    predicted = np.bincount(cell, weights=weight * probability, minlength=size) / np.where(mass > 0, mass, 1.0)

    generator = np.random.default_rng(seed)
    drawn = [
        generator.multinomial(total, part / total, RESAMPLES) for total, part in zip((n_lenses, n_others), counts, strict=True)
    ]
    observed, ece, in_decades = _errors(counts[0][None], counts[1][None], predicted, prevalence)
    observed_drawn, ece_drawn, in_decades_drawn = _errors(drawn[0], drawn[1], predicted, prevalence)
    used = np.flatnonzero(counts[0] + counts[1])
    low, high = np.nanquantile(observed_drawn[:, used], _TAILS, axis=0)
    return Reliability(
        bundle=bundle,
        set=set_name,
        prevalence=prevalence,
        at_sky=at_sky,
        bins=tuple(
            ReliabilityBin(
                predicted=float(predicted[b]),
                observed=_ordered(observed[0, b], low[k], high[k]),
                n=int(counts[0][b] + counts[1][b]),
            )
            for k, b in enumerate(used)
        ),
        ece=_interval(ece, ece_drawn),
        ece_lenses=_interval(in_decades, in_decades_drawn),
    )


_TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def _interval(value: Float64, drawn: Float64) -> Interval:
    low, high = np.quantile(drawn, _TAILS)
    return _ordered(value[0], low, high)


def _ordered(value: np.float64, low: np.float64, high: np.float64) -> Interval:
    return Interval(value=float(value), low=float(min(low, value)), high=float(max(high, value)))


def _errors(
    lenses: NDArray[np.int64], others: NDArray[np.int64], predicted: Float64, prevalence: float
) -> tuple[Float64, Float64, Float64]:
    """Share of lenses (R, B) at ``prevalence`` (NaN where a bin is empty), ECE (R,), and that in decades where lenses are."""
    true = prevalence * lenses / lenses.sum(axis=1, keepdims=True)
    false = (1.0 - prevalence) * others / others.sum(axis=1, keepdims=True)
    mass = true + false
    observed = np.divide(true, mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    ece = np.nansum(mass * np.abs(observed - predicted), axis=1)
    # Bins without lenses weigh nothing; 1 stands in for their logarithm.
    decades = np.abs(np.log10(np.where(predicted > 0, predicted, 1.0)) - np.log10(np.where(true > 0, observed, 1.0)))
    return observed, ece, np.sum(true * decades, axis=1) / prevalence


def reliabilities(bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], prevalence: float) -> tuple[Reliability, ...]:
    """Measure every calibrated bundle on every set with both classes, at the set's prevalence and at the sky's."""
    found = []
    for scored in bundles:
        calibration = scored.bundle.calibration
        if not isinstance(calibration, Calibration):
            continue
        for name, truth in truths.items():
            if truth.is_lens.all() or not truth.is_lens.any():
                continue
            for at_sky, share in ((False, float(truth.is_lens.mean())), (True, prevalence)):
                log_odds = calibration.log_odds(scored.logits[name], share)
                found.append(reliability(scored.name, name, log_odds, truth.is_lens, share, at_sky=at_sky))
    return tuple(found)
