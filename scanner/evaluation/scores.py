"""From log-odds to every score of a bundle, and the choices of objects that scores are judged on.

In: a bundle and the log-odds of its members. Out: scores by name, masks of objects. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.bundle import MODEL_FILE, Bundle
from scanner.ensemble.calibration import Calibration
from scanner.evaluation.ranking_results import Negatives, Positives
from scanner.evaluation.results import BundleSummary
from scanner.labelled_set import Truth
from scanner.records import MEMBERS, Float32, Float64

GRID = "grid"
NEGATIVE_LABELS: Mapping[Negatives, str] = {
    "all": "all non-lenses",
    "hard": "look-alikes (ellipticals, companions, near-lenses)",
}
POSITIVE_LABELS: Mapping[Positives, str] = {"visible": "visible lenses", "all": "all lenses"}


@dataclass(frozen=True)
class ScoredBundle:
    """A bundle and what it says of labelled sets.

    ``summary``: with a name that is unique among the bundles compared. ``logits``: by set, (N, 7) each. ``scores``: by set and
    score, (N,) float64 each, comparable between sets.
    """

    bundle: Bundle
    summary: BundleSummary
    logits: Mapping[str, Float32]
    scores: Mapping[str, Mapping[str, Float64]]

    @property
    def name(self) -> str:
        """See :class:`~scanner.evaluation.results.BundleSummary`."""
        return self.summary.name

    @property
    def combined(self) -> Mapping[str, Float64]:
        """The score that a scan ranks by, the combination of the members, by set."""
        return {set_name: scores[self.summary.combined] for set_name, scores in self.scores.items()}

    @property
    def score_names(self) -> tuple[str, ...]:
        """Every score of this bundle, the members first."""
        return (*MEMBERS, *(() if self.bundle.grid is None else (GRID,)), self.summary.combined)


def combine(bundle: Bundle, logits: Float32) -> Float64:
    """The combination of the members, (N,) float64: calibrated log-odds, or the mean probability where there is none.

    Log-odds, because at the prevalence of the sky the probabilities of most objects round to the same few numbers.
    """
    calibration = bundle.calibration
    if isinstance(calibration, Calibration):
        return calibration.log_odds(logits)
    return calibration.apply(logits).astype(np.float64)


def summarise(bundle: Bundle, name: str) -> BundleSummary:
    """What an evaluation says of a bundle, under a name."""
    manifest = bundle.manifest
    return BundleSummary(
        name=name,
        version=manifest.version,
        fingerprint=bundle.fingerprint,
        model_sha256=manifest.sha256[MODEL_FILE],
        preprocessing=manifest.preprocessing,
        decides_on=manifest.decides_on,
        combined="calibrated" if isinstance(bundle.calibration, Calibration) else "mean",
    )


def score(
    bundle: Bundle, name: str, logits: Mapping[str, Float32], grid_values: Mapping[str, Float32] | None = None
) -> ScoredBundle:
    """Compute every score of a bundle for every set; higher means more lens-like.

    Parameters
    ----------
    bundle
        Its grid, where it has one, and its calibration are applied.
    name
        For the evaluation.
    logits
        By set, (N, 7) finite.
    grid_values
        By set, (N,), where they are known; None: looked up.
    """
    summary = summarise(bundle, name)
    together = np.concatenate([np.empty((0, len(MEMBERS)), np.float32), *logits.values()])
    found: dict[str, Float64] = {member: together[:, i].astype(np.float64) for i, member in enumerate(MEMBERS)}
    combined = combine(bundle, together)
    if bundle.grid is not None:
        known = grid_values or {set_name: bundle.grid.lookup(rows).value for set_name, rows in logits.items()}
        found[GRID] = np.concatenate([known[set_name] for set_name in logits]).astype(np.float64)
    found[summary.combined] = combined
    ends = np.cumsum([len(rows) for rows in logits.values()])[:-1]
    parts = {score_name: np.split(values, ends) for score_name, values in found.items()}
    scores = {
        set_name: {score_name: pieces[number] for score_name, pieces in parts.items()} for number, set_name in enumerate(logits)
    }
    return ScoredBundle(bundle, summary, logits, scores)


def lenses(truth: Truth, positives: Positives) -> NDArray[np.bool_]:
    """Rows of the lenses of a choice, (N,) bool."""
    return truth.is_lens & truth.visible if positives == "visible" else truth.is_lens


def others(truth: Truth, negatives: Negatives) -> NDArray[np.bool_]:
    """Rows of the non-lenses of a choice, (N,) bool."""
    return ~truth.is_lens if negatives == "all" else truth.is_hard_negative
