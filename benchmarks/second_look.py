"""What a second look is worth: recall and cost against the share of non-lenses that set its limit.

    python benchmarks/second_look.py --bundle NAME --lenses SETS/eval --others SETS/challenge --objects 4000 --cache CACHE

Visible lenses of one set and the first non-lenses of another are scored in all eight orientations by a bundle's networks. For
every limit the same log-odds are put together as a scan would: one orientation, or the mean of all for whoever reaches the
limit in that one. Recalls are means over the eight choices of the one; intervals (95%) by bootstrap of lenses and non-lenses.
*Cost*: runs of the networks on the non-lenses, over those without a second look; lenses are too rare to count.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scanner.ensemble import bundles
from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.ensemble.session import open_session
from scanner.evaluation.biases import turned_logits
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Float64

SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0)
RATES = (1e-2, 3e-3)
RESAMPLES = 200


def looked(one: Float64, mean: Float64, limit: float) -> Float64:
    """Scores (N, 8): each orientation as the one that is looked at first."""
    return np.where(one >= limit, mean[:, None], one)


def recalls(lenses: Float64, others: Float64) -> Float64:
    """Recall at each of the rates, mean over the orientations."""
    allowed = [int(rate * len(others)) for rate in RATES]
    thresholds = -np.sort(-others, axis=0)[allowed]
    return np.array([(lenses > threshold).mean() for threshold in thresholds])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--lenses", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--objects", type=int, default=4000, help="non-lenses")
    parser.add_argument("--cache", type=Path, required=True, help="folder where log-odds are kept")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    scores = {}
    for path in (arguments.lenses, arguments.others):
        dataset = LabelledSet(path)
        truth = dataset.truth
        kept = truth.is_lens & truth.visible if path == arguments.lenses else ~truth.is_lens
        rows = np.flatnonzero(kept)[: None if path == arguments.lenses else arguments.objects].astype(np.int64)
        logits = turned_logits(bundle, dataset, rows, lambda: open_session(bundle, parallel=2), arguments.cache)
        one = bundle.calibration.ranking_score(logits.reshape(-1, len(MEMBERS))).reshape(-1, ORIENTATIONS)
        scores[path] = one, bundle.calibration.ranking_score(logits.mean(axis=1))
    (lenses, lens_means), (others, other_means) = (scores[path] for path in (arguments.lenses, arguments.others))
    print(f"{len(lenses)} visible lenses, {len(others)} non-lenses")
    print(f"{'looked at again':>16}{'cost':>7}" + "".join(f"{f'recall at FPR {rate:g}':>30}" for rate in RATES))
    generator = np.random.default_rng(0)
    draws = [tuple(generator.integers(0, len(rows), len(rows)) for rows in (lenses, others)) for _ in range(RESAMPLES)]
    for share in SHARES:
        limit = np.quantile(others, 1.0 - share) if share else np.inf
        ours, theirs = looked(lenses, lens_means, limit), looked(others, other_means, limit)
        spread = np.array([recalls(ours[i], theirs[j]) for i, j in draws])
        low, high = np.quantile(spread, (0.025, 0.975), axis=0)
        words = [f"{r:.3f} [{a:.3f}, {b:.3f}]" for r, a, b in zip(recalls(ours, theirs), low, high, strict=True)]
        cost = 1.0 + (ORIENTATIONS - 1) * float((others >= limit).mean())
        print(f"{share:15.1%} {cost:6.2f}" + "".join(f"{word:>30}" for word in words), flush=True)


if __name__ == "__main__":
    main()
