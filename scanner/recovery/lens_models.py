"""What the lens models of a run are worth on it: how many painted lenses are certified, and how well θ_E is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scanner.interval import Interval, resampled_interval, wilson_interval
from scanner.records import Float64, Record

#: Relative errors of θ_E within which it counts as measured, and beyond which as missed.
MEASURED, MISSED = 0.05, 0.20
#: Fewer models have no bias and no scatter.
LEAST_MODELS = 5
_RESAMPLES = 2000


class ThetaE(Record):
    """Relative errors of the modelled Einstein radii of ``n`` lenses, with 95% intervals.

    ``bias``: median of (modelled − true) / true. ``scatter``: half of the range between its 16th and 84th percentile; both are
    None for few lenses. ``measured``, ``missed``: shares within :data:`MEASURED` and beyond :data:`MISSED`.
    """

    n: int
    bias: Interval | None
    scatter: Interval | None
    measured: Interval
    missed: Interval


class ModelledLenses(Record):
    """Lens models of visible painted lenses, as the run would have had them.

    ``n_reached`` of ``n_visible`` rank as high as what the run has models of; of these ``n_modelled`` were modelled.
    ``completeness``: share of all visible lenses that would be certified. ``certified``: share of those modelled. ``verdicts``:
    number of models by verdict. ``theta_e``, ``theta_e_certified``: of all models with a mass, and of the certified ones.
    """

    n_visible: int
    n_reached: int
    n_modelled: int
    certified: Interval
    completeness: Interval
    verdicts: dict[str, int]
    theta_e: ThetaE
    theta_e_certified: ThetaE


def modelled_lenses(lenses: pa.Table) -> ModelledLenses | None:
    """What the columns of ``lenses.parquet`` say of lens models; None where no visible lens was modelled."""
    rows = lenses.filter(pa.array(np.asarray(lenses["is_lens"]) & np.asarray(lenses["visible"])))
    verdict = np.array(rows["model_verdict"].to_pylist(), dtype=object)
    is_modelled, is_certified = verdict != "", verdict == "certified"
    n_visible, n_reached, n_modelled = len(rows), int(np.asarray(rows["reaches_models"]).sum()), int(is_modelled.sum())
    if not n_modelled:
        return None
    error = rows["model_theta_e"].to_numpy() / rows["theta_e_arcsec"].to_numpy() - 1.0
    certified = wilson_interval(int(is_certified.sum()), n_modelled)
    return ModelledLenses(
        n_visible=n_visible,
        n_reached=n_reached,
        n_modelled=n_modelled,
        certified=certified,
        completeness=_product(n_reached, n_visible, int(is_certified.sum()), n_modelled),
        verdicts=dict(sorted(Counter(verdict[is_modelled].tolist()).items())),
        theta_e=_theta_e(error[np.isfinite(error)]),
        theta_e_certified=_theta_e(error[is_certified & np.isfinite(error)]),
    )


def _product(n_reached: int, n_visible: int, n_certified: int, n_modelled: int) -> Interval:
    """Share of lenses that reach the models, times that of the modelled ones that are certified.

    Wilson's interval of as many lenses as would have the product's variance.
    """
    if n_modelled == n_reached:
        return wilson_interval(n_certified, n_visible)
    reached, certified = n_reached / n_visible, n_certified / n_modelled
    value = reached * certified
    variance = certified**2 * reached * (1 - reached) / n_visible + reached**2 * certified * (1 - certified) / n_modelled
    n_like = value * (1 - value) / variance if variance else n_modelled
    return wilson_interval(value * n_like, n_like)


def _theta_e(error: Float64) -> ThetaE:
    size = np.abs(error)
    return ThetaE(
        n=len(error),
        bias=_resampled(error, lambda values: np.median(values, axis=-1)),
        scatter=_resampled(error, lambda values: 0.5 * np.diff(np.quantile(values, (0.16, 0.84), axis=-1), axis=0)[0]),
        measured=wilson_interval(int((size < MEASURED).sum()), len(error)),
        missed=wilson_interval(int((size > MISSED).sum()), len(error)),
    )


def _resampled(values: Float64, of: Callable[[Float64], NDArray[Any]]) -> Interval | None:
    if len(values) < LEAST_MODELS:
        return None
    drawn = np.random.default_rng(0).choice(values, (_RESAMPLES, len(values)))
    return resampled_interval(float(of(values)), of(drawn))
