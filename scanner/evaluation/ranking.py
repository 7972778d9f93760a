"""How well scores rank lenses above non-lenses: AUROC and recall at low false-positive rates; two bundles compared in pairs.

In: scored bundles and the truth of their sets. Out: :class:`~scanner.evaluation.results.Figures`,
:class:`~scanner.evaluation.results.Difference` and :class:`~scanner.evaluation.results.GridLoss`. Refused: nothing; a choice
without lenses or non-lenses has no figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.labelled_data import Truth
from scanner.evaluation.metrics import auroc_interval, delong, normal_interval
from scanner.evaluation.resampling import LOW_FPRS, Recalls, recalls_at_fpr
from scanner.evaluation.results import Difference, Figures, GridLoss, Negatives, Pairing, Positives, Recall
from scanner.evaluation.scores import GRID, RANKING, ScoredBundle, lenses, others
from scanner.records import MEMBERS, Float64

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
            # All scores of all bundles on the same resamples: every difference is paired.
            recalls = recalls_at_fpr(np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts]))
            start = 0
            starts = []
            for scored, (positive, negative) in zip(bundles, parts, strict=True):
                figures += _figures(scored, pairing, choice, positive, negative, recalls, start)
                starts.append(start)
                start += len(positive)
            for other in range(1, len(bundles)):
                differences += _differences(bundles, other, pairing, choice, parts, recalls, starts)
    return tuple(figures), tuple(differences)


def _labelled(positive: Float64, negative: Float64) -> tuple[Float64, NDArray[np.bool_]]:
    labels = np.arange(positive.shape[-1] + negative.shape[-1]) < positive.shape[-1]
    return np.concatenate([positive, negative], axis=-1), labels


def _figures(
    scored: ScoredBundle,
    pairing: Pairing,
    choice: tuple[Positives, Negatives],
    positive: Float64,
    negative: Float64,
    recalls: Recalls,
    start: int,
) -> Iterator[Figures]:
    for number, name in enumerate(scored.score_names):
        yield Figures(
            bundle=scored.name,
            pairing=pairing,
            positives=choice[0],
            negatives=choice[1],
            score=name,
            n_positives=positive.shape[1],
            n_negatives=negative.shape[1],
            auroc=auroc_interval(*_labelled(positive[number], negative[number])),
            recalls=tuple(
                Recall(
                    fpr=fpr,
                    recall=recalls.interval(start + number, rate) if recalls.n_allowed[rate] else None,
                    n_false=int(recalls.n_false[start + number, rate]) if recalls.n_allowed[rate] else 0,
                )
                for rate, fpr in enumerate(LOW_FPRS)
            ),
        )


def _differences(
    bundles: Sequence[ScoredBundle],
    other: int,
    pairing: Pairing,
    choice: tuple[Positives, Negatives],
    parts: Sequence[tuple[Float64, Float64]],
    recalls: Recalls,
    starts: Sequence[int],
) -> Iterator[Difference]:
    new, old = bundles[0], bundles[other]
    names: list[tuple[str, str]] = [(member, member) for member in MEMBERS]
    names += [(new.summary.combined, old.summary.combined), (new.ranking, old.ranking)]
    for name_new, name_old in dict.fromkeys(names):
        a, b = new.score_names.index(name_new), old.score_names.index(name_old)
        both = [np.stack([parts[0][side][a], parts[other][side][b]]) for side in (0, 1)]
        values, covariance = delong(*_labelled(both[0], both[1]))
        error = math.sqrt(max(0.0, covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]))
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
                "metric": "auroc",
                "fpr": None,
                "value_new": values[0],
                "value_old": values[1],
                "difference": normal_interval(float(values[0] - values[1]), error),
                "error": error,
                "n_false": None,
            }
        )
        for rate, fpr in enumerate(LOW_FPRS):
            if not recalls.n_allowed[rate]:
                continue
            i, j = starts[0] + a, starts[other] + b
            spread = recalls.resampled[i, rate] - recalls.resampled[j, rate]
            value = float(recalls.value[i, rate] - recalls.value[j, rate])
            low, high = np.quantile(spread, [0.025, 0.975])
            yield Difference.model_validate(
                common
                | {
                    "metric": "recall",
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
    """What the grid loses against the combination of the same seven log-odds, and what its ranking wins back."""
    found = []
    for scored in bundles:
        if scored.bundle.grid is None:
            continue
        for pairing in pairings:
            for choice in CHOICES[:2]:
                positive, negative = take(scored, (GRID, RANKING, scored.summary.combined), truths, pairing, choice)
                if not positive.shape[1] or not negative.shape[1]:
                    continue
                values, covariance = delong(*_labelled(positive, negative))
                losses = []
                for row in (0, 1):
                    error = math.sqrt(max(0.0, covariance[row, row] + covariance[2, 2] - 2 * covariance[row, 2]))
                    losses.append(normal_interval(float(values[row] - values[2]), error))
                # The share of pairs that the grid cannot order at all.
                counts = [np.unique(part[0], return_counts=True) for part in (positive, negative)]
                _, i, j = np.intersect1d(counts[0][0], counts[1][0], return_indices=True)
                tied = float((counts[0][1][i] / positive.shape[1] * (counts[1][1][j] / negative.shape[1])).sum())
                found.append(
                    GridLoss(
                        bundle=scored.name, pairing=pairing, positives=choice[0], grid=losses[0], ranking=losses[1], tied=tied
                    )
                )
    return tuple(found)
