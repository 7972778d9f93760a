"""What a bundle finds of the wide sky: lenses by Einstein radius and by deflector, under several shares of companions.

    scanner simulate sets --out SETS wide-lenses invisible-deflectors bright-deflectors whole-rings challenge
    python benchmarks/wide_sky.py --bundle NAME --against OTHER --sets SETS --cache CACHE [--lenses SETS/eval ...]

Recall of visible lenses (S/N above 25, more than 100 pixels) where a share of the non-lenses of ``challenge`` passes, by the
calibrated combination as a scan scores, with the bundle's screen, kept in CACHE; 95 % bootstrap intervals over lenses and
non-lenses, differences to the other bundle paired. *Companions × f*: non-lenses with an elongated companion that is as bright
as a visible arc and tangential, as ``benchmarks/companions.py`` counts them, count f times.
"""

from __future__ import annotations

import argparse
from functools import cache as once
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from companions import AS_BRIGHT_AS_ARCS, neighbours
from numpy.typing import NDArray
from scipy.special import logit

from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import Scorer
from scanner.evaluation.scores import BATCH, PART, kept_array
from scanner.labelled_set import LabelledSet
from scanner.records import Float32, Float64, Int64

EDGES = (0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 10.01)
RATES = (1e-2, 1e-3, 1e-4)
FACTORS = (0.5, 1.0, 2.0)
OTHERS, BY_RADIUS = "challenge", "wide-lenses"
#: Fewer non-lenses than this that pass say nothing of a rate.
FEWEST = 5
#: Classes whose own light lies off their centre: only what is not theirs counts as a companion.
LOOSE = ("spiral", "merger", "edge_on", "ring", "group", "cluster", "star", "artefact", "empty", "beside_lens")
BOOTSTRAPS = 400


def scores(bundle: Bundle, dataset: LabelledSet, cache: Path) -> Float64:
    """Calibrated log-odds of a set as a scan scores it, with the bundle's screen, (N,); kept part by part in ``cache``."""
    folder = cache / f"scanned-{bundle.fingerprint[:16]}-{dataset.content_key[:16]}"
    scorer = once(lambda: Scorer(bundle, screen="bundle"))

    def scored(rows: Int64) -> Float32:
        batches = dataset.batches(rows, BATCH)
        return np.concatenate(
            [
                scorer().score(vis, nisp, one.sky, one.sigma, one.bad_fraction, one.flags).calibrated
                for one, vis, nisp in batches
            ]
        )

    parts = np.split(np.arange(len(dataset)), range(PART, len(dataset), PART))
    kept = [kept_array(folder / f"{number:06d}.npy", (len(rows),), partial(scored, rows)) for number, rows in enumerate(parts)]
    return np.asarray(logit(np.nan_to_num(np.concatenate(kept).astype(np.float64))))


def with_companion(dataset: LabelledSet) -> NDArray[np.bool_]:
    """Which objects (N,) have a tangential companion as bright as a visible arc."""
    names = ["target_id", "role", "kind", "x_arcsec", "y_arcsec", "flux_vis", "q", "angle"]
    table = pq.read_table(dataset.path / "components.parquet", columns=names)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in names}
    place = dict(zip(dataset.truth.target_id.tolist(), range(len(dataset)), strict=True))
    row = np.array([place[number] for number in columns["target_id"].tolist()])
    x, y = columns["x_arcsec"] - dataset.truth.position[row, 1], columns["y_arcsec"] - dataset.truth.position[row, 0]
    distance = np.hypot(x, y)
    of_object = columns["role"] == "object"
    counted = of_object | (columns["role"] == "field")
    counted &= (columns["kind"] != "point") & (distance < 2.5) & (distance > 1e-3)
    counted &= ~(of_object & np.isin(dataset.truth.class_name, LOOSE)[row])
    found = np.zeros(len(dataset), dtype=np.bool_)
    order = np.flatnonzero(counted)
    order = order[np.argsort(row[order], kind="stable")]
    for run in np.split(order, np.flatnonzero(np.diff(row[order])) + 1):
        if len(run):
            q, angle = (np.nan_to_num(columns[name][run].astype(float)) for name in ("q", "angle"))
            around = neighbours(x[run], y[run], columns["flux_vis"][run].astype(float), q, angle)
            found[row[run[0]]] = around.brightest("tangential") < AS_BRIGHT_AS_ARCS
    return found


def threshold(others: Float64, weights: Float64, rate: float) -> float:
    """Score that a share ``rate`` of the weighted non-lenses exceeds."""
    order = np.argsort(-others)
    passed = np.cumsum(weights[order]) / weights.sum()
    return float(others[order][min(int(np.searchsorted(passed, rate, side="right")), len(others) - 1)])


class Comparison:
    """Recalls of one or two bundles on the same lenses and non-lenses; ``others`` (B, M), ``flagged`` (M,)."""

    def __init__(self, others: Float64, flagged: NDArray[np.bool_]) -> None:
        self.others, self.flagged = others, flagged
        self.draws = [np.random.default_rng(k).integers(0, len(flagged), len(flagged)) for k in range(BOOTSTRAPS)]

    def weights(self, factor: float) -> Float64:
        """Of the non-lenses, such that ``factor`` times as many have a companion."""
        share = self.flagged.mean()
        return np.where(self.flagged, factor, (1.0 - factor * share) / (1.0 - share))

    def thresholds(self, rate: float, factor: float) -> tuple[Float64, Float64]:
        """Of each bundle, (B,), and of each bootstrap, (B, R)."""
        weights = self.weights(factor)
        at = np.array([threshold(values, weights, rate) for values in self.others])
        drawn = np.array([[threshold(values[rows], weights[rows], rate) for rows in self.draws] for values in self.others])
        return at, drawn

    def line(self, lenses: Float64, limits: tuple[Float64, Float64]) -> str:
        """Recall of lenses (B, n) above thresholds, in words."""
        at, drawn = limits
        n = lenses.shape[1]
        if not n:
            return "–"
        rows = [np.random.default_rng((7, k)).integers(0, n, n) for k in range(BOOTSTRAPS)]
        recall = (lenses > at[:, None]).mean(axis=1)
        spread = np.array([(lenses[:, some] > drawn[:, k, None]).mean(axis=1) for k, some in enumerate(rows)])
        low, high = np.quantile(spread, (0.025, 0.975), axis=0)
        words = "  ".join(f"{r:.3f} [{a:.3f}, {b:.3f}]" for r, a, b in zip(recall, low, high, strict=True))
        if len(lenses) == 2:
            a, b = np.quantile(spread[:, 0] - spread[:, 1], (0.025, 0.975))
            words += f"  difference {recall[0] - recall[1]:+.3f} [{a:+.3f}, {b:+.3f}]"
        return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--against", help="another bundle, to be compared with on the same objects")
    parser.add_argument("--sets", type=Path, required=True)
    parser.add_argument(
        "--lenses", type=Path, action="append", default=[], help="more sets whose visible lenses are to be found"
    )
    parser.add_argument("--cache", type=Path, required=True)
    arguments = parser.parse_args()
    judges = [bundles.load(name) for name in (arguments.bundle, arguments.against) if name]

    def scored(path: Path) -> tuple[LabelledSet, Float64]:
        dataset = LabelledSet(path)
        return dataset, np.stack([scores(bundle, dataset, arguments.cache) for bundle in judges])

    dataset, found = scored(arguments.sets / OTHERS)
    no_lens = ~dataset.truth.is_lens
    comparison = Comparison(found[:, no_lens], with_companion(dataset)[no_lens])
    print(
        f"{no_lens.sum():,} non-lenses, {100 * comparison.flagged.mean():.2f} % with a tangential companion as bright as an arc"
    )
    rates = [rate for rate in RATES if rate * no_lens.sum() >= FEWEST]
    limits = {(rate, factor): comparison.thresholds(rate, factor) for rate in rates for factor in FACTORS}
    names = ("invisible-deflectors", "bright-deflectors", "whole-rings")
    for path in [arguments.sets / BY_RADIUS, *(arguments.sets / name for name in names), *arguments.lenses]:
        if not path.exists():
            continue
        dataset, found = scored(path)
        visible = dataset.truth.visible & dataset.truth.is_lens
        print(f"\n{path.name}: {visible.sum():,} visible lenses")
        for (rate, factor), limit in limits.items():
            print(f"  all, {rate:g}, companions × {factor:g}: {comparison.line(found[:, visible], limit)}")
        if path.name == BY_RADIUS:
            theta_e = dataset.column("theta_e_arcsec")
            assert theta_e is not None
            for low, high in pairwise(EDGES):
                these = visible & (theta_e >= low) & (theta_e < high)
                line = comparison.line(found[:, these], limits[rates[0], 1.0])
                print(f'  {low:g}–{high:g}", n {these.sum()}, {rates[0]:g}: {line}')


if __name__ == "__main__":
    main()
