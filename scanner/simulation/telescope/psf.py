"""Point spread functions of Euclid's VIS and NISP images on 0.1" pixels, and convolution with them.

A PSF is a mixture of Gaussians, the pixel included: it has an exact Fourier transform, so that galaxies are convolved
without a kernel image whose centre could be off by half a pixel, and exact values at any sub-pixel position, for stars.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.random import Generator

from scanner.records import Band, Float32

#: Weights and widths (0.1" pixels) of core, shoulder and wing.
_PSF_WEIGHTS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.33, 0.55, 0.12),
    "Y": (0.42, 0.56, 0.02),
    "J": (0.31, 0.51, 0.18),
    "H": (0.33, 0.62, 0.05),
}
_PSF_SIGMAS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.60, 1.33, 3.87),
    "Y": (1.53, 2.62, 5.0),
    "J": (1.62, 2.55, 4.2),
    "H": (1.61, 3.25, 4.5),
}
#: The shoulder is three lobes this far (in units of its width) from the centre: NISP's PSFs are visibly triangular.
_LOBE_OFFSET: dict[Band, float] = {"VIS": 0.25, "Y": 0.55, "J": 0.5, "H": 0.6}
_PIXEL_VARIANCE = 1.0 / 12.0


@dataclass(frozen=True)
class Psf:
    """One band's PSF as Gaussians in units of 0.1" pixels; each field an array (G,)."""

    weight: Any
    sigma_major: Any
    sigma_minor: Any
    angle: Any
    dx: Any
    dy: Any

    def transfer(self, ny: int, nx: int) -> Any:
        """Optical transfer function on the grid of ``rfft2`` of an (ny, nx) image, complex64.

        The pixel's share of the width is taken out: the images it multiplies hold integrals over pixels already.
        """
        v = np.fft.fftfreq(ny).astype(np.float32)
        u = np.fft.rfftfreq(nx).astype(np.float32)
        out = np.zeros((ny, nx // 2 + 1), dtype=np.complex64)
        for major, minor, angle, members in self._shapes():
            a = max(major**2 - _PIXEL_VARIANCE, 0.02)
            b = max(minor**2 - _PIXEL_VARIANCE, 0.02)
            c, s = math.cos(angle), math.sin(angle)
            xx, yy, xy = (
                np.float32(-2.0 * math.pi**2 * value)
                for value in (a * c * c + b * s * s, a * s * s + b * c * c, 2.0 * (a - b) * c * s)
            )
            envelope = np.exp((xx * u * u)[None, :] + (yy * v * v)[:, None] + (xy * v)[:, None] * u)
            # The shifts of all Gaussians of this shape at once: a sum of separable phases.
            rows = np.exp(-2j * math.pi * self.dy[members, None] * v).astype(np.complex64) * self.weight[members, None]
            columns = np.exp(-2j * math.pi * self.dx[members, None] * u).astype(np.complex64)
            out += envelope * (rows.T.astype(np.complex64) @ columns)
        return out

    def values(self, dx: Any, dy: Any) -> Any:
        """Share of the flux in the pixels whose centres lie ``(dx, dy)`` pixels from the star; float32."""
        total = np.zeros(np.broadcast_shapes(np.shape(dx), np.shape(dy)), dtype=np.float32)
        for weight, major, minor, angle, x, y in zip(*vars(self).values(), strict=True):
            c, s = math.cos(angle), math.sin(angle)
            right, up = np.asarray(dx - x, dtype=np.float32), np.asarray(dy - y, dtype=np.float32)
            along, across = (c * right + s * up) / np.float32(major), (c * up - s * right) / np.float32(minor)
            peak = np.float32(weight / (2.0 * math.pi * major * minor))
            total += peak * np.exp(np.float32(-0.5) * (along * along + across * across))
        return total

    def _shapes(self) -> Iterator[tuple[float, float, float, list[int]]]:
        """Widths and angle shared by some of the Gaussians, with their numbers."""
        shapes = list(zip(self.sigma_major.tolist(), self.sigma_minor.tolist(), self.angle.tolist(), strict=True))
        for shape in dict.fromkeys(shapes):
            yield *shape, [k for k, other in enumerate(shapes) if other == shape]


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
    return _psf(band, width, 1.0 - rng.uniform(0.02, 0.2), roll + rng.uniform(0.0, math.pi), rng.uniform(0.75, 1.25, 3), roll)


def mean_psf(band: Band) -> Psf:
    """The average PSF of ``band``, round but for its lobes."""
    return _psf(band, 1.0, 1.0, 0.0, np.ones(3), 0.0)


def _psf(band: Band, width: float, q: float, angle: float, lobes: Any, roll: float) -> Psf:
    core, shoulder, wing = (sigma * width for sigma in _PSF_SIGMAS[band])
    weights = _PSF_WEIGHTS[band]
    offset = _LOBE_OFFSET[band] * shoulder
    lobe = math.sqrt(shoulder**2 - 0.5 * offset**2)
    turns = roll + np.arange(3) * (2.0 * math.pi / 3.0)
    weight = np.array([weights[0], *(lobes * weights[1] / lobes.sum()), weights[2]])
    dx = np.array([0.0, *(offset * np.cos(turns)), 0.0])
    dy = np.array([0.0, *(offset * np.sin(turns)), 0.0])
    # Unequal lobes would shift the centroid, and stars and galaxies of the four bands must agree on theirs.
    dx, dy = dx - np.sum(weight * dx), dy - np.sum(weight * dy)
    sigma = np.array([core, lobe, lobe, lobe, wing])
    return Psf(weight, sigma / math.sqrt(q), sigma * math.sqrt(q), np.full(5, angle), dx, dy)


def convolve(image: Float32, transfer: Any) -> Float32:
    """Convolve an (ny, nx) image, taken as periodic, with the PSF of ``transfer``."""
    spectrum = scipy.fft.rfft2(image)
    spectrum *= transfer
    return np.asarray(scipy.fft.irfft2(spectrum, s=image.shape), dtype=np.float32)
