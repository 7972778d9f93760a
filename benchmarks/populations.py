"""What the populations amount to: shares of true lenses, whether the galaxy in the middle gives the class away, costs.

    python benchmarks/populations.py                  # four small tables, a few minutes on a core
    python benchmarks/populations.py --objects 2000   # narrower intervals

``labels``: of draws of each class with lensed light, the share that fulfils the definition of a lens, the share whose arcs can
be seen (90% Wilson intervals), and magnification and signal-to-noise ratio of the arcs (10, 50, 90%), through the PSFs and on
the pixels of the cutouts. ``middle``: a gradient-boosted probe told magnitude, size, Sérsic index, axis ratio and two colours
of the galaxy's first profile must guess lens or other class: AUROC in 5-fold cross-validation, 90% bootstrap interval; 0.5 is
no information. ``field``: galaxies found in simulated fields and, where ``../shared`` is present, in the real one, per square
arcminute and magnitude. ``cost``: CPU time of drawing an object of a class, and its field.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import sep
from astropy.io import fits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.light import scene
from scanner.simulation.population import classes
from scanner.simulation.population.neighbours import draw_field
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.noise import ZERO_POINT, magnitude
from scanner.simulation.telescope.psf import convolve, mean_psf

GROUP = Path(__file__).resolve().parents[1] / ".." / "shared" / "real" / "euclid-group" / "group.fits"
GROUP_MIDDLE, GROUP_RADIUS = (150.0, 149.0), 45.0  # pixels: the group and its star are left out
MAGNITUDES = np.arange(22.0, 27.1, 1.0)
LENSED = ("lens", "compound_arc", "double_ring", "quasar_lens", "near_lens")
AROUND_DEFLECTORS = ("elliptical", "companion", "tangential", "near_lens")


def label_table(count: int) -> None:
    print("labels        preset  is lens          visible          mag_eff            arc S/N")
    for preset in ("quick", "survey"):
        for name in LENSED if preset == "quick" else ("lens",):
            asked = PRESETS[preset].model_copy(update={"mix": {name: 1.0}})
            truth = [row for start in range(0, count, 40) for row in draw(asked, 5, range(start, min(start + 40, count))).truth]
            shares = [share([getattr(row, what) for row in truth]) for what in ("is_lens", "visible")]
            measured = [np.array([getattr(row.first, what) for row in truth]) for what in ("mag_eff", "arc_snr")]
            tails = ["/".join(f"{value:.1f}" for value in np.percentile(values, [10, 50, 90])) for values in measured]
            print(f"{name:13s} {preset:7s} {shares[0]}  {shares[1]}  {tails[0]:17s}  {tails[1]}")


def share(values: Iterable[bool]) -> str:
    """A share and its 90% Wilson interval."""
    flags = np.asarray(list(values), dtype=float)
    n, p, z = len(flags), flags.mean(), 1.645
    middle, half = (p + z * z / 2 / n) / (1 + z * z / n), z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    return f"{p:.3f} {middle - half:.2f}-{middle + half:.2f}"


def main_galaxies(name: str, count: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        item = classes.draw_object(rng, name)
        part = item.components[0]
        vis, y, _, h = (magnitude(light, band) for light, band in zip(part.flux, ("VIS", "Y", "J", "H"), strict=True))
        rows.append((vis, part.radius, part.index, part.q, vis - y, vis - h))
    return np.array(rows)


def middle_table(count: int) -> None:
    print("\nmiddle        AUROC of the probe, lens against")
    lenses = main_galaxies("lens", count, 1)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("lens", *AROUND_DEFLECTORS, "quasar_lens")):
        features = np.vstack([lenses, main_galaxies(name, count, 10 + number)])
        classes_ = np.repeat([0, 1], count)
        guess = cross_val_predict(
            HistGradientBoostingClassifier(max_iter=60, random_state=0), features, classes_, cv=5, method="predict_proba"
        )[:, 1]
        picks = (rng.integers(0, 2 * count, 2 * count) for _ in range(200))
        low, high = np.percentile([roc_auc_score(classes_[pick], guess[pick]) for pick in picks], [5, 95])
        note = " (other lenses: the null)" if name == "lens" else ""
        print(f"{name:13s} {roc_auc_score(classes_, guess):.3f} [{low:.3f}, {high:.3f}]{note}")


def found(image: Any) -> Any:
    """(N, 3): VIS magnitude, x, y of what stands out of an image."""
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    pixels -= np.median(pixels)
    sigma = float(1.4826 * np.median(np.abs(pixels)))
    objects = sep.extract(pixels, 1.8, err=sigma, minarea=6)
    flux = sep.sum_circle(pixels, objects["x"], objects["y"], 8.0)[0]
    keep = (objects["flux"] / (sigma * np.sqrt(objects["npix"])) > 12.0) & (flux > 0)
    return np.stack([ZERO_POINT["VIS"] - 2.5 * np.log10(flux[keep]), objects["x"][keep], objects["y"][keep]], axis=1)


def field_table(fields: int) -> None:
    print(
        "\nfield         "
        + "  ".join(f"{low:.0f}-{low + 1:.0f}" for low in MAGNITUDES[:-1])
        + "   galaxies per square arcminute, VIS"
    )
    raster, psf = scene.centred_raster(300, 0.1), mean_psf("VIS")
    counts = []
    for seed in range(fields):
        rng = np.random.default_rng(seed)
        light = convolve(scene.render([draw_field(rng, 16.0)], raster, ("VIS",))[0, 0], psf.transfer(300, 300))
        white = rng.standard_normal((302, 302), dtype=np.float32)
        image = light + noise.vis_noise(white, np.pad(light, 1), 1.0)
        counts.append(np.histogram(found(image)[:, 0], MAGNITUDES)[0] / 0.25)
    print("simulated     " + "  ".join(f"{value:5.1f}" for value in np.mean(counts, axis=0)))
    if GROUP.exists():
        with fits.open(GROUP) as hdus:
            objects = found(hdus["VIS_FLUX"].data)
        away = np.hypot(objects[:, 1] - GROUP_MIDDLE[0], objects[:, 2] - GROUP_MIDDLE[1]) > GROUP_RADIUS
        area = (90000.0 - np.pi * GROUP_RADIUS**2) / 360000.0
        number = np.histogram(objects[away, 0], MAGNITUDES)[0]
        print("real          " + "  ".join(f"{value / area:5.1f}" for value in number) + f"   ({number.sum()} galaxies)")


def cost_table(count: int) -> None:
    print("\ncost          ms of CPU time an object")
    rng = np.random.default_rng(0)
    for name in (*classes.CLASSES, "its field"):
        start = time.process_time()
        for _ in range(count):
            if name == "its field":
                draw_field(rng, 12.0)
            else:
                classes.draw_object(rng, name)
        print(f"{name:13s} {1e3 * (time.process_time() - start) / count:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=400, help="of each class")
    arguments = parser.parse_args()
    label_table(arguments.objects)
    middle_table(4 * arguments.objects)
    field_table(max(arguments.objects // 10, 10))
    cost_table(min(arguments.objects, 200))


if __name__ == "__main__":
    main()
