"""What an evaluation holds: records only.

In: nothing. Out: the pydantic tree that ``scanner evaluate`` writes as JSON, and from which tables, plots, page and model card
are made. Refused: unknown keys.

Objects are named by set (``eval``), what is measured by *pairing*: the lenses of one set against the non-lenses of the same or
another one. Scores are the seven members, ``grid``, and their combination, ``calibrated`` (``mean`` where a bundle has no
calibration), which a scan ranks by. Intervals are 95% unless a record says otherwise.
"""

from __future__ import annotations

from typing import Literal

from scanner.evaluation.bias_results import ColourCurve, OrientationScatter
from scanner.evaluation.detail_results import ClassRates, RecallCurve, Reliability
from scanner.evaluation.ranking_results import Decision, Difference, Figures, GridLoss, Negatives, Pairing, Positives, Yield
from scanner.records import MemberName, Record


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


class Evaluation(Record):
    """Bundles on labelled sets and single images, side by side."""

    format_version: Literal[5] = 5
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
