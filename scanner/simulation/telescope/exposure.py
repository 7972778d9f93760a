"""From noiseless light to the pixels of a cutout: PSF, stars, artefacts, noise.

In: light on canvases (N, VIS Y J H, ny, nx) of 0.1" pixels, one :class:`Exposure` each. Out: VIS (N, 200, 200) and NISP
(N, 3, 66, 66) cutouts about the canvas' middle. Everything random but the noise itself is in the exposure, and nothing in an
exposure depends on what is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from scanner.records import BANDS, NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.simulation.telescope import noise, photometry
from scanner.simulation.telescope.psf import Psf, convolve, draw_psf
from scanner.simulation.telescope.stars import SATURATION, Star, add_star

#: 2" around the cutout: objects there reach in, and the periodic convolution wraps out there.
MARGIN_PIXELS = 20
CANVAS_PIXELS = VIS_CUTOUT_PIXELS + 2 * MARGIN_PIXELS


@dataclass(frozen=True)
class Exposure:
    """How one cutout is observed.

    ``psfs``: VIS, Y, J, H. ``roll``: their orientation, radians. ``level``: factor on the sky's noise. ``native``: NISP has
    its own 0.3" pixels with white noise; otherwise it was resampled as MER does, and ``phases`` (Y, J, H; y, x) say where the
    0.1" pixels lay on the 0.3" ones.
    """

    psfs: tuple[Psf, ...]
    roll: float
    level: float
    native: bool
    phases: tuple[tuple[float, float], ...]


def draw_exposure(rng: Generator, native_fraction: float) -> Exposure:
    """Draw a telescope's state: any orientation, PSF widths ±10%, sky level ±20%.

    Parameters
    ----------
    rng
        Random numbers of the object.
    native_fraction
        Share of exposures with white noise on native 0.3" NISP pixels.
    """
    roll, width = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(0.9, 1.1))
    psfs = tuple(draw_psf(rng, band, roll, width) for band in BANDS)
    # Sky noise goes with the square root of the sky's level.
    level = math.sqrt(rng.uniform(0.8, 1.2))
    native = bool(rng.random() < native_fraction)
    phases = tuple((float(y), float(x)) for y, x in rng.uniform(0.0, 1.0, (len(NISP_BANDS), 2)))
    return Exposure(psfs=psfs, roll=roll, level=level, native=native, phases=phases)


def blur(light: Any, exposures: Sequence[Exposure], channels: Sequence[int] = range(len(BANDS))) -> Any:
    """Convolve light with the exposures' PSFs.

    Parameters
    ----------
    light
        (N, len(channels), ny, nx) float32, flux per 0.1" pixel; taken as periodic.
    exposures
        One an image.
    channels
        Which bands the second axis holds, as indices of VIS, Y, J, H.

    Returns
    -------
    array
        Same shape; a new array.
    """
    ny, nx = light.shape[-2:]
    out = np.empty_like(light)
    for row, exposure in enumerate(exposures):
        for place, channel in enumerate(channels):
            out[row, place] = convolve(light[row, place], exposure.psfs[channel].transfer(ny, nx))
    return out


def expose(
    canvases: Any, exposures: Sequence[Exposure], stars: Sequence[Sequence[Star]], generators: Sequence[Generator]
) -> tuple[Any, Any]:
    """Add stars, artefacts and noise; crop and bin.

    Parameters
    ----------
    canvases
        (N, 4, 240, 240) float32: noiseless light after :func:`blur`. Overwritten.
    exposures
        One an image.
    stars
        The stars of each image.
    generators
        One an image, for its noise: an image is the same, bit for bit, in any batch.

    Returns
    -------
    tuple
        VIS (N, 200, 200) and NISP (N, 3, 66, 66) float32, image units.
    """
    n = len(exposures)
    vis = np.empty((n, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((n, len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    for row, (exposure, rng) in enumerate(zip(exposures, generators, strict=True)):
        _add_stars(canvases[row], exposure, stars[row])
        _expose_one(canvases[row], exposure, rng, vis[row], nisp[row])
    return vis, nisp


def _add_stars(canvas: Float32, exposure: Exposure, stars: Sequence[Star]) -> None:
    middle = 0.5 * (CANVAS_PIXELS - 1)
    for star in stars:
        x, y = (place / VIS_PIXEL_SCALE_ARCSEC + middle for place in (star.x, star.y))
        magnitude = photometry.magnitude(star.flux[0], "VIS")
        for channel, psf in enumerate(exposure.psfs):
            add_star(canvas[channel], x, y, star.flux[channel], psf, magnitude, exposure.roll)


def _expose_one(canvas: Float32, exposure: Exposure, rng: Generator, vis: Float32, nisp: Float32) -> None:
    inside = slice(MARGIN_PIXELS - 1, MARGIN_PIXELS + VIS_CUTOUT_PIXELS + 1)
    image = np.minimum(canvas[0, inside, inside], SATURATION["VIS"])
    white = rng.standard_normal(image.shape, dtype=np.float32)
    vis[...] = image[1:-1, 1:-1] + noise.vis_noise(white, image, exposure.level)
    fine = 3 * NISP_CUTOUT_PIXELS
    first = (CANVAS_PIXELS - fine) // 2
    inside = slice(first, first + fine)
    for channel, band in enumerate(NISP_BANDS):
        binned = np.minimum(noise.bin3(canvas[channel + 1, inside, inside]), SATURATION[band])
        if exposure.native:
            white = rng.standard_normal(binned.shape, dtype=np.float32)
            nisp[channel] = binned + white * noise.native_rms(binned, band, exposure.level)
        else:
            rows, columns = (np.arange(fine) / 3.0 + phase for phase in exposure.phases[channel])
            white = rng.standard_normal((NISP_CUTOUT_PIXELS + 2, NISP_CUTOUT_PIXELS + 2), dtype=np.float32)
            scatter = noise.bin3(noise.resampled(white, rows, columns))
            nisp[channel] = binned + scatter * noise.rms(binned / 9.0, band, exposure.level)
