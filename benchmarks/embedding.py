"""The t-SNE map at the paper's scale: how long it takes, how well new objects are placed on it, what is lost by using it.

    python benchmarks/embedding.py --data SET --bundle BUNDLE --log-odds FOLDER [--rows 45000] [--real N]
                                   [--embed probabilities] [--no-joint] [--sklearn]

``--data``: what the bundle was trained on. ``--log-odds``: where its log-odds are kept (``RUNS/log-odds`` after ``scanner
train bundle``); what is not there is scored and put there. Embedded are ``--rows`` rows of seven log-odds: training objects,
in several orientations where there are too few. Scoring can be limited to ``--real`` of them; the others are then drawn from
these, each moved by half the distance to its nearest neighbour in a random direction, and keep their labels: good for times,
but each of them has its original beside it, which makes the grid's cells better than they are.

New objects are the calibration rows, which no member was trained on. Three ways to place them: the lookup of
:mod:`scanner.ensemble.embedding_grid` (position of the nearest training object in the log-odds), openTSNE's ``transform``, and
a joint fit, where they are embedded together with the training rows. A joint fit has a map of its own, so the lookup is held
against it on that map: the joint position of a new object against that of its nearest training object. ``--sklearn``: the
joint fit by scikit-learn, which has no other way to place new objects.

The grid values that follow are compared with the logistic combination of the same log-odds: fitted on one half of the
calibration rows and judged on the other, and the reverse; and fitted on the very rows that the grid is made of.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.manifold import TSNE

from scanner.ensemble import bundles, calibration
from scanner.ensemble.calibration import LOGIT_LIMIT, Calibration
from scanner.ensemble.embedding_grid import CELLS, NEAREST_LOG_ODDS, Embedded, EmbeddingGrid, GridRule
from scanner.evaluation.metrics import delong, recalls_at_fpr
from scanner.evaluation.results import SKY_PREVALENCE
from scanner.interval import normal_interval
from scanner.records import MEMBERS, Flag, Float32, Float64, Int64
from scanner.training.assemble import EMBEDDED_ROWS, embedded_rows, fit_embedding, training_logits
from scanner.training.data import TrainingData

FPR = 1e-2
Bools = NDArray[np.bool_]


def drawn(logits: Float32, labels: Bools, n: int, seed: int) -> tuple[Float32, Bools]:
    """``logits`` and ``labels``, and behind them rows drawn from these until there are ``n``."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, len(logits), n - len(logits))
    distance = np.asarray(cKDTree(NEAREST_LOG_ODDS.coordinates(logits)).query(NEAREST_LOG_ODDS.coordinates(logits), k=[2])[0])[
        :, 0
    ]
    direction = rng.normal(size=(len(source), logits.shape[1]))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved = logits[source] + 0.5 * distance[source, None] * direction
    return np.concatenate([logits, moved.astype(np.float32)]), np.concatenate([labels, labels[source]])


def timed(what: str, call: Callable[[], Any]) -> Any:
    """The answer of ``call``; says how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = call()
    print(f"{what}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} CPU-s", flush=True)
    return answer


def cells_of(grid: EmbeddingGrid, positions: Float32) -> Int64:
    """Column and row of each position, (N, 2), clipped to the grid."""
    edges = (grid.x_edges, grid.y_edges)
    found = [np.searchsorted(edge, positions[:, axis], side="right") - 1 for axis, edge in enumerate(edges)]
    return np.stack([np.clip(index, 0, len(grid.x_edges) - 2) for index in found], axis=1).astype(np.int64)


def agreement(grid: EmbeddingGrid, ours: Float32, theirs: Float32) -> str:
    """Shares of objects whose two positions are at most 0, 1, 2 cells apart along either axis, and what the cells say."""
    apart = np.abs(cells_of(grid, ours) - cells_of(grid, theirs)).max(axis=1)
    values = [grid.value_at(positions).value.astype(np.float64) for positions in (ours, theirs)]
    same = np.mean((values[0] >= 0.5) == (values[1] >= 0.5))
    shares = " | ".join(f"{np.mean(apart <= cells):.1%}" for cells in (0, 1, 2))
    return f"{shares} | {same:.1%} | {np.asarray(np.corrcoef(values))[0, 1]:.3f} |"


def cross_fitted(logits: Float32, labels: Bools, seed: int) -> Float64:
    """Calibrated log-odds of each half of the rows by the calibration of the other half."""
    half = np.random.default_rng(seed).permutation(len(logits)) % 2 == 0
    found = np.empty(len(logits))
    for part in (half, ~half):
        found[part] = fitted(logits[~part], labels[~part]).log_odds(logits[part])
    return found


def fitted(logits: Float32, labels: Bools) -> Calibration:
    return calibration.fit(logits, labels, sky_prevalence=SKY_PREVALENCE)


def compare(scores: dict[str, NDArray[Any]], is_lens: Bools, visible: Bools) -> None:
    """A table of scores of the same objects, the first being what the others are compared with."""
    print(
        "\n| score | AUROC | AUROC, visible lenses | less the first's | recall of visible at FPR 1e-2 |\n|---|---|---|---|---|"
    )
    counted = visible | ~is_lens
    rows = np.stack([np.asarray(score, dtype=np.float64) for score in scores.values()])
    everything, _ = delong(rows, is_lens)
    values, covariance = delong(rows[:, counted], is_lens[counted])
    recalls = recalls_at_fpr(rows[:, visible], rows[:, ~is_lens], (FPR,))
    for number, name in enumerate(scores):
        value = normal_interval(float(values[number]), math.sqrt(covariance[number, number]), high=1.0)
        variance = covariance[number, number] + covariance[0, 0] - 2 * covariance[number, 0]
        less = normal_interval(float(values[number] - values[0]), math.sqrt(max(0.0, variance)))
        gain = f"{less.value:+.4f} [{less.low:+.4f}, {less.high:+.4f}]" if number else ""
        print(f"| {name} | {everything[number]:.3f} | {value} | {gain} | {recalls.interval(number, 0)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--bundle")
    parser.add_argument("--log-odds", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=EMBEDDED_ROWS)
    parser.add_argument("--real", type=int, help="rows that are scored, at most (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes that score")
    parser.add_argument("--threads", type=int, default=1, help="of openTSNE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--joint", action=argparse.BooleanOptionalAction, default=True, help="the joint fit, a second t-SNE")
    parser.add_argument("--sklearn", action="store_true", help="a joint fit by scikit-learn as well")
    parser.add_argument("--embed", choices=get_args(Embedded), default="log-odds")
    given = parser.parse_args()
    data, bundle = TrainingData(given.data), bundles.load(given.bundle)

    def scored(rows: Int64, orientations: Int64) -> Float32:
        return training_logits(bundle, data, rows, orientations, given.log_odds, workers=given.workers)

    train, orientations = embedded_rows(data.split.train, given.seed, min(given.real or given.rows, given.rows))
    logits, labels = scored(train, orientations), data.labels.is_lens[train]
    held_out = data.split.calibration
    new, is_lens = scored(held_out, np.zeros_like(held_out)), data.labels.is_lens[held_out]
    n_real, n_objects = len(logits), len(np.unique(train))
    logits, labels = drawn(logits, labels, given.rows, given.seed)
    print(
        f"{bundle.manifest.name}: {len(logits):,} rows, {n_real:,} of them scored ({n_objects:,} objects), "
        f"{len(new):,} new objects\n"
    )
    measure(logits, labels, new, is_lens, data.labels.visible[held_out] & is_lens, given)


def measure(logits: Float32, labels: Bools, new: Float32, is_lens: Bools, visible: Bools, given: argparse.Namespace) -> None:
    """Embed, place the new objects in three ways, compare."""
    n, seed, threads, rule = len(logits), given.seed, given.threads, GridRule(embeds=given.embed)
    embedding = timed(f"t-SNE of {n:,} rows", lambda: fit_embedding(logits, rule, seed=seed, threads=threads))
    placed = timed(f"openTSNE's transform of {len(new):,} others", lambda: embedding.transform(rule.coordinates(new)))
    # Taken after the transform, which centres the map anew.
    positions, transformed = np.asarray(embedding, dtype=np.float32), np.asarray(placed, dtype=np.float32)

    def build(places: Float32, cells: int = CELLS) -> EmbeddingGrid:
        return EmbeddingGrid.build(logits, places, labels, held_out=new, cells=cells, rule=rule)

    grid = build(positions)
    in_empty = np.mean((grid.value_at(transformed).flags & Flag.EMPTY_CELL) > 0)
    print(f"of them in cells without a training object after the transform: {in_empty:.1%}")
    ours = timed(f"lookup of the same among {len(grid.logits):,}", lambda: grid.lookup(new))
    together, joints = np.concatenate([logits, new]), {}
    if given.joint:
        joints["joint fit"] = timed("joint fit", lambda: fit_embedding(together, rule, seed=seed, threads=threads))
    if given.sklearn:
        fit = TSNE(init="pca", random_state=seed, n_jobs=threads).fit_transform
        joints["joint fit, scikit-learn"] = timed("joint fit, scikit-learn", lambda: fit(rule.coordinates(together)))

    print(f"\n| lookup, {CELLS} x {CELLS} cells, against | same cell | within 1 | within 2 | same at 0.5 | r of values |")
    print("|---|---|---|---|---|---|")
    print(f"| transform | {agreement(grid, ours.positions, transformed)}")
    by_joint = {}
    for name, joint in joints.items():
        places = np.asarray(joint, np.float32)
        joint_grid = build(places[:n])
        print(f"| {name} | {agreement(joint_grid, joint_grid.lookup(new).positions, places[n:])}")
        by_joint[f"grid, {name}"] = joint_grid.value_at(places[n:]).value

    compare(
        {
            "calibrated, fitted on the other half": cross_fitted(new, is_lens, seed),
            "calibrated, fitted on the embedded rows": fitted(logits, labels).log_odds(new),
            "mean log-odds": np.clip(new, -LOGIT_LIMIT, LOGIT_LIMIT).mean(axis=1),
            **{f"{member} alone": new[:, number] for number, member in enumerate(MEMBERS) if member in ("OU-VIS", "OU-200")},
            "grid, lookup": ours.value,
            "grid, transform": grid.value_at(transformed).value,
            **by_joint,
            "grid of 50 x 50 cells, lookup": build(positions, 50).lookup(new).value,
            "grid of 25 x 25 cells, lookup": build(positions, 25).lookup(new).value,
        },
        is_lens,
        visible,
    )


if __name__ == "__main__":
    main()
