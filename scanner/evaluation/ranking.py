"""How well scores rank lenses above non-lenses: AUROC and recall at low false-positive rates; two bundles compared in pairs.

In: scored bundles and the truth of their sets. Out: :class:`~scanner.evaluation.ranking_results.Figures`,
:class:`~scanner.evaluation.ranking_results.Difference` and :class:`~scanner.evaluation.ranking_results.GridLoss`. Refused:
nothing; a choice without lenses or non-lenses has no figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.metrics import delong, normal_interval
from scanner.evaluation.ranking_results import Difference, Figures, GridLoss, Negatives, Pairing, Positives, Recall
from scanner.evaluation.resampling import LOW_FPRS, Recalls, recalls_at_fpr
from scanner.evaluation.scores import GRID, ScoredBundle, lenses, others
from scanner.labelled_set import Truth
from scanner.records import MEMBERS, Float64, Int64

CHOICES: tuple[tuple[Positives, Negatives], ...] = (
    ("visible", "all"),
    ("all", "all"),
    ("visible", "hard"),
    ("all", "hard"),
)


def take(
    scored: ScoredBundle,
    names: Sequence[str],
    truths: Mapping[str, Truth],
    pairing: Pairing,
    choice: tuple[Positives, Negatives],
) -> tuple[Float64, Float64]:
    """Scores of the lenses and of the non-lenses of a choice, (S, P) and (S, N)."""
    positive, negative = lenses(truths[pairing.lenses], choice[0]), others(truths[pairing.others], choice[1])
    return (
        np.stack([scored.scores[pairing.lenses][name][positive] for name in names]),
        np.stack([scored.scores[pairing.others][name][negative] for name in names]),
    )


def measure(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing]
) -> tuple[tuple[Figures, ...], tuple[Difference, ...]]:
    """Measure every score for every pairing and choice, and the first bundle against each of the others.

    Parameters
    ----------
    bundles
        The first one is compared with each of the others.
    truths
        By set.
    pairings
        What to measure against what.
    """
    figures: list[Figures] = []
    differences: list[Difference] = []
    for pairing in pairings:
        for choice in CHOICES:
            parts = [take(scored, scored.score_names, truths, pairing, choice) for scored in bundles]
            if not parts[0][0].shape[1] or not parts[0][1].shape[1]:
                continue
            # All scores of all bundles together, on the same resamples: every difference is paired.
            measured = _measure(np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts]))
            starts = np.cumsum([0, *(len(scored.score_names) for scored in bundles)])
            for scored, start in zip(bundles, starts[:-1], strict=True):
                figures += _figures(scored, pairing, choice, measured, int(start))
            for other in range(1, len(bundles)):
                differences += _differences(bundles, other, pairing, choice, measured, starts)
    return tuple(figures), tuple(differences)


def _labelled(positive: Float64, negative: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    labels = np.arange(positive.shape[-1] + negative.shape[-1]) < positive.shape[-1]
    return np.concatenate([positive, negative], axis=-1), labels


@dataclass(frozen=True)
class _Measured:
    """Figures of S scores on the same objects: recalls, AUROCs (S,) and their covariance (S, S)."""

    n_positives: int
    n_negatives: int
    recalls: Recalls
    areas: Float64
    covariance: Float64

    def area_difference(self, first: int, second: int) -> tuple[float, float]:
        """AUROC of one score minus that of another, and its standard error."""
        return _area_difference(self.areas, self.covariance, first, second)


def _area_difference(areas: Float64, covariance: Float64, first: int, second: int) -> tuple[float, float]:
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    return float(areas[first] - areas[second]), math.sqrt(max(0.0, float(variance)))


def _measure(positive: Float64, negative: Float64) -> _Measured:
    areas, covariance = delong(*_labelled(positive, negative))
    return _Measured(positive.shape[1], negative.shape[1], recalls_at_fpr(positive, negative), areas, covariance)


def _figures(
    scored: ScoredBundle, pairing: Pairing, choice: tuple[Positives, Negatives], measured: _Measured, start: int
) -> Iterator[Figures]:
    recalls = measured.recalls
    for number, name in enumerate(scored.score_names, start=start):
        error = math.sqrt(float(measured.covariance[number, number]))
        yield Figures(
            bundle=scored.name,
            pairing=pairing,
            positives=choice[0],
            negatives=choice[1],
            score=name,
            n_positives=measured.n_positives,
            n_negatives=measured.n_negatives,
            auroc=normal_interval(float(measured.areas[number]), error, low=0.0, high=1.0),
            recalls=tuple(
                Recall(
                    fpr=fpr,
                    recall=recalls.interval(number, rate) if recalls.n_allowed[rate] else None,
                    n_false=int(recalls.n_false[number, rate]) if recalls.n_allowed[rate] else 0,
                )
                for rate, fpr in enumerate(LOW_FPRS)
            ),
        )


def _differences(
    bundles: Sequence[ScoredBundle],
    other: int,
    pairing: Pairing,
    choice: tuple[Positives, Negatives],
    measured: _Measured,
    starts: Int64,
) -> Iterator[Difference]:
    new, old, recalls = bundles[0], bundles[other], measured.recalls
    names: list[tuple[str, str]] = [(member, member) for member in MEMBERS]
    names.append((new.summary.combined, old.summary.combined))
    if new.bundle.grid is not None and old.bundle.grid is not None:
        names.append((GRID, GRID))
    for name_new, name_old in names:
        i = int(starts[0]) + new.score_names.index(name_new)
        j = int(starts[other]) + old.score_names.index(name_old)
        difference, error = measured.area_difference(i, j)
        common = {
            "new": new.name,
            "old": old.name,
            "pairing": pairing,
            "positives": choice[0],
            "negatives": choice[1],
            "score_new": name_new,
            "score_old": name_old,
        }
        yield Difference.model_validate(
            common
            | {
                "fpr": None,
                "value_new": measured.areas[i],
                "value_old": measured.areas[j],
                "difference": normal_interval(difference, error),
                "error": error,
                "n_false": None,
            }
        )
        for rate, fpr in enumerate(LOW_FPRS):
            if not recalls.n_allowed[rate]:
                continue
            spread = recalls.resampled[i, rate] - recalls.resampled[j, rate]
            value = float(recalls.value[i, rate] - recalls.value[j, rate])
            low, high = np.quantile(spread, [0.025, 0.975])
            yield Difference.model_validate(
                common
                | {
                    "fpr": fpr,
                    "value_new": recalls.value[i, rate],
                    "value_old": recalls.value[j, rate],
                    "difference": {"value": value, "low": min(float(low), value), "high": max(float(high), value)},
                    "error": float(spread.std(ddof=1)),
                    "n_false": int(min(recalls.n_false[i, rate], recalls.n_false[j, rate])),
                }
            )


def grid_losses(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing]
) -> tuple[GridLoss, ...]:
    """What the grid loses against the combination of the same seven log-odds."""
    found = []
    for scored in bundles:
        if scored.bundle.grid is None:
            continue
        for pairing in pairings:
            for choice in CHOICES[:2]:
                positive, negative = take(scored, (GRID, scored.summary.combined), truths, pairing, choice)
                if not positive.shape[1] or not negative.shape[1]:
                    continue
                loss = normal_interval(*_area_difference(*delong(*_labelled(positive, negative)), 0, 1))
                # The share of pairs that the grid cannot order at all.
                counts = [np.unique(part[0], return_counts=True) for part in (positive, negative)]
                _, i, j = np.intersect1d(counts[0][0], counts[1][0], return_indices=True)
                tied = float((counts[0][1][i] / positive.shape[1] * (counts[1][1][j] / negative.shape[1])).sum())
                found.append(GridLoss(bundle=scored.name, pairing=pairing, positives=choice[0], difference=loss, tied=tied))
    return tuple(found)
