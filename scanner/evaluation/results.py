"""What an evaluation of bundles on a labelled dataset holds: records only.

In: nothing. Out: the pydantic tree that ``scanner evaluate`` writes as JSON. Refused: unknown keys.
"""

from __future__ import annotations

from typing import Literal

from scanner.evaluation.metrics import Interval
from scanner.records import Record

Positives = Literal["all", "visible"]
Negatives = Literal["all", "hard"]
#: False-positive rates at which the recall is measured.
LOW_FPRS = (1e-2, 1e-3)


class Recall(Record):
    """Recall where a fraction ``fpr`` of the negatives pass, and how many negatives that is."""

    fpr: float
    recall: Interval
    n_false: int


class Figures(Record):
    """How one score ranks one choice of lenses against one choice of non-lenses."""

    score: str
    positives: Positives
    negatives: Negatives
    n_positives: int
    n_negatives: int
    auroc: Interval
    recalls: tuple[Recall, ...]


class Decision(Record):
    """What one score decides at a threshold that was fixed without looking at this dataset, over all of its objects.

    ``precision`` and ``f_beta`` (β as given) are stated for the dataset's own share of lenses, ``purity`` for
    ``sky_prevalence``. None: undefined, as nothing was selected.
    """

    score: str
    threshold: float
    beta: float
    recall: Interval
    recall_visible: Interval
    fpr: Interval
    n_selected: int
    precision: Interval | None
    f_beta: float | None
    sky_prevalence: float
    purity: float | None


class ImageScore(Record):
    """Member probabilities, grid value and calibrated probability of one image, means over its eight orientations.

    ``scatter``: standard deviation of the member probabilities over the orientations.
    """

    name: str
    bad_fraction: tuple[float, float, float, float]
    probabilities: tuple[float, ...]
    scatter: tuple[float, ...]
    grid_value: float | None
    calibrated: float


class BundleEvaluation(Record):
    """All figures of one bundle; ``seconds`` is the time that scoring took."""

    name: str
    version: str
    fingerprint: str
    preprocessing: str
    decides_on: str
    figures: tuple[Figures, ...]
    decisions: tuple[Decision, ...]
    images: tuple[ImageScore, ...] = ()
    provider: str
    seconds: float

    def find(self, score: str, positives: Positives, negatives: Negatives) -> Figures:
        """Return the figures of one score and choice of objects; KeyError where they were not measured."""
        for figures in self.figures:
            if (figures.score, figures.positives, figures.negatives) == (score, positives, negatives):
                return figures
        raise KeyError((score, positives, negatives))


class Evaluation(Record):
    """Bundles on one dataset, side by side."""

    format_version: Literal[1] = 1
    dataset: str
    dataset_sha256: str
    n_objects: int
    n_lenses: int
    n_visible: int
    n_hard_negatives: int
    class_counts: dict[str, int]
    bundles: tuple[BundleEvaluation, ...]
