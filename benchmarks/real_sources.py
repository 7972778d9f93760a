"""Lenses whose sources are real galaxies: as many of them are found as of those whose sources are drawn, or not.

    python benchmarks/real_sources.py --bundle NAME --challenge SETS/challenge --cache CACHE [--n 600] [--sheet FILE.png]

Lenses of preset ``eval`` are drawn twice, with the same deflector, sky and noise: once as the simulator draws them, and once
with a galaxy of ``../shared/real-galaxies`` (COSMOS, HST F814W, 0.03") in the place of each source, turned at random, with the
source's flux in every band. Of the galaxies that are within 0.5 mag of the source, or of the ten nearest to it, one is chosen.
Its stamp is binned to 0.06", pixels that are not connected to its middle above 1.5 sigma are left out, and the others become
Gaussians of 0.04" behind the lens. The galaxies keep the stamps' noise and HST's PSF: they are a little smoother than in
truth, and grainy where they are faint.

Prints recall of lenses that are visible both ways (S/N above 25, more than 100 pixels) where a share of the non-lenses of
``challenge`` passes, as a scan scores, with the bundle's screen; 95 % intervals of Wilson, paired differences by bootstrap.
"""

from __future__ import annotations

import argparse
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.nddata import block_reduce
from astropy.table import Table
from scipy import ndimage
from scipy.special import logit

sys.path.insert(0, str(Path(__file__).parent))

from wide_sky import scores

from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.evaluation.metrics import threshold_at_fpr
from scanner.interval import wilson_interval
from scanner.labelled_set import LabelledSet
from scanner.records import Float64
from scanner.simulation.datasets.cutouts import LabelledCutouts, observe
from scanner.simulation.datasets.dataset import batch_of
from scanner.simulation.datasets.presets import PRESETS, CutoutScene, draw_scene, object_generator
from scanner.simulation.datasets.truth import truth_arrays
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population.galaxies import System

GALAXIES = Path(__file__).resolve().parents[1] / ".." / "shared" / "real-galaxies" / "cosmos-26"
SEED, RATES = 77, (1e-2, 1e-3)
PIXEL_ARCSEC, SIGMA_ARCSEC = 0.06, 0.04
#: Half-light radius of a Gaussian, in sigma.
HALF_LIGHT = 1.1774
MAGNITUDES, NEAREST = 0.5, 10


def real_galaxies() -> tuple[Float64, list[Float64]]:
    """Magnitudes (N,) and light of the galaxies: rows (K, 3) of x, y (arcsec from its centre) and share of the flux."""
    table = Table.read(GALAXIES / "real_galaxy_catalog_26_extension_example.fits")
    found, kept = [], []
    with fits.open(GALAXIES / "real_galaxy_images_extension.fits") as stamps:
        for row in table:
            image = block_reduce(stamps[int(row["GAL_HDU"])].data.astype(np.float64), 2)
            # Four pixels added up have twice their noise; a Gaussian of one binned pixel leaves 1/(2 sqrt(pi)) of it.
            sigma = 2.0 * np.sqrt(row["NOISE_VARIANCE"]) / (2.0 * np.sqrt(np.pi))
            labels, _ = ndimage.label(ndimage.gaussian_filter(image, 1.0) > 1.5 * sigma)
            y, x = np.nonzero((labels == labels[image.shape[0] // 2, image.shape[1] // 2]) & (labels > 0))
            light = image[y, x]
            if len(light) < 5 or light.sum() <= 0.0:
                continue
            x, y = ((axis - np.average(axis, weights=np.maximum(light, 0.0))) * PIXEL_ARCSEC for axis in (x, y))
            found.append(np.stack([x, y, light / light.sum()], axis=1))
            kept.append(float(row["MAG"]))
    return np.array(kept), found


def with_real_source(system: System, magnitudes: Float64, galaxies: list[Float64], rng: np.random.Generator) -> System:
    """The same system with a real galaxy for a source."""
    distance = np.abs(magnitudes - system.source_magnitude)
    near = np.flatnonzero(distance < MAGNITUDES)
    chosen = rng.choice(near if len(near) >= NEAREST else np.argsort(distance)[:NEAREST])
    turn = rng.uniform(0.0, 2.0 * np.pi)
    x, y, share = galaxies[chosen].T
    x, y = np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y
    flux = np.array(total_flux(system.source))
    light = tuple(
        Component(
            kind=Kind.SERSIC,
            x=system.source_x + float(dx),
            y=system.source_y + float(dy),
            flux=tuple((flux * part).tolist()),
            radius=HALF_LIGHT * SIGMA_ARCSEC,
            index=0.5,
            seen_through=system.sightline,
        )
        for dx, dy, part in zip(x, y, share, strict=True)
    )
    return replace(system, source=light)


def lens_scenes(n: int) -> list[tuple[int, CutoutScene]]:
    """The first ``n`` lenses of the preset whose sources are galaxies, and their numbers."""
    preset, found, index = PRESETS["eval"], [], 0
    while len(found) < n:
        scene = draw_scene(preset, object_generator(preset.name, SEED, index))
        if scene.class_name == "lens" and scene.systems and not any(system.point_images for system in scene.systems):
            found.append((index, scene))
        index += 1
    return found


def score(drawn: LabelledCutouts, scorer: Scorer) -> Float64:
    """Calibrated log-odds (N,)."""
    batch = batch_of(drawn)
    scored = scorer.score(batch.vis, batch.nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)
    return np.asarray(logit(scored.calibrated.astype(np.float64)))


def draw_sheet(path: Path, pairs: list[tuple[Float64, Float64, float, float]]) -> None:
    """VIS of lenses, the middle 10 arcsec, above with drawn sources and below with real ones, and their log-odds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(pairs), figsize=(1.6 * len(pairs), 3.6), layout="constrained")
    for column, (drawn, real, before, after) in enumerate(pairs):
        for axis, image, value in ((axes[0, column], drawn, before), (axes[1, column], real, after)):
            middle = image[50:150, 50:150]
            sigma = 1.4826 * np.median(np.abs(image - np.median(image)))
            axis.imshow(
                np.arcsinh((middle - np.median(image)) / (2.0 * sigma)), cmap="gray", vmin=-0.5, vmax=4.5, origin="lower"
            )
            axis.set_title(f"{value:.1f}", fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--challenge", type=Path, required=True, help="set of non-lenses")
    parser.add_argument("--cache", type=Path, required=True, help="folder where their scores are kept")
    parser.add_argument("--n", type=int, default=600, help="lenses that are drawn")
    parser.add_argument("--sheet", type=Path, help="picture of the first visible lenses, drawn and with real sources")
    arguments = parser.parse_args()
    bundle = bundles.load(arguments.bundle)
    others = scores(bundle, LabelledSet(arguments.challenge), arguments.cache)
    scorer = Scorer(bundle, screen="bundle")
    magnitudes, galaxies = real_galaxies()
    rng = np.random.default_rng(SEED)
    found, is_visible, pairs, ratios = [], [], [], []
    numbered = lens_scenes(arguments.n)
    for start in range(0, len(numbered), 32):
        some = numbered[start : start + 32]
        indices = [index for index, _ in some]
        real = [
            replace(
                scene,
                rng=deepcopy(scene.rng),
                systems=tuple(with_real_source(one, magnitudes, galaxies, rng) for one in scene.systems),
            )
            for _, scene in some
        ]
        both = observe([scene for _, scene in some], indices), observe(real, indices)
        values = [score(drawn, scorer) for drawn in both]
        truths = [truth_arrays(drawn.truth) for drawn in both]
        visible = truths[0]["visible"] & truths[1]["visible"]
        found.append(np.stack(values, axis=1))
        is_visible.append(visible)
        ratios.append((truths[1]["arc_snr"] / truths[0]["arc_snr"])[visible])
        pairs += [(both[0].vis[k], both[1].vis[k], values[0][k], values[1][k]) for k in np.flatnonzero(visible)]
        print(f"{start + len(some)} of {len(numbered)} lenses", end="\r", file=sys.stderr, flush=True)
    score_of = np.concatenate(found)[np.concatenate(is_visible)]
    print(
        f"{len(galaxies)} galaxies, {len(others):,} non-lenses, {len(score_of)} lenses visible both ways of {arguments.n}; ",
        end="",
    )
    print(f"arc S/N with real sources {np.median(np.concatenate(ratios)):.2f} times that of drawn ones (median)")
    print(f"log-odds of real less drawn: median {np.median(score_of[:, 1] - score_of[:, 0]):+.2f}")
    for rate in RATES:
        passes = score_of >= threshold_at_fpr(others, rate)
        draws = rng.integers(0, len(passes), (2000, len(passes)))
        low, high = np.quantile(passes[draws, 1].mean(axis=1) - passes[draws, 0].mean(axis=1), [0.025, 0.975])
        recall = [wilson_interval(int(column.sum()), len(column)) for column in passes.T]
        difference = passes[:, 1].mean() - passes[:, 0].mean()
        print(f"FPR {rate:g}: drawn {recall[0]}, real {recall[1]}; difference {difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    if arguments.sheet is not None:
        draw_sheet(arguments.sheet, pairs[:12])


if __name__ == "__main__":
    main()
