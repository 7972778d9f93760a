"""Draw docs/images/simulation/realism.webp: statistics of patches of real and simulated sky, side by side.

    python docs/images/simulation/realism.py

Needs the real images (see ``benchmarks/realism.py``). Each panel: one statistic of 3.3" patches without the central object, in
units of the patch's own sigma; shares of patches a bin.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[3]
N_CUTOUTS, SEED, PER_CUTOUT = 200, 7, 12
PANELS = {
    "VIS: kurtosis": "kurtosis of VIS pixels",
    "VIS: lag1": "correlation of neighbouring VIS pixels",
    "VIS: maximum": "log brightest VIS pixel",
    "H: lag1": "correlation of neighbouring H pixels (0.3 arcsec)",
    "H: skewness": "skewness of H pixels",
    "4 bands: VIS-H correlation": "correlation of VIS and H",
}


def main() -> None:
    """Measure patches, draw histograms."""
    specification = importlib.util.spec_from_file_location("realism", ROOT / "benchmarks" / "realism.py")
    assert specification is not None
    assert specification.loader is not None
    realism = importlib.util.module_from_spec(specification)
    sys.modules["realism"] = realism
    specification.loader.exec_module(realism)
    patches = realism.joined(realism.real_patches(), realism.simulated_patches(N_CUTOUTS, SEED, PER_CUTOUT))
    table = realism.features(patches)
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 4.6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        low, high = np.quantile(table[name], (0.02, 0.95))
        bins = np.linspace(low, high, 24)
        for side, label, colour in ((patches.real, "real", "#1b6ca8"), (~patches.real, "simulated", "#d1682f")):
            axis.hist(
                table[name][side],
                bins,
                weights=np.full(side.sum(), 1.0 / side.sum()),
                histtype="step",
                color=colour,
                label=label,
            )
        axis.set_xlabel(title, fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("share of patches", fontsize=8)
    axes[1, 0].set_ylabel("share of patches", fontsize=8)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    Image.fromarray(pixels).save(Path(__file__).with_suffix(".webp"), "WEBP", quality=85, method=6)


if __name__ == "__main__":
    main()
