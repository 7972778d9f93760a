"""Point spread functions of Euclid's VIS and NISP images on 0.1" pixels, and convolution with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import scipy.fft
from array_api_compat import array_namespace, device, is_torch_array
from numpy.random import Generator
from threadpoolctl import ThreadpoolController

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64

#: Weights and widths (0.1" pixels) of body, lobes and wing; the body is the core in VIS and the shoulder in NISP.
_WEIGHTS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.39, 0.494, 0.116),
    "Y": (0.45, 0.53, 0.02),
    "J": (0.335, 0.60, 0.065),
    "H": (0.56, 0.42, 0.02),
}
_SIGMAS: dict[Band, tuple[float, float, float]] = {
    "VIS": (0.608, 1.331, 3.716),
    "Y": (2.60, 1.51, 4.1),
    "J": (3.2, 1.68, 4.9),
    "H": (3.28, 1.59, 4.9),
}
#: The three lobes lie this far (in units of their joint width) from the centre: the PSFs are visibly triangular.
_LOBE_OFFSET: dict[Band, float] = {"VIS": 1.03, "Y": 0.82, "J": 0.84, "H": 0.84}
#: Largest share of the lobes' weight that goes from one to another.
_LOBE_INEQUALITY: dict[Band, float] = {"VIS": 0.3, "Y": 0.4, "J": 0.4, "H": 0.4}
#: Axis ratios of body and wing, and of the lobes.
_AXIS_RATIOS: dict[Band, tuple[float, float]] = {"VIS": (0.93, 1.0), "Y": (0.84, 0.93), "J": (0.92, 1.0), "H": (0.92, 1.0)}
_LOBE_AXIS_RATIOS: dict[Band, tuple[float, float]] = {
    "VIS": (0.93, 1.0),
    "Y": (0.72, 0.90),
    "J": (0.78, 0.95),
    "H": (0.72, 0.95),
}
_PIXEL_VARIANCE = 1.0 / 12.0
_LEAST_VARIANCE = 0.02
#: Of a Gaussian, in units of its σ.
_FWHM = math.sqrt(8.0 * math.log(2.0))


@dataclass(frozen=True)
class Psf:
    """One PSF as five Gaussians in units of 0.1" pixels, fields (5,): body, three lobes of one shape, wing; or many, (..., 5).

    A PSF is a mixture of Gaussians, the pixel included: it has an exact Fourier transform, so that galaxies are convolved
    without a kernel image whose centre could be off by half a pixel, and exact values at any sub-pixel position, for stars.
    Widths, weights and asymmetries are fitted to the PSF stamps of real Euclid images.

    Body and wing are centred.
    """

    weight: Float64
    sigma_major: Float64
    sigma_minor: Float64
    angle: Float64
    dx: Float64
    dy: Float64

    def transfer(self, ny: int, nx: int, like: Any = None) -> Any:
        """Optical transfer function on the grid of ``rfft2`` of an (ny, nx) image, complex64, (..., ny, nx // 2 + 1).

        The pixel's share of the width is taken out: the images it multiplies hold integrals over pixels already. ``like``: a
        torch tensor to compute beside; numpy by default.
        """
        factors = self.factors(ny, nx)
        if like is not None and is_torch_array(like):
            xp = array_namespace(like)
            factors = tuple(xp.asarray(factor, device=device(like)) for factor in factors)
        rows, columns, turn_rows, turn_columns = factors
        with _one_thread():
            envelope, turn = rows @ columns, turn_rows @ turn_columns
        envelope = array_namespace(envelope).exp(envelope)
        return turn * envelope[..., 1, :, :] + (envelope[..., 0, :, :] + envelope[..., 2, :, :])

    def factors(self, ny: int, nx: int) -> tuple[Any, ...]:
        """Exponents of body, lobes and wing, and the lobes' phases, as matrix products of functions of v and of u.

        Returns
        -------
        tuple
            Rows (..., 3, ny, 3) and columns (..., 3, 3, nx // 2 + 1) of the exponents, float32; rows (..., ny, 3) and columns
            (..., 3, nx // 2 + 1) of the lobes' phases, complex64.
        """
        v, u = np.fft.fftfreq(ny), np.fft.rfftfreq(nx)
        shapes = [0, 1, 4]
        a, b = (
            np.maximum(s[..., shapes] ** 2 - _PIXEL_VARIANCE, _LEAST_VARIANCE) for s in (self.sigma_major, self.sigma_minor)
        )
        c, s = np.cos(self.angle[..., shapes]), np.sin(self.angle[..., shapes])
        forms = np.stack([a * c * c + b * s * s, a * s * s + b * c * c, 2.0 * (a - b) * c * s])
        xx, yy, xy = -2.0 * math.pi**2 * forms[..., None]
        # The lobes' weights stand with their phases.
        constant = np.log(self.weight[..., shapes, None])
        constant[..., 1, :] = 0.0
        rows = np.stack(np.broadcast_arrays(yy * v * v + constant, 1.0, xy * v), axis=-1)
        columns = np.stack(np.broadcast_arrays(1.0, xx * u * u, u), axis=-2)
        dx, dy, weight = (field[..., 1:4] for field in (self.dx, self.dy, self.weight))
        turn_rows = weight[..., None, :] * np.exp(-2j * math.pi * v[:, None] * dy[..., None, :])
        turn_columns = np.exp(-2j * math.pi * dx[..., None] * u)
        single = rows.astype(np.float32), columns.astype(np.float32)
        return *single, turn_rows.astype(np.complex64), turn_columns.astype(np.complex64)

    def values(self, dx: Any, dy: Any) -> Float32:
        """Share of the flux in the pixels whose centres lie ``(dx, dy)`` pixels from the star; (B, ...) for stacked PSFs."""
        across_axes = (...,) + (None,) * max(np.ndim(dx), np.ndim(dy))
        total: Any = np.float32(0.0)
        c, s = np.cos(self.angle), np.sin(self.angle)
        # -1/2 (r/σ)² as a quadratic form, all in single precision.
        forms = [
            (c / self.sigma_major) ** 2 + (s / self.sigma_minor) ** 2,
            (s / self.sigma_major) ** 2 + (c / self.sigma_minor) ** 2,
            2.0 * c * s * (self.sigma_major**-2.0 - self.sigma_minor**-2.0),
        ]
        peaks = self.weight / (2.0 * math.pi * self.sigma_major * self.sigma_minor)
        for k in range(peaks.shape[-1]):
            peak, xx, yy, xy, x, y = (
                np.asarray(field[..., k], dtype=np.float32)[across_axes]
                for field in (peaks, *(-0.5 * f for f in forms), self.dx, self.dy)
            )
            right, up = np.asarray(dx, dtype=np.float32) - x, np.asarray(dy, dtype=np.float32) - y
            total = total + peak * np.exp((xx * right) * right + (yy * up) * up + (xy * up) * right)
        return np.asarray(total, dtype=np.float32)


def transfers(psfs: Psf, ny: int, nx: int) -> Iterator[Any]:
    """Transfer functions of (N, C, 5) PSFs in numpy: (C, ny, nx // 2 + 1) at a time, each valid until the next is asked for.

    All lie in the same memory: fresh arrays of this size would cost more than the arithmetic.
    """
    envelope = np.empty((3, ny, nx // 2 + 1), dtype=np.float32)
    out = np.empty((psfs.weight.shape[1], ny, nx // 2 + 1), dtype=np.complex64)
    for image in zip(*psfs.factors(ny, nx), strict=True):
        for rows, columns, turn_rows, turn_columns, target in zip(*image, out, strict=True):
            with _one_thread():
                np.matmul(rows, columns, out=envelope)
                np.matmul(turn_rows, turn_columns, out=target)
            np.exp(envelope, out=envelope)
            np.multiply(target, envelope[1], out=target)
            target.real += np.add(envelope[0], envelope[2], out=envelope[0])
        yield out


def _one_thread() -> AbstractContextManager[Any]:
    """On some processors the last digit of a matrix product depends on the number of threads that share it."""
    context: AbstractContextManager[Any] = _blas().limit(limits=1)
    return context


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def stack(psfs: Sequence[Psf]) -> Psf:
    """Several PSFs as one whose fields have one more axis, the first."""
    return Psf(*(np.stack([getattr(psf, field.name) for psf in psfs]) for field in fields(Psf)))


def draw_psf(rng: Generator, band: Band, roll: float, width: float = 1.0) -> Psf:
    """A PSF of ``band`` for one pointing.

    Parameters
    ----------
    rng
        Source of the ellipticities and of the lobes' inequality.
    roll
        Orientation of the telescope, radians; draw it uniformly, and the same way whatever the image shows.
    width
        Factor on all widths.
    """
    q = np.array([rng.uniform(*_AXIS_RATIOS[band]), rng.uniform(*_LOBE_AXIS_RATIOS[band])])
    angles = roll + rng.uniform(0.0, math.pi, 2)
    inequality = _LOBE_INEQUALITY[band]
    return _psf(band, width, q, angles, rng.uniform(1.0 - inequality, 1.0 + inequality, 3), roll)


def gaussian_psf(fwhm_arcsec: float) -> Psf:
    """A round Gaussian, as the paper's compound lenses are convolved with; the pixel is added."""
    sigma = np.full(5, math.sqrt((fwhm_arcsec / VIS_PIXEL_SCALE_ARCSEC / _FWHM) ** 2 + _PIXEL_VARIANCE))
    # Five alike: a weight of nothing has no logarithm.
    return Psf(np.full(5, 0.2), sigma, sigma, np.zeros(5), np.zeros(5), np.zeros(5))


def mean_psf(band: Band) -> Psf:
    """The average PSF of ``band``, round but for its lobes."""
    return _psf(band, 1.0, np.ones(2), np.zeros(2), np.ones(3), 0.0)


def _psf(band: Band, width: float, q: Float64, angles: Float64, lobes: Float64, roll: float) -> Psf:
    """``q``, ``angles``: of body and wing, and of the lobes."""
    body, together, wing = (sigma * width for sigma in _SIGMAS[band])
    weights = _WEIGHTS[band]
    offset = _LOBE_OFFSET[band] * together
    lobe = math.sqrt(together**2 - 0.5 * offset**2)
    turns = roll + np.arange(3) * (2.0 * math.pi / 3.0)
    weight = np.array([weights[0], *(lobes * weights[1] / lobes.sum()), weights[2]])
    dx = np.array([0.0, *(offset * np.cos(turns)), 0.0])
    dy = np.array([0.0, *(offset * np.sin(turns)), 0.0])
    # Unequal lobes would shift the centroid, and stars and galaxies of the four bands must agree on theirs.
    dx[1:4] -= np.sum(weight * dx) / weights[1]
    dy[1:4] -= np.sum(weight * dy) / weights[1]
    sigma, stretch = np.array([body, lobe, lobe, lobe, wing]), np.sqrt(q[[0, 1, 1, 1, 0]])
    return Psf(weight, sigma / stretch, sigma * stretch, angles[[0, 1, 1, 1, 0]], dx, dy)


def convolve(image: Any, transfer: Any) -> Any:
    """Convolve (..., ny, nx) images, taken as periodic, with the PSFs of ``transfer``: numpy or torch, float32."""
    if is_torch_array(image):
        xp = array_namespace(image)
        spectrum = xp.fft.rfftn(image, axes=(-2, -1))
        return xp.fft.irfftn(spectrum * transfer, s=image.shape[-2:], axes=(-2, -1))
    spectrum = scipy.fft.rfft2(image)
    spectrum *= transfer
    return scipy.fft.irfft2(spectrum, s=image.shape[-2:], overwrite_x=True)
