"""Pictures of a cutout for human eyes: VIS in grey, VIS coloured by NISP, NISP alone; y upwards, missing pixels hatched."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from scanner.errors import UsageError
from scanner.records import (
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    NISP_PSF_FWHM_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    VIS_PSF_FWHM_ARCSEC,
    CutoutBatch,
    Float32,
    Float64,
)

Curve = Literal["asinh", "linear", "sqrt", "log"]
CURVES: tuple[Curve, ...] = get_args(Curve)
#: The asinh turns from linear to logarithmic here: below the surface brightness of most arcs (3 to 15 sigma).
SOFTENING_SIGMA = 2.0
#: Drawn black: the sky. The upper half of its noise is seen, so that an arc can be judged against it; the lower half would
#: only cost bytes (a third of the page).
BLACK_SIGMA = 0.0
#: White is the 99.7th percentile of the central 12", but never outside this range: noise never fills the scale, and a
#: saturated star beside the object does not push its arcs into the dark.
WHITE_SIGMA = (40.0, 400.0)
WHITE_PERCENTILE = 99.7
WHITE_REGION_ARCSEC = 12.0
#: Contrast of the logarithmic curve, as in SAOImage DS9.
LOG_EXPONENT = 1000.0
#: Weights that turn the light of an early-type galaxy near z = 0.3 warm white and that of a blue source blue, chosen by eye.
COLOUR_BALANCE = {"VIS": 1.0, "J": 0.6, "H": 0.5}
NISP_BALANCE = {"Y": 1.0, "J": 0.85, "H": 0.75}
#: Below this many sigma a colour fades to grey: the ratio of two noises is no colour.
COLOUR_SOFTENING_SIGMA = 5.0
#: Gaussian sigma in VIS pixels that takes the VIS point-spread function to NISP's: colours of the cores and edges of sharp
#: sources are wrong without it.
_FWHM_PER_SIGMA = math.sqrt(8.0 * math.log(2.0))
PSF_MATCH_PIXELS = round(
    math.sqrt(NISP_PSF_FWHM_ARCSEC**2 - VIS_PSF_FWHM_ARCSEC**2) / _FWHM_PER_SIGMA / VIS_PIXEL_SCALE_ARCSEC, 2
)
#: ITU-R BT.601 luma, so that the composite in black and white is the VIS image.
LUMA = np.array([0.299, 0.587, 0.114])
HATCH_DARK, HATCH_LIGHT, HATCH_PERIOD = 42, 60, 16
_NISP_STEP = round(NISP_PIXEL_SCALE_ARCSEC / VIS_PIXEL_SCALE_ARCSEC)


UInt8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Stretch:
    """How brightness follows significance.

    ``curve``: its shape between ``black_sigma`` and ``white_sigma``; ``white_sigma`` None: from each image, see
    :func:`white_level`. ``softening_sigma``: where the asinh turns from linear to logarithmic; of no use to other curves.

    Raises
    ------
    UsageError
        Black is not below white, or the softening is not positive.
    """

    curve: Curve = "asinh"
    black_sigma: float = BLACK_SIGMA
    white_sigma: float | None = None
    softening_sigma: float = SOFTENING_SIGMA

    def __post_init__(self) -> None:
        highest = WHITE_SIGMA[0] if self.white_sigma is None else self.white_sigma
        if not self.black_sigma < highest:
            raise UsageError(f"black at {self.black_sigma:g} sigma is not below white at {highest:g}; lower it or raise white.")
        if not self.softening_sigma > 0:
            raise UsageError(f"a softening of {self.softening_sigma:g} sigma makes no curve; give one above 0.")

    def brightness(self, significance: Float64, pixel_scale_arcsec: float) -> Float64:
        """Brightness of one square image (y, x) between black (0) and white (1)."""
        white = white_level(significance, pixel_scale_arcsec) if self.white_sigma is None else self.white_sigma
        if self.curve == "asinh":
            bottom, top = (np.arcsinh(level / self.softening_sigma) for level in (self.black_sigma, white))
            scaled = (np.arcsinh(significance / self.softening_sigma) - bottom) / (top - bottom)
            return np.asarray(np.clip(scaled, 0.0, 1.0))
        linear = np.clip((significance - self.black_sigma) / (white - self.black_sigma), 0.0, 1.0)
        if self.curve == "sqrt":
            return np.asarray(np.sqrt(linear))
        return np.asarray(np.log1p(LOG_EXPONENT * linear) / np.log1p(LOG_EXPONENT) if self.curve == "log" else linear)


def white_level(significance: Float64, pixel_scale_arcsec: float) -> float:
    """Significance to be drawn white for one square image (y, x), from its centre; see :data:`WHITE_SIGMA`."""
    margin = max(0, round((significance.shape[0] - WHITE_REGION_ARCSEC / pixel_scale_arcsec) / 2))
    inner = significance[margin : significance.shape[0] - margin, margin : significance.shape[1] - margin]
    good = inner[np.isfinite(inner)]
    return float(np.clip(np.percentile(good, WHITE_PERCENTILE), *WHITE_SIGMA)) if good.size else WHITE_SIGMA[0]


def vis_image(vis: Float32, sky: Float32, sigma: Float32, stretch: Stretch = Stretch()) -> UInt8:
    """VIS in grey.

    Parameters
    ----------
    vis
        (200, 200) in the mosaic's units, NaN where there is no pixel.
    sky, sigma
        (4,) median and robust scatter of VIS, Y, J, H; VIS's are used.
    stretch
        From significance to brightness.

    Returns
    -------
    (200, 200) uint8.
    """
    return _grey(_vis_brightness(vis, sky, sigma, stretch))


def nisp_band_image(pixels: Float32, sky: float, sigma: float, stretch: Stretch = Stretch()) -> UInt8:
    """One NISP band in grey.

    Parameters
    ----------
    pixels
        (66, 66) in the mosaic's units, NaN where there is no pixel.
    sky, sigma
        Median and robust scatter of the band.
    stretch
        From significance to brightness.

    Returns
    -------
    (66, 66) uint8.
    """
    significance = _significance(pixels, np.array([sky], np.float32), np.array([sigma], np.float32))
    return _grey(stretch.brightness(significance, NISP_PIXEL_SCALE_ARCSEC))


def colour_image(
    vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, stretch: Stretch = Stretch(), saturation: float = 1.0
) -> UInt8:
    """VIS coloured by NISP: brightness and detail of VIS at 0.1", colour from H (red), VIS (blue) and their mean with J.

    Brightness is a stretch in units of the sky σ that came with the cutout, so that the same arc looks the same in every unit
    and depth. Colour is the ratio of the bands in those same units: in Euclid's Wide Survey one σ of a 0.1" VIS pixel and one
    of a 0.3" NISP pixel are nearly the same AB surface brightness (26.0 and 25.6 to 25.9 mag/arcsec² in Q1).

    With a mean as green light, colours run from blue through white to orange: an arc stands out from a galaxy by hue alone, and
    no noise looks green. Where a NISP band is missing the image is grey; where VIS is missing it is hatched.

    Parameters
    ----------
    vis, nisp
        (200, 200) and (3, 66, 66) in the mosaic's units, one common centre, NaN where there is no pixel.
    sky, sigma
        (4,) median and robust scatter of VIS, Y, J, H, of the pixels as given.
    stretch
        From the significance of VIS to brightness.
    saturation
        Of the colours: 0 is grey, 1 as they are, 2 twice as far from grey.

    Returns
    -------
    (200, 200, 3) uint8, red, green, blue.
    """
    brightness = _vis_brightness(vis, sky, sigma, stretch)
    significance = _significance(nisp, sky[1:, None, None], sigma[1:, None, None])
    complete = np.logical_and.reduce(np.isfinite(significance))
    _, j, h = (upsample(np.nan_to_num(band)) for band in significance)
    blue = _match_psf(_significance(vis, sky[0], sigma[0])) * COLOUR_BALANCE["VIS"]
    red = h * COLOUR_BALANCE["H"]
    green = (red + j * COLOUR_BALANCE["J"] + blue) / 3.0
    colour = np.maximum(np.stack([red, green, blue], axis=-1), 0.0) + COLOUR_SOFTENING_SIGMA
    nearest = _nearest_nisp_pixel()
    colour[~complete[np.ix_(nearest, nearest)]] = 1.0
    return _hatched(_at_brightness(_saturated(colour, saturation), brightness), ~np.isfinite(brightness))


def nisp_image(nisp: Float32, sky: Float32, sigma: Float32, stretch: Stretch = Stretch(), saturation: float = 1.0) -> UInt8:
    """NISP alone, H red, J green, Y blue (Wilde et al. 2022, section 5.1), one stretch for the three bands.

    Parameters
    ----------
    nisp
        (3, 66, 66) Y, J, H in the mosaic's units, NaN where there is no pixel.
    sky, sigma
        (4,) median and robust scatter of VIS, Y, J, H.
    stretch, saturation
        As for :func:`colour_image`.

    Returns
    -------
    (66, 66, 3) uint8, red, green, blue.
    """
    significance = _significance(nisp, sky[1:, None, None], sigma[1:, None, None])
    balance = np.array([NISP_BALANCE["Y"], NISP_BALANCE["J"], NISP_BALANCE["H"]])
    bands = significance * balance[:, None, None]
    mean = bands.mean(axis=0)
    noise_of_mean = np.sqrt(np.sum(balance**2)) / len(balance)
    brightness = stretch.brightness(mean / noise_of_mean, NISP_PIXEL_SCALE_ARCSEC)
    colour = np.maximum(np.nan_to_num(np.moveaxis(bands[::-1], 0, -1)), 0.0) + COLOUR_SOFTENING_SIGMA
    return _hatched(_at_brightness(_saturated(colour, saturation), brightness), ~np.isfinite(mean))


def side_by_side(cutout: CutoutBatch, zoom: int, stretch: Stretch = Stretch(), saturation: float = 1.0) -> UInt8:
    """Draw the three pictures of a batch of one.

    Parameters
    ----------
    cutout
        A batch of one.
    zoom
        Pixels of the picture along each side of a VIS pixel; a NISP pixel takes three times as many.
    stretch, saturation
        How; see :mod:`scanner.report.colour`.

    Returns
    -------
    (200 zoom, 600 zoom, 3) uint8.
    """
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    vis = vis_image(cutout.vis[0], sky, sigma, stretch)
    drawn = [
        enlarged(np.repeat(vis[..., None], 3, axis=-1), zoom),
        enlarged(colour_image(cutout.vis[0], cutout.nisp[0], sky, sigma, stretch, saturation), zoom),
        enlarged(nisp_image(cutout.nisp[0], sky, sigma, stretch, saturation), zoom * _NISP_STEP),
    ]
    margin = (drawn[0].shape[0] - drawn[2].shape[0]) // 2
    drawn[2] = np.pad(drawn[2], ((margin, margin), (margin, margin), (0, 0)))
    return np.concatenate(drawn, axis=1)


def enlarged(image: UInt8, zoom: int) -> UInt8:
    """Every pixel of an image (y, x) or (y, x, 3) as ``zoom`` × ``zoom`` pixels."""
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def upsample(image: Float64) -> Float64:
    """A NISP image (66, 66) on the pixels of the VIS cutout (200, 200): same centre, surface brightness kept, centroids exact.

    NISP pixel ``i`` covers the VIS pixels ``3 i + 1`` to ``3 i + 3``: 66 x 0.3" is 0.2" less than 200 x 0.1", so the outermost
    ring of VIS pixels lies outside NISP and repeats its edge. Cubic convolution (Keys 1981, a = -1/2).
    """
    matrix = _upsampling_matrix()
    return np.asarray(matrix @ image @ matrix.T)


def _significance(values: Float32, sky: NDArray[np.float32], sigma: NDArray[np.float32]) -> Float64:
    return np.asarray((values.astype(np.float64) - sky) / sigma)


def _vis_brightness(vis: Float32, sky: Float32, sigma: Float32, stretch: Stretch) -> Float64:
    return stretch.brightness(_significance(vis, sky[0], sigma[0]), VIS_PIXEL_SCALE_ARCSEC)


def _grey(brightness: Float64) -> UInt8:
    return _hatched(np.repeat(brightness[..., None], 3, axis=-1), ~np.isfinite(brightness))[..., 0]


def _saturated(colour: Float64, saturation: float) -> Float64:
    """``colour`` (y, x, 3) moved away from its own grey, or towards it."""
    if saturation == 1.0:
        return colour
    grey = (colour @ LUMA)[..., None]
    # No channel below a tenth of the grey: light that is all of one colour has no brightness to be scaled to.
    return np.asarray(np.maximum(grey + saturation * (colour - grey), 0.1 * grey))


def _at_brightness(colour: Float64, brightness: Float64) -> Float64:
    """Scale ``colour`` (y, x, 3) to the luma ``brightness`` (y, x); what would exceed 1 is mixed with grey, luma kept."""
    brightness = brightness[..., None]
    scaled = colour * (brightness / (colour @ LUMA)[..., None])
    peak = scaled.max(axis=-1, keepdims=True)
    saturation = np.where(peak > 1.0, (1.0 - brightness) / np.maximum(peak - brightness, 1e-12), 1.0)
    return np.asarray(brightness + (scaled - brightness) * np.clip(saturation, 0.0, 1.0))


def _hatched(image: Float64, missing: NDArray[np.bool_]) -> UInt8:
    """``image`` (y, x, 3) in [0, 1] as 8 bits, diagonal stripes where ``missing`` (y, x)."""
    pixels = np.rint(np.nan_to_num(image) * 255.0).astype(np.uint8)
    if not missing.any():
        return pixels
    y, x = np.indices(missing.shape)
    period = max(4, HATCH_PERIOD * missing.shape[0] // VIS_CUTOUT_PIXELS)
    stripes = np.where((x + y) % period < period // 2, HATCH_LIGHT, HATCH_DARK)
    return np.where(missing[..., None], stripes[..., None], pixels).astype(np.uint8)


def _match_psf(vis: Float64) -> Float64:
    """VIS (200, 200) smoothed to the resolution of NISP; weights of missing pixels go to their neighbours."""
    good = np.isfinite(vis)
    light, weight = (
        gaussian_filter(values, PSF_MATCH_PIXELS, mode="constant")
        for values in (np.where(good, vis, 0.0), good.astype(np.float64))
    )
    return np.asarray(light / np.maximum(weight, 1e-12))


def _nisp_coordinate() -> Float64:
    """Position of every VIS pixel of the cutout in NISP pixels, (200,)."""
    scale = NISP_PIXEL_SCALE_ARCSEC / VIS_PIXEL_SCALE_ARCSEC
    centred = np.arange(VIS_CUTOUT_PIXELS) - (VIS_CUTOUT_PIXELS - 1) / 2
    return np.asarray(centred / scale + (NISP_CUTOUT_PIXELS - 1) / 2)


def _nearest_nisp_pixel() -> NDArray[np.intp]:
    return np.asarray(np.clip(np.rint(_nisp_coordinate()), 0, NISP_CUTOUT_PIXELS - 1), dtype=np.intp)


@cache
def _upsampling_matrix() -> Float64:
    coordinate = _nisp_coordinate()
    first = np.floor(coordinate).astype(int) - 1
    matrix = np.zeros((VIS_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS))
    for tap in range(4):
        distance = np.abs(coordinate - (first + tap))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1.0
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4.0 * distance + 2.0
        weight = np.where(distance <= 1.0, near, np.where(distance < 2.0, far, 0.0))
        np.add.at(matrix, (np.arange(VIS_CUTOUT_PIXELS), np.clip(first + tap, 0, NISP_CUTOUT_PIXELS - 1)), weight)
    return matrix
