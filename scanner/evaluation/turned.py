"""Objects turned and mirrored eight ways: how far their scores scatter, and what averaging over them would gain.

In: a session, rows of a dataset. Out: (n, 8, 7) log-odds; :class:`~scanner.evaluation.bias_results.OrientationScatter`.
Refused: what the store refuses.

Nothing on the sky has a preferred orientation, so the scatter is an error of the finder that costs nothing to measure, and an
average over the eight orientations is a candidate for a better score.

Scatter says nothing of what all objects have in common. A network that was shown one class turned and the other not has learnt
the angle of the PSF (Wilde et al. 2022, section 3.2): it moves *every* object the same way when it is turned, and that is what
``shifts`` measure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from scanner.ensemble.augmentation import ORIENTATIONS
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import EnsembleSession
from scanner.evaluation import cached_array
from scanner.evaluation.bias_results import OrientationScatter, OrientationScore, OrientationShift
from scanner.evaluation.logit_cache import cache_key
from scanner.evaluation.logits import dataset_logits
from scanner.evaluation.metrics import Interval, delong, normal_interval
from scanner.evaluation.scores import combine
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Float32, Float64, Int64


def turned_logits(
    bundle: Bundle,
    dataset: LabelledSet,
    rows: Int64,
    open_session: Callable[[], EnsembleSession],
    folder: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Log-odds of rows in all orientations, (n, 8, 7) float32, kept in the cache folder as a whole; None: not kept."""
    path = None if folder is None else folder / cache_key(bundle, dataset) / f"turned-{len(rows)}.npy"
    shape = (len(rows), ORIENTATIONS, len(MEMBERS))
    kept = None if path is None else cached_array.read(path, shape)
    if kept is not None:
        report(len(rows) * ORIENTATIONS)
        return kept
    session = open_session()
    found = np.empty(shape, dtype=np.float32)
    for orientation in range(ORIENTATIONS):
        turns = np.full(len(rows), orientation, dtype=np.int64)
        found[:, orientation] = dataset_logits(session, dataset, rows, turns, report)
    if path is not None:
        cached_array.write(path, found)
    return found


def sample_rows(dataset: LabelledSet, n: int, seed: int = 0) -> Int64:
    """Draw ``n`` rows of a set, half of them visible lenses where there are so many; ascending."""
    truth = dataset.truth
    generator = np.random.default_rng(seed)
    kinds = [np.flatnonzero(truth.is_lens & truth.visible), np.flatnonzero(~truth.is_lens)]
    shares = [n - n // 2, n // 2]
    chosen = [generator.permutation(kind)[:share] for kind, share in zip(kinds, shares, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def orientation_scatter(
    bundle: Bundle, name: str, set_name: str, logits: Float32, is_lens: NDArray[np.bool_]
) -> OrientationScatter:
    """Measure the scatter of every member and of the combination.

    Parameters
    ----------
    bundle, name, set_name
        The bundle; names to be quoted.
    logits
        (n, 8, 7).
    is_lens
        (n,) bool.
    """
    columns: dict[str, Float64] = {member: logits[..., i].astype(np.float64) for i, member in enumerate(MEMBERS)}
    combined = combine(bundle, logits.reshape(-1, len(MEMBERS))).reshape(logits.shape[:2])
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
        By score, (n, 8) log-odds in the orientations of :mod:`scanner.ensemble.augmentation`.
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
        chance=float(f_distribution.sf(t2 * (n - p) / (p * (n - 1)), p, n - p)),
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
