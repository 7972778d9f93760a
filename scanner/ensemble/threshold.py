"""F-beta of a labelled score set, and the threshold that maximises it, for any β and any prevalence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scanner import records
from scanner.config import PAPER_BETA
from scanner.ensemble.calibration import log_odds_of, sigmoid
from scanner.errors import ContentError
from scanner.records import Float64, Int64, Record

#: β of the thresholds that a bundle lists; the first is the default.
BETAS = (PAPER_BETA, 0.1, 0.3, 1.0, 2.0)
#: Of one network's probability, and of a bundle that was made without labelled objects: "greater than or equal to 0.5 are
#: classified as lenses" (section 4).
MEMBER_THRESHOLD = 0.5


class OperatingPoint(Record):
    """What a threshold does to a labelled set: scores at or above ``threshold`` are called lenses.

    ``prevalence`` is the share of lenses that precision and F-beta are stated for; ``n_selected`` counts the set itself.
    """

    threshold: float = Field(ge=0, le=1)
    beta: float = Field(gt=0, allow_inf_nan=False)
    prevalence: float = Field(gt=0, lt=1)
    f_beta: float = Field(ge=0, le=1)
    precision: float = Field(ge=0, le=1)
    recall: float = Field(ge=0, le=1)
    n_selected: int = Field(ge=0)


class DecisionRule(Record):
    """Which objects are candidates, from their scores alone: so a finished run can decide anew without scanning.

    ``threshold``: of the grid value, or of the calibrated probability, as ``decides_on`` says. ``training_prevalence``,
    ``sky_prevalence``: shares of lenses in the training set, and those that probabilities are stated for; None where they are
    not calibrated.
    """

    threshold: float
    decides_on: Literal["grid", "calibrated"]
    training_prevalence: float | None = None
    sky_prevalence: float | None = None

    def decide(self, grid_value: NDArray[Any], calibrated: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each of N objects is a candidate.

        Parameters
        ----------
        grid_value, calibrated
            (N,) float32. An object with a probability but no grid value lacks a band: where the grid decides, its probability
            at the prevalence of the training set stands in for the grid's lens fraction.

        Returns
        -------
        numpy.ndarray
            (N,) bool; False where an object was not scored.
        """
        deciding = np.asarray(calibrated, dtype=np.float32)
        if self.decides_on == "grid":
            if self.training_prevalence is not None and self.sky_prevalence is not None:
                with np.errstate(divide="ignore"):
                    log_odds = np.log(deciding.astype(np.float64)) - np.log1p(-deciding.astype(np.float64))
                shift = log_odds_of(self.training_prevalence) - log_odds_of(self.sky_prevalence)
                deciding = sigmoid(log_odds + shift).astype(np.float32)
            deciding = np.where(np.isfinite(grid_value), np.asarray(grid_value, dtype=np.float32), deciding)
        # Thresholds compare in float32, as the scores are: a threshold is a score that occurred, and must select it.
        return np.asarray(deciding >= np.float32(self.threshold), dtype=np.bool_)


@dataclass(frozen=True)
class OperatingCurve:
    """Counts of a labelled set at every score that occurs, highest first.

    Equation 3 of Wilde et al. (2022) with their β = 0.03 weights *precision*, not recall as their text says: recall counts β² =
    0.0009 times as much, and F-beta is all but the precision (their Table 5 shows it). β > 1 weights recall.

    ``thresholds`` (K,) float64, strictly decreasing; ``true_positives`` and ``false_positives`` (K,) int64: lenses and
    non-lenses with a score at or above the threshold. The last entries are all the lenses and all the non-lenses.
    """

    thresholds: Float64
    true_positives: Int64
    false_positives: Int64

    @classmethod
    def of(cls, scores: NDArray[Any], labels: NDArray[Any]) -> OperatingCurve:
        """Count a labelled set; objects of equal score stay together.

        Parameters
        ----------
        scores
            (N,) real, no NaN; higher is more lens-like.
        labels
            (N,) bool, or 0 and 1.

        Raises
        ------
        ValueError
            Lengths differ, a score is NaN, or one class is missing.
        """
        values, is_lens = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
        if values.shape != is_lens.shape or values.ndim != 1:
            raise ValueError(f"scores {values.shape} and labels {is_lens.shape} must be two vectors of one length")
        if np.isnan(values).any():
            raise ValueError("scores must not be NaN")
        if is_lens.all() or not is_lens.any():
            raise ValueError("both classes are needed to place a threshold")
        thresholds, group = np.unique(-values, return_inverse=True)
        lenses = np.bincount(group, weights=is_lens, minlength=len(thresholds)).astype(np.int64)
        everything = np.bincount(group, minlength=len(thresholds)).astype(np.int64)
        return cls(-thresholds, np.cumsum(lenses), np.cumsum(everything - lenses))

    @property
    def n_lenses(self) -> int:
        """Lenses in the set."""
        return int(self.true_positives[-1])

    @property
    def n_non_lenses(self) -> int:
        """Non-lenses in the set."""
        return int(self.false_positives[-1])

    @property
    def prevalence(self) -> float:
        """Share of lenses in the set."""
        return self.n_lenses / (self.n_lenses + self.n_non_lenses)

    def precision_recall(self, prevalence: float | None = None) -> tuple[Float64, Float64]:
        """Precision and recall at every threshold (equations 4 and 5), two (K,) float64.

        Parameters
        ----------
        prevalence
            Share of lenses to state the precision for: lenses and non-lenses of the set are re-weighted to it. ``None``: the
            set's own. Recall does not depend on it.
        """
        share = self.prevalence if prevalence is None else prevalence
        recall = self.true_positives / self.n_lenses
        true, false = share * recall, (1.0 - share) * self.false_positives / self.n_non_lenses
        return true / (true + false), recall

    def f_beta(self, beta: float, prevalence: float | None = None) -> Float64:
        """F-beta at every threshold (equation 3), (K,) float64; 0 where no lens is selected.

        Raises
        ------
        ValueError
            β is not positive.
        """
        if not beta > 0:
            raise ValueError(f"beta must be positive, not {beta}")
        precision, recall = self.precision_recall(prevalence)
        denominator = beta**2 * precision + recall
        return np.divide((1 + beta**2) * precision * recall, denominator, out=np.zeros_like(recall), where=denominator > 0)

    def best(self, beta: float, prevalence: float | None = None) -> OperatingPoint:
        """Find the threshold of the highest F-beta; of equals, the lowest, which finds the most lenses.

        Parameters
        ----------
        beta
            Weight of recall against precision, > 0.
        prevalence
            See :meth:`precision_recall`.
        """
        values = self.f_beta(beta, prevalence)
        at = len(values) - 1 - int(np.argmax(values[::-1]))
        precision, recall = self.precision_recall(prevalence)
        return OperatingPoint(
            threshold=float(self.thresholds[at]),
            beta=beta,
            prevalence=self.prevalence if prevalence is None else prevalence,
            f_beta=float(values[at]),
            precision=float(precision[at]),
            recall=float(recall[at]),
            n_selected=int(self.true_positives[at] + self.false_positives[at]),
        )

    def save(self, path: Path) -> None:
        """Write an ``npz`` file without pickle."""
        records.save_arrays(path, self)

    @classmethod
    def load(cls, path: Path) -> OperatingCurve:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ContentError
            The file is not such a curve.
        """
        curve = cls(**records.load_arrays(path, cls, "an operating curve"))
        counts = (curve.true_positives, curve.false_positives)
        sound = {values.shape for values in vars(curve).values()} == {(len(curve.thresholds),)} and len(curve.thresholds) > 0
        sound = sound and bool(np.isfinite(curve.thresholds).all() and (np.diff(curve.thresholds) < 0).all())
        if not sound or any(values[0] < 0 or (np.diff(values) < 0).any() or values[-1] < 1 for values in counts):
            raise ContentError(
                f"{path}: is no operating curve: thresholds must fall, and lenses and non-lenses above them grow in number; "
                "export the bundle again."
            )
        return curve
