"""Completeness: the share of painted lenses that a run finds, in bins and as a smooth function of lens and place."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Base64Bytes
from scipy.interpolate import BSpline
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import KDTree
from scipy.special import expit, logit, ndtri

from scanner.errors import ContentError, UsageError
from scanner.grading.grade import Grade
from scanner.interval import CONFIDENCE, wilson_interval
from scanner.records import Finite, Float64, Int64, Record

Bool = NDArray[np.bool_]
AxisName = Literal["theta_e", "arc_snr", "source_magnitude", "deflector_magnitude", "source_colour", "sky_sigma", "psf_fwhm"]


@dataclass(frozen=True)
class Axis:
    """What completeness depends on: a column of ``lenses.parquet``.

    ``edges``: of its bins; None: fifths of what was painted, or each of a few distinct values. ``is_log``: the smooth model
    takes its decimal logarithm.
    """

    name: AxisName
    column: str
    label: str
    edges: tuple[float, ...] | None = None
    is_log: bool = False

    def scaled(self, values: NDArray[Any]) -> Float64:
        """Values as the smooth model takes them; a signal-to-noise ratio of less than 0.1 counts as 0.1."""
        values = np.asarray(values, dtype=np.float64)
        return np.log10(np.maximum(values, 0.1 if self.name == "arc_snr" else 1e-12)) if self.is_log else values


AXES: tuple[Axis, ...] = (
    Axis("theta_e", "theta_e_arcsec", "Einstein radius (arcsec)", (0.0, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 10.0)),
    Axis("arc_snr", "seen_arc_snr", "S/N of the arcs in VIS", (0.0, 10.0, 25.0, 50.0, 100.0, 200.0, 400.0, 1e5), is_log=True),
    Axis(
        "source_magnitude",
        "source_magnitude_vis",
        "VIS magnitude of the source",
        (15.0, 22.0, 23.0, 24.0, 24.5, 25.0, 25.5, 30.0),
    ),
    Axis("deflector_magnitude", "magnitude_vis", "VIS magnitude of the deflector", (10.0, 18.0, 19.0, 20.0, 21.0, 22.0, 30.0)),
    Axis("source_colour", "source_vis_minus_h", "VIS − H of the source (AB mag)", (-3.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 6.0)),
    Axis("sky_sigma", "seen_sky_sigma", "VIS noise of the place (adu)", is_log=True),
    Axis("psf_fwhm", "vis_psf_fwhm_arcsec", "VIS seeing of the tile (FWHM, arcsec)"),
)
#: The axes whose effects the smooth model does not take to be independent: a small ring hides in the light of its deflector.
TOGETHER: tuple[AxisName, AxisName] = ("theta_e", "arc_snr")
#: Fewer painted lenses say too little for a smooth model.
LEAST_LENSES = 100
#: Lenses over which completeness is averaged where not every axis is given.
NEIGHBOURS = 200
#: Lenses that are asked about together, so that memory holds the neighbours of each.
_ASKED_AT_ONCE = 500

CutKind = Literal["top", "threshold", "candidates", "scored"]


class Cut(Record):
    """Which objects count as found.

    ``top``: the best ``value`` objects of the run by rank. ``threshold``: a calibrated probability of ``value`` or more.
    ``candidates``: what the run itself decided for. ``scored``: everything that the run has a score of.
    """

    kind: CutKind
    value: Finite = 0.0

    def __str__(self) -> str:
        words = {"top": f"top {self.value:,.0f}", "threshold": f"probability ≥ {self.value:.4g}"}
        return words.get(self.kind, self.kind)


@dataclass(frozen=True)
class PaintedLenses:
    """The lenses of ``lenses.parquet`` as arrays of N rows.

    ``values`` (N, 7): of :data:`AXES`, in their units. ``nominal_snr`` (N,): of the arcs, at the noise of the Wide Survey.
    ``rank`` (N,) int64, -1: none. ``probability`` (N,), NaN: not scored.
    ``group`` (N,) int64: lenses that share tile and wave. ``is_visible``, ``is_compound``, ``is_candidate``, ``is_scored``
    (N,) bool. ``ra``, ``dec`` (N,) degrees. ``fate`` (N,) text.
    """

    values: Float64
    nominal_snr: Float64
    rank: Int64
    probability: Float64
    group: Int64
    is_visible: Bool
    is_compound: Bool
    is_candidate: Bool
    is_scored: Bool
    ra: Float64
    dec: Float64
    fate: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.rank)

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """The rows that are lenses by the definition: what was drawn as a lens and came out as none counts nowhere.

        Raises
        ------
        ContentError
            None is a lens.
        """
        rows = table.filter(table["is_lens"])
        if not len(rows):
            raise ContentError("none of the painted objects is a lens by the definition; paint more of them.")

        def numbers(name: str) -> NDArray[Any]:
            return np.asarray(rows[name].to_numpy())

        places = [f"{tile}/{wave}" for tile, wave in zip(rows["tile_id"].to_pylist(), rows["wave"].to_pylist(), strict=True)]
        fate = np.asarray(rows["fate"].to_pylist(), dtype=np.str_)
        return cls(
            values=np.stack([numbers(axis.column).astype(np.float64) for axis in AXES], axis=1),
            nominal_snr=numbers("arc_snr").astype(np.float64),
            rank=numbers("rank").astype(np.int64),
            probability=numbers("probability").astype(np.float64),
            group=np.unique(places, return_inverse=True)[1].astype(np.int64),
            is_visible=numbers("visible"),
            is_compound=numbers("is_compound"),
            is_candidate=numbers("is_candidate"),
            is_scored=numbers("rank") >= 1,
            ra=numbers("ra"),
            dec=numbers("dec"),
            fate=fate,
        )

    def found(self, cut: Cut) -> Bool:
        """Which lenses a cut finds, (N,)."""
        if cut.kind == "top":
            return (self.rank >= 1) & (self.rank <= cut.value)
        if cut.kind == "threshold":
            return np.nan_to_num(self.probability, nan=-1.0) >= cut.value
        return self.is_candidate if cut.kind == "candidates" else self.is_scored


class Bin(Record):
    """Completeness of the lenses of one bin.

    ``second`` is the second axis of bins in two, else None with an infinite range. ``grade``: found is what the cut finds and
    people give this grade or a better one, see :mod:`scanner.recovery.purity`; None: what the cut finds. ``n_found``: by
    the cut. The interval is Wilson's, 95%; ``predicted``: the mean of the smooth model over the bin's lenses, None without one.
    """

    cut: Cut
    axis: AxisName
    low: float
    high: float
    second: AxisName | None = None
    second_low: float = -math.inf
    second_high: float = math.inf
    n_painted: int
    n_found: int
    completeness: float
    completeness_low: float
    completeness_high: float
    predicted: float | None = None
    grade: Grade | None = None


def edges_of(axis: Axis, lenses: PaintedLenses) -> tuple[float, ...]:
    """Edges of an axis' bins; none where all values are equal."""
    if axis.edges is not None:
        return axis.edges
    values = lenses.values[:, AXES.index(axis)]
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) < 2:
        return ()
    if len(distinct) <= 6:
        inner = (distinct[1:] + distinct[:-1]) / 2
    else:
        inner = np.quantile(values[np.isfinite(values)], (0.2, 0.4, 0.6, 0.8))
    return tuple(np.unique([distinct[0], *inner, np.nextafter(distinct[-1], math.inf)]).tolist())


def bins(lenses: PaintedLenses, cuts: Sequence[Cut], model: SmoothModel | None = None) -> tuple[Bin, ...]:
    """Completeness at each cut by each axis, and by radius and signal-to-noise ratio together; empty bins are left out."""
    made: list[Bin] = []
    first, second = (next(axis for axis in AXES if axis.name == name) for name in TOGETHER)
    for cut in cuts:
        found = lenses.found(cut)
        predicted = None if model is None else model.at(cut, lenses.values).value
        for axis in AXES:
            made += [
                one.model_copy(update={"cut": cut, "axis": axis.name})
                for one, _ in _counted(axis, lenses, found, predicted, np.ones(len(lenses), dtype=bool))
            ]
        for wide, within in _counted(first, lenses, found, predicted, np.ones(len(lenses), dtype=bool)):
            made += [
                one.model_copy(
                    update={
                        "cut": cut, "axis": first.name, "low": wide.low, "high": wide.high,
                        "second": second.name, "second_low": one.low, "second_high": one.high,
                    }
                )
                for one, _ in _counted(second, lenses, found, predicted, within)
            ]  # fmt: skip
    return tuple(made)


def _counted(
    axis: Axis, lenses: PaintedLenses, found: Bool, predicted: Float64 | None, among: Bool
) -> Iterator[tuple[Bin, Bool]]:
    """Bins of one axis with the lenses in each, of those ``among`` which to count."""
    values, edges = lenses.values[:, AXES.index(axis)], edges_of(axis, lenses)
    for low, high in pairwise(edges):
        within = among & (values >= low) & (values < high)
        n, n_found = int(within.sum()), int((within & found).sum())
        if not n:
            continue
        share = wilson_interval(n_found, n)
        yield (
            Bin(
                cut=Cut(kind="scored"),
                axis=axis.name,
                low=low,
                high=high,
                n_painted=n,
                n_found=n_found,
                completeness=share.value,
                completeness_low=share.low,
                completeness_high=share.high,
                predicted=None if predicted is None else float(predicted[within].mean()),
            ),
            within,
        )


@dataclass(frozen=True)
class Completeness:
    """Completeness of M lenses with the 95% interval of the smooth model, each (M,) float64.

    ``is_outside`` (M,) bool: the lens lies beyond what was painted, and the value is that of the nearest that was.
    """

    value: Float64
    low: Float64
    high: Float64
    is_outside: Bool


class SmoothAxis(Record):
    """An axis of the smooth model: from ``low`` to ``high`` in its scaled unit, which hold 98% of what was painted.

    ``typical``: the median, for lenses of which it is not known.
    """

    name: AxisName
    low: float
    high: float
    typical: float


class FittedCut(Record):
    """One logistic regression of the model: P coefficients, and the lower triangle of their covariance (little-endian float32).

    That of the cut ``scored`` is of all lenses; those of other cuts are of the lenses that were scored.
    """

    cut: Cut
    n_found: int
    coefficients: tuple[float, ...]
    covariance: Base64Bytes

    @classmethod
    def of(cls, cut: Cut, n_found: int, coefficients: Float64, covariance: Float64) -> FittedCut:
        """Coefficients (P,) and their covariance (P, P)."""
        triangle = covariance[np.tril_indices(len(covariance))].astype("<f4")
        return cls(
            cut=cut,
            n_found=n_found,
            # Far below their error, and half as long.
            coefficients=tuple(float(f"{number:.7g}") for number in coefficients.tolist()),
            covariance=base64.b64encode(triangle.tobytes()),
        )

    @cached_property
    def matrix(self) -> Float64:
        """The covariance, (P, P)."""
        n = len(self.coefficients)
        matrix = np.zeros((n, n))
        matrix[np.tril_indices(n)] = np.frombuffer(self.covariance, dtype="<f4")
        return matrix + np.tril(matrix, -1).T


class HeldOut(Record):
    """What the model is worth on lenses that it was not fitted to: fifths of the tiles' waves, one after the other.

    ``log_loss`` in nats a lens, ``log_loss_of_share``: of one completeness for all. ``slope`` and ``offset`` of a logistic
    recalibration: 1 and 0 where it is calibrated.
    """

    cut: Cut
    log_loss: float
    log_loss_of_share: float
    slope: float
    offset: float


#: Cubic B-splines of an axis alone, and of each of the two that go together.
_SPLINES, _SPLINES_TOGETHER = 8, 6
#: Inverse variance of the normal prior that each coefficient has beside the smoothness: ten in log-odds.
_RIDGE = 0.01
#: Strengths of smoothing that are tried, for axes alone and together.
_STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
_Z = float(ndtri(0.5 + CONFIDENCE / 2))


class SmoothModel(Record):
    """Completeness as the product of two logistic regressions on penalised splines (Eilers & Marx 1996; Wood 2017, chapter 4).

    The first is the chance that a lens is scored at all (detected, not masked, not at an edge), the second the chance that the
    cut finds it then. In both, log-odds are a sum of cubic splines of the scaled axes and of one surface of the two axes that
    go together. Second differences of neighbouring coefficients are penalised, how strongly is chosen by the Laplace
    approximation of the marginal likelihood. The covariance is the posterior's, times ``scatter``: how much more the lenses of
    one tile and wave vary together than independent ones would (1: not at all). At cuts between those fitted, log-odds are
    interpolated; they never fall from a strict cut to a looser one.
    """

    axes: tuple[SmoothAxis, ...]
    n_lenses: int
    strengths: tuple[float, float]
    scatter: float
    held_out: HeldOut
    scored: FittedCut
    fitted: tuple[FittedCut, ...]

    @classmethod
    def fit(cls, lenses: PaintedLenses, cuts: Sequence[Cut]) -> SmoothModel:
        """Fit the model at some cuts; the same lenses give the same model.

        Raises
        ------
        ContentError
            There are too few lenses.
        """
        if len(lenses) < LEAST_LENSES:
            raise ContentError(
                f"{len(lenses)} painted lenses are too few for a smooth completeness, which takes {LEAST_LENSES}; paint more."
            )
        axes, scored = _smooth_axes(lenses), lenses.is_scored
        design = _design(axes, lenses.values)
        among = design[scored]
        reached = [(cut, lenses.found(cut)[scored]) for cut in cuts if cut.kind != "scored"]
        # The cut that finds half of them tells most about how smooth the curves are.
        reference, found = min(reached, key=lambda one: abs(float(one[1].mean() if len(one[1]) else 0.0) - 0.5))
        strengths = _strengths(among, found, axes)
        penalty = _penalty(axes, strengths)
        scatter = group_scatter(among, found, penalty, lenses.group[scored])

        def fitted(cut: Cut, rows: Float64, chosen: Bool) -> FittedCut:
            coefficients, covariance, _ = penalised_fit(rows, chosen, penalty)
            return FittedCut.of(cut, int(chosen.sum()), coefficients, scatter * covariance)

        return cls(
            axes=axes,
            n_lenses=len(lenses),
            strengths=strengths,
            scatter=scatter,
            held_out=_held_out(design, scored, lenses.found(reference), penalty, lenses.group, reference),
            scored=fitted(Cut(kind="scored"), design, scored),
            fitted=tuple(fitted(cut, among, chosen) for cut, chosen in reached),
        )

    def at(self, cut: Cut, values: Float64) -> Completeness:
        """Completeness of lenses at a cut.

        Parameters
        ----------
        cut
            Of a kind that was fitted. ``top`` and ``threshold`` beyond the outermost cut that was fitted are as there.
        values
            (M, 7) of :data:`AXES` in their units; NaN: typical.

        Raises
        ------
        UsageError
            No cut of this kind was fitted.
        """
        return self.mean(cut, values, np.ones(len(values), dtype=np.int64))

    def mean(self, cut: Cut, values: Float64, counts: Int64) -> Completeness:
        """Mean completeness of groups of lenses, in ``values`` (M, 7) one after the other, ``counts`` (G,) of them each."""
        if not len(counts):
            return Completeness(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.bool_))
        design = _design(self.axes, values)
        shares, parts = self._shares(cut, design)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        value = np.add.reduceat(shares, starts) / counts
        variance = np.zeros(len(counts))
        for share, covariances in parts:
            # Of a product of shares, the derivative by the log-odds of one of them.
            slope = design * (shares * (1 - share))[:, None]
            if len(counts) != len(values):
                slope = np.add.reduceat(slope, starts) / counts[:, None]
            errors = [weight * np.sqrt(np.maximum(((slope @ v) * slope).sum(axis=1), 0.0)) for weight, v in covariances]
            variance += np.sum(errors, axis=0) ** 2
        # In log-odds, so that the interval stays within 0 and 1.
        inside = np.clip(value, 1e-12, 1 - 1e-12)
        half = _Z * np.sqrt(variance) / (inside * (1 - inside))
        outside = np.add.reduceat(self.outside(values).astype(np.int64), starts) * 2 > counts
        return Completeness(value, expit(logit(inside) - half), expit(logit(inside) + half), outside)

    def outside(self, values: Float64) -> Bool:
        """Which lenses lie beyond what was painted, (M,): outside the 98% of an axis by more than a tenth of its length."""
        beyond = np.zeros(len(values), dtype=bool)
        for axis in self.axes:
            scaled, margin = _scaled(axis.name, values), 0.1 * (axis.high - axis.low)
            beyond |= (scaled < axis.low - margin) | (scaled > axis.high + margin)
        return beyond

    def _shares(self, cut: Cut, design: Float64) -> tuple[Float64, list[tuple[Float64, list[tuple[float, Float64]]]]]:
        """Completeness (M,); and of each factor its share (M,) and the covariances that its error is made of, with weights."""
        scored = expit(design @ np.array(self.scored.coefficients))
        parts = [(scored, [(1.0, self.scored.matrix)])]
        if cut.kind == "scored":
            return scored, parts
        of_kind = sorted((one for one in self.fitted if one.cut.kind == cut.kind), key=lambda one: _looseness(one.cut))
        if not of_kind:
            kinds = ", ".join(sorted({one.cut.kind for one in self.fitted}))
            raise UsageError(f"This completeness was not fitted by {cut.kind}; ask by one of: {kinds}.")
        rising = np.maximum.accumulate(design @ np.array([one.coefficients for one in of_kind]).T, axis=1)
        place = float(np.interp(_looseness(cut), [_looseness(one.cut) for one in of_kind], np.arange(len(of_kind))))
        below, beyond = int(place), place - int(place)
        above = min(below + 1, len(of_kind) - 1)
        found = expit((1 - beyond) * rising[:, below] + beyond * rising[:, above])
        weights = [(1 - beyond, of_kind[below].matrix)] + ([(beyond, of_kind[above].matrix)] if beyond else [])
        return scored * found, [*parts, (found, weights)]


def ladder(n_objects: int, lenses: PaintedLenses) -> tuple[Cut, ...]:
    """The cuts that a recovery is fitted at: 1, 2 and 5 of each decade of ranks, probabilities that part the lenses evenly.

    Parameters
    ----------
    n_objects
        Objects of the run's catalogue.
    lenses
        What was painted.
    """
    steps = [step * 10**decade for decade in range(1, 12) for step in (1, 2, 5)]
    tops = [step for step in steps if step < n_objects]
    # Of a long list, what nobody will look at is known from few steps.
    tops = [step for step in tops if step <= 20_000 or step in (10**5, 10**6, 10**7, 10**8)]
    probability = lenses.probability[np.isfinite(lenses.probability)]
    thresholds = np.unique(np.quantile(probability, (0.05, 0.2, 0.4, 0.6, 0.8, 0.95))) if len(probability) else np.empty(0)
    return (
        *(Cut(kind="top", value=step) for step in (*tops, n_objects)),
        *(Cut(kind="threshold", value=value) for value in thresholds.tolist()),
        Cut(kind="candidates"),
        Cut(kind="scored"),
    )


def given(parameters: Mapping[AxisName, NDArray[Any] | float]) -> Float64:
    """Parameters as the rows of :meth:`SmoothModel.at`, (M, 7): broadcast against one another, NaN where one is not given.

    Raises
    ------
    UsageError
        Their shapes do not go together, there are none, or a value is not finite.
    """
    if not parameters:
        raise UsageError(f"Completeness of which lenses? Give at least one of {', '.join(axis.name for axis in AXES)}.")
    try:
        columns = np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in parameters.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in parameters.items())
        raise UsageError(f"The shapes of the parameters do not go together: {shapes}.") from None
    for name, column in zip(parameters, columns, strict=True):
        n_unknown = int((~np.isfinite(column)).sum())
        if n_unknown:
            raise UsageError(f"{name}: {n_unknown} of its {column.size} values is not a finite number; leave such lenses out.")
    values = np.full((columns[0].size, len(AXES)), np.nan)
    names = [axis.name for axis in AXES]
    for name, column in zip(parameters, columns, strict=True):
        values[:, names.index(name)] = column.ravel()
    return values


def completed(model: SmoothModel, cut: Cut, values: Float64, lenses: PaintedLenses) -> Completeness:
    """Completeness of lenses of which not all is known: the mean over the painted lenses that are nearest in what is.

    What is not given follows the painted population: of lenses with a large Einstein radius the deflector is bright.

    Parameters
    ----------
    model, cut
        What to ask.
    values
        (M, 7) as :func:`given` makes them, the same columns known in all rows.
    lenses
        What was painted.
    """
    if not len(values):
        return model.at(cut, values)
    known = _known_axes(values)
    modelled = {k for k, axis in enumerate(AXES) if axis.name in {smooth.name for smooth in model.axes}}
    parts = []
    for some, near in nearest_painted(values, lenses.values):
        if modelled <= set(known.tolist()):
            parts.append(model.at(cut, some))
            continue
        rows = lenses.values[near].reshape(-1, len(AXES))
        rows[:, known] = np.repeat(some[:, known], near.shape[1], axis=0)
        mean = model.mean(cut, rows, np.full(len(some), near.shape[1], dtype=np.int64))
        parts.append(replace(mean, is_outside=model.outside(some)))
    names = ("value", "low", "high", "is_outside")
    return Completeness(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def nearest_painted(values: Float64, painted: Float64) -> Iterator[tuple[Float64, Int64]]:
    """Some of the lenses that are asked about, and rows of the painted ones that are nearest in what is known of each, (M, n).

    Parameters
    ----------
    values
        One lens or more, as :func:`given` makes them.
    painted
        (N, 7) of :data:`AXES`.
    """
    known = _known_axes(values)
    there = np.flatnonzero(np.isfinite(painted[:, known]).all(axis=1))
    scaled = np.stack([_scaled(AXES[k].name, painted[there]) for k in known], axis=1)
    spread = np.maximum(scaled.std(axis=0), 1e-9)
    tree, n = KDTree(scaled / spread), min(NEIGHBOURS, len(there))
    for first in range(0, len(values), _ASKED_AT_ONCE):
        some = values[first : first + _ASKED_AT_ONCE]
        asked = np.stack([_scaled(AXES[k].name, some) for k in known], axis=1)
        yield some, there[np.asarray(tree.query(asked / spread, k=n)[1]).reshape(len(some), n)]


def _known_axes(values: Float64) -> Int64:
    return np.array([k for k in range(len(AXES)) if np.isfinite(values[:, k]).any()], dtype=np.int64)


def _looseness(cut: Cut) -> float:
    """Grows from strict cuts to loose ones, in logarithms."""
    if cut.kind == "top":
        return math.log(max(cut.value, 1e-9))
    inside = min(max(cut.value, 1e-12), 1 - 1e-12)
    return math.log1p(-inside) - math.log(inside) if cut.kind == "threshold" else 0.0


def _scaled(name: AxisName, values: Float64) -> Float64:
    number = next(k for k, axis in enumerate(AXES) if axis.name == name)
    return AXES[number].scaled(values[:, number])


def _smooth_axes(lenses: PaintedLenses) -> tuple[SmoothAxis, ...]:
    """The axes along which the painted lenses differ; one that is unknown for a fifth of them tells nothing."""
    made = []
    for axis in AXES:
        values = _scaled(axis.name, lenses.values)
        values = values[np.isfinite(values)]
        if len(values) < 0.8 * len(lenses):
            continue
        low, middle, high = np.quantile(values, (0.01, 0.5, 0.99)).tolist()
        if high - low > 1e-3 * max(1.0, abs(middle)):
            made.append(SmoothAxis(name=axis.name, low=low, high=high, typical=middle))
    return tuple(made)


def _splines(axis: SmoothAxis, values: Float64, n: int) -> Float64:
    """Cubic B-splines with equal steps from ``low`` to ``high``, (M, n); constant beyond."""
    scaled = np.clip(np.nan_to_num(_scaled(axis.name, values), nan=axis.typical), axis.low, axis.high)
    step = (axis.high - axis.low) / (n - 3)
    knots = axis.low + step * np.arange(-3, n + 1)
    inside = np.clip(scaled, knots[3], np.nextafter(knots[n], knots[3]))
    return np.asarray(BSpline.design_matrix(inside, knots, 3).toarray(), dtype=np.float64)


def _pair(axes: Sequence[SmoothAxis]) -> tuple[SmoothAxis, SmoothAxis] | None:
    both = [axis for axis in axes if axis.name in TOGETHER]
    return (both[0], both[1]) if len(both) == 2 else None


def _design(axes: Sequence[SmoothAxis], values: Float64) -> Float64:
    """One column for the mean, then the splines of each axis, then the surface; (M, P)."""
    parts = [np.ones((len(values), 1)), *(_splines(axis, values, _SPLINES) for axis in axes)]
    pair = _pair(axes)
    if pair is not None:
        first, second = (_splines(axis, values, _SPLINES_TOGETHER) for axis in pair)
        parts.append((first[:, :, None] * second[:, None, :]).reshape(len(values), -1))
    return np.concatenate(parts, axis=1)


def _penalty(axes: Sequence[SmoothAxis], strengths: tuple[float, float]) -> Float64:
    """The matrix S of the quadratic penalty ½ β'Sβ, (P, P)."""
    bend = np.diff(np.eye(_SPLINES), 2, axis=0)
    n_alone = 1 + _SPLINES * len(axes)
    n = n_alone + (_SPLINES_TOGETHER**2 if _pair(axes) is not None else 0)
    penalty = _RIDGE * np.eye(n)
    for number in range(len(axes)):
        part = slice(1 + number * _SPLINES, 1 + (number + 1) * _SPLINES)
        penalty[part, part] += strengths[0] * bend.T @ bend
    if n > n_alone:
        bend, same = np.diff(np.eye(_SPLINES_TOGETHER), 2, axis=0), np.eye(_SPLINES_TOGETHER)
        penalty[n_alone:, n_alone:] += strengths[1] * (np.kron(bend.T @ bend, same) + np.kron(same, bend.T @ bend))
    return penalty


def penalised_fit(
    design: Float64, found: Bool, penalty: Float64, start: Float64 | None = None
) -> tuple[Float64, Float64, float]:
    """Newton's method for the penalised likelihood: coefficients, their covariance, and the marginal likelihood's logarithm."""
    target = found.astype(np.float64)
    if start is None:
        share = (target.sum() + 0.5) / (len(target) + 1)
        start = np.zeros(design.shape[1])
        start[0] = math.log(share / (1 - share))

    def objective(at: Float64) -> float:
        odds = design @ at
        return float(target @ odds - np.logaddexp(0.0, odds).sum() - 0.5 * at @ penalty @ at)

    current, reached = start, objective(start)
    for _ in range(60):
        shares = expit(design @ current)
        curvature = (design * (shares * (1 - shares))[:, None]).T @ design + penalty
        step = cho_solve(cho_factor(curvature), design.T @ (target - shares) - penalty @ current)
        length = 1.0
        while (proposed := objective(current + length * step)) < reached and length > 1e-6:
            length /= 2
        gain, current, reached = proposed - reached, current + length * step, max(proposed, reached)
        if gain < 1e-7 * (1 + abs(reached)):
            break
    shares = expit(design @ current)
    curvature = (design * (shares * (1 - shares))[:, None]).T @ design + penalty
    evidence = reached + 0.5 * float(np.linalg.slogdet(penalty)[1] - np.linalg.slogdet(curvature)[1])
    return current, np.linalg.inv(curvature), evidence


def _strengths(design: Float64, found: Bool, axes: Sequence[SmoothAxis]) -> tuple[float, float]:
    """The smoothing with the largest marginal likelihood: for the axes alone first, then for the surface, then again."""
    best, start = (10.0, 10.0), None
    known: dict[tuple[float, float], float] = {}
    for place in (0, 1, 0):
        for strength in _STRENGTHS:
            tried = (strength, best[1]) if place == 0 else (best[0], strength)
            if tried not in known:
                start, _, known[tried] = penalised_fit(design, found, _penalty(axes, tried), start)
        best = max((one for one in known if one[1 - place] == best[1 - place]), key=lambda one: known[one])
    return best


def group_scatter(design: Float64, found: Bool, penalty: Float64, group: Int64) -> float:
    """How much more the lenses of a group vary together than independent ones: sum of eigenvalues over their number, 1 or more.

    The scores (gradients of the likelihood) of independent lenses have the covariance I, the information; those summed over the
    groups have M (Liang & Zeger 1986). The ratio tr(V M) / tr(V I), V being the coefficients' covariance, is used instead of
    the matrix V M V, which needs many more groups than coefficients.
    """
    coefficients, covariance, _ = penalised_fit(design, found, penalty)
    shares = expit(design @ coefficients)
    scores = np.zeros((int(group.max()) + 1, design.shape[1]))
    np.add.at(scores, group, design * (found - shares)[:, None])
    information = (design * (shares * (1 - shares))[:, None]).T @ design
    return max(1.0, float(np.trace(covariance @ scores.T @ scores) / np.trace(covariance @ information)))


def _held_out(design: Float64, scored: Bool, found: Bool, penalty: Float64, group: Int64, cut: Cut) -> HeldOut:
    """Fit on four fifths of the groups, and see what the model says of the last."""
    fold = group % 5 if group.max() >= 4 else np.arange(len(group)) % 5
    shares = np.zeros(len(found))
    for number in range(5):
        rest, out = fold != number, fold == number
        first, _, _ = penalised_fit(design[rest], scored[rest], penalty)
        second, _, _ = penalised_fit(design[rest & scored], found[rest & scored], penalty)
        shares[out] = expit(design[out] @ first) * expit(design[out] @ second)
    shares = np.clip(shares, 1e-9, 1 - 1e-9)
    share = min(max(float(found.mean()), 1e-9), 1 - 1e-9)
    odds = np.stack([np.ones(len(shares)), logit(shares)], axis=1)
    recalibrated, _, _ = penalised_fit(odds, found, 1e-9 * np.eye(2), np.array([0.0, 1.0]))
    return HeldOut(
        cut=cut,
        log_loss=float(-np.where(found, np.log(shares), np.log1p(-shares)).mean()),
        log_loss_of_share=-share * math.log(share) - (1 - share) * math.log1p(-share),
        slope=float(recalibrated[1]),
        offset=float(recalibrated[0]),
    )
