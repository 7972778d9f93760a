"""Purity: how many of a run's objects are lenses, and which painted lenses people would call one; forecasts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, logit, ndtri
from scipy.stats import poisson

from scanner.errors import ContentError
from scanner.grading.grade import GRADES, Grade
from scanner.interval import CONFIDENCE, Interval, exact_interval, normal_interval, resampled_interval, wilson_interval
from scanner.records import Float64, Int64, Record
from scanner.recovery.completeness import (
    AXES,
    TOGETHER,
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

#: Draws from which intervals are taken, and their seed: the same recovery gives the same figures.
DRAWS, SEED = 4000, 0
#: Lists of a run of which purity is stated: so many steps a decade of ranks.
STEPS_A_DECADE = 12

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Assumptions(Record):
    """What purity rests on beside the painted lenses.

    ``density_deg2``: visible lenses a square degree; the default is that of grades A and B in Euclid's Q1, 497 in 63.1 deg².
    ``density_error``: its relative error, standard deviation. Q1's own counts give 4.5%; who grades, and what a field happens
    to hold, add to it. ``seconds_per_object``: of a person who looks at a candidate.
    """

    density_deg2: Positive = 8.0
    density_error: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.2
    seconds_per_object: Positive = 10.0


class ScannedRun(Record):
    """What is asked of the run whose tiles were painted: its catalogue, counted.

    ``steps``: rank and calibrated probability of some objects, best first, so that lists by either can be counted.
    ``sky_area_deg2``: with good VIS pixels, overlaps counted once.
    """

    run: str
    title: str
    bundle: str
    sky_area_deg2: Positive
    n_objects: int
    n_candidates: int
    threshold: float
    steps: tuple[tuple[int, float], ...]


class Yield(Record):
    """What a list of the run's objects holds, with 95% intervals.

    ``probability``: calibrated, of the last object of a list by rank; None: not known.
    ``completeness``: of visible lenses, as the painted population has them. ``n_lenses``, ``n_false``, ``purity``: predicted
    for this very list, chance included; what was graded counts as people say. ``n_graded``: objects of the list with a verdict,
    ``n_graded_lenses``: those that are lenses by it.
    """

    cut: Cut
    n_listed: int
    probability: float | None = None
    completeness: Interval
    n_lenses: Interval
    n_false: Interval
    purity: Interval
    n_graded: int = 0
    n_graded_lenses: int = 0


class RecallRatio(Record):
    """Recall of compound lenses over that of single ones at a cut, with its 95% interval.

    ``ratio``: as painted (Katz et al. 1978). ``alike``: of lenses of like Einstein radius and signal-to-noise ratio (Mantel &
    Haenszel's ratio over those bins, variance of Greenland & Robins 1985): what the second source itself does. None: nothing
    painted or found, or no bin with both.
    """

    cut: Cut
    compound: Interval | None
    single: Interval | None
    n_compound: int
    n_single: int
    ratio: Interval | None
    alike: Interval | None


class Forecast(Record):
    """What a list of some purity holds in a survey of ``area_deg2``, with 95% intervals.

    ``top``: length of the list in the run that was painted, None where no list of it is that pure. ``n_listed``: objects to
    look at, ``hours``: the time that takes.
    """

    area_deg2: float
    wanted_purity: float
    best_purity: float
    top: int | None = None
    completeness: Interval | None = None
    n_lenses: Interval | None = None
    n_listed: Interval | None = None
    hours: Interval | None = None


def list_lengths(n_objects: int) -> tuple[int, ...]:
    """Lengths of the lists that are looked at: 10, then :data:`STEPS_A_DECADE` a decade, and all objects."""
    n_steps = max(0, math.ceil(STEPS_A_DECADE * math.log10(max(n_objects, 10) / 10)))
    steps = {round(10 * 10 ** (step / STEPS_A_DECADE)) for step in range(n_steps)}
    return tuple(sorted({step for step in steps if step < n_objects} | {n_objects}))


def yields(
    lenses: PaintedLenses,
    run: ScannedRun,
    cuts: Sequence[Cut],
    assumptions: Assumptions,
    verdicts: Mapping[int, bool] | None = None,
) -> tuple[Yield, ...]:
    """How many lenses and false positives each cut's list holds.

    A list of n objects holds λ = (density) × (area) × (completeness) visible lenses on average; in a given sky their number is
    Poisson's, and no more than n. The density is known to its error (a gamma distribution), the completeness from the painted
    lenses (Jeffreys' beta). Of what was graded the verdict is taken, and the density is learnt from it: where k lenses were
    found among objects of which λ' were expected, the density's gamma distribution of shape a becomes one of shape a + k and
    rate a + λ'. That holds where all are lenses too: how far down they reach tells how many there are.

    Parameters
    ----------
    lenses
        Painted into the run; visible ones count.
    run
        Whose catalogue is listed.
    cuts
        By rank or probability, or the candidates.
    assumptions
        The density.
    verdicts
        By rank, whether an object is a lens; objects that people disagree on are left out.
    """
    expected = _Expected(lenses, run, assumptions, verdicts or {})
    is_lens = expected.is_lens
    generator = np.random.default_rng(SEED)
    scale = expected.scale(generator)
    # The same chance for all lists: a longer one never holds fewer lenses.
    chance = generator.random(DRAWS)
    made = []
    for cut in cuts:
        n_listed = _n_listed(cut, run)
        found = lenses.found(cut)[lenses.is_visible]
        completeness = exact_interval(int(found.sum()), len(found))
        in_list = expected.graded <= n_listed
        n_graded, n_yes = int(in_list.sum()), int((in_list & is_lens).sum())
        left = n_listed - n_graded
        mean = expected.ungraded(n_listed, scale) * _relative(generator, int(found.sum()), len(found))
        n_lenses = n_yes + np.minimum(poisson.ppf(chance, mean), left)
        made.append(
            Yield(
                cut=cut,
                n_listed=n_listed,
                probability=dict(run.steps).get(n_listed) if cut.kind == "top" else None,
                completeness=completeness,
                n_lenses=_interval(n_lenses),
                n_false=_interval(n_listed - n_lenses),
                purity=_interval(n_lenses / max(n_listed, 1)),
                n_graded=n_graded,
                n_graded_lenses=n_yes,
            )
        )
    return tuple(made)


def recall_ratio(lenses: PaintedLenses, cut: Cut) -> RecallRatio:
    """Whether the run loses compound lenses: their recall over that of single ones, among visible lenses."""
    found, compound, single = (
        lenses.found(cut),
        lenses.is_visible & lenses.is_compound,
        lenses.is_visible & ~lenses.is_compound,
    )
    counts = [int((rows & found).sum()) for rows in (compound, single)]
    totals = [int(rows.sum()) for rows in (compound, single)]
    ratio = None
    if all(counts):
        error = math.sqrt(sum(1 / count - 1 / total for count, total in zip(counts, totals, strict=True)))
        ratio = _log_interval(counts[0] * totals[1] / (counts[1] * totals[0]), error)
    strata = _strata(lenses)
    return RecallRatio(
        cut=cut,
        compound=exact_interval(counts[0], totals[0]) if totals[0] else None,
        single=exact_interval(counts[1], totals[1]) if totals[1] else None,
        n_compound=totals[0],
        n_single=totals[1],
        ratio=ratio,
        alike=_mantel_haenszel(*(np.bincount(strata[rows], minlength=strata.max() + 1).astype(float) for rows in
                                 (compound & found, compound, single & found, single))),
    )  # fmt: skip


def forecast(
    lists: Sequence[Yield],
    lenses: PaintedLenses,
    run: ScannedRun,
    assumptions: Assumptions,
    verdicts: Mapping[int, bool],
    area_deg2: float,
    purity: float,
) -> Forecast:
    """What the longest list of some purity holds, where a survey of another area is like the run.

    Parameters
    ----------
    lists
        Of the run, from :func:`yields`, by rank.
    lenses, run, assumptions, verdicts
        As there.
    area_deg2
        Of the survey.
    purity
        Share of lenses that the list shall have.
    """
    best = max(lists, key=lambda one: one.purity.value)
    pure = [one for one in lists if one.purity.value >= purity]
    if not pure:
        return Forecast(area_deg2=area_deg2, wanted_purity=purity, best_purity=best.purity.value)
    chosen = max(pure, key=lambda one: one.n_listed)
    generator = np.random.default_rng(SEED)
    found = lenses.found(chosen.cut)[lenses.is_visible]
    scale = _Expected(lenses, run, assumptions, verdicts).scale(generator)
    mean = scale * assumptions.density_deg2 * float(found.mean()) * _relative(generator, int(found.sum()), len(found))
    n_lenses = generator.poisson(mean * area_deg2).astype(np.float64)
    # The run's own list says how many others come with them; that they are few is known as well as a count of them is.
    others = generator.gamma(chosen.n_false.value + 0.5, 1.0, DRAWS) / run.sky_area_deg2
    n_listed = n_lenses + generator.poisson(others * area_deg2)
    return Forecast(
        area_deg2=area_deg2,
        wanted_purity=purity,
        best_purity=best.purity.value,
        top=chosen.n_listed,
        completeness=chosen.completeness,
        n_lenses=_interval(n_lenses),
        n_listed=_interval(n_listed),
        hours=_interval(n_listed * assumptions.seconds_per_object / 3600.0),
    )


class _Expected:
    """Lenses expected among a run's objects by rank, spread evenly over each step of ranks.

    At the head of a list the expectation of a step may be more than one an object: in this sky, lenses that are too many there
    stand further down. So sums are those of the expectation, and only a list as a whole holds no more than its length.
    """

    def __init__(self, lenses: PaintedLenses, run: ScannedRun, assumptions: Assumptions, verdicts: Mapping[int, bool]) -> None:
        lengths = np.array([0, *list_lengths(run.n_objects)])
        ranks = np.sort(lenses.rank[lenses.is_visible & (lenses.rank >= 1)])
        shares = np.searchsorted(ranks, lengths, side="right") / max(int(lenses.is_visible.sum()), 1)
        self._lengths, self._error = lengths, assumptions.density_error
        #: Of each object of a step, at the assumed density.
        self._each = np.diff(shares) * assumptions.density_deg2 * run.sky_area_deg2 / np.diff(lengths)
        known = sorted((rank, is_lens) for rank, is_lens in verdicts.items() if 1 <= rank <= run.n_objects)
        #: Ranks of the graded objects, (G,), and whether they are lenses.
        self.graded = np.array([rank for rank, _ in known], dtype=np.int64)
        self.is_lens = np.array([is_lens for _, is_lens in known], dtype=np.bool_)

    def _counted(self, ranks: Int64) -> Int64:
        """How many of some ranks lie in each step."""
        return np.bincount(np.searchsorted(self._lengths, ranks) - 1, minlength=len(self._each))

    def ungraded(self, n_listed: int, scale: Float64) -> Float64:
        """Expected among the first objects but for those that were graded, for each density over the assumed one."""
        objects = np.clip(n_listed - self._lengths[:-1], 0, np.diff(self._lengths))
        left = objects - self._counted(self.graded[self.graded <= n_listed])
        return np.asarray(scale * float(self._each @ left))

    def scale(self, generator: np.random.Generator) -> Float64:
        """Draws of the true density over the assumed one: a gamma distribution, with the verdicts as Poisson counts."""
        if self._error == 0.0:
            return np.ones(DRAWS)
        shape, expected = 1.0 / self._error**2, float(self._counted(self.graded) @ self._each)
        return generator.gamma(shape + int(self.is_lens.sum()), 1.0 / (shape + expected), DRAWS)


def _n_listed(cut: Cut, run: ScannedRun) -> int:
    """How many objects of the run a cut lists."""
    if cut.kind == "top":
        return min(int(cut.value), run.n_objects)
    if cut.kind == "candidates":
        return run.n_candidates
    if cut.kind == "scored":
        return run.n_objects
    ranks, probabilities = np.array(run.steps).T
    # From low to high probability; between two steps the rank's logarithm runs evenly with that of the odds.
    order = np.argsort(probabilities, kind="stable")
    edges, values = _log_odds(probabilities[order]), np.log(np.maximum(ranks[order], 1.0))
    return round(math.exp(float(np.interp(_log_odds(np.array([cut.value]))[0], edges, values))))


def _log_odds(share: Float64) -> Float64:
    inside = np.clip(share, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _relative(generator: np.random.Generator, n_found: int, n: int) -> Float64:
    """Draws of the true completeness over the measured one."""
    return (
        generator.beta(n_found + 0.5, n - n_found + 0.5, DRAWS) / max(n_found / max(n, 1), 1e-12) if n_found else np.ones(DRAWS)
    )


def _interval(draws: Float64) -> Interval:
    return resampled_interval(float(draws.mean()), draws)


def _log_interval(ratio: float, error: float) -> Interval:
    ends = normal_interval(math.log(ratio), error)
    return Interval(value=ratio, low=math.exp(ends.low), high=math.exp(ends.high))


def _strata(lenses: PaintedLenses) -> NDArray[np.int64]:
    """Number of the bin in Einstein radius and signal-to-noise ratio that each lens is in, (N,)."""
    place: Int64 = np.zeros(len(lenses), dtype=np.int64)
    for name in TOGETHER:
        column, axis = next((k, axis) for k, axis in enumerate(AXES) if axis.name == name)
        edges = np.array(edges_of(axis, lenses))
        place = place * (len(edges) + 1) + np.searchsorted(edges, lenses.values[:, column], side="right")
    return place


def _mantel_haenszel(a: Float64, n1: Float64, b: Float64, n0: Float64) -> Interval | None:
    total = n1 + n0
    both = (n1 > 0) & (n0 > 0)
    a, n1, b, n0, total = (part[both] for part in (a, n1, b, n0, total))
    upper, lower = float((a * n0 / total).sum()), float((b * n1 / total).sum())
    if not upper or not lower:
        return None
    variance = float((((a + b) * n1 * n0 - a * b * total) / total**2).sum()) / (upper * lower)
    return _log_interval(upper / lower, math.sqrt(variance))


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
