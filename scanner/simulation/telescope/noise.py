"""Noise: sky and photons, correlated as resampling leaves it; magnitudes and fluxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import Band, Float32, Float64

#: Noise per 0.1" pixel of the stacks' RMS maps: the level before resampling correlates neighbouring pixels.
RMS: dict[Band, float] = {"VIS": 0.0041, "Y": 2.44, "J": 2.47, "H": 2.36}
#: Robust scatter of sky pixels: 0.1" for VIS; MER-like NISP after 3x3 binning.
SKY_SIGMA: dict[Band, float] = {"VIS": 0.00275, "Y": 4.0, "J": 4.05, "H": 3.85}
#: White noise of native 0.3" NISP pixels over the scatter of MER-like pixels after binning.
NATIVE_NOISE_RATIO = 1.5
#: d(variance)/d(flux) of RMS² with respect to the flux of the same pixel.
VARIANCE_SLOPE: dict[Band, float] = {"VIS": 2.8e-4, "Y": 0.95, "J": 0.86, "H": 0.76}
#: White noise of resampled 0.1" NISP pixels in units of the RMS map: interpolation alone would leave a correlation of 0.86
#: between neighbours, and 0.74-0.82 is measured.
_FINE_WHITE = 0.0625
#: Smoothing kernel (a, 1, a) of resampled VIS noise, and its level in units of the RMS map, which states a little too much:
#: with tails and the field's faint galaxies, robust scatter 0.00275 and lag-1 correlation 0.23.
VIS_KERNEL_SIDE, _VIS_LEVEL = 0.106, 0.965
#: Range of the tails of VIS: excess kurtosis of real sky pixels 0.2 to 0.7, gone after 3x3 binning.
VIS_TAILS = (0.008, 0.023)


def rms(image: Any, band: Band, level: Any = 1.0) -> Any:
    """RMS map of a noiseless image on 0.1" pixels, as MER would state it; ``level`` scales the sky's part."""
    return deviation(image, *variance(band, level, native=False))


def native_rms(image: Any, band: Band, level: Any = 1.0) -> Any:
    """Noise of the pixels of a noiseless NISP image on native 0.3" pixels."""
    return deviation(image, *variance(band, level, native=True))


def variance(band: Band, level: Any, native: bool) -> tuple[Any, float]:
    """Variance of the sky and its slope with an image's flux, of the noise that resampling starts from.

    Parameters
    ----------
    band
        VIS or a NISP band.
    level
        Factor on the sky's noise.
    native
        NISP on native 0.3" pixels; otherwise of 0.1" pixels, as RMS maps state it.

    Returns
    -------
    tuple
        Image units squared, and image units.
    """
    sky = NATIVE_NOISE_RATIO * SKY_SIGMA[band] if native else RMS[band]
    return (sky * level) ** 2, VARIANCE_SLOPE[band]


def deviation(image: Any, sky: Any, slope: Any) -> Any:
    """Standard deviation of the noise of a noiseless image, from :func:`variance`; numpy or torch."""
    xp = array_namespace(image)
    return xp.sqrt(sky + slope * xp.clip(image, 0.0, None))


def vis_kernel(side: float = VIS_KERNEL_SIDE) -> tuple[float, float]:
    """Weights of a neighbour and of the whole, in each direction, of resampled VIS noise.

    ``side``: the neighbour's weight before normalisation. The sum over many pixels has the same noise whatever it is, so that
    more correlated noise has a smaller scatter in single pixels.
    """
    return side, _VIS_LEVEL * (1.0 + 2.0 * side) ** -2


def vis_noise(white: Any, image: Any, level: Any = 1.0, tails: Any = 0.0, kernel: tuple[Any, Any] = vis_kernel()) -> Any:
    """Noise for the inner (..., ny, nx) pixels of noiseless VIS images, numpy or torch.

    Parameters
    ----------
    white, image
        (..., ny + 2, nx + 2): unit white noise and image, one pixel wider on each side, so that strips join without a seam.
    level
        Scales the sky's noise.
    tails
        How much heavier than a normal distribution's the tails are: unit noise w becomes w + ``tails`` w³, of unit variance
        again; the excess kurtosis is about 24 ``tails``.
    kernel
        As :func:`vis_kernel` gives it.
    """
    heavy = white * (1.0 + tails * white * white) * (1.0 + 6.0 * tails + 15.0 * tails**2) ** -0.5
    scaled = heavy * rms(image, "VIS", level)
    side, gain = kernel
    rows = scaled[..., 1:-1, :] + side * (scaled[..., :-2, :] + scaled[..., 2:, :])
    both = rows[..., 1:-1] + side * (rows[..., :-2] + rows[..., 2:])
    return both * gain


def binned_taps(phase: float, native: bool) -> tuple[float, float, float]:
    """How the noise of three neighbouring native pixels adds up in one cutout pixel along one axis.

    Parameters
    ----------
    phase
        Where the first 0.1" pixel of a cutout pixel lies between native pixels, 0 to 1.
    native
        No resampling: the cutout's pixels are the native ones.

    Returns
    -------
    tuple
        Weights. Resampled: linear interpolation at three 0.1" pixels and their sum, in units of the RMS map per axis.
    """
    if native:
        return 1.0, 0.0, 0.0
    taps = [0.0, 0.0, 0.0]
    for step in range(3):
        left, share = divmod(phase + step / 3.0, 1.0)
        taps[int(left)] += 1.0 - share
        taps[min(int(left) + 1, 2)] += share
    return taps[0] * 3.0**-0.5, taps[1] * 3.0**-0.5, taps[2] * 3.0**-0.5


def binned_scatter(white: Any, taps: Any) -> Any:
    """Noise of cutout pixels (..., n, n) from white noise of native pixels (..., n + 2, n + 2); numpy or torch.

    ``taps`` (..., 2, 3, 1, 1): of :func:`binned_taps` along y and x. Multiply by the deviation of the regime's pixels.
    """
    y, x = ([taps[..., axis, k, :, :] for k in range(3)] for axis in range(2))
    rows = y[0] * white[..., :-2, :] + y[1] * white[..., 1:-1, :] + y[2] * white[..., 2:, :]
    return x[0] * rows[..., :-2] + x[1] * rows[..., 1:-1] + x[2] * rows[..., 2:]


def resampled(white: Float32, rows: Float64, columns: Float64, own: Float32 | None = None) -> Float32:
    """White noise of 0.3" pixels, interpolated linearly to the 0.1" pixels at ``rows`` and ``columns``.

    Parameters
    ----------
    white
        Unit white noise of the 0.3" pixels.
    rows, columns
        Positions of the 0.1" pixels on them, pixels.
    own
        Unit white noise of the 0.1" pixels, the small part that resampling did not spread. It does not matter where the
        result is binned again (1% of the scatter).

    Returns
    -------
    array
        (rows, columns), in units of the RMS map: multiply it by :func:`rms`. A 0.1" pixel holds a ninth of the interpolated
        value, and the noise of a 0.3" pixel is three times that of the RMS map.
    """
    for positions, axis in ((rows, 0), (columns, 1)):
        left = np.floor(positions).astype(np.int64)
        share = (positions - left).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        white = np.take(white, left, axis=axis) * (np.float32(1.0) - share) + np.take(white, left + 1, axis=axis) * share
    spread = white / np.float32(3.0)
    return np.asarray(spread if own is None else spread + np.float32(_FINE_WHITE) * own, dtype=np.float32)


def bin3(image: Any) -> Any:
    """Sum over 3x3 blocks of the last two axes."""
    *lead, ny, nx = image.shape
    # Slices added up are several times faster than a sum over two short axes.
    rows = image[..., 0::3, :] + image[..., 1::3, :] + image[..., 2::3, :]
    return (rows[..., 0::3] + rows[..., 1::3] + rows[..., 2::3]).reshape(*lead, ny // 3, nx // 3)


ZERO_POINT: dict[Band, float] = {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9}


def flux(magnitude: float, band: Band) -> float:
    """Image units of an AB magnitude."""
    return float(10.0 ** (0.4 * (ZERO_POINT[band] - magnitude)))


def magnitude(light: float, band: Band) -> float:
    """AB magnitude of a flux in image units."""
    return ZERO_POINT[band] - 2.5 * math.log10(light)
