"""The telescope: zero points, point spread functions and noise of Euclid's VIS and NISP images.

In: noiseless images as :mod:`~scanner.simulation.scene` draws them, on 0.1" pixels. Out: the same after PSF, binning and
noise. The figures are those measured on public Euclid quick-release images (see the table in ``docs``); fluxes are in the
mosaics' own units, ``10^(0.4 (zero point - magnitude))``.

A PSF is a mixture of Gaussians, the pixel included: it has an exact Fourier transform, so that galaxies are convolved
without a kernel image whose centre could be off by half a pixel, and exact values at any sub-pixel position, for stars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.random import Generator

from scanner.records import BANDS, Band, Float32

ZERO_POINT: dict[Band, float] = {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9}
#: Noise per 0.1" pixel of the stacks' RMS maps: the level before resampling correlates neighbouring pixels.
RMS: dict[Band, float] = {"VIS": 0.0041, "Y": 2.42, "J": 2.42, "H": 2.35}
#: Robust scatter of sky pixels: 0.1" for VIS; MER-like NISP after 3x3 binning.
SKY_SIGMA: dict[Band, float] = {"VIS": 0.00275, "Y": 4.2, "J": 4.2, "H": 4.1}
#: White noise of native 0.3" NISP pixels over the scatter of MER-like pixels after binning.
NATIVE_NOISE_RATIO = 1.5
#: d(variance)/d(flux) of RMS² with respect to the flux of the same pixel.
VARIANCE_SLOPE: dict[Band, float] = {"VIS": 2.8e-4, "Y": 0.95, "J": 0.86, "H": 0.76}
#: Pixel value at which the detector saturates.
SATURATION: dict[Band, float] = {"VIS": 40.0, "Y": 6000.0, "J": 6000.0, "H": 6000.0}
#: Weights and widths (0.1" pixels) of core, shoulder and wing.
_PSF_WEIGHTS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.33, 0.55, 0.12), "Y": (0.42, 0.56, 0.02), "J": (0.31, 0.51, 0.18), "H": (0.33, 0.62, 0.05),
}  # fmt: skip
_PSF_SIGMAS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.60, 1.33, 3.87), "Y": (1.53, 2.62, 5.0), "J": (1.62, 2.55, 4.2), "H": (1.61, 3.25, 4.5),
}  # fmt: skip
#: The shoulder is three lobes this far (in units of its width) from the centre: NISP's PSFs are visibly triangular.
_LOBE_OFFSET: dict[Band, float] = {"VIS": 0.25, "Y": 0.55, "J": 0.5, "H": 0.6}
_PIXEL_VARIANCE = 1.0 / 12.0
_VIS_NOISE_SIDE = 0.1185  # of the smoothing kernel (a, 1, a): lag-1 correlation 0.23

_BRIGHT_MAGNITUDE = 19.5


def flux(magnitude: float, band: Band) -> float:
    """Image units of an AB magnitude."""
    return float(10.0 ** (0.4 * (ZERO_POINT[band] - magnitude)))


@dataclass(frozen=True)
class Psf:
    """One band's PSF as Gaussians in units of 0.1" pixels; each field an array (G,)."""

    weight: Any
    sigma_major: Any
    sigma_minor: Any
    angle: Any
    dx: Any
    dy: Any

    def rotated(self, angle: float) -> Psf:
        """The same PSF turned by ``angle``."""
        c, s = math.cos(angle), math.sin(angle)
        return Psf(
            self.weight, self.sigma_major, self.sigma_minor, self.angle + angle,
            c * self.dx - s * self.dy, s * self.dx + c * self.dy,
        )  # fmt: skip

    def transfer(self, ny: int, nx: int) -> Any:
        """Optical transfer function on the grid of ``rfft2`` of an (ny, nx) image, complex64.

        The pixel's share of the width is taken out: the images it multiplies hold integrals over pixels already.
        """
        v = np.fft.fftfreq(ny).astype(np.float32)[:, None]
        u = np.fft.rfftfreq(nx).astype(np.float32)[None, :]
        out = np.zeros((ny, nx // 2 + 1), dtype=np.complex64)
        for weight, major, minor, angle, dx, dy in zip(*vars(self).values(), strict=True):
            a = max(major**2 - _PIXEL_VARIANCE, 0.02)
            b = max(minor**2 - _PIXEL_VARIANCE, 0.02)
            c, s = math.cos(angle), math.sin(angle)
            xx, yy, xy = a * c * c + b * s * s, a * s * s + b * c * c, (a - b) * c * s
            envelope = np.exp(
                np.float32(-2.0 * math.pi**2) * (np.float32(xx) * u * u + np.float32(yy) * v * v + np.float32(2 * xy) * u * v)
            )
            shift = np.exp(np.complex64(-2j * math.pi * dx) * u) * np.exp(np.complex64(-2j * math.pi * dy) * v)
            out += np.float32(weight) * envelope * shift
        return out

    def values(self, dx: Any, dy: Any) -> Any:
        """Share of the flux in the pixels whose centres lie ``(dx, dy)`` pixels from the star; float64."""
        total = np.zeros(np.broadcast_shapes(np.shape(dx), np.shape(dy)))
        for weight, major, minor, angle, x, y in zip(*vars(self).values(), strict=True):
            c, s = math.cos(angle), math.sin(angle)
            along, across = c * (dx - x) + s * (dy - y), c * (dy - y) - s * (dx - x)
            total += weight / (2 * math.pi * major * minor) * np.exp(-0.5 * ((along / major) ** 2 + (across / minor) ** 2))
        return total


def draw_psf(rng: Generator, band: Band, roll: float, width: float = 1.0) -> Psf:
    """A PSF of ``band`` for one pointing.

    Parameters
    ----------
    rng
        Source of the ellipticity and of the lobes' inequality: m = 2 moments of 1-7%, as measured.
    roll
        Orientation of the telescope, radians; draw it uniformly, and the same way whatever the image shows.
    width
        Factor on all widths.
    """
    core, shoulder, wing = (sigma * width for sigma in _PSF_SIGMAS[band])
    weights = _PSF_WEIGHTS[band]
    q = 1.0 - rng.uniform(0.02, 0.2)
    major, minor = 1.0 / math.sqrt(q), math.sqrt(q)
    angle = roll + rng.uniform(0.0, math.pi)
    offset = _LOBE_OFFSET[band] * shoulder
    lobe = math.sqrt(shoulder**2 - 0.5 * offset**2)
    share = rng.uniform(0.75, 1.25, 3)
    share *= weights[1] / share.sum()
    turns = roll + np.arange(3) * (2.0 * math.pi / 3.0)
    dx, dy = offset * np.cos(turns), offset * np.sin(turns)
    weight = np.array([weights[0], *share, weights[2]])
    dx, dy = np.array([0.0, *dx, 0.0]), np.array([0.0, *dy, 0.0])
    # Unequal lobes would shift the centroid, and stars and galaxies of the four bands must agree on theirs.
    dx, dy = dx - np.sum(weight * dx), dy - np.sum(weight * dy)
    sigma = np.array([core, lobe, lobe, lobe, wing])
    return Psf(weight, sigma * major, sigma * minor, np.full(5, angle), dx, dy)


def convolve(image: Float32, transfer: Any) -> Float32:
    """Convolve an (ny, nx) image, taken as periodic, with the PSF of ``transfer``."""
    spectrum = scipy.fft.rfft2(image)
    spectrum *= transfer
    return np.asarray(scipy.fft.irfft2(spectrum, s=image.shape), dtype=np.float32)


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
    dx, dy = np.arange(left, right)[None, :] - x, np.arange(bottom, top)[:, None] - y
    light = psf.values(dx, dy)
    if bright:
        r2 = dx**2 + dy**2
        taper = np.clip(2.0 * (1.0 - np.sqrt(r2) / half), 0.0, 1.0)
        light = light + 0.03 * 0.5 / (math.pi * 36.0) * (1.0 + r2 / 36.0) ** -1.5 * taper
        for turn in range(3):
            c, s = math.cos(roll + turn * math.pi / 3.0), math.sin(roll + turn * math.pi / 3.0)
            along, across = c * dx + s * dy, c * dy - s * dx
            light = light + 0.00012 * np.exp(-0.5 * (across / 0.9) ** 2) / (1.0 + np.abs(along) / 4.0) ** 1.5 * taper
    image[bottom:top, left:right] += (star_flux * light).astype(np.float32)


def bin3(image: Any) -> Any:
    """Sum over 3x3 blocks of the last two axes."""
    *lead, ny, nx = image.shape
    return image.reshape(*lead, ny // 3, 3, nx // 3, 3).sum(axis=(-3, -1))


def vis_noise(rng: Generator, image: Float32, level: float = 1.0) -> Float32:
    """Noise for a noiseless (ny, nx) VIS image: white with Poisson term, then correlated as by drizzling.

    ``level`` scales the sky's noise. Scatter 0.00275, lag-1 correlation 0.23, sum over large areas as the RMS map says.
    """
    ny, nx = image.shape
    white = rng.standard_normal((ny + 2, nx + 2), dtype=np.float32)
    variance = np.float32((RMS["VIS"] * level) ** 2) + np.float32(VARIANCE_SLOPE["VIS"]) * np.maximum(image, 0.0)
    white[1:-1, 1:-1] *= np.sqrt(variance)
    for edge in (white[0], white[-1], white[:, 0], white[:, -1]):
        edge *= np.float32(RMS["VIS"] * level)
    side, total = np.float32(_VIS_NOISE_SIDE), np.float32(1.0 + 2.0 * _VIS_NOISE_SIDE)
    rows = (white[1:-1] + side * (white[:-2] + white[2:])) / total
    return np.asarray((rows[:, 1:-1] + side * (rows[:, :-2] + rows[:, 2:])) / total, dtype=np.float32)


def _resampling_matrix(pixels: int, phase: float) -> Float32:
    """(pixels, pixels + 3): 0.3" pixels resampled linearly to 0.1" at ``phase`` (0..1 pixel) and binned again."""
    matrix = np.zeros((pixels, pixels + 3))
    for sub in (-1.0 / 3.0, 0.0, 1.0 / 3.0):
        position = np.arange(pixels) + 1.0 + phase + sub
        left = np.floor(position).astype(int)
        share = position - left
        np.add.at(matrix, (np.arange(pixels), left), (1.0 - share) / 3.0)
        np.add.at(matrix, (np.arange(pixels), left + 1), share / 3.0)
    return matrix.astype(np.float32)


def nisp_noise(rng: Generator, image: Float32, band: Band, resampled: bool, level: float = 1.0) -> Float32:
    """Noise for a noiseless (ny, nx) NISP image of 0.3" pixels.

    ``resampled``: the image was resampled to 0.1" and binned again, as MER's mosaics are: correlated, scatter about 4.2.
    Otherwise native: white, 1.5 times that.
    """
    ny, nx = image.shape
    slope = np.float32(VARIANCE_SLOPE[band])
    native = 3.0 * RMS[band] if resampled else NATIVE_NOISE_RATIO * SKY_SIGMA[band]
    sigma = np.sqrt(np.float32((native * level) ** 2) + slope * np.maximum(image, 0.0))
    if not resampled:
        return np.asarray(rng.standard_normal((ny, nx), dtype=np.float32) * sigma, dtype=np.float32)
    phase_y, phase_x = rng.uniform(0.0, 1.0, 2)
    white = rng.standard_normal((ny + 3, nx + 3), dtype=np.float32) * np.pad(sigma, ((1, 2), (1, 2)), mode="edge")
    return np.asarray(
        _resampling_matrix(ny, phase_y) @ white @ _resampling_matrix(nx, phase_x).T, dtype=np.float32
    )
