"""What people would call a painted lens: the grades that they gave to others, as a function of how clear those were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.special import expit, logit, ndtri

from scanner.errors import ContentError
from scanner.grading.grade import GRADES, Grade
from scanner.interval import CONFIDENCE, Interval, wilson_interval
from scanner.records import Float64, Int64, Record
from scanner.recovery.completeness import (
    AXES,
    Bin,
    Bool,
    Completeness,
    Cut,
    PaintedLenses,
    edges_of,
    group_scatter,
    nearest_painted,
    penalised_fit,
)

#: Grades of which completeness is stated: so good or better.
STATED: tuple[Grade, ...] = GRADES[:-1]
#: Fewer painted lenses with a grade say too little.
LEAST_GRADED = 20
#: Inverse variance of the normal priors of constants and slopes, the latter for one standard deviation.
_CONSTANT_PRIOR, _SLOPE_PRIOR = 0.01, 0.25
_Z = float(ndtri(0.5 + CONFIDENCE / 2))


@dataclass(frozen=True)
class GradedLenses:
    """Painted lenses that people graded unseen among others, K of them.

    ``probability`` (K,): calibrated, of the networks; NaN: none. ``arc_snr``, ``theta_e`` (K,): as painted, at the noise of the
    Wide Survey and in arcsec. ``grade`` (K,) int64: row of :data:`~scanner.grading.grade.GRADES`, the median of its graders,
    the worse of two.
    """

    probability: Float64
    arc_snr: Float64
    theta_e: Float64
    grade: Int64

    def __len__(self) -> int:
        return len(self.grade)


class Recognition(Record):
    """The chance that people give a lens a grade or a better one, once they look at it.

    A proportional-odds model (McCullagh 1980): the log-odds of each grade have a constant of their own, and three slopes in
    common, with the networks' log-odds, the logarithm of the arcs' signal-to-noise ratio and the Einstein radius, all three in
    standard deviations (``scale``) from their means (``middle``). ``coefficients``: constants of A, B and C, then the slopes.
    ``covariance``: of these, widened by how much the three answers that one lens gives vary together.
    ``n_given``: graded painted lenses by grade A, B, C, X.
    """

    n_given: tuple[int, ...]
    middle: tuple[float, ...]
    scale: tuple[float, ...]
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, graded: GradedLenses) -> Self:
        """Fit the model.

        Raises
        ------
        ContentError
            There are too few graded lenses.
        """
        if len(graded) < LEAST_GRADED:
            raise ContentError(
                f"{len(graded)} graded painted lenses are too few to tell what people recognise, which takes {LEAST_GRADED}"
            )
        seen = _clarity(graded.probability, graded.arc_snr, graded.theta_e)
        middle, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-9)
        scaled, n = (seen - middle) / scale, len(graded)
        # Each lens answers once for each grade; slopes in common keep the answers in order.
        design = np.concatenate([np.concatenate([_constant(row, n), scaled], axis=1) for row in range(len(STATED))])
        reached = np.concatenate([graded.grade <= row for row in range(len(STATED))])
        penalty = np.diag([_CONSTANT_PRIOR] * len(STATED) + [_SLOPE_PRIOR] * scaled.shape[1])
        coefficients, covariance, _ = penalised_fit(design, reached, penalty)
        covariance *= group_scatter(design, reached, penalty, np.tile(np.arange(n), len(STATED)))
        return cls(
            n_given=tuple(int((graded.grade == row).sum()) for row in range(len(GRADES))),
            middle=tuple(middle.tolist()),
            scale=tuple(scale.tolist()),
            coefficients=tuple(coefficients.tolist()),
            covariance=tuple(tuple(row) for row in covariance.tolist()),
        )

    def shares(self, grade: Grade, probability: Float64, arc_snr: Float64, theta_e: Float64) -> tuple[Float64, Float64]:
        """The chance of a grade or a better one for N lenses, (N,), and its derivatives by the coefficients, (N, 6)."""
        scaled = (_clarity(probability, arc_snr, theta_e) - np.array(self.middle)) / np.array(self.scale)
        design = np.concatenate([_constant(STATED.index(grade), len(scaled)), scaled], axis=1)
        share = expit(design @ np.array(self.coefficients))
        return share, design * (share * (1 - share))[:, None]

    def variance(self, slopes: Float64) -> Float64:
        """Variance of M means of chances, (M,), from the means of their derivatives (M, 6)."""
        return np.asarray(((slopes @ np.array(self.covariance)) * slopes).sum(axis=-1))


class GradedShare(Record):
    """Completeness of visible lenses at a cut and a grade; ``recognised``: mean chance of the grade of those that it finds."""

    cut: Cut
    grade: Grade
    completeness: Interval
    recognised: float


def graded_cuts(cuts: Sequence[Cut]) -> list[Cut]:
    """Those of some cuts that people look at."""
    return [cut for cut in cuts if cut.kind in ("top", "candidates")]


def graded_bins(lenses: PaintedLenses, cuts: Sequence[Cut], recognition: Recognition) -> tuple[Bin, ...]:
    """Completeness at each cut and grade, by each axis; empty bins are left out."""
    made: list[Bin] = []
    for grade in STATED:
        each = recognition.shares(grade, *_known(lenses))
        for cut in cuts:
            found = lenses.found(cut)
            for axis in AXES:
                values = lenses.values[:, AXES.index(axis)]
                for low, high in pairwise(edges_of(axis, lenses)):
                    within = (values >= low) & (values < high)
                    if not within.any():
                        continue
                    share = _mean_share(recognition, each, found, within)
                    made.append(
                        Bin(
                            cut=cut,
                            axis=axis.name,
                            low=low,
                            high=high,
                            n_painted=int(within.sum()),
                            n_found=int((within & found).sum()),
                            completeness=share.value,
                            completeness_low=share.low,
                            completeness_high=share.high,
                            grade=grade,
                        )
                    )
    return tuple(made)


def graded_shares(lenses: PaintedLenses, cuts: Sequence[Cut], recognition: Recognition) -> tuple[GradedShare, ...]:
    """Completeness of all visible lenses at each cut and grade."""
    made, of_grade = [], {grade: recognition.shares(grade, *_known(lenses)) for grade in STATED}
    for cut in cuts:
        found = lenses.found(cut)
        for grade, each in of_grade.items():
            looked_at = each[0][found & lenses.is_visible]
            made.append(
                GradedShare(
                    cut=cut,
                    grade=grade,
                    completeness=_mean_share(recognition, each, found, lenses.is_visible),
                    recognised=float(looked_at.mean()) if len(looked_at) else 0.0,
                )
            )
    return tuple(made)


def _mean_share(recognition: Recognition, each: tuple[Float64, Float64], found: Bool, within: Bool) -> Interval:
    """Share of some lenses that are found and get the grade.

    Wilson's interval of as many lenses as would have this variance: that of the lenses' number and that of what is known of
    people, where ``each`` is the chance of the grade and its derivatives.
    """
    share, slopes = (part[within] * (found[within] if part.ndim == 1 else found[within][:, None]) for part in each)
    n, value = len(share), float(share.mean())
    alone = value * (1.0 - value)
    if alone <= 0.0:
        return wilson_interval(value * n, n)
    n_like = alone / (alone / n + float(recognition.variance(slopes.mean(axis=0))))
    return wilson_interval(value * n_like, n_like)


def recognised(
    recognition: Recognition, grade: Grade, cut: Cut, values: Float64, lenses: PaintedLenses, found: Completeness
) -> Completeness:
    """Completeness of lenses at a cut and a grade.

    The chance of the grade is the mean over the lenses that the cut finds and that are nearest in what is known.

    Parameters
    ----------
    recognition, grade, cut
        What is asked.
    values
        (M, 7) as :func:`~scanner.recovery.completeness.given` makes them.
    lenses
        What was painted.
    found
        Completeness of the M lenses at the cut.
    """
    if not len(values):
        return found
    chosen = lenses.found(cut)
    among = np.flatnonzero(chosen if chosen.any() else lenses.is_scored)
    known = [part[among] for part in _known(lenses)]
    shares, slopes = [], []
    for _, near in nearest_painted(values, lenses.values[among]):
        share, slope = recognition.shares(grade, *(part[near].ravel() for part in known))
        shares.append(share.reshape(near.shape).mean(axis=1))
        slopes.append(slope.reshape(*near.shape, -1).mean(axis=1))
    share, variance = np.concatenate(shares), recognition.variance(np.concatenate(slopes))
    value = found.value * share
    error = (logit(np.clip(found.high, 1e-12, 1 - 1e-12)) - logit(np.clip(found.low, 1e-12, 1 - 1e-12))) / (2 * _Z)
    spread = np.sqrt((share * error * found.value * (1 - found.value)) ** 2 + found.value**2 * variance)
    inside = np.clip(value, 1e-12, 1 - 1e-12)
    half = _Z * spread / (inside * (1 - inside))
    return Completeness(value, expit(logit(inside) - half), expit(logit(inside) + half), found.is_outside)


def _known(lenses: PaintedLenses) -> tuple[Float64, Float64, Float64]:
    names = [axis.name for axis in AXES]
    return lenses.probability, lenses.nominal_snr, lenses.values[:, names.index("theta_e")]


def _clarity(probability: Float64, arc_snr: Float64, theta_e: Float64) -> Float64:
    """What people's grades depend on, (N, 3)."""
    odds = logit(np.clip(np.nan_to_num(probability, nan=0.0), 1e-6, 1 - 1e-6))
    return np.stack([odds, np.log10(np.maximum(arc_snr, 0.1)), np.minimum(theta_e, 3.0)], axis=1)


def _constant(row: int, n: int) -> Float64:
    """Columns of the constants, (n, 3): that of one grade is one."""
    return np.tile(np.eye(len(STATED))[row], (n, 1))
