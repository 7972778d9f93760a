"""What an evaluation holds: the records that are written as JSON, and of which tables, plots and model cards are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from scanner.evaluation.metrics import FEW_FALSE
from scanner.interval import Interval
from scanner.records import MemberName, Record

#: ``visible``: lenses whose arcs a person could see (S/N above 25, more than 100 pixels).
Positives = Literal["all", "visible"]
#: ``hard``: ellipticals, alone, with companions that may lie like an arc, or with a source that is not lensed.
Negatives = Literal["all", "hard"]
#: A network is caught when chance gives its shifts less often than this ...
CAUGHT_CHANCE = 1e-3
#: ... and one of them is more than this share of the spread between objects: anything is significant in a large set.
CAUGHT_SHARE = 0.1
#: Share of lenses among the objects of a survey, for statements about purity (Euclid: about one in ten thousand galaxies).
SKY_PREVALENCE = 1e-4
#: Objects that are scored in all eight orientations unless another number is asked for.
TURNED = 200
#: Public benchmarks (:data:`scanner.evaluation.benchmark.BENCHMARKS`).
BenchmarkName = Literal["euclid-sage"]


class Pairing(Record):
    """The lenses of one set against the non-lenses of another, or of the same."""

    lenses: str
    others: str

    def __str__(self) -> str:
        return self.lenses if self.lenses == self.others else f"{self.lenses} against {self.others}"


def main_pairings(pairings: Sequence[Pairing], sky: str | None) -> tuple[Pairing, ...]:
    """One pairing for every set of lenses: against the sky where there is one, else against its own non-lenses."""
    best: dict[str, Pairing] = {}
    for pairing in pairings:
        if pairing.lenses not in best or pairing.others == sky:
            best[pairing.lenses] = pairing
    # The sets with non-lenses of their own first: what leads stands for what a survey shows.
    own = {pairing.lenses for pairing in pairings if pairing.lenses == pairing.others}
    return tuple(sorted(best.values(), key=lambda pairing: pairing.lenses not in own))


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
    it resolves nothing. ``at_sky``: whether the prevalence is the sky's, not the set's own.
    """

    bundle: str
    pairing: Pairing
    prevalence: float
    at_sky: bool
    bins: tuple[ReliabilityBin, ...]
    ece: Interval
    ece_lenses: Interval
    measured: float


class OrientationScore(Record):
    """One score over the eight orientations: scatter, and what averaging its log-odds over them gains."""

    score: str
    scatter_lenses: Interval | None
    scatter_others: Interval | None
    auroc_single: float | None
    auroc_mean: float | None
    gain: Interval | None


class OrientationShift(Record):
    """How far a score moves, on average over ``n`` objects of one kind, when all of them are turned.

    ``shifts``: mean difference of the log-odds to the objects as they are, for orientations 1 to 7 of
    :mod:`scanner.ensemble.preprocessing`. ``spread``: standard deviation between the objects as they are. ``chance``: how often
    shifts as large as these come about where no orientation is preferred (Hotelling's T² of all seven).
    """

    score: str
    kind: Literal["lenses", "others"]
    n: int
    shifts: tuple[Interval, ...]
    spread: float
    chance: float

    @property
    def largest(self) -> int:
        """The orientation that moves the score furthest."""
        return max(range(len(self.shifts)), key=lambda i: abs(self.shifts[i].value)) + 1

    @property
    def caught(self) -> bool:
        """Whether the network has learnt an orientation: of the PSF, most likely (Wilde et al. 2022, section 3.2)."""
        return self.chance < CAUGHT_CHANCE and abs(self.shifts[self.largest - 1].value) > CAUGHT_SHARE * self.spread


class OrientationScatter(Record):
    """Dihedral scatter: standard deviation over the eight orientations of the log-odds, mean over ``n`` objects of a set.

    ``shifts``: what is common to all objects of a kind, which scatter alone would hide.
    """

    bundle: str
    set: str
    n: int
    scores: tuple[OrientationScore, ...]
    shifts: tuple[OrientationShift, ...] = ()


class ColourPoint(Record):
    """The same lenses with sources of one colour; ``change``: recall minus that at the curve's first colour, paired."""

    vis_minus_h: float
    recall: Interval
    change: Interval
    log_odds: Interval


class ColourCurve(Record):
    """Recall of ``n`` visible lenses at a threshold, when nothing but the colour of their sources is changed.

    The threshold is that of a false-positive rate ``fpr`` on the non-lenses of ``threshold_set``; the VIS light of the sources
    stays as it is. ``n_false``: non-lenses that set the threshold.
    """

    bundle: str
    score: str
    threshold_set: str
    fpr: float
    n: int
    n_false: int
    points: tuple[ColourPoint, ...]


class ImageScore(Record):
    """One image over its eight orientations: means of member probabilities and grid value, and their scatter.

    ``calibrated``: the calibrated probability (at the sky's prevalence) of the mean log-odds. ``judge``: the member that
    judges an image without all four bands; None: the combination does. ``log_odds``: what the judge gives it, by orientation.
    ``above``: share of the non-lenses of ``compared_with`` to which the judge gives more, likewise.
    """

    bundle: str
    name: str
    bad_fraction: tuple[float, float, float, float]
    probabilities: tuple[float, ...]
    scatter: tuple[float, ...]
    grid_value: float | None
    calibrated: float
    judge: MemberName | None
    log_odds: tuple[float, ...]
    above: tuple[float, ...] | None = None
    compared_with: str | None = None
    n_compared: int = 0


class RealShare(Record):
    """Which share of the ``n`` objects of a group passes, at each rate of :class:`RealFigures`; exact intervals."""

    group: str
    kind: Literal["lenses", "others"]
    n: int
    passing: tuple[Interval, ...]


class RealObject(Record):
    """A real object: its combined log-odds, the false-positive rates at which it passes, the set's non-lenses above it."""

    target_id: int
    label: str
    log_odds: float
    passes: tuple[float, ...]
    others_above: int


class RealFigures(Record):
    """A bundle on a set of real cutouts, at the thresholds of false-positive rates on simulated non-lenses.

    ``reference``: the simulated set; ``n_false``: how many of its non-lenses pass at each of ``fprs``. ``n_unjudged``: objects
    whose bands no member sees. ``auroc``: of the set's lenses against its own non-lenses. ``lenses``: all of them, the highest
    first; ``alarms``: the non-lenses that pass at any rate, likewise.
    """

    bundle: str
    set: str
    reference: str
    fprs: tuple[float, ...]
    n_false: tuple[int, ...]
    n_unjudged: int
    shares: tuple[RealShare, ...]
    auroc: Interval | None
    lenses: tuple[RealObject, ...]
    alarms: tuple[RealObject, ...]


class Evaluation(Record):
    """Bundles on labelled sets and single images, side by side.

    Objects are named by set (``eval``), what is measured by :class:`Pairing`. Scores are the members, ``grid``, and the
    combination of the members that a scan ranks by: ``calibrated``, or ``mean`` where a bundle has no calibration. Intervals
    are 95% unless a record says otherwise.
    """

    format_version: Literal[6] = 6
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
    real_sets: tuple[SetSummary, ...] = ()
    real: tuple[RealFigures, ...] = ()

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
