"""Realism: a classifier tries to tell patches of simulated sky from patches of real Euclid images.

    python benchmarks/realism.py                      # statistics probe, per band and all bands, with its null
    python benchmarks/realism.py --probe cnn          # a small network on the pixels of all four bands

The data: a real Euclid field of ``../shared/real`` (the group's 300², 0.1" pixels; the stamp of the lens is too small to leave
a patch of sky) and as many simulated cutouts with MER-like NISP noise as asked for. Patches of 3.3" (33² VIS pixels, 11² NISP
pixels) stay 2.5" away from the objects in the middle of field and cutouts: what is compared is sky, noise and field galaxies.
``sky`` patches hold nothing above 5 sigma. Values are in units of each patch's own sigma, as the networks scale their images.

Cross-validation never trains and tests on one region: the real field falls into 100² blocks, the simulated one into cutouts,
and both are dealt to folds whole. AUROC 0.5 is perfect realism *in principle*; one pointing has one PSF, one noise and one set
of galaxies, which a probe can learn by heart. So the same test runs with a few simulated cutouts in the place of the real field
(``null``): what a perfect simulator would get. Intervals: 90%, bootstrap over regions and cutouts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from scanner.records import BANDS
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.presets import PRESETS

REAL = Path(__file__).resolve().parents[1] / ".." / "shared" / "real"
#: Stamps, the suffix of their image extensions, and the middles (x, y) of what stands in them.
STAMPS = (
    ("euclid-group/group.fits", "FLUX", ((150.0, 149.0), (144.0, 183.0))),
    ("euclid-q1-102018665/102018665_NEG570040238507752998.fits", "BGSUB", ((49.5, 49.5),)),
)
PATCH, STRIDE, KEEP_AWAY, BLOCK = 33, 11, 25.0, 100
SKY_LIMIT = 5.0
FOLDS = 5


@dataclass(frozen=True)
class Patches:
    """``vis`` (N, 33, 33), ``nisp`` (N, 3, 11, 11); ``group`` (N,): the region or cutout; ``real`` (N,) bool."""

    vis: Any
    nisp: Any
    group: Any
    real: Any

    def take(self, index: Any) -> Patches:
        """Some of them."""
        return Patches(**{name: values[index] for name, values in vars(self).items()})


def bin3(image: Any) -> Any:
    ny, nx = (length // 3 for length in image.shape)
    return image[: 3 * ny, : 3 * nx].reshape(ny, 3, nx, 3).sum(axis=(1, 3))


def windows(vis: Any, nisp: Any, objects: Any, first: int) -> Iterator[tuple[int, int, Any, Any]]:
    """Patches of one image on a lattice; NISP pixel (0, 0) begins at VIS pixel (first, first)."""
    for y in range(first, vis.shape[0] - PATCH + 1, STRIDE // 3 * 3):
        for x in range(first, vis.shape[1] - PATCH + 1, STRIDE // 3 * 3):
            near = [
                np.hypot(max(x - ox, 0.0, ox - x - PATCH + 1), max(y - oy, 0.0, oy - y - PATCH + 1)) < KEEP_AWAY
                for ox, oy in objects
            ]
            row, column = (y - first) // 3, (x - first) // 3
            small = nisp[:, row : row + PATCH // 3, column : column + PATCH // 3]
            if not any(near) and np.isfinite(small).all() and np.isfinite(vis[y : y + PATCH, x : x + PATCH]).all():
                yield x, y, vis[y : y + PATCH, x : x + PATCH], small


def gather(found: list[tuple[Any, Any, int]], real: bool) -> Patches:
    return Patches(
        np.array([item[0] for item in found], dtype=np.float64),
        np.array([item[1] for item in found], dtype=np.float64),
        np.array([item[2] for item in found]),
        np.full(len(found), real),
    )


def real_patches() -> Patches:
    found = []
    for number, (name, suffix, objects) in enumerate(STAMPS):
        with fits.open(REAL / name) as hdus:
            images = []
            for band in BANDS:
                label = band if band == "VIS" else f"NIR_{band}"
                bad = hdus[f"{label}_RMS"].data > 1e15
                images.append(np.where(bad, np.nan, hdus[f"{label}_{suffix}"].data.astype(np.float64)))
        for x, y, vis, nisp in windows(images[0], np.array([bin3(image) for image in images[1:]]), objects, 0):
            # A patch belongs to the block that holds it whole; those across an edge would leak from fold to fold.
            if x // BLOCK == (x + PATCH - 1) // BLOCK and y // BLOCK == (y + PATCH - 1) // BLOCK:
                found.append((vis, nisp, 100 * number + 10 * (y // BLOCK) + x // BLOCK))
    return gather(found, True)


def simulated_patches(n: int, seed: int, per_cutout: int) -> Patches:
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, n, 32):
        cutouts = draw(PRESETS["train"], seed, range(start, min(start + 32, n)))
        for row, truth in enumerate(cutouts.truth):
            if truth.native_nisp_noise:
                continue
            middle = tuple(99.5 + 10.0 * offset for offset in (truth.x_arcsec, truth.y_arcsec))
            patches = list(windows(cutouts.vis[row], cutouts.nisp[row], (middle,), 1))
            chosen = rng.permutation(len(patches))[:per_cutout].tolist()
            found += [(patches[k][2], patches[k][3], start + row) for k in chosen]
    return gather(found, False)


def scaled(images: Any) -> tuple[Any, Any, Any]:
    """(N, ...) images in units of each one's own robust sigma, the sigmas and the medians."""
    middle = np.median(images, axis=(-2, -1), keepdims=True)
    sigma = 1.4826 * np.median(np.abs(images - middle), axis=(-2, -1), keepdims=True)
    return (images - middle) / sigma, sigma[..., 0, 0], middle[..., 0, 0]


def sky_only(patches: Patches) -> Any:
    """Which patches hold no source: nothing above the limit in VIS smoothed over 3x3 pixels, nor in NISP."""
    smooth = ndimage.uniform_filter(patches.vis, size=(0, 3, 3))
    return (scaled(smooth)[0].max(axis=(1, 2)) < SKY_LIMIT) & (scaled(patches.nisp)[0].max(axis=(1, 2, 3)) < SKY_LIMIT)


def band_features(images: Any) -> dict[str, Any]:
    """Statistics of (N, n, n) patches in sigma units that do not change when a patch is turned or flipped."""
    z = images - images.mean(axis=(1, 2), keepdims=True)
    variance = (z * z).mean(axis=(1, 2))

    def lag(dy: int, dx: int) -> Any:
        n = z.shape[1]
        a, b = z[:, max(dy, 0) :, max(dx, 0) :], z[:, : n - dy, : n - dx]
        return (a[:, : n - dy, : n - dx] * b).mean(axis=(1, 2)) / variance

    flipped = z[:, :, ::-1]
    n = z.shape[1]
    diagonal = 0.5 * (lag(1, 1) + (flipped[:, 1:, 1:] * flipped[:, :-1, :-1]).mean(axis=(1, 2)) / variance)
    out = {f"lag{k}": 0.5 * (lag(0, k) + lag(k, 0)) for k in (1, 2, 3)}
    out |= {"lag1 diagonal": diagonal, "lag1 anisotropy": np.abs(lag(0, 1) - lag(1, 0))}
    window = np.hanning(n + 2)[1:-1]
    power = np.abs(np.fft.fft2(z * window[:, None] * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.fftfreq(n))
    edges = np.linspace(0.5 / n, 0.5, 6)
    total = power.sum(axis=(1, 2))
    for k in range(5):
        ring = (frequency >= edges[k]) & (frequency < edges[k + 1])
        out[f"power {edges[k]:.2f}-{edges[k + 1]:.2f}/px"] = np.log10(power[:, ring].mean(axis=1) / total + 1e-12)
    clipped = np.clip(images, -8.0, 8.0)
    deviation = clipped - clipped.mean(axis=(1, 2), keepdims=True)
    spread = deviation.std(axis=(1, 2))
    out["skewness"] = (deviation**3).mean(axis=(1, 2)) / spread**3
    out["kurtosis"] = (deviation**4).mean(axis=(1, 2)) / spread**4
    out["std/MAD"] = spread
    for level in (2.0, 3.0, 5.0):
        out[f"share above {level:g}"] = (images > level).mean(axis=(1, 2))
    out["share below -3"] = (images < -3.0).mean(axis=(1, 2))
    out["maximum"] = np.log10(np.maximum(images.max(axis=(1, 2)), 0.1))
    out["minimum"] = images.min(axis=(1, 2))
    third = n // 3
    blocks = images[:, : 3 * third, : 3 * third].reshape(-1, 3, third, 3, third)
    out["scatter of thirds"] = np.log10(np.median(blocks, axis=(2, 4)).std(axis=(1, 2)) + 1e-6)
    return out


def features(patches: Patches) -> dict[str, Any]:
    """All features by name, ``band: statistic``; ``4 bands: …`` relate bands to one another."""
    out = {}
    images = {"VIS": patches.vis} | {band: patches.nisp[:, k] for k, band in enumerate(BANDS[1:])}
    for band, values in images.items():
        z, sigma, middle = scaled(values)
        out |= {f"{band}: {name}": column for name, column in band_features(z).items()}
        out[f"level {band}: sigma"] = np.log10(sigma)
        out[f"level {band}: sky"] = middle / sigma
    binned = dict(images)
    binned["VIS"] = patches.vis.reshape(-1, 11, 3, 11, 3).sum(axis=(2, 4))
    low = {band: np.clip(scaled(values)[0], -4.0, 4.0) for band, values in binned.items()}
    for a, b in (("VIS", "Y"), ("VIS", "H"), ("Y", "J"), ("Y", "H"), ("J", "H")):
        left, right = (low[k] - low[k].mean(axis=(1, 2), keepdims=True) for k in (a, b))
        norm = left.std(axis=(1, 2)) * right.std(axis=(1, 2))
        out[f"4 bands: {a}-{b} correlation"] = (left * right).mean(axis=(1, 2)) / norm
    return out


def boosted(columns: Any) -> Callable[[Any, Any, Any], Any]:
    def probe(train: Any, test: Any, real: Any) -> Any:
        weight = np.where(real[train], 0.5 / real[train].mean(), 0.5 / (1.0 - real[train].mean()))
        model = HistGradientBoostingClassifier(
            max_iter=80, learning_rate=0.1, max_leaf_nodes=6, min_samples_leaf=20, l2_regularization=1.0, random_state=0
        )
        model.fit(columns[train], real[train], sample_weight=weight)
        return model.decision_function(columns[test])

    return probe


def network(patches: Patches, steps: int) -> Callable[[Any, Any, Any], Any]:
    """A small convolutional network on asinh-scaled pixels; every patch in all eight orientations."""
    import torch
    from torch import nn

    vis, nisp = scaled(patches.vis)[0], scaled(patches.nisp)[0]
    stack = np.concatenate([vis[:, None], np.repeat(np.repeat(nisp, 3, axis=2), 3, axis=3)], axis=1)
    images = torch.from_numpy(np.arcsinh(np.clip(stack, -6.0, 300.0) / 2.0).astype(np.float32))

    def turned(batch: Any, k: int) -> Any:
        batch = torch.rot90(batch, k % 4, (2, 3))
        return batch.flip(3) if k >= 4 else batch

    def probe(train: Any, test: Any, real: Any) -> Any:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        layers: list[nn.Module] = []
        for width, following in ((4, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(width, following, 3), nn.BatchNorm2d(following), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if following == 32 else []
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 1))
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
        sides = [np.flatnonzero(train & real), np.flatnonzero(train & ~real)]
        for step in range(steps):
            rows = np.concatenate([rng.choice(side, 32) for side in sides])
            target = torch.from_numpy(real[rows].astype(np.float32))
            loss = nn.functional.binary_cross_entropy_with_logits(model(turned(images[rows], step % 8))[:, 0], target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            scores = [model(turned(images[torch.from_numpy(np.flatnonzero(test))], k))[:, 0] for k in range(8)]
        return torch.stack(scores).mean(0).numpy()

    return probe


def cross_validated(patches: Patches, probe: Callable[[Any, Any, Any], Any], seed: int) -> Any:
    """Score of every patch by a probe that has not seen its region."""
    fold = np.empty(len(patches.group), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for real in (True, False):
        groups = rng.permutation(np.unique(patches.group[patches.real == real]))
        number = dict(zip(groups.tolist(), (np.arange(len(groups)) % FOLDS).tolist(), strict=True))
        rows = np.flatnonzero(patches.real == real)
        fold[rows] = [number[group] for group in patches.group[rows].tolist()]
    scores = np.empty(len(fold))
    for k in range(FOLDS):
        scores[fold == k] = probe(fold != k, fold == k, patches.real)
    return scores


def interval(patches: Patches, scores: Any, draws: int = 300) -> tuple[float, float]:
    """90% of the AUROCs of resampled regions and cutouts."""
    rng = np.random.default_rng(0)
    rows = [
        [
            np.flatnonzero((patches.group == group) & (patches.real == real))
            for group in np.unique(patches.group[patches.real == real])
        ]
        for real in (True, False)
    ]
    values = []
    for _ in range(draws):
        chosen = np.concatenate([side[k] for side in rows for k in rng.integers(0, len(side), len(side))])
        values.append(roc_auc_score(patches.real[chosen], scores[chosen]))
    return float(np.quantile(values, 0.05)), float(np.quantile(values, 0.95))


def joined(a: Patches, b: Patches) -> Patches:
    return Patches(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in vars(a)))


def null_sets(simulated: Patches, n_real: int, draws: int) -> Iterator[Patches]:
    """The test with a few simulated cutouts, as many patches as there are real ones, in the place of the real images."""
    rng = np.random.default_rng(1)
    groups = np.unique(simulated.group)
    for _ in range(draws):
        chosen, count = [], 0
        for group in rng.permutation(groups):
            chosen.append(group)
            count += int((simulated.group == group).sum())
            if count >= n_real:
                break
        yield Patches(simulated.vis, simulated.nisp, simulated.group, np.isin(simulated.group, chosen))


def select(table: dict[str, Any], band: str, level: bool) -> Any:
    names = [
        name for name in table if (name.startswith(f"{band}:") or band == "all") and (level or not name.startswith("level"))
    ]
    if level and band != "all":
        names += [name for name in table if name.startswith(f"level {band}:")]
    return np.stack([table[name] for name in names], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="simulated cutouts to draw; about half have MER-like noise")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--per-cutout", type=int, default=12, help="patches of one simulated cutout")
    parser.add_argument("--probe", choices=("statistics", "cnn", "both"), default="statistics")
    parser.add_argument("--null", type=int, default=8, help="draws of the null")
    parser.add_argument("--steps", type=int, default=400, help="training steps of the network, per fold")
    parser.add_argument("--top", type=int, default=12, help="features to list")
    arguments = parser.parse_args()
    if not REAL.is_dir():
        raise SystemExit(f"{REAL}: the real images are not here; nothing to compare with.")
    everything = joined(real_patches(), simulated_patches(arguments.n, arguments.seed, arguments.per_cutout))
    empty = sky_only(everything)
    share = [float(empty[everything.real == real].mean()) for real in (True, False)]
    print(f"share of patches without a source: real {share[0]:.3f}, simulated {share[1]:.3f}")
    for name, patches in (("sky", everything.take(empty)), ("sky + field", everything)):
        report(name, patches, arguments)


def report(name: str, patches: Patches, arguments: argparse.Namespace) -> None:
    real, groups = patches.real, patches.group
    print(
        f"\n{name}: {real.sum()} real patches of {len(np.unique(groups[real]))} regions,"
        f" {(~real).sum()} simulated of {len(np.unique(groups[~real]))} cutouts"
    )
    simulated = patches.take(~real)
    if arguments.probe != "cnn":
        table = features(patches)
        for band, level in (*((band, False) for band in BANDS), ("all", False), ("all", True)):
            columns = select(table, band, level)
            scores = cross_validated(patches, boosted(columns), 0)
            low, high = interval(patches, scores)
            null = [
                roc_auc_score(item.real, cross_validated(item, boosted(columns[~real]), 0))
                for item in null_sets(simulated, int(real.sum()), arguments.null)
            ]
            label = f"{band}{' + levels' if level else ''}"
            print(
                f"  statistics, {label:13s} AUROC {roc_auc_score(real, scores):.3f} [{low:.3f}, {high:.3f}]"
                f"   null {np.mean(null):.3f} ({min(null):.3f}-{max(null):.3f})"
            )
        print("  what gives it away (AUROC of one feature; real against simulated: median, 16-84%)")
        power = {feature: roc_auc_score(real, values) for feature, values in table.items()}
        for feature in sorted(power, key=lambda key: -abs(power[key] - 0.5))[: arguments.top]:
            quantiles = [np.quantile(table[feature][side], (0.5, 0.16, 0.84)) for side in (real, ~real)]
            text = " against ".join("{:.3f} ({:.3f} to {:.3f})".format(*values) for values in quantiles)
            print(f"    {power[feature]:.3f} {feature:32s} {text}")
    if arguments.probe != "statistics":
        scores = cross_validated(patches, network(patches, arguments.steps), 0)
        low, high = interval(patches, scores)
        null = [
            roc_auc_score(item.real, cross_validated(item, network(item, arguments.steps), 0))
            for item in null_sets(simulated, int(real.sum()), min(arguments.null, 2))
        ]
        print(
            f"  network, all bands AUROC {roc_auc_score(real, scores):.3f} [{low:.3f}, {high:.3f}]"
            f"   null {', '.join(f'{value:.3f}' for value in null)}"
        )


if __name__ == "__main__":
    main()
