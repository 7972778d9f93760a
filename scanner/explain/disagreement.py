"""Disagreement of the seven members on an object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.threshold import MEMBER_THRESHOLD
from scanner.records import MEMBERS, Float32, Float64, Int64


@dataclass(frozen=True)
class Disagreement:
    """What the members say of ``N`` objects.

    The entropy of the mean probability is all of the uncertainty of the ensemble. What is left of it when the mean entropy of
    the members is taken away is their disagreement (the mutual information of outcome and member; Houlsby et al. 2011): seven
    members that all say 0.5 are unsure, but of one mind (0 bits); three that say 1 and four that say 0 are sure, and at odds (1
    bit).

    ``probabilities`` (N, 7) float64 in the order of :data:`~scanner.records.MEMBERS`. ``mean`` and ``spread`` (N,): of the
    seven, ``spread`` their standard deviation. ``votes`` (N,) int64: members that say 0.5 or more. ``shared_bits`` and
    ``disagreement_bits`` (N,): mean entropy of the members, and what the entropy of the mean exceeds it by.
    """

    probabilities: Float64
    mean: Float64
    spread: Float64
    votes: Int64
    shared_bits: Float64
    disagreement_bits: Float64


def disagreement(logits: Float32) -> Disagreement:
    """Compare the seven members; where one is NaN, so are the figures of the object.

    Parameters
    ----------
    logits
        (N, 7) lens log-odds, as in :class:`~scanner.records.Scores`.

    Raises
    ------
    ValueError
        Not seven columns.
    """
    if logits.ndim != 2 or logits.shape[1] != len(MEMBERS):
        raise ValueError(f"log-odds have shape {logits.shape}, not (N, {len(MEMBERS)})")
    probabilities = sigmoid(logits.astype(np.float64))
    mean = probabilities.mean(axis=1)
    shared = _entropy_bits(probabilities).mean(axis=1)
    return Disagreement(
        probabilities=probabilities,
        mean=mean,
        spread=probabilities.std(axis=1),
        votes=np.asarray((probabilities >= MEMBER_THRESHOLD).sum(axis=1), dtype=np.int64),
        shared_bits=shared,
        disagreement_bits=np.maximum(_entropy_bits(mean) - shared, 0.0),
    )


def _entropy_bits(probability: Float64) -> Float64:
    """Entropy of a yes-or-no outcome; 0 where it is certain."""
    inside = np.clip(probability, np.finfo(np.float64).tiny, 1.0)
    outside = np.clip(1.0 - probability, np.finfo(np.float64).tiny, 1.0)
    return np.asarray(-(probability * np.log2(inside) + (1.0 - probability) * np.log2(outside)))
