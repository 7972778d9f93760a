"""What a finder should not go by: how an object is turned, and the colour of the source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc

from scanner.ensemble.bundle import Bundle
from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.ensemble.session import EnsembleSession
from scanner.evaluation.decisions import FPRS
from scanner.evaluation.metrics import delong, threshold_at_fpr
from scanner.evaluation.results import ColourCurve, ColourPoint, OrientationScatter, OrientationScore, OrientationShift
from scanner.evaluation.scores import ScoredBundle, cache_key, dataset_logits, read_array, write_array
from scanner.interval import Interval, normal_interval, wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.records import Float32, Float64, Int64
from scanner.simulation.datasets.cutouts import draw_recoloured
from scanner.simulation.datasets.dataset import batch_of
from scanner.simulation.datasets.presets import PRESETS, Preset

#: VIS - H of the sources, AB mag: bluer than any galaxy to redder than most.
COLOURS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
#: Of the lenses; no evaluation set has it, so none of their lenses is drawn.
SEED = 20_221
_AT_ONCE = 32


def turned_logits(
    bundle: Bundle,
    dataset: LabelledSet,
    rows: Int64,
    open_session: Callable[[], EnsembleSession],
    folder: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Log-odds of rows in all orientations, (n, 8, M) float32, kept in the cache folder as a whole; None: not kept."""
    path = None if folder is None else folder / cache_key(bundle, dataset) / f"turned-{len(rows)}.npy"
    shape = (len(rows), ORIENTATIONS, len(bundle.manifest.members))
    kept = None if path is None else read_array(path, shape)
    if kept is not None:
        report(len(rows) * ORIENTATIONS)
        return kept
    session = open_session()
    found = np.empty(shape, dtype=np.float32)
    for orientation in range(ORIENTATIONS):
        turns = np.full(len(rows), orientation, dtype=np.int64)
        found[:, orientation] = dataset_logits(session, dataset, rows, turns, report)
    if path is not None:
        write_array(path, found)
    return found


def sample_rows(dataset: LabelledSet, n: int) -> Int64:
    """Draw ``n`` rows of a set, half of them visible lenses where there are so many; ascending."""
    truth = dataset.truth
    generator = np.random.default_rng(0)
    kinds = [np.flatnonzero(truth.is_lens & truth.visible), np.flatnonzero(~truth.is_lens)]
    shares = [n - n // 2, n // 2]
    chosen = [generator.permutation(kind)[:share] for kind, share in zip(kinds, shares, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def orientation_scatter(
    bundle: Bundle, name: str, set_name: str, logits: Float32, is_lens: NDArray[np.bool_]
) -> OrientationScatter:
    """Measure how every member and the combination scatter when objects are turned and mirrored eight ways.

    Nothing on the sky has a preferred orientation, so the scatter is an error of the finder that costs nothing to measure, and
    an average over the orientations is a candidate for a better score. It says nothing of what all objects have in common: a
    network that was shown one class turned and the other not has learnt the angle of the PSF (Wilde et al. 2022, section 3.2),
    and moves *every* object the same way when it is turned. That is what ``shifts`` measure.

    Parameters
    ----------
    bundle, name, set_name
        The bundle; names to be quoted.
    logits
        (n, 8, M).
    is_lens
        (n,) bool.
    """
    columns: dict[str, Float64] = {
        member: logits[..., i].astype(np.float64) for i, member in enumerate(bundle.manifest.member_names)
    }
    combined = bundle.calibration.ranking_score(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape[:2])
    columns["combined"] = combined
    return OrientationScatter(
        bundle=name,
        set=set_name,
        n=len(logits),
        scores=tuple(_score(score, values, is_lens) for score, values in columns.items()),
        shifts=tuple(orientation_shifts(columns, is_lens)),
    )


def orientation_shifts(columns: Mapping[str, Float64], is_lens: NDArray[np.bool_]) -> Iterator[OrientationShift]:
    """Measure how far every score moves when all objects of a kind are turned.

    Parameters
    ----------
    columns
        By score, (n, 8) log-odds in the orientations of :mod:`scanner.ensemble.preprocessing`.
    is_lens
        (n,) bool.

    Yields
    ------
    OrientationShift
        For each score and kind of which there are more than eight objects: fewer have no covariance.
    """
    kinds: dict[Literal["lenses", "others"], NDArray[np.bool_]] = {"lenses": is_lens, "others": ~is_lens}
    for score, values in columns.items():
        for kind, chosen in kinds.items():
            if np.count_nonzero(chosen) > ORIENTATIONS:
                yield _shift(score, kind, values[chosen])


def _shift(score: str, kind: Literal["lenses", "others"], values: Float64) -> OrientationShift:
    changes = values[:, 1:] - values[:, :1]
    n, p = changes.shape
    mean, covariance = changes.mean(axis=0), np.cov(changes, rowvar=False) / n
    # The pseudo-inverse: a score that does not change at all has no covariance, and no shift either.
    t2 = float(mean @ np.linalg.pinv(covariance, hermitian=True) @ mean)
    return OrientationShift(
        score=score,
        kind=kind,
        n=n,
        shifts=tuple(normal_interval(float(m), math.sqrt(max(v, 0.0))) for m, v in zip(mean, np.diag(covariance), strict=True)),
        spread=float(values[:, 0].std(ddof=1)),
        chance=float(fdtrc(p, n - p, t2 * (n - p) / (p * (n - 1)))),
    )


def _score(name: str, values: Float64, is_lens: NDArray[np.bool_]) -> OrientationScore:
    scatter = values.std(axis=1, ddof=1)
    single = mean = gain = None
    if is_lens.any() and not is_lens.all():
        areas, covariance = delong(np.concatenate([values.T, values.mean(axis=1)[None]]), is_lens)
        # The average of the eight single AUROCs against the AUROC of the averaged log-odds, on the same objects.
        contrast = np.append(np.full(ORIENTATIONS, -1.0 / ORIENTATIONS), 1.0)
        single, mean = float(areas[:-1].mean()), float(areas[-1])
        gain = normal_interval(mean - single, math.sqrt(max(0.0, float(contrast @ covariance @ contrast))))
    return OrientationScore(
        score=name,
        scatter_lenses=_mean(scatter[is_lens]),
        scatter_others=_mean(scatter[~is_lens]),
        auroc_single=single,
        auroc_mean=mean,
        gain=gain,
    )


def _mean(values: Float64) -> Interval | None:
    """The mean of some objects with its interval; None: there are none."""
    if not len(values):
        return None
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return normal_interval(float(values.mean()), error, low=0.0)


@dataclass(frozen=True)
class RecolouredLogits:
    """``logits`` (C, n, 7) float32 of n visible lenses whose sources have the C ``colours``."""

    colours: tuple[float, ...]
    logits: Float32


def recoloured_logits(
    session: EnsembleSession,
    n: int,
    colours: Sequence[float] = COLOURS,
    report: Callable[[int], None] = lambda n: None,
) -> RecolouredLogits:
    """Draw ``n`` visible lenses with sources of every colour, and score them.

    Wilde et al. (2022, section 6) could only suspect that their networks want rings to be blue: in any set of lenses, red
    sources are also fainter, smaller and further away. Here the same lenses are drawn again and again, and only the NISP light
    of their sources changes. OU-VIS, which sees no colour, is the control.

    Parameters
    ----------
    session
        Of the bundle.
    n
        Lenses. As many are drawn as it takes to find visible ones (S/N in VIS, which does not depend on the colour).
    colours
        VIS - H of their sources, AB mag.
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
        for _, drawn in draw_recoloured(preset, SEED, indices, colours):
            seen = np.flatnonzero([row.verdict.visible for row in drawn.truth])[: n - n_found]
            batch = batch_of(drawn).take(seen)
            of_colour.append(session.logits(batch.vis, batch.nisp, batch.sky, batch.sigma))
            report(len(seen))
        found.append(np.stack(of_colour))
        n_found += found[-1].shape[1]
    empty = np.empty((len(colours), 0, session.n_members), np.float32)
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
    values: dict[str, Float64] = {
        member: found.logits[..., i].astype(np.float64) for i, member in enumerate(scored.bundle.manifest.member_names)
    }
    values[scored.summary.combined] = scored.bundle.calibration.ranking_score(found.logits.reshape(-1, shape[2])).reshape(
        shape[:2]
    )
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
                recall=wilson_interval(int(passes.sum()), n),
                change=normal_interval(float(change.mean()), float(change.std(ddof=1)) / math.sqrt(n), low=-1.0, high=1.0),
                log_odds=normal_interval(float(row.mean()), float(row.std(ddof=1)) / math.sqrt(n)),
            )
        )
    return tuple(points)
