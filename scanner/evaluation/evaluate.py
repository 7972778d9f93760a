"""Measures a bundle on a labelled dataset that it was not trained on.

In: a bundle, its log-odds for every row of a dataset, the truth. Out: :class:`~scanner.evaluation.results.BundleEvaluation`.
Refused: truths of one class (when read).

Scores: each member's log-odds, the grid value, the calibrated log-odds (``mean``: the mean probability, where a bundle has no
calibration), and ``ranking``, the order in which a scan lists its candidates (grid value, then calibrated probability).
Choices: all lenses or those that a person could see, against all non-lenses or those with a companion that may look like an
arc.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.session import EnsembleSession
from scanner.evaluation.labelled_data import Truth
from scanner.evaluation.metrics import auroc_interval, purity, recall_at_fpr, threshold_at_fpr, wilson
from scanner.evaluation.results import LOW_FPRS, BundleEvaluation, Decision, Evaluation, Figures, Negatives, Positives, Recall
from scanner.records import MEMBERS, Float32, Float64

#: Share of lenses among the objects of a survey, for statements about purity (Euclid: about one in ten thousand galaxies).
SKY_PREVALENCE = 1e-4
#: The paper's threshold for a single network (section 4).
MEMBER_THRESHOLD = 0.5
CHOICES: tuple[tuple[Positives, Negatives], ...] = (("all", "all"), ("visible", "all"), ("all", "hard"), ("visible", "hard"))


def scores_of(bundle: Bundle, logits: Float32) -> dict[str, Float64]:
    """Every score of a bundle, (N,) float64 each, higher meaning more lens-like.

    Parameters
    ----------
    bundle
        Its grid, where it has one, and its calibration are applied.
    logits
        (N, 7) finite.
    """
    scores: dict[str, Float64] = {member: logits[:, i].astype(np.float64) for i, member in enumerate(MEMBERS)}
    calibration = bundle.calibration
    # Log-odds: at the prevalence of the sky the probabilities of most objects round to the same few numbers.
    if isinstance(calibration, Calibration):
        name, combined = "calibrated", calibration.log_odds(logits)
    else:
        name, combined = "mean", calibration.apply(logits).astype(np.float64)
    if bundle.grid is not None:
        grid = bundle.grid.lookup(logits).value.astype(np.float64)
        scores["grid"] = grid
        # Rank by grid value, ties by the calibrated score; equal pairs keep equal ranks.
        pairs = np.stack([grid, combined], axis=1)
        scores["ranking"] = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.float64)
    scores[name] = combined
    return scores


def choose(truth: Truth, positives: Positives, negatives: Negatives) -> NDArray[np.bool_]:
    """Rows of one choice of lenses and non-lenses, (N,) bool."""
    lenses = truth.visible & truth.is_lens if positives == "visible" else truth.is_lens
    others = truth.is_hard_negative if negatives == "hard" else ~truth.is_lens
    return np.asarray(lenses | others)


def figures_of(scores: dict[str, Float64], truth: Truth) -> tuple[Figures, ...]:
    """Measure all scores for all choices that hold both lenses and non-lenses."""
    found = []
    for positives, negatives in CHOICES:
        chosen = choose(truth, positives, negatives)
        labels = truth.is_lens[chosen]
        if labels.all() or not labels.any():
            continue
        for name, values in scores.items():
            part = values[chosen]
            recalls = []
            for fpr in LOW_FPRS:
                n_false = int((part[~labels] >= threshold_at_fpr(part[~labels], fpr)).sum())
                recalls.append(Recall(fpr=fpr, recall=recall_at_fpr(part, labels, fpr), n_false=n_false))
            found.append(
                Figures(
                    score=name,
                    positives=positives,
                    negatives=negatives,
                    n_positives=int(labels.sum()),
                    n_negatives=int((~labels).sum()),
                    auroc=auroc_interval(part, labels),
                    recalls=tuple(recalls),
                )
            )
    return tuple(found)


def decide(name: str, selected: NDArray[np.bool_], truth: Truth, threshold: float, beta: float) -> Decision:
    """Measure a decision that was taken for every row.

    Parameters
    ----------
    name
        The score it was taken on.
    selected
        (N,) bool.
    truth
        Of the N objects.
    threshold, beta
        To be quoted.
    """
    lenses, others, visible = truth.is_lens, ~truth.is_lens, truth.is_lens & truth.visible
    recall = wilson(int((selected & lenses).sum()), int(lenses.sum()))
    fpr = wilson(int((selected & others).sum()), int(others.sum()))
    n_selected = int(selected.sum())
    precision = wilson(int((selected & lenses).sum()), n_selected) if n_selected else None
    f_beta = None
    if precision is not None:
        weight = beta**2 * precision.value + recall.value
        f_beta = (1 + beta**2) * precision.value * recall.value / weight if weight > 0 else 0.0
    return Decision(
        score=name,
        threshold=threshold,
        beta=beta,
        recall=recall,
        recall_visible=wilson(int((selected & visible).sum()), int(visible.sum())),
        fpr=fpr,
        n_selected=n_selected,
        precision=precision,
        f_beta=f_beta,
        sky_prevalence=SKY_PREVALENCE,
        purity=purity(recall.value, fpr.value, SKY_PREVALENCE) if n_selected else None,
    )


def decisions_of(bundle: Bundle, logits: Float32, truth: Truth, beta: float | None = None) -> tuple[Decision, ...]:
    """Measure the members at :data:`MEMBER_THRESHOLD` as the paper did, and the bundle's own decision at its threshold."""
    listed = bundle.manifest.thresholds
    used = beta if beta is not None else listed[0].beta if listed else 0.03
    found = [decide(name, logits[:, i] >= 0.0, truth, MEMBER_THRESHOLD, used) for i, name in enumerate(MEMBERS)]
    threshold = bundle.threshold(beta)
    deciding = bundle.calibration.apply(logits) if bundle.grid is None else bundle.grid.lookup(logits).value
    found.append(decide(bundle.manifest.decides_on, deciding >= np.float32(threshold), truth, threshold, used))
    return tuple(found)


def evaluate(
    bundle: Bundle, session: EnsembleSession, logits: Float32, truth: Truth, *, seconds: float, beta: float | None = None
) -> BundleEvaluation:
    """Put together all figures of one bundle.

    Parameters
    ----------
    bundle, session
        What made the log-odds.
    logits, truth
        (N, 7), and of the same N objects.
    seconds
        That the session took.
    beta
        Of the decision; None: the bundle's default.

    Raises
    ------
    UsageError
        The bundle has no threshold for this β.
    """
    return BundleEvaluation(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        fingerprint=bundle.fingerprint,
        preprocessing=bundle.manifest.preprocessing,
        decides_on=bundle.manifest.decides_on,
        figures=figures_of(scores_of(bundle, logits), truth),
        decisions=decisions_of(bundle, logits, truth, beta),
        provider=session.provider,
        seconds=seconds,
    )


def compare(name: str, sha256: str, truth: Truth, bundles: Sequence[BundleEvaluation]) -> Evaluation:
    """Bundles on one dataset, side by side; ``name`` and ``sha256`` are the dataset's."""
    classes, counts = np.unique(truth.class_name, return_counts=True)
    return Evaluation(
        dataset=name,
        dataset_sha256=sha256,
        n_objects=len(truth),
        n_lenses=int(truth.is_lens.sum()),
        n_visible=int((truth.is_lens & truth.visible).sum()),
        n_hard_negatives=int(truth.is_hard_negative.sum()),
        class_counts={str(name): int(count) for name, count in zip(classes, counts, strict=True)},
        bundles=tuple(bundles),
    )
