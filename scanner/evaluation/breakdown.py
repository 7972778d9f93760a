"""Which lenses are found and which non-lenses pass: by S/N, Einstein radius, colour and magnitude; by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.evaluation.metrics import auroc_interval, threshold_at_fpr
from scanner.evaluation.results import ClassRate, ClassRates, Pairing, RecallBin, RecallCurve
from scanner.evaluation.scores import ScoredBundle
from scanner.interval import wilson_interval
from scanner.labelled_set import LabelledSet, Truth
from scanner.records import Float64

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
