"""How well scores find lenses: the part of :mod:`scanner.evaluation.results` on ranking and deciding. Records only.

In: nothing. Out: pydantic records. Refused: unknown keys.

What is measured is named by *pairing*: the lenses of one set against the non-lenses of the same or another one.
"""

from __future__ import annotations

from typing import Literal

from scanner.evaluation.metrics import Interval
from scanner.evaluation.resampling import FEW_FALSE
from scanner.records import Record

#: ``visible``: lenses whose arcs a person could see (S/N above 25, more than 100 pixels).
Positives = Literal["all", "visible"]
#: ``hard``: ellipticals, alone, with companions that may lie like an arc, or with a source that is not lensed.
Negatives = Literal["all", "hard"]


class Pairing(Record):
    """The lenses of one set against the non-lenses of another, or of the same."""

    lenses: str
    others: str

    def __str__(self) -> str:
        return self.lenses if self.lenses == self.others else f"{self.lenses} against {self.others}"


class Recall(Record):
    """Recall where a fraction ``fpr`` of the non-lenses pass, and how many that is; None: too few to measure that rate."""

    fpr: float
    recall: Interval | None
    n_false: int

    @property
    def rests_on_few(self) -> bool:
        """Whether so few non-lenses set the threshold that the rate itself is hardly known."""
        return self.n_false < FEW_FALSE


class Figures(Record):
    """How one score of one bundle ranks one choice of lenses against one choice of non-lenses."""

    bundle: str
    pairing: Pairing
    positives: Positives
    negatives: Negatives
    score: str
    n_positives: int
    n_negatives: int
    auroc: Interval
    recalls: tuple[Recall, ...]


class Decision(Record):
    """What one score decides at a threshold that was fixed without looking at this set, over all of its objects.

    ``precision``, ``f_beta`` (β as given), ``accuracy`` and ``auroc`` are stated for the set's own share of lenses, ``purity``
    for the sky's. None: undefined, as the set holds one class only or nothing was selected.
    """

    bundle: str
    set: str
    score: str
    threshold: float
    beta: float
    n_selected: int
    recall: Interval | None
    recall_visible: Interval | None
    fpr: Interval | None
    precision: Interval | None
    f_beta: Interval | None
    auroc: Interval | None
    accuracy: Interval | None
    purity: Interval | None


class YieldPoint(Record):
    """Inspecting the best ``inspected`` of a million: share of the lenses found, and of the inspected that are lenses.

    ``n_false``: non-lenses of the set that the threshold rests on.
    """

    inspected: float
    completeness: Interval
    purity: Interval
    n_false: int

    @property
    def rests_on_few(self) -> bool:
        """See :attr:`Recall.rests_on_few`."""
        return self.n_false < FEW_FALSE


class Yield(Record):
    """Completeness and purity against the number inspected from the top of the ranking, at the prevalence of the sky."""

    bundle: str
    pairing: Pairing
    positives: Positives
    points: tuple[YieldPoint, ...]


class GridLoss(Record):
    """AUROC of the grid minus that of the calibrated combination of the same log-odds (paired).

    ``tied``: share of the pairs of a lens and a non-lens that the grid gives the same value.
    """

    bundle: str
    pairing: Pairing
    positives: Positives
    difference: Interval
    tied: float


class Difference(Record):
    """A figure of the bundle ``new`` minus that of ``old`` on the same objects, with paired intervals.

    ``fpr``: false-positive rate at which recalls are compared; None: AUROCs are. ``error``: standard error of the difference.
    """

    new: str
    old: str
    pairing: Pairing
    positives: Positives
    negatives: Negatives
    score_new: str
    score_old: str
    fpr: float | None
    value_new: float
    value_old: float
    difference: Interval
    error: float
    n_false: int | None

    @property
    def rests_on_few(self) -> bool:
        """See :attr:`Recall.rests_on_few`."""
        return self.n_false is not None and self.n_false < FEW_FALSE
