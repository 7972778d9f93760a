"""What scores decide at thresholds that were fixed beforehand: the paper's Tables 5 and 6."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.config import PAPER_BETA
from scanner.ensemble.threshold import MEMBER_THRESHOLD
from scanner.evaluation.metrics import auroc_interval, purity
from scanner.evaluation.results import Decision
from scanner.evaluation.scores import GRID, ScoredBundle
from scanner.interval import Interval, resampled_interval, wilson_interval
from scanner.labelled_set import Truth
from scanner.records import Float64

#: Share of lenses among the objects of a survey, for statements about purity (Euclid: about one in ten thousand galaxies).
SKY_PREVALENCE = 1e-4
DRAWS = 4000


def decisions(
    bundles: Sequence[ScoredBundle], truths: Mapping[str, Truth], beta: float | None = None, prevalence: float = SKY_PREVALENCE
) -> tuple[Decision, ...]:
    """Measure the members at 0.5 and the bundles at their threshold, on every set.

    The members are judged at 0.5, as in the paper, the bundle at its own F-beta threshold. A set of lenses only has a recall,
    one of non-lenses only a false-positive rate.

    Parameters
    ----------
    bundles, truths
        The truths by set.
    beta
        Of the bundles' threshold; None: each one's default.
    prevalence
        For the purity.

    Raises
    ------
    UsageError
        A bundle has no threshold for this β.
    """
    return tuple(decision for scored in bundles for decision in _of_bundle(scored, truths, beta, prevalence))


def _of_bundle(scored: ScoredBundle, truths: Mapping[str, Truth], beta: float | None, prevalence: float) -> Iterator[Decision]:
    bundle = scored.bundle
    threshold = bundle.threshold(beta)
    used = beta if beta is not None else bundle.default_beta if bundle.default_beta is not None else PAPER_BETA
    by_grid = bundle.manifest.decides_on == "grid"
    deciding = GRID if by_grid else scored.summary.combined
    for set_name, truth in truths.items():
        scores, logits = scored.scores[set_name], scored.logits[set_name]
        for member in bundle.manifest.member_names:
            yield decide(
                scored.name,
                set_name,
                member,
                scores[member] >= 0.0,
                truth,
                values=scores[member],
                threshold=MEMBER_THRESHOLD,
                beta=used,
                prevalence=prevalence,
            )
        # In float32, as a scan decides: a threshold is a score that occurred, and must select it.
        value = scores[GRID].astype(np.float32) if by_grid else bundle.calibration.apply(logits)
        yield decide(
            scored.name,
            set_name,
            deciding,
            value >= np.float32(threshold),
            truth,
            values=scores[deciding],
            threshold=threshold,
            beta=used,
            prevalence=prevalence,
        )


def decide(
    bundle: str,
    set_name: str,
    score: str,
    selected: NDArray[np.bool_],
    truth: Truth,
    *,
    values: Float64,
    threshold: float,
    beta: float,
    prevalence: float = SKY_PREVALENCE,
) -> Decision:
    """Measure a decision that was taken for every object of a set.

    Parameters
    ----------
    bundle, set_name, score, threshold, beta
        To be quoted.
    selected
        (N,) bool.
    truth
        Of the N objects.
    values
        (N,) the score that the decision was taken on, for its AUROC.
    prevalence
        For the purity.
    """
    positive, negative, visible = truth.is_lens, ~truth.is_lens, truth.is_lens & truth.visible
    n_selected, n_lenses, n_others = int(selected.sum()), int(positive.sum()), int(negative.sum())
    true = int((selected & positive).sum())
    recall = wilson_interval(true, n_lenses) if n_lenses else None
    fpr = wilson_interval(n_selected - true, n_others) if n_others else None
    precision = f_beta = share = area = accuracy = None
    if recall is not None and fpr is not None:
        area = auroc_interval(values, positive)
        accuracy = wilson_interval(int((selected == positive).sum()), len(truth))
        if n_selected:
            precision = wilson_interval(true, n_selected)
            drawn = _draws(true, n_lenses), _draws(n_selected - true, n_others)
            own = n_lenses / len(truth)
            f_beta = _interval(partial(_f_beta, beta=beta, prevalence=own), recall.value, fpr.value, drawn)
            share = _interval(partial(purity, prevalence=prevalence), recall.value, fpr.value, drawn)
    return Decision(
        bundle=bundle,
        set=set_name,
        score=score,
        threshold=threshold,
        beta=beta,
        n_selected=n_selected,
        recall=recall,
        recall_visible=wilson_interval(int((selected & visible).sum()), int(visible.sum())) if visible.any() else None,
        fpr=fpr,
        precision=precision,
        f_beta=f_beta,
        auroc=area,
        accuracy=accuracy,
        purity=share,
    )


def _draws(successes: int, n: int) -> Float64:
    """Draws of a fraction from its posterior with Jeffreys' prior: unlike resamples, they know that none seen is not none."""
    return np.random.default_rng((successes, n)).beta(successes + 0.5, n - successes + 0.5, DRAWS)


def _interval(
    figure: Callable[[NDArray[Any] | float, NDArray[Any] | float], Any],
    recall: float,
    fpr: float,
    drawn: tuple[Float64, Float64],
) -> Interval:
    """A figure of recall and false-positive rate, with the interval from draws of both."""
    return resampled_interval(float(figure(recall, fpr)), figure(*drawn))


def _f_beta(recall: NDArray[Any] | float, fpr: NDArray[Any] | float, beta: float, prevalence: float) -> Any:
    """Equation 3 of the paper, at a share of lenses; 0 where no lens is selected."""
    precision = purity(recall, fpr, prevalence)
    weight = np.asarray(beta**2 * precision + recall)
    return np.divide((1 + beta**2) * precision * recall, weight, out=np.zeros(weight.shape), where=weight > 0)
