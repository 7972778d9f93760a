"""An exposure: a scene seen through the PSF, to some depth, with noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.random import Generator

from scanner.records import BANDS, NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.artefacts import (
    ONE_SIGMA,
    SATURATION,
    Artefact,
    Star,
    add_artefact,
    add_bleeding,
    add_star,
    draw_artefacts,
    draw_on_object,
)
from scanner.simulation.telescope.psf import Psf, convolve, draw_psf, gaussian_psf, stack, transfers

#: What background subtraction leaves, σ of the sky in the cutouts' pixels: scatter of its mean, and of its change over 10".
_LEFT_SIGMA = {"VIS": 0.03, "Y": 0.2, "J": 0.2, "H": 0.2}
#: ... and its mean: subtraction takes the wings of the field's galaxies for background.
_LEFT_MEAN_SIGMA = {"VIS": -0.07, "Y": 0.0, "J": 0.0, "H": 0.0}
_SLOPE_PIXELS = 100.0
#: Share of cutouts across which the number of dithered exposures changes, and what is left of four.
_SHALLOW_FRACTION = 0.15
_EXPOSURES, _EXPOSURES_LEFT = 4, (3, 3, 2)


@dataclass(frozen=True)
class Background:
    """What background subtraction left in one band: a plane. Image units per 0.1" pixel; slopes per pixel along x and y."""

    level: float
    slope_x: float
    slope_y: float


@dataclass(frozen=True)
class Shallow:
    """A half-plane that fewer exposures cover.

    Beyond the line through ``(x, y)`` (arcsec from the centre), on the side that ``angle`` (radians) points to, the sky's noise
    is ``factor`` times larger.
    """

    x: float
    y: float
    angle: float
    factor: float


def draw_background(rng: Generator, factor: float = 1.0) -> tuple[Background, ...]:
    """One plane a band, VIS, Y, J, H; ``factor``: on all of them."""
    drawn = []
    for band, one_sigma in zip(BANDS, ONE_SIGMA, strict=True):
        level, x, y = (float(value) * factor * _LEFT_SIGMA[band] * one_sigma for value in rng.standard_normal(3))
        drawn.append(Background(level + _LEFT_MEAN_SIGMA[band] * one_sigma, x / _SLOPE_PIXELS, y / _SLOPE_PIXELS))
    return tuple(drawn)


def draw_shallow(rng: Generator, roll: float) -> Shallow | None:
    """The edge of a detector across the cutout, parallel to the detector's rows or columns; for most cutouts none."""
    x, y = (float(value) for value in rng.uniform(-10.0, 10.0, 2))
    angle, left = roll + 0.5 * math.pi * int(rng.integers(4)), int(rng.choice(_EXPOSURES_LEFT))
    return Shallow(x, y, angle, math.sqrt(_EXPOSURES / left)) if rng.random() < _SHALLOW_FRACTION else None


def planes(backgrounds: Sequence[Sequence[Background]], pixels: int, samples: int, like: Any) -> Any:
    """Backgrounds of N cutouts in B bands, (N, B, pixels, pixels) float32, in pixels of ``samples`` 0.1" pixels a side."""
    steps = samples * (np.arange(pixels) - 0.5 * (pixels - 1))
    # A pixel of several 0.1" pixels holds their sum.
    drawn = np.array([[(item.level, item.slope_y, item.slope_x) for item in bands] for bands in backgrounds]) * samples**2
    rows = (drawn[..., :1] + drawn[..., 1:2] * steps).astype(np.float32)
    columns = (drawn[..., 2:] * steps).astype(np.float32)
    xp = array_namespace(like)
    up, right = (xp.asarray(values, device=device(like)) for values in (rows, columns))
    return up[..., :, None] + right[..., None, :]


def noise_factors(shallows: Sequence[Shallow | None], pixels: int, samples: int, like: Any) -> Any:
    """Factors on the sky's noise of N cutouts, (N, pixels, pixels) float32, or (N, 1, 1) where all are even."""
    even = all(item is None for item in shallows)
    factors = np.ones((len(shallows), *((1, 1) if even else (pixels, pixels))), dtype=np.float32)
    steps = samples * VIS_PIXEL_SCALE_ARCSEC * (np.arange(pixels) - 0.5 * (pixels - 1))
    for factor, item in zip(factors, shallows, strict=True):
        if item is not None:
            c, s = math.cos(item.angle), math.sin(item.angle)
            factor[c * (steps - item.x)[None, :] + s * (steps - item.y)[:, None] > 0.0] = item.factor
    return array_namespace(like).asarray(factors, device=device(like))


#: 2" around the cutout: objects there reach in, and the periodic convolution wraps out there.
MARGIN_PIXELS = 20
CANVAS_PIXELS = VIS_CUTOUT_PIXELS + 2 * MARGIN_PIXELS
_NISP_FINE = 3 * NISP_CUTOUT_PIXELS
_NISP_SATURATION = SATURATION["Y"]  # of all three
#: Other telescopes and reductions: FWHM of VIS (arcsec) and factors on the widths of NISP's PSFs, Euclid-like or, for a share,
#: as sharp as HST's and JWST's infrared ones; exposure times in units of Euclid's; neighbours' weights in correlated VIS noise;
#: factor on what background subtraction leaves.
VIS_FWHM_RANGE, _EUCLID_FWHM = (0.13, 0.25), 0.167
_NISP_WIDTHS, _SHARP_NISP_WIDTHS, _SHARP_SHARE = (0.85, 1.2), (0.35, 0.8), 0.25
DEPTH_RANGE, _KERNEL_SIDES, _BACKGROUND_FACTORS = (0.4, 5.0), (0.0, 0.6), (0.5, 6.0)
#: Bands that are missing together (as indices of VIS, Y, J, H), where some are: one of NISP, two, all of NISP, VIS.
_DROPPED = ((1,), (2,), (3,), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3), (1, 2, 3), (0,))


@dataclass(frozen=True)
class Exposure:
    """How one cutout is observed.

    ``psfs``: VIS, Y, J, H. ``roll``: their orientation and that of the detectors' rows, radians. ``level``: factor on the
    sky's noise. ``tails``: of the VIS noise, as :func:`~scanner.simulation.telescope.noise.vis_noise` takes them. ``native``:
    NISP has its own 0.3" pixels with white noise; otherwise it was resampled as MER does, and ``phases`` (Y, J, H; y, x) say
    where the 0.1" pixels lay on the 0.3" ones. ``background``: VIS, Y, J, H. ``shallow``: of VIS and of NISP, None where all
    pixels are equally deep. ``artefacts``: those that happened to be there, and then ``n_on_object`` that were put on the
    object. ``depth``: exposure time in units of Euclid's. ``vis_kernel``: how VIS noise is correlated, as
    :func:`~scanner.simulation.telescope.noise.vis_kernel` has it. ``missing``: bands without any pixel, as indices.
    ``of_nisp``: level and depth of NISP, where they are not those of VIS.
    """

    psfs: tuple[Psf, ...]
    roll: float
    level: float
    tails: float
    native: bool
    phases: tuple[tuple[float, float], ...]
    background: tuple[Background, ...]
    shallow: tuple[Shallow | None, Shallow | None]
    artefacts: tuple[Artefact, ...]
    n_on_object: int
    depth: float = 1.0
    vis_kernel: tuple[float, float] = noise.vis_kernel()
    missing: tuple[int, ...] = ()
    of_nisp: tuple[float, float] | None = None

    @property
    def nisp_level(self) -> float:
        """Factor on the noise of NISP's sky."""
        return self.level if self.of_nisp is None else self.of_nisp[0]

    @property
    def nisp_depth(self) -> float:
        """Exposure time of NISP in units of Euclid's."""
        return self.depth if self.of_nisp is None else self.of_nisp[1]


#: How the paper's compound lenses are observed (section 2.2, and the authors' notebook where the paper has no number): FWHM of
#: all PSFs, exposures, magnitudes of the sky per square arcsecond and of one count a second; pixel scale (arcsec), exposure
#: time (s) and read noise of VIS and of NISP.
PAPER_FWHM_ARCSEC, PAPER_EXPOSURES, PAPER_SKY, PAPER_ZERO_POINT = 0.16, 3, 22.35, 24.0
PAPER_VIS, PAPER_NISP = (0.1, 1800.0, 4.2), (0.3, 264.0, 10.0)


def paper_noise(scale_arcsec: float, seconds: float, read_noise: float) -> tuple[float, float]:
    """Variance of the sky in a pixel and its slope with the flux, counts² s⁻² and counts s⁻¹, as lenstronomy has them."""
    sky = 10.0 ** (0.4 * (PAPER_ZERO_POINT - PAPER_SKY)) * scale_arcsec**2
    return (read_noise**2 + seconds * sky) / (seconds**2 * PAPER_EXPOSURES), 1.0 / (seconds * PAPER_EXPOSURES)


def paper_exposure() -> Exposure:
    """Gaussian PSFs and white noise of 1800 s in VIS and 264 s in NISP; nothing else. Set for J: Y is 19% and H 4% noisier."""
    units = {band: 10.0 ** (0.4 * (noise.ZERO_POINT[band] - PAPER_ZERO_POINT)) for band in ("VIS", "J")}
    (vis_sky, vis_slope), (nisp_sky, nisp_slope) = (paper_noise(*camera) for camera in (PAPER_VIS, PAPER_NISP))
    kernel = noise.vis_kernel(0.0)
    # Exposure time scales the photons' noise, the level the sky's on top of that.
    vis_depth = noise.VARIANCE_SLOPE["VIS"] * kernel[1] ** 2 / (vis_slope * units["VIS"])
    vis_level = math.sqrt(vis_sky * vis_depth) * units["VIS"] / (noise.RMS["VIS"] * kernel[1])
    nisp_depth = noise.VARIANCE_SLOPE["J"] / (nisp_slope * units["J"])
    nisp_level = math.sqrt(nisp_sky * nisp_depth) * units["J"] / (noise.NATIVE_NOISE_RATIO * noise.SKY_SIGMA["J"])
    return Exposure(
        psfs=(gaussian_psf(PAPER_FWHM_ARCSEC),) * len(BANDS),
        roll=0.0,
        level=vis_level,
        tails=0.0,
        native=True,
        phases=((0.0, 0.0),) * len(NISP_BANDS),
        background=(Background(0.0, 0.0, 0.0),) * len(BANDS),
        shallow=(None, None),
        artefacts=(),
        n_on_object=0,
        depth=vis_depth,
        vis_kernel=kernel,
        of_nisp=(nisp_level, nisp_depth),
    )


def draw_exposure(
    rng: Generator,
    native_fraction: float,
    artefact_on_object: bool = False,
    at: tuple[float, float] = (0.0, 0.0),
    *,
    variety: float = 0.0,
    dropout: float = 0.0,
) -> Exposure:
    """Draw a telescope's state: any orientation, PSF widths ±4%, sky level ±20%, background, artefacts.

    Parameters
    ----------
    rng
        Random numbers of the object.
    native_fraction
        Share of exposures with white noise on native 0.3" NISP pixels.
    artefact_on_object
        Add one or two conspicuous artefacts near ``at``.
    at
        Place of the object, arcsec from the centre; used for nothing else.
    variety
        Share of exposures of other telescopes and reductions: other PSF widths, depths, noise correlation and backgrounds.
    dropout
        Share of exposures in which bands are missing.
    """
    roll, width = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(0.96, 1.04))
    widths, depth, kernel, unclean = (width,) * len(BANDS), 1.0, noise.vis_kernel(), 1.0
    if variety and rng.random() < variety:
        infrared = float(rng.uniform(*(_SHARP_NISP_WIDTHS if rng.random() < _SHARP_SHARE else _NISP_WIDTHS)))
        widths = (float(rng.uniform(*VIS_FWHM_RANGE)) / _EUCLID_FWHM, infrared, infrared, infrared)
        depth, unclean = _log_uniform(rng, DEPTH_RANGE), _log_uniform(rng, _BACKGROUND_FACTORS)
        kernel = noise.vis_kernel(float(rng.uniform(*_KERNEL_SIDES)))
    missing = _DROPPED[int(rng.integers(len(_DROPPED)))] if dropout and rng.random() < dropout else ()
    psfs = tuple(draw_psf(rng, band, roll, factor) for band, factor in zip(BANDS, widths, strict=True))
    # Sky noise goes with the square root of the sky's level.
    level = math.sqrt(rng.uniform(0.8, 1.2))
    tails = float(rng.uniform(*noise.VIS_TAILS))
    native = bool(rng.random() < native_fraction)
    phases = tuple((float(y), float(x)) for y, x in rng.uniform(0.0, 1.0, (len(NISP_BANDS), 2)))
    background = draw_background(rng, unclean)
    shallow = draw_shallow(rng, roll), draw_shallow(rng, roll)
    artefacts = draw_artefacts(rng, roll)
    forced = draw_on_object(rng, roll, *at) if artefact_on_object else ()
    return Exposure(
        psfs,
        roll,
        level,
        tails,
        native,
        phases,
        background,
        shallow,
        artefacts + forced,
        len(forced),
        depth,
        kernel,
        missing,
    )


def _log_uniform(rng: Generator, limits: tuple[float, float]) -> float:
    return float(limits[0] * (limits[1] / limits[0]) ** rng.random())


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
    if not len(exposures):
        return light
    psfs = stack([stack([exposure.psfs[channel] for channel in channels]) for exposure in exposures])
    if is_torch_array(light):
        return convolve(light, psfs.transfer(ny, nx, light))
    out = np.empty_like(light)
    # Image by image: what belongs to one stays in the cache.
    for image, target, transfer in zip(light, out, transfers(psfs, ny, nx), strict=True):
        target[...] = convolve(image, transfer)
    return out


def add_stars(canvases: Any, exposures: Sequence[Exposure], stars: Sequence[Sequence[Star]]) -> None:
    """Add stars to blurred canvases (N, 4, 240, 240), in place: PSFs, haloes, spikes and, in VIS, the trails of saturated ones.

    Parameters
    ----------
    canvases
        float32, numpy or torch.
    exposures
        One an image.
    stars
        The stars of each image.
    """
    for row, exposure in enumerate(exposures):
        if stars[row]:
            psfs = stack(exposure.psfs)
            for star in stars[row]:
                x, y = _pixel(star)
                add_star(canvases[row], x, y, star.flux, psfs, noise.magnitude(star.flux[0], "VIS"), exposure.roll)
                add_bleeding(canvases[row, 0], x, y, star.flux[0], exposure.psfs[0], exposure.roll + 0.5 * math.pi)


def expose(canvases: Any, exposures: Sequence[Exposure], generators: Any) -> tuple[Any, Any]:
    """Add background, artefacts, saturation and noise; crop and bin.

    Parameters
    ----------
    canvases
        (N, 4, 240, 240) float32: noiseless light after :func:`blur` and :func:`add_stars`. Overwritten.
    exposures
        One an image.
    generators
        numpy: one generator an image, for its noise, so that an image is the same, bit for bit, in any batch. torch: a
        ``torch.Generator`` on the canvases' device.

    Returns
    -------
    tuple
        VIS (N, 200, 200) and NISP (N, 3, 66, 66) float32, image units; NaN where a band is missing.
    """
    for row, exposure in enumerate(exposures):
        for artefact in exposure.artefacts:
            for channel in artefact.channels:
                add_artefact(canvases[row, channel], *_pixel(artefact), artefact, channel)
    n, side = len(exposures), NISP_CUTOUT_PIXELS + 2
    if is_torch_array(canvases):
        import torch

        def white(*shape: int) -> Any:
            return torch.randn(shape, generator=generators, device=canvases.device, dtype=torch.float32)

        wide = VIS_CUTOUT_PIXELS + 2
        return _without_missing(
            *_observe(canvases, exposures, white(n, wide, wide), white(n, len(NISP_BANDS), side, side)), exposures
        )
    vis = np.empty((n, VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((n, len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    for row, rng in enumerate(generators):
        one = slice(row, row + 1)
        white_vis = rng.standard_normal((1, VIS_CUTOUT_PIXELS + 2, VIS_CUTOUT_PIXELS + 2), dtype=np.float32)
        white_nisp = rng.standard_normal((1, len(NISP_BANDS), side, side), dtype=np.float32)
        vis[one], nisp[one] = _observe(canvases[one], exposures[one], white_vis, white_nisp)
    return _without_missing(vis, nisp, exposures)


def _without_missing(vis: Any, nisp: Any, exposures: Sequence[Exposure]) -> tuple[Any, Any]:
    """The images with NaN in the bands that are missing, in place."""
    for row, exposure in enumerate(exposures):
        for channel in exposure.missing:
            (vis[row] if channel == 0 else nisp[row, channel - 1])[...] = math.nan
    return vis, nisp


def _pixel(item: Star | Artefact) -> tuple[float, float]:
    middle = 0.5 * (CANVAS_PIXELS - 1)
    return item.x / VIS_PIXEL_SCALE_ARCSEC + middle, item.y / VIS_PIXEL_SCALE_ARCSEC + middle


def _observe(canvases: Any, exposures: Sequence[Exposure], white_vis: Any, white_nisp: Any) -> tuple[Any, Any]:
    """Background, saturation and noise of a batch. ``white_vis`` (N, 202, 202), ``white_nisp`` (N, 3, 68, 68): unit noise."""
    xp = array_namespace(canvases)

    def column(values: Any) -> Any:
        return xp.asarray(np.asarray(values, dtype=np.float32), device=device(canvases))[..., None, None]

    wide = VIS_CUTOUT_PIXELS + 2
    level = column([item.level for item in exposures]) * noise_factors(
        [item.shallow[0] for item in exposures], wide, 1, canvases
    )
    inside = slice(MARGIN_PIXELS - 1, MARGIN_PIXELS - 1 + wide)
    image = canvases[:, 0, inside, inside] + planes([item.background[:1] for item in exposures], wide, 1, canvases)[:, 0]
    image = xp.clip(image, None, SATURATION["VIS"])
    # Sky and photons alike: the noise of a mean of exposures falls as the root of their time.
    shorter = column([item.depth**-0.5 for item in exposures])
    kernel = column([item.vis_kernel[0] for item in exposures]), column([item.vis_kernel[1] for item in exposures])
    grain = noise.vis_noise(white_vis, image, level, column([item.tails for item in exposures]), kernel)
    vis = image[:, 1:-1, 1:-1] + shorter * grain
    first = (CANVAS_PIXELS - _NISP_FINE) // 2
    inside = slice(first, first + _NISP_FINE)
    binned = noise.bin3(canvases[:, 1:, inside, inside])
    binned = binned + planes([item.background[1:] for item in exposures], NISP_CUTOUT_PIXELS, 3, canvases)
    binned = xp.clip(binned, None, _NISP_SATURATION)
    taps = [[[noise.binned_taps(phase, item.native) for phase in pair] for pair in item.phases] for item in exposures]
    variances = [[noise.variance(band, item.nisp_level, item.native) for band in NISP_BANDS] for item in exposures]
    # RMS maps count in 0.1" pixels, which hold a ninth of the flux.
    slopes = [
        [slope / (1.0 if item.native else 9.0) for _, slope in row] for row, item in zip(variances, exposures, strict=True)
    ]
    uneven = noise_factors([item.shallow[1] for item in exposures], NISP_CUTOUT_PIXELS, 3, canvases)[:, None] ** 2
    sky = column([[value for value, _ in row] for row in variances]) * uneven
    grain = noise.binned_scatter(white_nisp, column(taps)) * noise.deviation(binned, sky, column(slopes))
    shorter = column([item.nisp_depth**-0.5 for item in exposures])
    return vis, binned + shorter[:, None] * grain
