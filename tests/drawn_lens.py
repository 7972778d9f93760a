"""Candidates drawn by the simulator's own renderer, which shares no code with the fit but the deflections."""

import numpy as np

from scanner.cutouts.quality import measure
from scanner.records import BANDS, CutoutBatch, Targets
from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.telescope.noise import SKY_SIGMA, bin3
from scanner.simulation.telescope.psf import convolve, mean_psf

LENS = Lens(1.1, 0.75, 0.5, 0.03, -0.05, 0.03, -0.02)
DEFLECTOR = Component(Kind.SERSIC, 0.03, -0.05, (20.0, 7000.0, 11000.0, 14000.0), 0.6, 3.0, 0.75, 0.5)
SOURCE = Component(Kind.SERSIC, 0.3, 0.12, (2.5, 350.0, 450.0, 450.0), 0.2, 1.0, 0.8, 1.0, seen_through=Sightline((LENS,)))
#: Elsewhere behind the same deflector, redder than SOURCE.
SECOND_SOURCE = Component(
    Kind.SERSIC, -0.35, -0.3, (1.0, 1100.0, 1800.0, 2400.0), 0.15, 1.0, 0.7, 2.2, seen_through=Sightline((LENS,))
)
#: As bright as the images of SOURCE, on both sides of the deflector, and of two colours.
COMPANIONS = [
    Component(Kind.SERSIC, 1.35, 0.3, (5.0, 300.0, 330.0, 300.0), 0.25, 1.0, 0.6, 1.5),
    Component(Kind.SERSIC, -0.5, -1.3, (3.0, 1900.0, 3200.0, 4300.0), 0.2, 1.0, 0.7, 2.8),
]
#: Light in the deflector's own plane that lies where arcs would: a ring, and two spiral arms.
RING = Component(Kind.ANNULUS, 0.03, -0.05, (12.0, 1500.0, 1900.0, 1900.0), 1.1, q=0.85, angle=0.9, width=0.16)
ARMS = Component(
    Kind.SPIRAL, 0.03, -0.05, (60.0, 7200.0, 9000.0, 9000.0), 1.4, 1.0, 0.7, 0.5, arms=2, contrast=3.0, winding=1.5, phase=2.0
)
#: Eight small galaxies about a deflector, of eight colours.
CROWD = [
    Component(
        Kind.SERSIC, r * np.cos(turn), r * np.sin(turn), (1.5, 250.0 + 90.0 * k, 300.0 + 140.0 * k, 300.0 + 190.0 * k),
        0.12, 1.0, 0.7, 0.9 * k,
    )
    for k, (r, turn) in enumerate(zip((1.1, 1.6, 1.3, 2.1, 1.2, 1.8, 1.4, 2.3), 0.3 + 2.4 * np.arange(8), strict=True))
]  # fmt: skip


def drawn(components, seed=1, target_id=7):
    """One cutout of these components, seen through Euclid's mean PSFs, as a batch of one."""
    rng = np.random.default_rng(seed)
    light = scene.render([components], scene.centred_raster(240, 0.1))[0]
    seen = np.stack([convolve(light[k], mean_psf(band).transfer(240, 240)) for k, band in enumerate(BANDS)])
    vis = seen[0, 20:220, 20:220] + rng.normal(0.0, SKY_SIGMA["VIS"], (200, 200))
    nisp = [bin3(seen[k, 21:219, 21:219]) + rng.normal(0.0, SKY_SIGMA[BANDS[k]], (66, 66)) for k in (1, 2, 3)]
    vis, nisp = vis[None].astype(np.float32), np.stack(nisp)[None].astype(np.float32)
    quality = measure(vis, nisp)
    one = np.ones(1)
    targets = Targets(np.array([target_id]), 53.0 * one, -28.0 * one, 99.5 * one, 99.5 * one, one.astype(np.float32))
    zero = np.zeros(1, np.int64)
    return CutoutBatch(
        targets, vis, nisp, zero, zero, np.zeros((1, 2), np.float32), *vars(quality).values(), np.zeros(1, np.uint32)
    )
