"""Whether calibrated probabilities are true: reliability and expected calibration error, at any prevalence of lenses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.evaluation.results import Pairing, Reliability, ReliabilityBin
from scanner.evaluation.scores import ScoredBundle
from scanner.interval import Interval, resampled_interval
from scanner.labelled_set import Truth
from scanner.records import Float64

EQUAL_BINS = 12
#: Natural log-odds of half decades of the odds, down to one in ten million.
DECADES = np.arange(-7, 3.01, 0.5) * np.log(10.0)
RESAMPLES = 1000


def reliability(
    bundle: str,
    pairing: Pairing,
    lenses: Float64,
    others: Float64,
    prevalence: float,
    *,
    at_sky: bool,
    seed: int = 0,
) -> Reliability:
    """Measure calibrated log-odds that are stated for ``prevalence``.

    A set is brought to a prevalence by weighting its classes. At its own, bins hold equal numbers of objects; at the sky's,
    where nearly every object is a certain non-lens and candidates span decades, bins are half decades of the odds. Intervals
    resample the objects of each class among the bins. The error of a perfect calibration is not zero but that of counting: with
    2,000 objects in 12 bins about 0.02.

    Parameters
    ----------
    bundle, pairing
        To be quoted.
    lenses, others
        (P,) and (N,) natural log-odds at ``prevalence`` of lenses and of non-lenses.
    prevalence, at_sky
        Share of lenses, and whether it is the sky's, which decides on the bins.
    seed
        Of the resamples.

    Raises
    ------
    ValueError
        There are no lenses, or no non-lenses.
    """
    if not len(lenses) or not len(others):
        raise ValueError("needs lenses and non-lenses")
    together = np.concatenate([lenses, others])
    edges = DECADES if at_sky else np.unique(np.quantile(together, np.arange(1, EQUAL_BINS) / EQUAL_BINS))
    size = len(edges) + 1
    predicted_mass, mass, counts = np.zeros(size), np.zeros(size), []
    for values, share in ((lenses, prevalence), (others, 1.0 - prevalence)):
        cell = np.searchsorted(edges, values, side="right")
        counts.append(np.bincount(cell, minlength=size))
        mass += counts[-1] * (share / len(values))
        predicted_mass += np.bincount(cell, weights=sigmoid(values), minlength=size) * (share / len(values))
    predicted = predicted_mass / np.where(mass > 0, mass, 1.0)

    generator = np.random.default_rng(seed)
    drawn = [generator.multinomial(part.sum(), part / part.sum(), RESAMPLES) for part in counts]
    observed, ece, in_decades = _errors(counts[0][None], counts[1][None], predicted, prevalence)
    observed_drawn, ece_drawn, in_decades_drawn = _errors(drawn[0], drawn[1], predicted, prevalence)
    used = np.flatnonzero(counts[0] + counts[1])
    return Reliability(
        bundle=bundle,
        pairing=pairing,
        prevalence=prevalence,
        at_sky=at_sky,
        bins=tuple(
            ReliabilityBin(
                predicted=float(predicted[b]),
                observed=resampled_interval(float(observed[0, b]), observed_drawn[~np.isnan(observed_drawn[:, b]), b]),
                n_lenses=int(counts[0][b]),
                n_others=int(counts[1][b]),
            )
            for b in used
        ),
        ece=_unbiased(ece, ece_drawn),
        ece_lenses=_unbiased(in_decades, in_decades_drawn),
        measured=float(counts[0][counts[1] > 0].sum() / len(lenses)),
    )


def _unbiased(value: Float64, drawn: Float64) -> Interval:
    """An error only grows by being resampled: what it grows by on average is taken off its quantiles."""
    found = resampled_interval(float(value[0]), drawn - (drawn.mean() - value[0]))
    return found.model_copy(update={"low": max(found.low, 0.0)})


def _errors(
    lenses: NDArray[np.int64], others: NDArray[np.int64], predicted: Float64, prevalence: float
) -> tuple[Float64, Float64, Float64]:
    """Share of lenses (R, B) at ``prevalence`` (NaN where a bin is empty), ECE (R,), and that in decades where lenses are."""
    true = prevalence * lenses / lenses.sum(axis=1, keepdims=True)
    false = (1.0 - prevalence) * others / others.sum(axis=1, keepdims=True)
    mass = true + false
    observed = np.divide(true, mass, out=np.full(mass.shape, np.nan), where=mass > 0)
    ece = np.nansum(mass * np.abs(observed - predicted), axis=1)
    # Where there is no lens, or no non-lens to say how many there are on the sky, nothing is known of the share's decade.
    known = (true > 0) & (false > 0)
    decades = np.abs(np.log10(np.where(known, predicted, 1.0)) - np.log10(np.where(known, observed, 1.0)))
    weight = np.where(known, true, 0.0)
    return observed, ece, np.sum(weight * decades, axis=1) / np.maximum(weight.sum(axis=1), 1e-300)


def reliabilities(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing], prevalence: float
) -> tuple[Reliability, ...]:
    """Measure every calibrated bundle: sets with both classes at their own prevalence, every pairing at the sky's.

    Parameters
    ----------
    bundles, truths
        The truths by set.
    pairings
        Those whose non-lenses may stand for the sky.
    prevalence
        Of lenses on the sky.
    """
    own = [Pairing(lenses=name, others=name) for name, t in truths.items() if t.is_lens.any() and not t.is_lens.all()]
    wanted = [(pairing, float(truths[pairing.lenses].is_lens.mean()), False) for pairing in own]
    wanted += [(pairing, prevalence, True) for pairing in pairings]
    found = []
    for scored in bundles:
        calibration = scored.bundle.calibration
        if isinstance(calibration, Calibration):
            for pairing, share, at_sky in wanted:
                lenses = scored.logits[pairing.lenses][truths[pairing.lenses].is_lens]
                others = scored.logits[pairing.others][~truths[pairing.others].is_lens]
                odds = calibration.log_odds(lenses, share), calibration.log_odds(others, share)
                found.append(reliability(scored.name, pairing, *odds, share, at_sky=at_sky))
    return tuple(found)
