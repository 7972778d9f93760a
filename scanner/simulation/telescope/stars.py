"""Stars: exact PSFs at any sub-pixel position, haloes, diffraction spikes, saturation and bleeding.

In: a star's place and fluxes, PSFs, the telescope's orientation. Out: light added to images of 0.1" pixels, numpy or torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from scanner.records import Band, Float32
from scanner.simulation.telescope.psf import Psf

#: Pixel value at which the detector saturates: VIS per 0.1" pixel, NISP per 0.3" pixel.
SATURATION: dict[Band, float] = {"VIS": 40.0, "Y": 6000.0, "J": 6000.0, "H": 6000.0}
_BRIGHT_MAGNITUDE = 19.5
_CORE_REACH_PIXELS = 24  # beyond it the PSF holds 3e-4 of the flux
_LARGEST_REACH_PIXELS = 200
#: VIS charge above saturation runs along the columns, half of it each way, in a trail of this Gaussian width.
_TRAIL_WIDTH_PIXELS = 0.7
_LONGEST_TRAIL_PIXELS = 120.0


@dataclass(frozen=True)
class Star:
    """A point source: place in arcsec from the middle of the image, flux in VIS, Y, J, H (image units)."""

    x: float
    y: float
    flux: tuple[float, float, float, float]


def add_star(images: Any, x: float, y: float, fluxes: Sequence[float], psfs: Psf, magnitude: float, roll: float) -> None:
    """Add a star at pixel ``(x, y)`` to the images (C, ny, nx) of C bands; bright ones get a halo and six spikes.

    Halo and spikes hold 3% and 0.5% of the flux: enough to be seen beside stars that saturate.

    Parameters
    ----------
    images
        float32, changed in place.
    fluxes, psfs
        Of the C bands; the PSFs stacked.
    magnitude
        VIS magnitude: how far light is drawn.
    roll
        Of the telescope, radians: the direction of the spikes.
    """
    scale = np.asarray(fluxes, dtype=np.float32)[:, None, None]
    window = _window(images, x, y, _CORE_REACH_PIXELS)
    if window is not None:
        rows, columns, dx, dy = window
        _add(images[:, rows, columns], scale * psfs.values(dx, dy))
    if magnitude < _BRIGHT_MAGNITUDE:
        half = min(_LARGEST_REACH_PIXELS, int(50 * 10 ** (0.15 * (_BRIGHT_MAGNITUDE - magnitude))))
        window = _window(images, x, y, half)
        if window is not None:
            rows, columns, dx, dy = window
            _add(images[:, rows, columns], scale * _halo_and_spikes(dx, dy, roll, half))


def add_bleeding(image: Any, x: float, y: float, flux: float, psf: Psf, columns_angle: float) -> None:
    """Add the trail of a star that saturates in VIS: charge of its core beyond saturation, along the detector's columns.

    Parameters
    ----------
    image
        (ny, nx) float32 of VIS, changed in place; trails are as bright as saturation and end where their charge does.
    x, y, flux, psf
        Of the star: pixels, image units; its VIS PSF.
    columns_angle
        Direction of the columns, radians.
    """
    if flux * float(psf.values(0.0, 0.0)) <= SATURATION["VIS"]:
        return
    offsets = np.arange(-_CORE_REACH_PIXELS, _CORE_REACH_PIXELS + 1, dtype=np.float32)
    core = np.float32(flux) * psf.values(offsets[None, :], offsets[:, None])
    excess = float(np.maximum(core - SATURATION["VIS"], 0.0).sum())
    per_length = SATURATION["VIS"] * math.sqrt(2.0 * math.pi) * _TRAIL_WIDTH_PIXELS
    half = min(0.5 * excess / per_length, _LONGEST_TRAIL_PIXELS)
    window = _window(image, x, y, half + 3.0)
    if window is None:
        return
    rows, columns, dx, dy = window
    c, s = np.float32(math.cos(columns_angle)), np.float32(math.sin(columns_angle))
    along, across = np.abs(c * dx + s * dy), c * dy - s * dx
    ends = np.clip(np.float32(half + 0.5) - along, 0.0, 1.0)
    trail = np.exp(np.float32(-0.5 / _TRAIL_WIDTH_PIXELS**2) * across * across) * ends
    _add(image[rows, columns], np.float32(SATURATION["VIS"]) * trail)


def _halo_and_spikes(dx: Float32, dy: Float32, roll: float, half: int) -> Float32:
    """Share of the flux in the pixels; ``half``: where both have faded, pixels."""
    r2 = dx * dx + dy * dy
    taper = np.clip(np.float32(2.0) - np.sqrt(r2) * np.float32(2.0 / half), 0.0, 1.0)
    light = np.float32(0.03 * 0.5 / (math.pi * 36.0)) * (np.float32(1.0) + r2 / np.float32(36.0)) ** np.float32(-1.5)
    for turn in range(3):
        c, s = (np.float32(part(roll + turn * math.pi / 3.0)) for part in (math.cos, math.sin))
        along, across = np.abs(c * dx + s * dy), c * dy - s * dx
        decline = (np.float32(1.0) + along / np.float32(4.0)) ** np.float32(-1.5)
        light += np.float32(0.00012) * np.exp(np.float32(-0.5 / 0.9**2) * across * across) * decline
    return np.asarray(light * taper, dtype=np.float32)


def _window(images: Any, x: float, y: float, reach: float) -> tuple[slice, slice, Float32, Float32] | None:
    """Rows and columns within ``reach`` pixels of ``(x, y)``, and their offsets from it; None where there are none."""
    ny, nx = images.shape[-2:]
    left, right = max(0, math.floor(x - reach)), min(nx, math.ceil(x + reach) + 1)
    bottom, top = max(0, math.floor(y - reach)), min(ny, math.ceil(y + reach) + 1)
    if right <= left or top <= bottom:
        return None
    dx = (np.arange(left, right) - x).astype(np.float32)[None, :]
    dy = (np.arange(bottom, top) - y).astype(np.float32)[:, None]
    return slice(bottom, top), slice(left, right), dx, dy


def _add(part: Any, light: Float32) -> None:
    part += array_namespace(part).asarray(light, device=device(part))
