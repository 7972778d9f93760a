"""How many objects somebody must look at to find the lenses of a million: in order of rank, or as the queue has them.

    scanner simulate dataset --preset survey --n 1200 --seed 28 --out SETS/survey
    scanner simulate dataset --preset challenge --n 2500 --seed 28 --out SETS/challenge
    scanner simulate dataset --preset wide-lenses --n 500 --seed 28 --out SETS/wide-lenses
    python benchmarks/looks.py SETS [--skies 20]

A sky has a million objects, 100 of them lenses. Log-odds are drawn from two normal laws that have the recalls which
docs/figures.md gives at false-positive rates of 1e-2, 1e-3 and 1e-4. On the second sky 30 of the lenses are wide (Einstein
radii above 2"), of a kind that the networks were not taught: their log-odds are those of the set wide-lenses. Feature vectors,
which the best 100,000 objects have, are drawn by kind: slopes with the log-odds and scatter are those of simulated objects,
scored by the bundle that ships, and so are the means, but that lenses lie nearer to the others: such a part of the way off that
vectors help as much in finding them as cross-validation says that those of the scored objects do. The grader is always right.

Compared are rank; ``next_objects`` with its default weights; and both with learning: after 300, 1,000, 3,000, 10,000 and 30,000
looks what ``scanner train from-grades`` adds to a last layer is fitted to what was graded, and orders the rest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import least_squares
from scipy.stats import norm

from scanner.ensemble import bundles
from scanner.ensemble.calibration import log_odds_of, sigmoid
from scanner.grading.labels import FEWEST
from scanner.grading.queue import Mix, next_objects
from scanner.grading.similar import MEMBER, Basis
from scanner.labelled_set import LabelledSet
from scanner.records import Float32, Float64, Int64
from scanner.training.from_grades import FeatureSession, fit_added

OBJECTS, LENSES, WIDE = 1_000_000, 100, 30
#: Recall of visible single lenses by false-positive rate (docs/figures.md, 430 lenses, 100,000 others; 8,000 at 1e-2).
RECALLS = {1e-2: 0.835, 1e-3: 0.633, 1e-4: 0.444}
#: Objects with features: whose cutouts a run keeps.
KEPT = 100_000
#: Looks after which is learned, and most looks.
SITTINGS = (300, 1000, 3000, 10_000, 30_000, 100_000)
#: Graded others that a layer is fitted to, at most; each then stands for several.
FITTED = 2000
WIDE_ARCSEC = 2.0
SHARES = (0.5, 0.8, 0.95)


@dataclass(frozen=True)
class Law:
    """Standard normal scores of others; those of lenses have ``mean`` and ``sigma``."""

    mean: float
    sigma: float

    @classmethod
    def fitted(cls) -> Law:
        """The law that has the recalls."""
        rates, recalls = (np.array(list(part)) for part in (RECALLS, RECALLS.values()))
        found = least_squares(lambda p: norm.sf((norm.isf(rates) - p[0]) / p[1]) - recalls, [3.0, 1.0]).x
        return cls(float(found[0]), float(found[1]))

    def log_odds(self, score: Float64) -> Float64:
        """At a prevalence of lenses of 1e-4."""
        ratio = norm.logpdf(score, self.mean, self.sigma) - norm.logpdf(score)
        return np.asarray(ratio + log_odds_of(LENSES / OBJECTS), dtype=np.float64)


@dataclass(frozen=True)
class Kind:
    """A kind of lenses, or of others: its share; mean features at a log-odds of ``at``, their slope with it, and scatter."""

    share: float
    mean: Float64
    at: float
    slope: Float64
    scatter: Float64

    def draw(self, log_odds: Float64, rng: np.random.Generator) -> Float32:
        """Features of objects of some log-odds."""
        noise = rng.standard_normal((len(log_odds), len(self.mean)), dtype=np.float32) @ self.scatter.T
        return np.asarray(self.mean + np.outer(log_odds - self.at, self.slope) + noise, dtype=np.float32)


@dataclass(frozen=True)
class Scored:
    """Objects of one kind that were scored: ``odds`` (N,), ``vectors`` (N, D)."""

    name: str
    odds: Float64
    vectors: Float32


def scored(folder: Path) -> tuple[Float64, Float32, np.ndarray, np.ndarray]:
    """Log-odds, features, class and whether it counts (lenses that can be seen, and others) of the objects of a set."""
    dataset, cache = LabelledSet(folder), folder / "looks.npz"
    if not cache.is_file():
        bundle = bundles.load(None)
        session = FeatureSession(bundle)
        parts = [session(batch) for batch in dataset.store.batches(64)]
        logits = np.concatenate([part.logits for part in parts])
        values = np.concatenate([part.values[MEMBER] for part in parts])
        np.savez(cache, log_odds=bundle.calibration.log_odds(logits), values=values)
    with np.load(cache) as kept:
        truth = dataset.truth
        return kept["log_odds"], kept["values"], truth.class_name, truth.visible | ~truth.is_lens


def kinds_of(groups: dict[str, list[Scored]]) -> dict[str, dict[str, Kind]]:
    """The kinds that the objects of each group are of; rare ones are left out.

    Slope and scatter are common to all. Slopes of their own would lead far off where no object was scored; and of the scatter
    of scored lenses, which is larger, the queue would find lenses that it does not find among scored objects (see ``check``).
    """
    means = {
        group: {one.name: (float(one.odds.mean()), one.vectors.mean(axis=0)) for one in parts}
        for group, parts in groups.items()
    }
    off = [(one, *means[group][one.name]) for group, parts in groups.items() for one in parts]
    x = np.concatenate([one.odds - at for one, at, _ in off])
    y = np.concatenate([one.vectors - mean for one, _, mean in off])
    slope = (x @ y) / (x @ x)
    residual = y - np.outer(x, slope)
    scatter = np.linalg.cholesky(residual.T @ residual / len(residual) + 1e-6 * np.eye(len(slope))).astype(np.float32)
    found: dict[str, dict[str, Kind]] = {}
    for group, parts in groups.items():
        n = sum(len(one.odds) for one in parts)
        found[group] = {one.name: Kind(len(one.odds) / n, *reversed(means[group][one.name]), slope, scatter) for one in parts}
    return found


def as_telling(
    lenses: Kind, others: dict[str, Kind], lens_odds: Float64, lens_vectors: Float32, rest: tuple[Float64, Float32]
) -> tuple[Kind, str]:
    """Lenses so near to the others that features tell them apart as well as those of scored objects do, beyond log-odds."""
    wanted = recall_learned(lens_odds, lens_vectors, *rest)
    at = float(np.median(lens_odds))
    there = sum(one.share * (one.mean + (at - one.at) * one.slope) for one in others.values())
    way = lenses.mean + (at - lenses.at) * lenses.slope - there
    rng, found = np.random.default_rng(0), {}
    for part in np.linspace(0.0, 1.0, 9):
        moved = replace(lenses, mean=lenses.mean - (1.0 - part) * way)
        tried = []
        for _ in range(3):
            drawn = np.empty_like(rest[1])
            kind = rng.choice(len(others), len(drawn), p=[one.share for one in others.values()])
            for number, one in enumerate(others.values()):
                drawn[kind == number] = one.draw(rest[0][kind == number], rng)
            tried.append(recall_learned(lens_odds, moved.draw(lens_odds, rng), rest[0], drawn))
        found[part] = moved, float(np.mean(tried))
    part = min(found, key=lambda one: abs(found[one][1] - wanted))
    before = recall(lens_odds, rest[0])
    return found[part][
        0
    ], f"{before:.3f} by log-odds, {wanted:.3f} with features, {found[part][1]:.3f} as drawn ({part:.2f} of the way)"


def recall(of_lenses: Float64, of_others: Float64) -> float:
    """Mean share of lenses above all but 1 %, and all but 5 %, of the others."""
    return float(np.mean([(of_lenses > np.quantile(of_others, 1.0 - rate)).mean() for rate in (0.01, 0.05)]))


def recall_learned(lens_odds: Float64, lens_vectors: Float32, odds: Float64, vectors: Float32) -> float:
    """The same of log-odds with what is learned from the features of the others, by cross-validation."""
    is_lens = np.arange(len(lens_odds) + len(odds)) < len(lens_odds)
    fold = np.random.default_rng(0).permutation(len(is_lens)) % 5
    values = np.concatenate([lens_vectors, vectors]).astype(np.float64)
    found = fit_added(values, np.concatenate([lens_odds, odds]), is_lens, np.ones(len(is_lens)), fold).without_own
    return recall(found[is_lens], found[~is_lens])


@dataclass(frozen=True)
class Sky:
    """``log_odds`` (N,), ``is_lens`` (N,), ``vectors`` (N, D): NaN where no cutout is kept."""

    log_odds: Float64
    is_lens: np.ndarray
    vectors: Float32


def draw(law: Law, lenses: Kind, wide: Kind, wide_scores: Float64, others: dict[str, Kind], n_wide: int, seed: int) -> Sky:
    rng = np.random.default_rng(seed)
    is_lens = np.zeros(OBJECTS, dtype=bool)
    is_lens[:LENSES] = True
    log_odds = law.log_odds(np.where(is_lens, rng.normal(law.mean, law.sigma, OBJECTS), rng.standard_normal(OBJECTS)))
    log_odds[:n_wide] = rng.choice(wide_scores, n_wide) + rng.normal(0.0, 0.3, n_wide)
    kind = rng.choice(len(others), OBJECTS, p=[one.share for one in others.values()])
    kept = np.argsort(-log_odds, kind="stable")[:KEPT]
    vectors = np.full((OBJECTS, len(lenses.mean)), np.nan, dtype=np.float32)
    masks = [(wide, np.arange(OBJECTS) < n_wide), (lenses, is_lens & (np.arange(OBJECTS) >= n_wide))]
    masks += [(one, ~is_lens & (kind == number)) for number, one in enumerate(others.values())]
    for one, mask in masks:
        rows = kept[mask[kept]]
        vectors[rows] = one.draw(log_odds[rows], rng)
    order = rng.permutation(OBJECTS)
    return Sky(log_odds[order], is_lens[order], vectors[order])


def learned(sky: Sky, graded: Int64, rng: np.random.Generator) -> Float64:
    """Log-odds of all objects after some were graded; as they were where too few lenses, or none, are among them."""
    known = graded[np.isfinite(sky.vectors[graded, 0])]
    lenses, others = known[sky.is_lens[known]], known[~sky.is_lens[known]]
    if min(len(lenses), len(others)) < FEWEST:
        return sky.log_odds
    some = rng.permutation(others)[:FITTED]
    rows = rng.permutation(np.concatenate([lenses, some]))
    weight = np.where(sky.is_lens[rows], 1.0, len(others) / len(some))
    found = fit_added(
        sky.vectors[rows].astype(np.float64), sky.log_odds[rows], sky.is_lens[rows], weight, np.arange(len(rows)) % 5
    )
    added = sky.vectors @ found.slope.astype(np.float32) + found.constant + found.offset
    # Without features nothing is learned but how many there are.
    return sky.log_odds + np.where(np.isfinite(added), added, found.offset)


def looks(sky: Sky, mix: Mix | None, is_taught: bool, seed: int) -> Int64:
    """How many looks each lens takes to be found, in order; those that are not found take more than there were."""
    rng = np.random.default_rng(seed)
    seen = np.empty(0, dtype=np.int64)
    for end in SITTINGS:
        log_odds = learned(sky, seen, rng) if is_taught and len(seen) else sky.log_odds
        graded = np.zeros(OBJECTS, dtype=bool)
        graded[seen] = True
        n = end - len(seen)
        if mix is None:
            order = np.argsort(-log_odds, kind="stable")
            more = order[~graded[order]][:n]
        else:
            more = next_objects(sigmoid(log_odds), graded, mix, n, int(rng.integers(2**31)), (sky.vectors,)).rows
        seen = np.concatenate([seen, more])
    found = np.flatnonzero(sky.is_lens[seen]) + 1
    return np.concatenate([found, np.full(LENSES - len(found), SITTINGS[-1] + 1)])


def interval(values: Float64) -> str:
    """Median over the skies, with the 95% interval that resampling them gives."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return " ".join(
        (f"{value:9,.0f}" if value <= SITTINGS[-1] else f">{SITTINGS[-1]:,}") for value in (np.median(values), low, high)
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=Path)
    parser.add_argument("--skies", type=int, default=20)
    parser.add_argument("--points", type=int, nargs="*", default=[100, 300, 1000, 3000, 10_000, 30_000, 100_000])
    arguments = parser.parse_args()
    law = Law.fitted()
    print(
        f"scores of lenses: {law.mean:.2f} +- {law.sigma:.2f} sigma of the others'; recall at "
        + ", ".join(f"{rate:g} {norm.sf((norm.isf(rate) - law.mean) / law.sigma):.3f}" for rate in RECALLS)
    )
    parts = {name: scored(arguments.sets / name) for name in ("survey", "challenge", "wide-lenses")}
    basis = Basis.of(np.concatenate([values for _, values, _, _ in parts.values()]), b"")
    size = pq.read_table(arguments.sets / "wide-lenses" / "truth.parquet", columns=["theta_e_arcsec"])[
        "theta_e_arcsec"
    ].to_numpy()
    log_odds, vectors, names, used = (
        np.concatenate(part)
        for part in zip(*((a, basis.apply(b), c, d) for a, b, c, d in list(parts.values())[:2]), strict=True)
    )
    is_lens = np.char.find(names.astype(str), "lens") == 0
    bright = used & ~is_lens & (log_odds > np.percentile(log_odds[used & ~is_lens], 75))
    rest = log_odds[bright], vectors[bright]
    seen = log_odds[used & is_lens], vectors[used & is_lens]
    wide_odds, wide_values, _, wide_used = parts["wide-lenses"]
    wide_used = wide_used & (size > WIDE_ARCSEC)
    far = wide_odds[wide_used], basis.apply(wide_values)[wide_used]
    print("lenses above the brightest 1 % and 5 % of the brightest quarter of the others:")
    bright_names = names[bright]
    groups = {
        "others": [
            Scored(str(name), rest[0][bright_names == name], rest[1][bright_names == name])
            for name, count in zip(*np.unique(bright_names, return_counts=True), strict=True)
            if count >= 20
        ]
    }
    kinds = kinds_of(groups | {"lenses": [Scored("lens", *seen)], "wide": [Scored("wide", *far)]})
    others, (lenses,), (wide,) = kinds["others"], kinds["lenses"].values(), kinds["wide"].values()
    lenses, told = as_telling(lenses, others, *seen, rest)
    wide, wide_told = as_telling(wide, others, *far, rest)
    print(f"  {len(seen[0])} as the networks were taught: {told}")
    print(f"  {len(far[0])} wide: {wide_told}")
    print(f"{used.sum()} objects; others by kind: " + ", ".join(f"{name} {one.share:.2f}" for name, one in others.items()))
    check(log_odds[used & ~is_lens], vectors[used & ~is_lens], seen, far)
    strategies: dict[str, Callable[[Sky, int], Int64]] = {
        "rank": partial(looks_of, None, False),
        "queue": partial(looks_of, Mix(), False),
        "rank, learning": partial(looks_of, None, True),
        "queue, learning": partial(looks_of, Mix(), True),
    }
    for title, n_wide in (("as the networks were taught", 0), (f"{WIDE} of {LENSES} lenses of an unknown kind", WIDE)):
        found: dict[str, list[Int64]] = {name: [] for name in strategies}
        began = time.process_time()
        for seed in range(arguments.skies):
            sky = draw(law, lenses, wide, wide_odds[wide_used], others, n_wide, seed)
            for name, strategy in strategies.items():
                found[name].append(strategy(sky, seed))
        print(f"\n{title}: {arguments.skies} skies, {time.process_time() - began:.0f} s of processor time")
        print(f"{'looks for':18}" + "".join(f"{share:>30.0%}" for share in SHARES))
        for name, each in found.items():
            needed = [np.array([one[round(share * LENSES) - 1] for one in each], dtype=np.float64) for share in SHARES]
            print(f"{name:18}" + "".join(f"{interval(one):>30}" for one in needed))
        print(f"{'lenses found after':18}" + "".join(f"{n:>20,}" for n in arguments.points))
        for name, each in found.items():
            counts = [[float((one <= n).sum()) for one in each] for n in arguments.points]
            print(
                f"{name:18}"
                + "".join(
                    f"{np.mean(one):10.1f} +- {1.96 * np.std(one, ddof=1) / len(one) ** 0.5:4.1f}".rjust(20) for one in counts
                )
            )


def check(odds: Float64, vectors: Float32, *lenses: tuple[Float64, Float32]) -> None:
    """The queue and rank among the scored objects themselves, without any law: 30 lenses that are drawn, and all others."""
    rng, draws = np.random.default_rng(1), 40
    n_others = len(odds)
    for title, numbers in (("30 as the networks were taught", (30, 0)), ("10 of 30 of an unknown kind", (20, 10))):
        needed: dict[str, list[list[int]]] = {"rank": [], "queue": []}
        for seed in range(draws):
            rows = [rng.choice(len(one[0]), number, replace=False) for one, number in zip(lenses, numbers, strict=True)]
            order = rng.permutation(n_others + 30)
            all_odds = np.concatenate([odds, *(one[0][row] for one, row in zip(lenses, rows, strict=True))])[order]
            all_vectors = np.concatenate([vectors, *(one[1][row] for one, row in zip(lenses, rows, strict=True))])[order]
            is_lens = order >= n_others
            nothing = np.zeros(len(order), dtype=bool)
            queue = next_objects(sigmoid(all_odds), nothing, Mix(), len(order), seed, (all_vectors,)).rows
            for name, seen in (("rank", np.argsort(-all_odds, kind="stable")), ("queue", queue)):
                found = np.flatnonzero(is_lens[seen]) + 1
                needed[name].append([int(found[round(share * 30) - 1]) for share in SHARES])
        print(
            f"among {n_others} scored others, {title}, {draws} draws; looks for "
            + ", ".join(f"{share:.0%}" for share in SHARES)
        )
        for name, each in needed.items():
            print(f"  {name:8}" + "".join(interval(np.array(column, dtype=np.float64)) for column in zip(*each, strict=True)))


def looks_of(mix: Mix | None, is_taught: bool, sky: Sky, seed: int) -> Int64:
    return looks(sky, mix, is_taught, seed)


if __name__ == "__main__":
    main()
