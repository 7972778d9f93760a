"""When is a drawn system a lens? The paper's definition, with the quantities that it leaves undefined.

Label (Wilde et al. 2022, section 2): ``n_source_im > 0``, ``mag_eff > 1.6`` and ``n_pix_source > 20``. Here

- ``n_source_im``: images of the source's centre, 0 where there is only one (a source outside the caustics is not lensed),
- ``mag_eff``: lensed over unlensed VIS flux of the extended source,
- ``n_pix_source``: pixels of the noiseless, PSF-convolved arcs above 1σ of the VIS sky,
- ``arc_snr``: flux of these pixels over √n times the scatter of VIS sky pixels (their correlation left out),
- ``visible``: a lens with ``arc_snr > 25`` and ``n_pix_source > 100``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scanner.records import Float32
from scanner.simulation.lensing.images import find_images
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.population.system import System
from scanner.simulation.telescope.noise import SKY_SIGMA

MIN_MAGNIFICATION = 1.6
MIN_ARC_PIXELS = 20
VISIBLE_SNR = 25.0
VISIBLE_PIXELS = 100


@dataclass(frozen=True)
class ArcMeasurement:
    """What the noiseless arcs of one system amount to; zeros where there are none."""

    mag_eff: float = 0.0
    n_pix_source: int = 0
    arc_snr: float = 0.0


#: Where there is nothing to measure.
NO_ARCS = ArcMeasurement()


@dataclass(frozen=True)
class Label:
    """The verdict on one system; ``magnification``: of a point at the source's centre, summed over its images."""

    n_source_im: int = 0
    magnification: float = 0.0
    is_lens: bool = False
    visible: bool = False


def measure_arcs(arcs: Float32, mag_eff: float) -> ArcMeasurement:
    """Measure noiseless, PSF-convolved arcs in VIS, (ny, nx) float32 on 0.1" pixels."""
    bright = arcs > SKY_SIGMA["VIS"]
    count = int(bright.sum())
    if not count:
        return ArcMeasurement(mag_eff=mag_eff)
    snr = float(arcs[bright].sum(dtype=np.float64)) / (SKY_SIGMA["VIS"] * math.sqrt(count))
    return ArcMeasurement(mag_eff=mag_eff, n_pix_source=count, arc_snr=snr)


def label(system: System, arcs: ArcMeasurement) -> Label:
    """Apply the definition to one system."""
    images = find_images(system.source_x, system.source_y, Sightline((system.lens,)))
    count = int(images.count[0]) if images.count[0] > 1 else 0
    is_lens = count > 0 and arcs.mag_eff > MIN_MAGNIFICATION and arcs.n_pix_source > MIN_ARC_PIXELS
    return Label(
        n_source_im=count,
        magnification=float(np.nansum(np.abs(images.magnification))),
        is_lens=is_lens,
        visible=is_lens and arcs.arc_snr > VISIBLE_SNR and arcs.n_pix_source > VISIBLE_PIXELS,
    )
