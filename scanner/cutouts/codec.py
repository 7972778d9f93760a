"""Codecs of stored cutouts: ``exact`` (float32) and ``compact`` (16-bit integers on an asinh scale, in units of the noise)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scanner.records import CodecName, Float32, Float64

SOFTENING_SIGMA = 16.0
STEPS_PER_ASINH = 128.0
CODE_OF_SKY = 128
NAN_CODE = np.int16(-32768)
_CLIP_SIGMA = np.float32(1e15)

_CODES = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.float64)
with np.errstate(over="ignore"):
    #: Pixel value in sigma above the sky, by code read as an unsigned integer.
    _SIGMA_OF_CODE = (SOFTENING_SIGMA * np.sinh(np.clip((_CODES - CODE_OF_SKY) / STEPS_PER_ASINH, -80, 80))).astype(np.float32)
_SIGMA_OF_CODE[int(NAN_CODE.view(np.uint16))] = np.nan


def encode(pixels: Float32, sky: Float32, sigma: Float32) -> NDArray[np.int16]:
    """Quantise images as ``compact`` does.

    ``compact``: linear steps of sigma/8 near the sky, steps of 1/128 of the value far above it: ``code = 128 + round(128
    asinh(u / 16))`` with ``u = (pixel - sky) / sigma``. The 128 keeps the high byte of nearly every code zero, which packs the
    noise 12 % tighter. Rounding moves a pixel by at most ``sqrt(1 + (u / 16)^2) / 16`` sigma (:func:`largest_error`), which
    adds 0.13 % to the variance of the noise. NaN is kept, as a reserved code; beyond 1e15 sigma the value is clipped.

    Parameters
    ----------
    pixels
        (..., height, width) float32; NaN where bad.
    sky, sigma
        (...) float32 in the units of the pixels; sigma is positive.

    Returns
    -------
    NDArray[np.int16]
        Codes in the shape of ``pixels``; :data:`NAN_CODE` where not finite.
    """
    u = pixels - sky[..., np.newaxis, np.newaxis]
    with np.errstate(over="ignore"):
        u /= sigma[..., np.newaxis, np.newaxis]
    np.clip(u, -_CLIP_SIGMA, _CLIP_SIGMA, out=u)
    u *= np.float32(1.0 / SOFTENING_SIGMA)
    np.arcsinh(u, out=u)
    u *= np.float32(STEPS_PER_ASINH)
    np.rint(u, out=u)
    u += np.float32(CODE_OF_SKY)
    np.nan_to_num(u, copy=False, nan=float(NAN_CODE))
    codes = u.astype(np.int16)
    infinite = np.isinf(pixels)
    if infinite.any():
        codes[infinite] = NAN_CODE
    return codes


def decode(codes: NDArray[np.int16], sky: Float32, sigma: Float32) -> Float32:
    """Undo :func:`encode` up to rounding.

    Parameters
    ----------
    codes
        (..., height, width) int16.
    sky, sigma
        (...) float32, those that the images were encoded with.

    Returns
    -------
    Float32
        Pixels, NaN where the code is :data:`NAN_CODE`.
    """
    pixels = _SIGMA_OF_CODE[codes.view(np.uint16)]
    pixels *= sigma[..., np.newaxis, np.newaxis]
    pixels += sky[..., np.newaxis, np.newaxis]
    return pixels


def largest_error(pixels: Float32, sky: Float32, sigma: Float32) -> Float64:
    """Bound of ``|decode(encode(pixel)) - pixel|`` in units of sigma, in the shape of ``pixels``.

    Half a step of the scale, with a few units of float32 rounding of the pixel and of its distance from the sky.
    """
    level = np.asarray(sky, dtype=np.float64)[..., np.newaxis, np.newaxis]
    noise = np.asarray(sigma, dtype=np.float64)[..., np.newaxis, np.newaxis]
    u = np.abs(pixels - level) / noise
    half_step = 0.5 / STEPS_PER_ASINH
    rounding = 4 * np.finfo(np.float32).eps * (np.abs(level) / noise + np.abs(pixels) / noise)
    return np.asarray(np.hypot(SOFTENING_SIGMA, u) * np.sinh(half_step) * (1 + 5e-3) + u * 1e-5 + rounding)


@dataclass(frozen=True)
class Codec:
    """How the pixels of cutouts are stored.

    ``dtype``, ``fill_value``: of the stored arrays. ``compressor``: blosc's ``cname``, ``clevel`` and ``shuffle``.
    ``bytes_per_object``: of all four bands. ``encode``, ``decode``: from pixels to what is stored and back, with the sky and
    sigma of each image. ``largest_error``: bound of what that changes in a pixel, in sigma; None: nothing is lost.
    """

    dtype: np.dtype[Any]
    fill_value: float
    compressor: tuple[Literal["lz4", "zstd"], int, Literal["shuffle", "bitshuffle"]]
    bytes_per_object: int
    encode: Callable[[NDArray[Any], Float32, Float32], NDArray[Any]]
    decode: Callable[[NDArray[Any], Float32, Float32], Float32]
    largest_error: Callable[[Float32, Float32, Float32], Float64] | None


def _as_it_is(pixels: NDArray[Any], sky: Float32, sigma: Float32) -> NDArray[Any]:
    return pixels


#: Measured on noisy galaxies (benchmarks/storing.py): byte-shuffled zstd packs the codes tightest; on float32 nothing gains
#: more than a few per cent over lz4, and none is as fast.
CODECS: dict[CodecName, Codec] = {
    "exact": Codec(np.dtype(np.float32), np.nan, ("lz4", 5, "bitshuffle"), 190_000, _as_it_is, _as_it_is, None),
    "compact": Codec(np.dtype(np.int16), int(NAN_CODE), ("zstd", 1, "shuffle"), 37_000, encode, decode, largest_error),
}
