"""Real cutouts with labels: how many lenses pass, and how many others, at the thresholds that simulated non-lenses set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.calibration import Calibration
from scanner.ensemble.session import EnsembleSession, seeing
from scanner.evaluation.biases import turned_logits
from scanner.evaluation.metrics import LOW_FPRS, auroc_interval, threshold_at_fpr
from scanner.evaluation.results import RealFigures, RealObject, RealShare
from scanner.evaluation.scores import ScoredBundle
from scanner.interval import exact_interval
from scanner.labelled_set import LabelledSet

#: Ranges of the Einstein radius, arcsec, that lenses are counted in where the set tells it.
RADII = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, math.inf)


def measure_real(
    scored: ScoredBundle,
    reference: str,
    non_lenses: NDArray[np.bool_],
    name: str,
    dataset: LabelledSet,
    open_session: Callable[[], EnsembleSession],
    cache: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> RealFigures:
    """Measure a bundle on a set of real cutouts.

    A set of real lenses and non-lenses is small, and holds what somebody chose. So the threshold comes from simulated
    non-lenses, as many as a false-positive rate needs, and real objects are counted above it. Each object's log-odds are the
    mean over its eight orientations. Bands that a cutout lacks altogether are left to the members that see the others, in
    the set and in the simulated non-lenses alike, so that the rate means the same for it.

    Parameters
    ----------
    scored
        The bundle and its log-odds for the simulated sets.
    reference, non_lenses
        The set that the thresholds rest on, and which of its rows (N,) count.
    name, dataset
        The real set.
    open_session
        Called once at most, and only if log-odds are missing in ``cache``.
    cache
        Folder where log-odds are kept; None: they are not.
    report
        Called with the number of orientations done after every batch.
    """
    rows = np.arange(len(dataset), dtype=np.int64)
    turned, augmentation = turned_logits(scored.bundle, dataset, rows, open_session, cache, report), scored.bundle.augmentation
    simulated = scored.logits[reference][non_lenses]
    allowed = {fpr: math.floor(fpr * len(simulated) + 1e-9) for fpr in LOW_FPRS}
    fprs = tuple(fpr for fpr, n in allowed.items() if n > 0)

    score, passing = np.full(len(rows), np.nan), np.zeros((len(fprs), len(rows)), dtype=np.bool_)
    there = dataset.store.bad_fraction < 1.0
    for bands in np.unique(there, axis=0):
        members = seeing(scored.bundle, bands)
        combination = scored.bundle.combination(members)
        if combination is not None:
            combined = np.s_[:] if isinstance(combination, Calibration) else members
            chosen = (there == bands).all(axis=1)
            logits = turned[chosen]
            if augmentation is not None and isinstance(combination, Calibration):
                logits = replace(augmentation, calibration=combination).as_scanned(logits)
            score[chosen] = combination.ranking_score(logits.mean(axis=1)[:, combined])
            others = combination.ranking_score(simulated[:, combined])
            limits = [threshold_at_fpr(others, fpr) for fpr in fprs]
            passing[:, chosen] = score[chosen] >= np.array(limits)[:, None]

    judged, truth = np.isfinite(score), dataset.truth
    lens, other = truth.is_lens & judged, ~truth.is_lens & judged
    rising = np.sort(score[other])
    above = np.where(judged, len(rising) - np.searchsorted(rising, score, side="right"), 0)

    def objects(chosen: NDArray[np.bool_]) -> tuple[RealObject, ...]:
        return tuple(
            RealObject(
                target_id=int(truth.target_id[row]),
                label=str(truth.class_name[row]),
                log_odds=float(score[row]),
                passes=tuple(fpr for fpr, passed in zip(fprs, passing[:, row], strict=True) if passed),
                others_above=int(above[row]),
            )
            for row in np.flatnonzero(chosen)[np.argsort(-score[chosen], kind="stable")]
        )

    shares = tuple(
        RealShare(
            group=group,
            kind=kind,
            n=int(chosen.sum()),
            passing=tuple(exact_interval(int(passed[chosen].sum()), int(chosen.sum())) for passed in passing),
        )
        for group, kind, chosen in _groups(dataset, lens, other)
    )
    return RealFigures(
        bundle=scored.name,
        set=name,
        reference=reference,
        fprs=fprs,
        n_false=tuple(allowed[fpr] for fpr in fprs),
        n_unjudged=int(np.count_nonzero(~judged)),
        shares=shares,
        auroc=auroc_interval(score[judged], truth.is_lens[judged]) if lens.any() and other.any() else None,
        lenses=objects(lens),
        alarms=objects(other & passing.any(axis=0)),
    )


def _groups(
    dataset: LabelledSet, lens: NDArray[np.bool_], other: NDArray[np.bool_]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """What is counted: all lenses, those of each label and Einstein radius, all others, those of each label."""
    label, radius = dataset.truth.class_name, dataset.column("theta_e_arcsec")
    for kind, chosen in (("lenses", lens), ("others", other)):
        if not chosen.any():
            continue
        yield "all", kind, chosen
        labels = np.unique(label[chosen])
        if len(labels) > 1:
            yield from ((str(one), kind, chosen & (label == one)) for one in labels)
        if kind == "lenses" and radius is not None:
            for low, high in pairwise(RADII):
                inside = chosen & (radius >= low) & (radius < high)
                if inside.any():
                    yield f"θ_E {low:g}–{high:g}″" if math.isfinite(high) else f"θ_E from {low:g}″ on", kind, inside
