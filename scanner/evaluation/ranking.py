"""How well scores rank lenses above non-lenses, bundles compared in pairs, and what inspecting the best of a million yields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.evaluation.metrics import LOW_FPRS, Recalls, delong, recalls_at_fpr, share_interval
from scanner.evaluation.results import Difference, Figures, GridLoss, Negatives, Pairing, Positives, Recall, Yield, YieldPoint
from scanner.evaluation.scores import GRID, ScoredBundle, lenses, others
from scanner.interval import Interval, normal_interval, resampled_interval
from scanner.labelled_set import Truth
from scanner.records import Float64, Int64

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
    names: list[tuple[str, str]] = [
        (member, member) for member in new.bundle.manifest.member_names if member in old.bundle.manifest.member_names
    ]
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
            yield Difference.model_validate(
                common
                | {
                    "fpr": fpr,
                    "value_new": recalls.value[i, rate],
                    "value_old": recalls.value[j, rate],
                    "difference": resampled_interval(value, spread),
                    "error": float(spread.std(ddof=1)),
                    "n_false": int(min(recalls.n_false[i, rate], recalls.n_false[j, rate])),
                }
            )


def grid_losses(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], pairings: Sequence[Pairing]
) -> tuple[GridLoss, ...]:
    """What the grid loses against the combination of the members."""
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


MILLION = 1_000_000
INSPECTED = np.round(np.logspace(1, 6, 31))
INSPECTION_RESAMPLES = 400
#: Non-lenses from the top that are a step each; further down, coarser steps suffice.
EXACT = 1000


def inspect(
    positive: NDArray[Any],
    negative: NDArray[Any],
    prevalence: float,
    *,
    inspected: Float64 = INSPECTED,
) -> tuple[YieldPoint, ...]:
    """Completeness and purity where the best ``inspected`` of a million objects of the sky are inspected.

    At a threshold that a share R of the lenses and F of the non-lenses pass, a million objects with a prevalence π of lenses
    put N = 10^6 (π R + (1 - π) F) on the list, of which a share π R 10^6 / N are lenses. Sets hold far more lenses than the
    sky, so both classes are weighted. Intervals are from resamples of both classes, in which every threshold is taken anew.

    Parameters
    ----------
    positive, negative
        (P,) and (N,) scores of lenses and of non-lenses.
    prevalence
        Share of lenses on the sky.
    inspected
        (K,) how many of a million are inspected.

    Raises
    ------
    ValueError
        There are no lenses, or no non-lenses.
    """
    if not len(positive) or not len(negative):
        raise ValueError("needs lenses and non-lenses")
    counts = _steps(np.asarray(positive, np.float64), np.asarray(negative, np.float64))
    found, n_false = _completeness(counts[0][None], counts[1][None], prevalence, inspected)
    generator = np.random.default_rng(0)
    drawn = [generator.multinomial(part.sum(), part / part.sum(), INSPECTION_RESAMPLES) for part in counts]
    resampled, _ = _completeness(drawn[0], drawn[1], prevalence, inspected)
    points = []
    for k, number in enumerate(inspected):
        share = share_interval(float(found[0, k]), resampled[:, k], len(positive))
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
