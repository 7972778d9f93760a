"""What scores decide at fixed thresholds, how well they rank lenses, and what inspecting the best of a million yields."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.config import PAPER_BETA
from scanner.ensemble.calibration import MEMBER_THRESHOLD
from scanner.evaluation.metrics import (
    LOW_FPRS,
    Recalls,
    auroc_interval,
    delong,
    purity,
    recalls_at_fpr,
    share_interval,
    threshold_at_fpr,
)
from scanner.evaluation.results import (
    SKY_PREVALENCE,
    ClassRate,
    ClassRates,
    Decision,
    Difference,
    Figures,
    GridLoss,
    Negatives,
    Pairing,
    Positives,
    Recall,
    RecallBin,
    RecallCurve,
    Yield,
    YieldPoint,
)
from scanner.evaluation.scores import GRID, ScoredBundle, lenses, others
from scanner.interval import Interval, normal_interval, resampled_interval, wilson_interval
from scanner.labelled_set import LabelledSet, Truth
from scanner.records import Float64, Int64

DRAWS = 4000


def decisions(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], beta: float | None = None, prevalence: float = SKY_PREVALENCE
) -> tuple[Decision, ...]:
    """Measure the members at 0.5 and the bundles at their threshold, on every set.

    The members are judged at 0.5, as in the paper, the bundle at its own F-beta threshold. A set of lenses only has a recall,
    one of non-lenses only a false-positive rate.

    Parameters
    ----------
    bundles, truths
        The truths by set.
    beta
        Of the bundles' threshold; None: each one's default.
    prevalence
        For the purity.

    Raises
    ------
    UsageError
        A bundle has no threshold for this β.
    """
    return tuple(decision for scored in bundles for decision in _of_bundle(scored, truths, beta, prevalence))


def _of_bundle(scored: ScoredBundle, truths: Mapping[str, Truth], beta: float | None, prevalence: float) -> Iterator[Decision]:
    bundle = scored.bundle
    threshold = bundle.threshold(beta)
    used = beta if beta is not None else bundle.default_beta if bundle.default_beta is not None else PAPER_BETA
    by_grid = bundle.manifest.decides_on == "grid"
    deciding = GRID if by_grid else scored.summary.combined
    for set_name, truth in truths.items():
        scores, logits = scored.scores[set_name], scored.logits[set_name]
        for member in bundle.manifest.member_names:
            yield decide(
                scored.name,
                set_name,
                member,
                scores[member] >= 0.0,
                truth,
                values=scores[member],
                threshold=MEMBER_THRESHOLD,
                beta=used,
                prevalence=prevalence,
            )
        # In float32, as a scan decides: a threshold is a score that occurred, and must select it.
        value = scores[GRID].astype(np.float32) if by_grid else bundle.calibration.apply(logits)
        yield decide(
            scored.name,
            set_name,
            deciding,
            value >= np.float32(threshold),
            truth,
            values=scores[deciding],
            threshold=threshold,
            beta=used,
            prevalence=prevalence,
        )


def decide(
    bundle: str,
    set_name: str,
    score: str,
    selected: NDArray[np.bool_],
    truth: Truth,
    *,
    values: Float64,
    threshold: float,
    beta: float,
    prevalence: float = SKY_PREVALENCE,
) -> Decision:
    """Measure a decision that was taken for every object of a set.

    Parameters
    ----------
    bundle, set_name, score, threshold, beta
        To be quoted.
    selected
        (N,) bool.
    truth
        Of the N objects.
    values
        (N,) the score that the decision was taken on, for its AUROC.
    prevalence
        For the purity.
    """
    positive, negative, visible = truth.is_lens, ~truth.is_lens, truth.is_lens & truth.visible
    n_selected, n_lenses, n_others = int(selected.sum()), int(positive.sum()), int(negative.sum())
    true = int((selected & positive).sum())
    recall = wilson_interval(true, n_lenses) if n_lenses else None
    fpr = wilson_interval(n_selected - true, n_others) if n_others else None
    precision = f_beta = share = area = accuracy = None
    if recall is not None and fpr is not None:
        area = auroc_interval(values, positive)
        accuracy = wilson_interval(int((selected == positive).sum()), len(truth))
        if n_selected:
            precision = wilson_interval(true, n_selected)
            drawn = _draws(true, n_lenses), _draws(n_selected - true, n_others)
            own = n_lenses / len(truth)
            f_beta = _interval(partial(_f_beta, beta=beta, prevalence=own), recall.value, fpr.value, drawn)
            share = _interval(partial(purity, prevalence=prevalence), recall.value, fpr.value, drawn)
    return Decision(
        bundle=bundle,
        set=set_name,
        score=score,
        threshold=threshold,
        beta=beta,
        n_selected=n_selected,
        recall=recall,
        recall_visible=wilson_interval(int((selected & visible).sum()), int(visible.sum())) if visible.any() else None,
        fpr=fpr,
        precision=precision,
        f_beta=f_beta,
        auroc=area,
        accuracy=accuracy,
        purity=share,
    )


def _draws(successes: int, n: int) -> Float64:
    """Draws of a fraction from its posterior with Jeffreys' prior: unlike resamples, they know that none seen is not none."""
    return np.random.default_rng((successes, n)).beta(successes + 0.5, n - successes + 0.5, DRAWS)


def _interval(
    figure: Callable[[NDArray[Any] | float, NDArray[Any] | float], Any],
    recall: float,
    fpr: float,
    drawn: tuple[Float64, Float64],
) -> Interval:
    """A figure of recall and false-positive rate, with the interval from draws of both."""
    return resampled_interval(float(figure(recall, fpr)), figure(*drawn))


def _f_beta(recall: NDArray[Any] | float, fpr: NDArray[Any] | float, beta: float, prevalence: float) -> Any:
    """Equation 3 of the paper, at a share of lenses; 0 where no lens is selected."""
    precision = purity(recall, fpr, prevalence)
    weight = np.asarray(beta**2 * precision + recall)
    return np.divide((1 + beta**2) * precision * recall, weight, out=np.zeros(weight.shape), where=weight > 0)


#: The false-positive rates at whose thresholds lenses and classes are counted.
FPRS = (1e-2, 1e-3)
#: Fewer lenses than this say nothing of a bin.
LEAST_LENSES = 10


@dataclass(frozen=True)
class Variable:
    """A property of lenses: name, label with unit, bin edges, and how it is read from a set (None: not there)."""

    name: str
    label: str
    edges: tuple[float, ...]
    read: Callable[[LabelledSet], Float64 | None]


def _column(name: str) -> Callable[[LabelledSet], Float64 | None]:
    return lambda dataset: dataset.column(name)


VARIABLES = (
    Variable("arc_snr", "S/N of the arcs in VIS", (0, 10, 25, 50, 100, 200, 400, 1e4), _column("arc_snr")),
    Variable("theta_e", "Einstein radius (arcsec)", (0, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 10), _column("theta_e_arcsec")),
    Variable("source_colour", "VIS - H of the source (AB mag)", (-3, 0, 0.5, 1, 1.5, 2, 2.5, 6), _column("source_vis_minus_h")),
    Variable("red_source", "red source (0: no, 1: yes)", (0, 1, 2), _column("red_source")),
    Variable(
        "source_magnitude", "VIS magnitude of the source", (15, 22, 23, 24, 24.5, 25, 25.5, 30), _column("source_magnitude_vis")
    ),
    Variable("magnitude", "VIS magnitude of the lens galaxy", (10, 18, 19, 20, 21, 22, 30), _column("magnitude_vis")),
)


def recall_curves(
    bundles: Sequence[ScoredBundle], datasets: Mapping[str, LabelledSet], pairings: Sequence[Pairing]
) -> tuple[RecallCurve, ...]:
    """Recall of all lenses against their properties, by the combination at the thresholds of :data:`FPRS`.

    Properties that a table of truth lacks are left out.
    """
    curves = []
    for pairing in pairings:
        truth, other = datasets[pairing.lenses].truth, datasets[pairing.others].truth
        for variable in VARIABLES:
            values = variable.read(datasets[pairing.lenses])
            if values is None:
                continue
            for scored in bundles:
                negative = scored.combined[pairing.others][~other.is_lens]
                for fpr in FPRS:
                    if fpr * len(negative) < 1:
                        continue
                    passing = scored.combined[pairing.lenses] >= threshold_at_fpr(negative, fpr)
                    bins = _bins(variable, values, truth, passing)
                    if bins:
                        curves.append(
                            RecallCurve(
                                bundle=scored.name,
                                pairing=pairing,
                                fpr=fpr,
                                variable=variable.name,
                                label=variable.label,
                                bins=bins,
                            )
                        )
    return tuple(curves)


def _bins(variable: Variable, values: Float64, truth: Truth, passing: np.ndarray) -> tuple[RecallBin, ...]:
    bins = []
    for low, high in zip(variable.edges, variable.edges[1:], strict=False):
        inside = truth.is_lens & (values >= low) & (values < high)
        n = int(inside.sum())
        if n >= LEAST_LENSES:
            bins.append(RecallBin(low=low, high=high, n=n, recall=wilson_interval(int((inside & passing).sum()), n)))
    return tuple(bins)


def class_rates(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], lenses: str, sky: str | None
) -> tuple[ClassRates, ...]:
    """The classes of non-lenses of every set, by how often they pass the threshold of an overall false-positive rate.

    Parameters
    ----------
    bundles, truths
        The truths by set.
    lenses
        The set whose visible lenses the classes are compared with.
    sky
        The set whose non-lenses set the threshold; None: those of each set itself.
    """
    found = []
    visible = truths[lenses].is_lens & truths[lenses].visible
    for set_name, truth in truths.items():
        if truth.is_lens.all():
            continue
        threshold_set = set_name if sky is None else sky
        for scored in bundles:
            setting = scored.combined[threshold_set][~truths[threshold_set].is_lens]
            positive = scored.combined[lenses][visible]
            for fpr in FPRS:
                if fpr * len(setting) >= 1:
                    threshold = threshold_at_fpr(setting, fpr)
                    found.append(
                        ClassRates(
                            bundle=scored.name,
                            pairing=Pairing(lenses=lenses, others=set_name),
                            threshold_set=threshold_set,
                            fpr=fpr,
                            classes=_classes(scored.combined[set_name], truth, threshold, positive),
                        )
                    )
    return tuple(found)


def _classes(values: Float64, truth: Truth, threshold: float, positive: Float64) -> tuple[ClassRate, ...]:
    """One rate for every class, the highest first."""
    rates = []
    for class_name in np.unique(truth.class_name[~truth.is_lens]):
        negative = values[~truth.is_lens & (truth.class_name == class_name)]
        labels = np.arange(len(positive) + len(negative)) < len(positive)
        rates.append(
            ClassRate(
                class_name=str(class_name),
                n=len(negative),
                passing=wilson_interval(int((negative >= threshold).sum()), len(negative)),
                auroc=auroc_interval(np.concatenate([positive, negative]), labels) if len(positive) else None,
            )
        )
    return tuple(sorted(rates, key=lambda rate: (-rate.passing.value, rate.class_name)))


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
