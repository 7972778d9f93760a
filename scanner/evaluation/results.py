"""What an evaluation holds: records only.

In: nothing. Out: the pydantic tree that ``scanner evaluate`` writes as JSON, and from which tables, plots, page and model card
are made. Refused: unknown keys.

Objects are named by set (``eval``), what is measured by *pairing*: the lenses of one set against the non-lenses of the same or
another one. Scores are the seven members, ``grid``, ``ranking`` (the order of a scan: candidates of the grid first, then
calibrated probability) and ``calibrated`` (``mean`` where a bundle has no calibration). Intervals are 95% unless a record says
otherwise.
"""

from __future__ import annotations

from typing import Literal

from scanner.evaluation.bias_results import ColourCurve, OrientationScatter
from scanner.evaluation.metrics import Interval
from scanner.evaluation.resampling import FEW_FALSE
from scanner.records import Record

#: ``visible``: lenses whose arcs a person could see (S/N above 25, more than 100 pixels).
Positives = Literal["all", "visible"]
#: ``hard``: ellipticals, alone, with companions that may lie like an arc, or with a source that is not lensed.
Negatives = Literal["all", "hard"]


class SetSummary(Record):
    """A labelled set; ``preset`` says how it was drawn, ``classes`` how many there are of each.

    ``trained_on``: bundles that learnt from this very set, whose figures on it say nothing of new objects.
    """

    name: str
    preset: str
    sha256: str
    n_objects: int
    n_lenses: int
    n_visible: int
    classes: dict[str, int]
    trained_on: tuple[str, ...] = ()


class BundleSummary(Record):
    """A bundle; ``name`` is unique within the evaluation. ``combined``: the score that combines its members, no grid."""

    name: str
    version: str
    fingerprint: str
    model_sha256: str
    preprocessing: str
    decides_on: Literal["grid", "calibrated"]
    combined: Literal["calibrated", "mean"]


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
    for ``sky_prevalence``. None: undefined, as the set holds one class only or nothing was selected.
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
    sky_prevalence: float
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
    """Completeness and purity against the number inspected, at a prevalence of the sky."""

    bundle: str
    pairing: Pairing
    positives: Positives
    score: str
    prevalence: float
    points: tuple[YieldPoint, ...]


class RecallBin(Record):
    """Recall of the lenses with ``low <= variable < high``; the threshold is held fixed in the interval."""

    low: float
    high: float
    n: int
    recall: Interval


class RecallCurve(Record):
    """Recall of one score, at the threshold of a false-positive rate, against a property of the lens."""

    bundle: str
    pairing: Pairing
    score: str
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
    """The classes of non-lenses of ``pairing.others``, the one that fools the score most often first.

    The threshold is that of a false-positive rate ``fpr`` on ``threshold_set``; the AUROC is against ``pairing.lenses``.
    """

    bundle: str
    pairing: Pairing
    threshold_set: str
    score: str
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


class GridLoss(Record):
    """AUROC of the grid and of the ranking minus that of the calibrated combination of the same log-odds (paired)."""

    bundle: str
    pairing: Pairing
    positives: Positives
    grid: Interval
    ranking: Interval
    tied: float


class Difference(Record):
    """A figure of the bundle ``new`` minus that of ``old`` on the same objects, with paired intervals.

    ``metric``: ``auroc``, or the recall at the false-positive rate ``fpr``. ``error``: standard error of the difference.
    """

    new: str
    old: str
    pairing: Pairing
    positives: Positives
    negatives: Negatives
    score_new: str
    score_old: str
    metric: Literal["auroc", "recall"]
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


class ImageScore(Record):
    """One image over its eight orientations: means of member probabilities and grid value, and their scatter.

    ``calibrated``: the calibrated probability (at the sky's prevalence) of the mean log-odds. ``above``: share of the
    non-lenses of ``compared_with`` that score higher than the image does, mean over the orientations.
    """

    bundle: str
    name: str
    bad_fraction: tuple[float, float, float, float]
    probabilities: tuple[float, ...]
    scatter: tuple[float, ...]
    grid_value: float | None
    calibrated: float
    log_odds: tuple[float, ...]
    above: tuple[float, ...] | None = None
    compared_with: str | None = None
    n_compared: int = 0


class Evaluation(Record):
    """Bundles on labelled sets and single images, side by side."""

    format_version: Literal[3] = 3
    scanner_version: str
    sky_prevalence: float
    sky: str | None
    sets: tuple[SetSummary, ...]
    bundles: tuple[BundleSummary, ...]
    figures: tuple[Figures, ...] = ()
    decisions: tuple[Decision, ...] = ()
    yields: tuple[Yield, ...] = ()
    recall_curves: tuple[RecallCurve, ...] = ()
    class_rates: tuple[ClassRates, ...] = ()
    reliabilities: tuple[Reliability, ...] = ()
    orientations: tuple[OrientationScatter, ...] = ()
    colour_curves: tuple[ColourCurve, ...] = ()
    grid_losses: tuple[GridLoss, ...] = ()
    differences: tuple[Difference, ...] = ()
    images: tuple[ImageScore, ...] = ()
    known_lenses: tuple[ImageScore, ...] = ()

    def bundle(self, name: str) -> BundleSummary:
        """The bundle of that name; KeyError where there is none."""
        for bundle in self.bundles:
            if bundle.name == name:
                return bundle
        raise KeyError(name)

    def find(self, bundle: str, pairing: Pairing, score: str, positives: Positives, negatives: Negatives) -> Figures:
        """The figures of one score and choice of objects; KeyError where they were not measured."""
        wanted = (bundle, pairing, score, positives, negatives)
        for found in self.figures:
            if (found.bundle, found.pairing, found.score, found.positives, found.negatives) == wanted:
                return found
        raise KeyError(wanted)

    @property
    def pairings(self) -> tuple[Pairing, ...]:
        """All pairings, in the order in which they were measured."""
        return tuple(dict.fromkeys(found.pairing for found in self.figures))
