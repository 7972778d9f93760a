"""Whether another combination of the same seven log-odds would find more lenses than a bundle's own.

    python benchmarks/combinations.py --bundle NAME --lenses SETS/eval --others SETS/challenge --cache CACHE

Reads a bundle, its calibrated combination fitted on other objects than these; sets of visible lenses (repeat ``--lenses``) and
of non-lenses; the folder where ``scanner evaluate --cache`` keeps log-odds. Prints, for the bundle's own combination, every
member, and others that are fitted to these very sets, each object judged by a fit to the other four fifths: recall of every
set's visible lenses where 10, 100 and 1,000 of the non-lenses pass, and its AUROC (DeLong, 95 %) against all of them and
against classes that look alike; for a bundle with a grid, how many of them that takes at the bundle's threshold, and what is
found if its value, or its decision, comes before the combination in the list. What a fit to the sets themselves does not gain,
no calibration set can give.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from scanner.ensemble import bundles
from scanner.ensemble.embedding_grid import limited
from scanner.ensemble.session import open_session
from scanner.evaluation.metrics import auroc_interval
from scanner.evaluation.scores import cached_logits, lenses
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Float32, Float64

FOLDS = 5
PASSING = (10, 100, 1000)
ALIKE = {"ellipticals, companions": ("elliptical", "companion"), "arc-like companions": ("tangential",)}


def models() -> dict[str, Any]:
    """What is fitted, by name."""
    return {
        "logistic": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        "logistic, classes alike": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")),
        "quadratic": make_pipeline(
            StandardScaler(), PolynomialFeatures(2), StandardScaler(), LogisticRegression(C=0.1, max_iter=3000)
        ),
        "boosted trees": HistGradientBoostingClassifier(
            max_iter=150, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=5.0, random_state=0
        ),
    }


def crossed(model: Any, log_odds: Float64, is_lens: Float64) -> Float64:
    """Scores (N,) of objects by fits to the folds that they are not in."""
    fold = np.random.default_rng(0).integers(0, FOLDS, len(is_lens))
    scores = np.empty(len(is_lens))
    for number in range(FOLDS):
        model.fit(log_odds[fold != number], is_lens[fold != number])
        scores[fold == number] = model.decision_function(log_odds[fold == number])
    return scores


def places(first: Float64, then: Float64) -> Float64:
    """Scores (N,) that order as ``first`` does, and where that is equal as ``then`` does; equal pairs are equal."""
    return np.unique(np.stack([first, then], axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--lenses", type=Path, action="append", required=True, help="set whose visible lenses are to be found")
    parser.add_argument("--others", type=Path, required=True, help="set of non-lenses, more than 1,000")
    parser.add_argument("--cache", type=Path, required=True, help="log-odds of those sets with this bundle")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)

    def logits(path: Path) -> tuple[LabelledSet, Float32]:
        dataset = LabelledSet(path)
        return dataset, cached_logits(bundle, dataset, lambda: open_session(bundle, "auto", 1, 1), arguments.cache)

    others, found = logits(arguments.others)
    classes = np.asarray(others.truth.class_name).astype(str)[~others.truth.is_lens]
    parts = {"": found[~others.truth.is_lens]}
    for path in arguments.lenses:
        dataset, found = logits(path)
        parts[path.name] = found[lenses(dataset.truth, "visible")]
    ends = np.cumsum([len(part) for part in parts.values()])
    together = np.concatenate([*parts.values()])
    log_odds = limited(together).astype(np.float64)
    is_lens = np.arange(len(together)) >= ends[0]

    scores = {"the bundle's own": bundle.calibration.ranking_score(together)}
    print(f"{ends[0]:,} non-lenses, of which {', '.join(f'{n:,}' for n in PASSING)} pass")
    if bundle.grid is not None:
        value, own = bundle.grid.lookup(together).value, scores["the bundle's own"]
        is_candidate = value >= np.float32(bundle.threshold())
        print(f"the grid takes {is_candidate[: ends[0]].sum():,} of them")
        scores |= {"grid value first": places(value, own), "candidates first": places(is_candidate, own)}
    scores |= {member: log_odds[:, number] for number, member in enumerate(MEMBERS)}
    scores |= {name: crossed(model, log_odds, is_lens.astype(np.float64)) for name, model in models().items()}
    for name, values in scores.items():
        background = np.sort(values[: ends[0]])[::-1]
        shares = {
            set_name: " ".join(f"{(values[start:end] > background[n]).mean():.3f}" for n in PASSING)
            for set_name, start, end in zip(list(parts)[1:], ends, ends[1:], strict=False)
        }
        print(f"{name:24}", "   ".join(f"{set_name} {recalls}" for set_name, recalls in shares.items()), flush=True)
    chosen = {"all": np.ones(len(classes), dtype=np.bool_)} | {name: np.isin(classes, kinds) for name, kinds in ALIKE.items()}
    for name, values in scores.items():
        for set_name, start, end in zip(list(parts)[1:], ends, ends[1:], strict=False):
            found_by = []
            for kind, rows in chosen.items():
                pair = np.concatenate([values[start:end], values[: ends[0]][rows]])
                auroc = auroc_interval(pair, np.arange(len(pair)) < end - start)
                found_by.append(f"{kind} ({rows.sum():,}) {auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]")
            print(f"AUROC of {name}, {set_name}: {'; '.join(found_by)}")


if __name__ == "__main__":
    main()
