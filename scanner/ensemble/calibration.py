"""From log-odds to one lens probability at a stated prevalence, and to a decision: F-beta and the threshold for any β."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scanner import records
from scanner.config import PAPER_BETA
from scanner.errors import ContentError
from scanner.records import MEMBERS, Finite, Float32, Float64, Int64, Record

#: A log-odds beyond this is no more certain; it keeps one member that was never shown such an image from deciding alone.
LOGIT_LIMIT = 20.0
#: So many objects say that all members count alike; see :func:`fit`.
EQUAL_OBJECTS = 10.0


def sigmoid(log_odds: Float64) -> Float64:
    """Probability of log-odds."""
    # exp(-|x|) never overflows, and small probabilities keep all their digits.
    small = np.exp(-np.abs(log_odds))
    return np.asarray(np.where(log_odds >= 0, 1.0, small) / (1.0 + small))


def log_odds_of(probability: float) -> float:
    """Log-odds of a probability."""
    return float(np.log(probability) - np.log1p(-probability))


class Calibration(Record):
    """Logistic regression on the members' log-odds, stated for the prevalence of the sky.

    ``coefficients`` in the order of the bundle's members; ``intercept`` at ``training_prevalence``.
    """

    kind: Literal["logistic"] = "logistic"
    coefficients: tuple[Finite, ...] = Field(min_length=len(MEMBERS))
    intercept: Finite
    training_prevalence: float = Field(gt=0, lt=1)
    sky_prevalence: float = Field(gt=0, lt=1)

    def log_odds(self, logits: NDArray[Any], prevalence: float | None = None) -> Float64:
        """Calibrated lens log-odds, (N,) float64, at ``prevalence`` (``None``: the sky's)."""
        shift = log_odds_of(self.sky_prevalence if prevalence is None else prevalence) - log_odds_of(self.training_prevalence)
        clipped = _clipped(logits)
        # A sum in fixed order, not a BLAS product: the same object scores the same whatever batch it comes in.
        total = np.full(clipped.shape[:-1], self.intercept + shift)
        for member, coefficient in enumerate(self.coefficients):
            total += coefficient * clipped[..., member]
        return total

    def apply(self, logits: NDArray[Any]) -> Float32:
        """Calibrated lens probability at the sky's prevalence.

        Parameters
        ----------
        logits
            (N, M) log-odds of the members; rows with NaN give NaN.

        Returns
        -------
        numpy.ndarray
            (N,) float32.
        """
        return sigmoid(self.log_odds(logits)).astype(np.float32)

    def ranking_score(self, logits: NDArray[Any]) -> Float64:
        """What objects are ranked by, (N,) float64: the log-odds, as most probabilities round to the same few numbers."""
        return self.log_odds(logits)

    def distilled(self, members: NDArray[np.bool_], logits: NDArray[Any]) -> Calibration:
        """What some of the members say alone, of an object that the others cannot see: a band of its tile is missing.

        The logistic regression on those members whose labels are the probabilities that all members give. As these are
        calibrated, so is it: the mean of P(lens | all) where some say the same is P(lens | some). No labelled set is needed.

        Parameters
        ----------
        members
            (M,) bool: which of them see the object, at least one.
        logits
            (K, M) log-odds of all members for objects like those of the calibration, finite.

        Returns
        -------
        Calibration
            With a coefficient of zero for every other member.
        """
        rows = _clipped(logits)
        found, intercept = _regression(rows[:, members], sigmoid(self.log_odds(rows, self.training_prevalence)))
        coefficients = np.zeros(len(self.coefficients))
        coefficients[members] = found
        return self.model_copy(update={"coefficients": tuple(coefficients.tolist()), "intercept": intercept})


class MeanProbability(Record):
    """Mean of the members' probabilities: a ranking where no labelled set was at hand, not a probability to be trusted."""

    kind: Literal["mean"] = "mean"

    def apply(self, logits: NDArray[Any]) -> Float32:
        """Mean member probability of ``logits`` (N, M): (N,) float32; rows with NaN give NaN."""
        return np.asarray(sigmoid(np.asarray(logits, dtype=np.float64)).mean(axis=-1), dtype=np.float32)

    def ranking_score(self, logits: NDArray[Any]) -> Float64:
        """What objects are ranked by, (N,) float64: the mean probability."""
        return self.apply(logits).astype(np.float64)


@dataclass(frozen=True)
class CalibrationSet:
    """The objects that a calibration was fitted on: ``logits`` (K, M) float32, what all M members say of them."""

    logits: Float32

    def save(self, path: Path) -> None:
        """Write an ``npz`` file without pickle."""
        records.save_arrays(path, self)

    @classmethod
    def load(cls, path: Path, n_members: int) -> CalibrationSet:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ContentError
            The file is no such set, or not one of so many members.
        """
        found = cls(**records.load_arrays(path, cls, "a calibration set"))
        if found.logits.ndim != 2 or found.logits.shape[1] != n_members or not np.isfinite(found.logits).all():
            raise ContentError(f"{path}: holds no log-odds of {n_members} members; export the bundle again.")
        return found


AnyCalibration = Annotated[Calibration | MeanProbability, Field(discriminator="kind")]


def fit(logits: NDArray[Any], labels: NDArray[Any], *, sky_prevalence: float) -> Calibration:
    """Fit the calibration on a labelled set that the members were not trained on.

    A logistic regression on the log-odds, with two restrictions. No coefficient is negative (Breiman 1996, *Stacked
    regressions*): what a member says for a lens must not count against it. And coefficients are drawn to one another, as if
    :data:`EQUAL_OBJECTS` objects said that members count alike: a few hundred objects do not tell which of seven correlated
    members is the better one. On the sky that it was fitted on it loses nothing; on another it keeps more.

    A training set holds far more lenses than the sky, so the intercept is moved from the one prevalence to the other (Elkan
    2001, section 2: the odds scale with the prior odds). Without a labelled set there is nothing to fit:
    :class:`MeanProbability` is the plain mean of the members' probabilities, uncalibrated.

    Parameters
    ----------
    logits
        (N, M) log-odds of the members, finite.
    labels
        (N,) bool: is a lens.
    sky_prevalence
        Share of lenses among the objects that will be scanned.

    Returns
    -------
    Calibration
        With the prevalence of the set as ``training_prevalence``.

    Raises
    ------
    ValueError
        One class is missing.
    """
    is_lens = np.asarray(labels, dtype=bool)
    if is_lens.all() or not is_lens.any():
        raise ValueError("both classes are needed to fit a calibration")
    coefficients, intercept = _regression(_clipped(logits), is_lens.astype(np.float64))
    return Calibration(
        coefficients=tuple(coefficients.tolist()),
        intercept=intercept,
        training_prevalence=float(is_lens.mean()),
        sky_prevalence=sky_prevalence,
    )


def _clipped(logits: NDArray[Any]) -> Float64:
    return np.clip(np.asarray(logits, dtype=np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)


def _regression(rows: Float64, probabilities: Float64) -> tuple[Float64, float]:
    """Logistic regression of probabilities (N,) on rows (N, M) as :func:`fit` says: M coefficients and the intercept.

    Newton's method, projected on what is not negative (Bertsekas 1982): the loss is convex, and a few steps reach the last
    digits. Those that depend on the machine's linear algebra go: the same object scores the same everywhere.
    """
    n = rows.shape[1]
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
    design = np.column_stack([(rows - mean) / spread, np.ones(len(rows))])
    penalty = np.zeros((n + 1, n + 1))
    # A trace of it draws to zero: without, classes that do not overlap have no best coefficients.
    penalty[:n, :n] = EQUAL_OBJECTS * (np.eye(n) - 1.0 / n) + np.eye(n)

    def loss(weights: Float64) -> float:
        log_odds = design @ weights
        return float((np.logaddexp(0.0, log_odds) - probabilities * log_odds).sum() + 0.5 * weights @ penalty @ weights)

    weights, now = np.zeros(n + 1), loss(np.zeros(n + 1))
    for _ in range(100):
        predicted = sigmoid(design @ weights)
        gradient = design.T @ (predicted - probabilities) + penalty @ weights
        is_free = np.append((weights[:n] > 0.0) | (gradient[:n] < 0.0), True)
        curvature = (design * (predicted * (1.0 - predicted))[:, None]).T @ design + penalty
        step = np.zeros(n + 1)
        step[is_free] = np.linalg.solve(curvature[np.ix_(is_free, is_free)], gradient[is_free])
        for length in 0.5 ** np.arange(30):
            tried = weights - length * step
            tried[:n] = np.maximum(tried[:n], 0.0)
            if (after := loss(tried)) <= now:
                break
        moved = np.abs(tried - weights).max()
        weights, now = tried, after
        if moved < 1e-10:
            break
    coefficients = np.round(weights[:n] / spread, 8)
    return coefficients, round(float(weights[n] - coefficients @ mean), 8)


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

    def f_beta_error(self, beta: float, prevalence: float | None = None) -> Float64:
        """Standard error of F-beta at every threshold, (K,) float64, by the delta method.

        Recall and false-positive rate are independent binomial shares of the set's lenses and non-lenses. A share that counts
        none or all of them would have no variance, which is too sure: only in the variance, a share is (count + 1/2) / (n + 1).

        Parameters
        ----------
        beta, prevalence
            See :meth:`f_beta`.
        """
        share, weight = self.prevalence if prevalence is None else prevalence, 1 + beta**2
        recall, fall_out = self.true_positives / self.n_lenses, self.false_positives / self.n_non_lenses
        # F-beta is weight * share * recall / total.
        total = share * recall + (1 - share) * fall_out + beta**2 * share
        by_recall = weight * share * (total - share * recall) / total**2
        by_fall_out = -weight * share * recall * (1 - share) / total**2

        def variance(counts: Int64) -> Float64:
            smoothed = (counts + 0.5) / (counts[-1] + 1)
            return np.asarray(smoothed * (1 - smoothed) / counts[-1])

        spread = by_recall**2 * variance(self.true_positives) + by_fall_out**2 * variance(self.false_positives)
        return np.asarray(np.sqrt(spread))

    def best(self, beta: float, prevalence: float | None = None, *, exact: bool = False) -> OperatingPoint:
        """Find the lowest threshold, hence that of the most lenses, whose F-beta is as good as the highest.

        As good: within one standard error of it, the rule by which cross-validation chooses a model (Breiman et al. 1984,
        *Classification and regression trees*, section 3.4.3). The highest of many noisy values is an accident of the set: one
        non-lens more or less moves it far. In a tiny set the standard error spans everything, so F-beta must also be nearer to
        the highest than to what it is where every object is taken: no threshold that takes everything is chosen unless it is
        the best.

        Parameters
        ----------
        beta
            Weight of recall against precision, > 0.
        prevalence
            See :meth:`precision_recall`.
        exact
            The threshold of the highest F-beta itself, as in the paper; of equals, the lowest.
        """
        values = self.f_beta(beta, prevalence)
        at = len(values) - 1 - int(np.argmax(values[::-1]))
        if not exact:
            least = max(values[at] - self.f_beta_error(beta, prevalence)[at], (values[at] + values[-1]) / 2)
            at = int(np.flatnonzero(values >= least)[-1])
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
