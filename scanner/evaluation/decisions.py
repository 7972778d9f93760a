"""What scores decide at fixed thresholds: the paper's Tables 5 and 6; which lenses are found, which non-lenses pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.config import PAPER_BETA
from scanner.ensemble.calibration import MEMBER_THRESHOLD
from scanner.evaluation.metrics import auroc_interval, purity, threshold_at_fpr
from scanner.evaluation.results import SKY_PREVALENCE, ClassRate, ClassRates, Decision, Pairing, RecallBin, RecallCurve
from scanner.evaluation.scores import GRID, ScoredBundle
from scanner.interval import Interval, resampled_interval, wilson_interval
from scanner.labelled_set import LabelledSet, Truth
from scanner.records import Float64

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
