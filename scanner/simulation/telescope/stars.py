"""Stars: exact PSFs at any sub-pixel position, haloes, diffraction spikes, saturation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scanner.records import Band, Float32
from scanner.simulation.telescope.psf import Psf

#: Pixel value at which the detector saturates.
SATURATION: dict[Band, float] = {"VIS": 40.0, "Y": 6000.0, "J": 6000.0, "H": 6000.0}
_BRIGHT_MAGNITUDE = 19.5


@dataclass(frozen=True)
class Star:
    """A point source: place in arcsec from the middle of the image, flux in VIS, Y, J, H (image units)."""

    x: float
    y: float
    flux: tuple[float, float, float, float]


def add_star(image: Float32, x: float, y: float, star_flux: float, psf: Psf, magnitude: float, roll: float) -> None:
    """Add a star at pixel ``(x, y)``; bright ones get a halo and six diffraction spikes.

    Halo and spikes hold 3% and 1% of the flux: enough to be seen beside stars that saturate.
    """
    bright = magnitude < _BRIGHT_MAGNITUDE
    half = 20 if not bright else int(min(200, 50 * 10 ** (0.15 * (_BRIGHT_MAGNITUDE - magnitude))))
    left, bottom = max(0, int(x) - half), max(0, int(y) - half)
    right, top = min(image.shape[1], int(x) + half + 1), min(image.shape[0], int(y) + half + 1)
    if right <= left or top <= bottom:
        return
    dx = (np.arange(left, right)[None, :] - x).astype(np.float32)
    dy = (np.arange(bottom, top)[:, None] - y).astype(np.float32)
    light = psf.values(dx, dy)
    if bright:
        r2 = dx * dx + dy * dy
        taper = np.clip(np.float32(2.0) - np.sqrt(r2) * np.float32(2.0 / half), 0.0, 1.0)
        extra = np.float32(0.03 * 0.5 / (math.pi * 36.0)) * (np.float32(1.0) + r2 / np.float32(36.0)) ** np.float32(-1.5)
        for turn in range(3):
            c, s = math.cos(roll + turn * math.pi / 3.0), math.sin(roll + turn * math.pi / 3.0)
            along, across = np.abs(c * dx + s * dy), c * dy - s * dx
            decline = (np.float32(1.0) + along / np.float32(4.0)) ** np.float32(-1.5)
            extra += np.float32(0.00012) * np.exp(np.float32(-0.5 / 0.9**2) * across * across) * decline
        light += extra * taper
    image[bottom:top, left:right] += np.float32(star_flux) * light
