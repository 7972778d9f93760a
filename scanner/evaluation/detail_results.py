"""Which lenses are found, what fools a bundle, and whether its probabilities are any: of an evaluation.

In: nothing. Out: pydantic records. Refused: unknown keys.
"""

from __future__ import annotations

from scanner.evaluation.metrics import Interval
from scanner.evaluation.ranking_results import Pairing
from scanner.records import Record


class RecallBin(Record):
    """Recall of the lenses with ``low <= variable < high``; the threshold is held fixed in the interval."""

    low: float
    high: float
    n: int
    recall: Interval


class RecallCurve(Record):
    """Recall of the combination, at the threshold of a false-positive rate, against a property of the lens."""

    bundle: str
    pairing: Pairing
    fpr: float
    variable: str
    label: str
    bins: tuple[RecallBin, ...]


class ClassRate(Record):
    """How well one class of non-lenses passes for lenses: share above the threshold, AUROC of visible lenses against it."""

    class_name: str
    n: int
    passing: Interval
    auroc: Interval | None


class ClassRates(Record):
    """The classes of non-lenses of ``pairing.others``, the one that fools the combination most often first.

    The threshold is that of a false-positive rate ``fpr`` on ``threshold_set``; the AUROC is against ``pairing.lenses``.
    """

    bundle: str
    pairing: Pairing
    threshold_set: str
    fpr: float
    classes: tuple[ClassRate, ...]


class ReliabilityBin(Record):
    """Objects of like predicted probability: its mean, and the share of lenses among them at the stated prevalence."""

    predicted: float
    observed: Interval
    n_lenses: int
    n_others: int


class Reliability(Record):
    """Calibrated probabilities against what is true, at ``prevalence``.

    ``ece``: mean |predicted - observed| over the objects at that prevalence. ``ece_lenses``: the same in decades
    (|log10 predicted / observed|), weighted by where the lenses are: on the sky nearly all objects are certain non-lenses, and
    any ECE is tiny. It rests on the share ``measured`` of the lenses: where no non-lens of the set is as probable as they are,
    it cannot tell. ``at_sky``: whether the prevalence is the sky's, not the set's own.
    """

    bundle: str
    pairing: Pairing
    prevalence: float
    at_sky: bool
    bins: tuple[ReliabilityBin, ...]
    ece: Interval
    ece_lenses: Interval
    measured: float
