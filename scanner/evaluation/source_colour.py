"""Recall against the colour of the source, everything else being equal.

In: bundles, thresholds. Out: :class:`~scanner.evaluation.bias_results.ColourCurve`. Refused: nothing.

Wilde et al. (2022, section 6) could only suspect that their networks want rings to be blue: in any set of lenses, red sources
are also fainter, smaller and further away. Here the same lenses are drawn again and again, and only the NISP light of
their sources changes (:mod:`scanner.simulation.datasets.recoloured`). OU-VIS, which sees no colour, is the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.session import EnsembleSession
from scanner.evaluation.bias_results import ColourCurve, ColourPoint
from scanner.evaluation.breakdown import FPRS
from scanner.evaluation.metrics import normal_interval, threshold_at_fpr, wilson
from scanner.evaluation.scores import ScoredBundle, combine
from scanner.records import MEMBERS, Float32, Float64
from scanner.simulation.datasets.parts import batch_of
from scanner.simulation.datasets.presets import PRESETS, Preset
from scanner.simulation.datasets.recoloured import draw_recoloured

#: VIS - H of the sources, AB mag: bluer than any galaxy to redder than most.
COLOURS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
#: Of the lenses; no evaluation set has it, so none of their lenses is drawn.
SEED = 20_221
_AT_ONCE = 32


@dataclass(frozen=True)
class RecolouredLogits:
    """``logits`` (C, n, 7) float32 of n visible lenses whose sources have the C ``colours``."""

    colours: tuple[float, ...]
    logits: Float32


def recoloured_logits(
    session: EnsembleSession,
    n: int,
    colours: Sequence[float] = COLOURS,
    seed: int = SEED,
    report: Callable[[int], None] = lambda n: None,
) -> RecolouredLogits:
    """Draw ``n`` visible lenses in every colour, and score them.

    Parameters
    ----------
    session
        Of the bundle.
    n
        Lenses. As many are drawn as it takes to find visible ones (S/N in VIS, which does not depend on the colour).
    colours
        VIS - H of their sources, AB mag.
    seed
        Of the lenses.
    report
        Called with the number of cutouts scored since the last call.
    """
    preset = lenses_only(PRESETS["eval"])
    found: list[Float32] = []
    n_found = 0
    for start in count(0, _AT_ONCE):
        if n_found >= n:
            break
        indices, of_colour = range(start, start + _AT_ONCE), []
        for _, drawn in draw_recoloured(preset, seed, indices, colours):
            seen = np.flatnonzero([row.verdict.visible for row in drawn.truth])[: n - n_found]
            batch = batch_of(drawn).take(seen)
            of_colour.append(session.logits(batch.vis, batch.nisp, batch.sky, batch.sigma))
            report(len(seen))
        found.append(np.stack(of_colour))
        n_found += found[-1].shape[1]
    empty = np.empty((len(colours), 0, len(MEMBERS)), np.float32)
    return RecolouredLogits(tuple(colours), np.concatenate([empty, *found], axis=1))


def lenses_only(preset: Preset) -> Preset:
    """The preset's single lenses alone."""
    return preset.model_copy(update={"mix": {"lens": 1.0}})


def colour_curves(
    scored: ScoredBundle, found: RecolouredLogits, threshold_set: str, is_lens: NDArray[np.bool_]
) -> tuple[ColourCurve, ...]:
    """Recall of every member and of the combination.

    Parameters
    ----------
    scored
        The bundle, with its scores of the threshold's set.
    found
        Of the same bundle.
    threshold_set, is_lens
        The set whose non-lenses set the thresholds, and which of its (N,) objects are lenses.
    """
    shape = found.logits.shape
    values: dict[str, Float64] = {member: found.logits[..., i].astype(np.float64) for i, member in enumerate(MEMBERS)}
    values[scored.summary.combined] = combine(scored.bundle, found.logits.reshape(-1, shape[2])).reshape(shape[:2])
    curves = []
    for name, of_lenses in values.items():
        negative = scored.scores[threshold_set][name][~is_lens]
        curves += [
            ColourCurve(
                bundle=scored.name,
                score=name,
                threshold_set=threshold_set,
                fpr=fpr,
                n=shape[1],
                n_false=math.floor(fpr * len(negative)),
                points=_points(found.colours, of_lenses, threshold_at_fpr(negative, fpr)),
            )
            for fpr in FPRS
            if fpr * len(negative) >= 1
        ]
    return tuple(curves)


def _points(colours: Sequence[float], values: Float64, threshold: float) -> tuple[ColourPoint, ...]:
    """``values`` (C, n). Lenses are the same in every colour, so only those that change sides widen the change's interval."""
    passing, n = values >= threshold, values.shape[1]
    points = []
    for colour, row, passes in zip(colours, values, passing, strict=True):
        change = passes.astype(np.float64) - passing[0]
        points.append(
            ColourPoint(
                vis_minus_h=colour,
                recall=wilson(int(passes.sum()), n),
                change=normal_interval(float(change.mean()), float(change.std(ddof=1)) / math.sqrt(n), low=-1.0, high=1.0),
                log_odds=normal_interval(float(row.mean()), float(row.std(ddof=1)) / math.sqrt(n)),
            )
        )
    return tuple(points)
