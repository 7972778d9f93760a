"""When is a drawn system a lens? The paper's definition, with the quantities that it leaves undefined.

Label (Wilde et al. 2022, section 2): ``n_source_im > 0``, ``mag_eff > 1.6`` and ``n_pix_source > 20``. Here

- ``n_source_im``: images of the source's centre, 0 where there is only one (a source outside the caustics is not lensed),
- ``mag_eff``: lensed over unlensed VIS flux of the whole source, a quasar in it included,
- ``n_pix_source``: pixels of the noiseless, PSF-convolved arcs above 1σ of the VIS sky,
- ``arc_snr``: flux of these pixels over √n times the scatter of VIS sky pixels (their correlation left out),
- ``visible``: a lens with ``arc_snr > 25`` and ``n_pix_source > 100``.

In: systems, and what was measured of their arcs. Out: :class:`Label`. Refused: nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.lensing.images import find_images
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.population.system import System
from scanner.simulation.telescope.noise import SKY_SIGMA
from scanner.simulation.telescope.photometry import magnitude
from scanner.simulation.telescope.psf import Psf, stack
from scanner.simulation.telescope.stars import add_star

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


def measure_arcs(arcs: Any, mag_eff: float) -> ArcMeasurement:
    """Measure noiseless, PSF-convolved arcs in VIS, (ny, nx) float32 on 0.1" pixels, numpy or torch."""
    bright = arcs[arcs > SKY_SIGMA["VIS"]]
    count = int(bright.shape[0])
    if not count:
        return ArcMeasurement(mag_eff=mag_eff)
    # In float32 the sum of some thousand pixels is good to 1e-6: numpy adds in pairs, torch in blocks.
    snr = float(bright.sum()) / (SKY_SIGMA["VIS"] * math.sqrt(count))
    return ArcMeasurement(mag_eff=mag_eff, n_pix_source=count, arc_snr=snr)


def measure_system(system: System, arcs_flux: float, seen: Any, psf: Psf, roll: float) -> ArcMeasurement:
    """Measure the arcs of one system together with the images of the quasar in its source, if there is one.

    Parameters
    ----------
    system
        What was drawn.
    arcs_flux
        VIS flux of the lensed light, the quasar's aside, before the PSF.
    seen
        (ny, nx) float32 on 0.1" pixels, the system in the middle: the same light after the PSF. Left as it is.
    psf, roll
        Of VIS, and the angle of the telescope: what a star looks like.
    """
    if system.point_images:
        seen = array_namespace(seen).asarray(seen, copy=True)
        for image in system.point_images:
            arcs_flux += image.flux[0]
            x = image.x / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (seen.shape[-1] - 1)
            y = image.y / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (seen.shape[-2] - 1)
            add_star(seen[None], x, y, image.flux[:1], stack([psf]), magnitude(image.flux[0], "VIS"), roll)
    return measure_arcs(seen, arcs_flux / system.unlensed_flux[0])


def label(system: System, arcs: ArcMeasurement) -> Label:
    """Apply the definition to one system."""
    return labels([system], [arcs])[0]


def labels(systems: Sequence[System], arcs: Sequence[ArcMeasurement]) -> list[Label]:
    """Apply the definition to many systems at once, many times faster than to each; ``arcs``: of each."""
    alike: dict[int, list[int]] = defaultdict(list)
    for number, system in enumerate(systems):
        alike[len(system.sightline.lenses)].append(number)
    found: dict[int, Label] = {}
    for numbers in alike.values():
        some = [systems[number] for number in numbers]
        x, y = (np.array([getattr(system, name) for system in some]) for name in ("source_x", "source_y"))
        images = find_images(x, y, _together([system.sightline for system in some]))
        total = np.nansum(np.abs(images.magnification), axis=1)
        for row, number in enumerate(numbers):
            found[number] = _verdict(int(images.count[row]), float(total[row]), arcs[number])
    return [found[number] for number in range(len(systems))]


def _verdict(images: int, magnification: float, arcs: ArcMeasurement) -> Label:
    count = images if images > 1 else 0
    is_lens = count > 0 and arcs.mag_eff > MIN_MAGNIFICATION and arcs.n_pix_source > MIN_ARC_PIXELS
    return Label(
        n_source_im=count,
        magnification=magnification,
        is_lens=is_lens,
        visible=is_lens and arcs.arc_snr > VISIBLE_SNR and arcs.n_pix_source > VISIBLE_PIXELS,
    )


def _together(sightlines: Sequence[Sightline]) -> Sightline:
    """Sightlines of equally many planes as one of arrays (N,)."""
    planes = zip(*(line.lenses for line in sightlines), strict=True)
    lenses = tuple(
        Lens(*(np.array(values) for values in zip(*(vars(lens).values() for lens in plane), strict=True))) for plane in planes
    )
    return Sightline(lenses, tuple(np.array(values) for values in zip(*(line.couplings for line in sightlines), strict=True)))
