"""What a bundle finds where NISP bands are missing: the members that see the rest, combined as a scan combines them.

    python benchmarks/missing_bands.py --bundle NAME --lenses SETS/eval --others SETS/challenge --cache CACHE

Visible lenses against the non-lenses of the other set. *Fitted*: a calibration of those members
alone, fitted on the labels of the lenses' set itself, which a scan cannot have: the distilled one must come near it.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from scanner.ensemble import bundles, calibration
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.session import open_session, seeing
from scanner.evaluation.scores import cached_logits
from scanner.labelled_set import LabelledSet
from scanner.records import NISP_BANDS, Float64

RATES = (1e-2, 1e-3)


def figures(lenses: Float64, others: Float64) -> str:
    """AUROC, and recall at the rates, of two sets of scores."""
    labels = np.r_[np.ones(len(lenses)), np.zeros(len(others))]
    recalls = [float(np.mean(lenses > np.quantile(others, 1.0 - rate))) for rate in RATES]
    return f"{roc_auc_score(labels, np.r_[lenses, others]):.4f}  " + "  ".join(f"{recall:.3f}" for recall in recalls)


def main() -> None:
    """Print a line for every subset of the bands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=None)
    for name in ("--lenses", "--others", "--cache"):
        parser.add_argument(name, type=Path, required=True)
    asked = parser.parse_args()
    bundle = bundles.load(asked.bundle)
    full = bundle.calibration
    if bundle.reference_logits is None or not isinstance(full, Calibration):
        raise SystemExit("the bundle has no grid, or no calibration")
    sets = [LabelledSet(path) for path in (asked.lenses, asked.others)]
    logits = [
        cached_logits(bundle, dataset, lambda: open_session(bundle, "auto", 1, 1), asked.cache).astype(np.float64)
        for dataset in sets
    ]
    visible, plain = sets[0].truth.is_lens & sets[0].truth.visible, ~sets[1].truth.is_lens
    print(f"{bundle.manifest.name}: {visible.sum()} visible lenses, {plain.sum()} non-lenses; AUROC, recall at {RATES}")
    for there in product((True, False), repeat=len(NISP_BANDS)):
        members = seeing(bundle, np.array([True, *there]))
        alone = bundle.combination(members)
        fitted = calibration.fit(logits[0] * members, sets[0].truth.is_lens, sky_prevalence=full.sky_prevalence)
        name = "+".join(["VIS", *(band for band, is_there in zip(NISP_BANDS, there, strict=True) if is_there)])
        lines = [
            figures(rule.log_odds(logits[0][visible] * members), rule.log_odds(logits[1][plain] * members))
            for rule in (alone, fitted)
        ]
        print(f"{name:12} {lines[0]}   fitted: {lines[1]}")


if __name__ == "__main__":
    main()
