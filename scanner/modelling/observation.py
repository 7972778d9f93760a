"""The pixels of one candidate as a fit sees them: a window of VIS and NISP, their noise, their PSFs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from scanner.config import RunConfig
from scanner.cutouts.quality import SIGMA_PER_MAD
from scanner.errors import ContentError
from scanner.modelling.lens_model import PsfSource
from scanner.records import (
    BANDS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    Tile,
)
from scanner.simulation.injection.measured import measure_objects, measured_width, read_psf, stars_among
from scanner.simulation.telescope.noise import bin3
from scanner.simulation.telescope.psf import Psf, mean_psf
from scanner.sky.local_files import ScratchFolder, fetched_file, remote_files, temporary_folder
from scanner.sky.tile_images import open_tile
from scanner.survey.objects import targets_of

#: Side of the window that is fitted, in 0.1" pixels: transfer functions are on the grid of its ``rfft2``.
SIDE = 90
#: VIS magnitudes of objects that may be stars neither saturated nor faint, and how many of these are looked at.
_STAR_MAGNITUDES, _MOST_OBJECTS = (18.0, 21.5), 200


@dataclass(frozen=True)
class BandPsf:
    """A band's PSF: ``transfer``, in Fourier space, (90, 46) complex64, without the pixel; ``source``: where it is from."""

    transfer: Any
    source: PsfSource


@cache
def mean_of_euclid(band: Band, width: float = 1.0, source: PsfSource = "mean") -> BandPsf:
    """The mean PSF of a Euclid band, ``width`` times as wide, at all orientations of the telescope, which no cutout tells."""
    psf = mean_psf(band)
    turned = []
    for angle in np.arange(12) * (2.0 * np.pi / 36.0):
        c, s = np.cos(angle), np.sin(angle)
        one = Psf(
            psf.weight,
            width * psf.sigma_major,
            width * psf.sigma_minor,
            psf.angle + angle,
            width * (c * psf.dx - s * psf.dy),
            width * (s * psf.dx + c * psf.dy),
        )
        turned.append(one.transfer(SIDE, SIDE))
    return BandPsf(np.mean(turned, axis=0).astype(np.complex64), source)


def tile_psfs(tile: Tile, rows: pa.Table, config: RunConfig) -> Mapping[Band, BandPsf]:
    """What is known of the PSFs of a tile.

    Stars are only looked for where the mosaics are on this machine: to fetch gigabytes is not worth it.

    Parameters
    ----------
    tile
        As the tile list has it.
    rows
        Its objects, with the columns of :mod:`scanner.catalogue.columns`.
    config
        As the tile was scanned with.

    Returns
    -------
    Mapping
        PSFs by band; those that are missing are Euclid's mean ones.

    Raises
    ------
    TileError
        An image of a PSF cannot be read, or holds something else.
    UnavailableError
        A store does not answer.
    """
    named = {band: files.psf for band, files in tile.bands.items() if files.psf is not None}
    found: dict[Band, BandPsf] = {}
    with temporary_folder(config.engine.scratch) as folder:
        scratch = ScratchFolder(folder)
        try:
            for band, reference in named.items():
                psf = read_psf(fetched_file(reference, folder, config.storage), band, scratch)
                found[band] = BandPsf(psf.transfer(SIDE, SIDE), "image")
        finally:
            scratch.close()
        if len(named) < len(tile.bands) and not remote_files(tile):
            widths = _stellar_widths(tile, rows, config, folder)
            found |= {band: mean_of_euclid(band, width, "stars") for band, width in widths.items() if band not in named}
    return found


def _stellar_widths(tile: Tile, rows: pa.Table, config: RunConfig, scratch: Path) -> dict[Band, float]:
    """How many times as wide as Euclid's mean PSF the tile's stars are, by band; none where there are too few stars."""
    magnitude = rows["magnitude_vis"].to_numpy()
    bright, faint = _STAR_MAGNITUDES
    place = np.flatnonzero((magnitude > bright) & (magnitude < faint))
    place = place[np.argsort(magnitude[place], kind="stable")][:_MOST_OBJECTS]
    if not len(place):
        return {}
    with open_tile(tile, config.cutouts, scratch) as images:
        objects = measure_objects(images, targets_of(rows.take(place)))
    stars = stars_among(objects)
    widths = {}
    for number, band in enumerate(BANDS):
        scale = NISP_PIXEL_SCALE_ARCSEC if number else VIS_PIXEL_SCALE_ARCSEC
        width = measured_width(objects.concentration[number][stars], scale, band)
        if width is not None:
            widths[band] = width
    return widths


#: Side of the window in NISP pixels; ``SIDE`` in VIS pixels: 9". Light is drawn on it, and taken as periodic.
NISP_SIDE = SIDE // 3
#: Side of the grid on which NISP is convolved: its PSFs leave nothing of what is finer.
_COARSE = 60
#: Pixels this near the deflector are fitted, arcsec.
FIT_RADIUS = 3.6
#: The window follows the brightest peak so near the cutout's centre, arcsec.
SEARCH_RADIUS = 1.0
#: Noise of photons: the variance is σ² (1 + flux / (σ so many times)), of VIS and of NISP; see ``telescope.noise``.
_SKY_LIGHT = (22.0, 10.0, 10.0, 10.0)
_NISP_STEP = round(NISP_PIXEL_SCALE_ARCSEC / VIS_PIXEL_SCALE_ARCSEC)
_EDGE = (VIS_CUTOUT_PIXELS - _NISP_STEP * NISP_CUTOUT_PIXELS) // 2
#: A band with more bad pixels than this in the window is left out; VIS cannot be.
_MOST_BAD = 0.3


@dataclass(frozen=True)
class Observation:
    """One candidate, ready to be fitted.

    Positions are in arcsec from the cutout's centre, x along the rows and y along the columns. ``x``, ``y``: of the window's
    0.1" pixels, (90, 90) float32. ``bands``: indices of VIS, Y, J, H that have pixels. Of each of them, in this order:
    ``images`` (90, 90) or (30, 30) float32 without sky, ``sigma`` its noise, ``correlation`` how many times the variance of a
    sum of many pixels exceeds the sum of their variances, ``good`` which pixels are fitted, and ``transfers`` (90, 46)
    complex64, PSF and pixel in Fourier space.
    """

    x: Float32
    y: Float32
    bands: tuple[int, ...]
    images: tuple[Float32, ...]
    sigma: tuple[float, ...]
    correlation: tuple[float, ...]
    good: tuple[NDArray[np.bool_], ...]
    transfers: tuple[Any, ...]

    def binned(self, band: int, images: Any) -> Any:
        """(..., 90, 90) images on the pixels of the ``band``-th band: VIS as it is, NISP as sums of 3 by 3."""
        return images if self.bands[band] == 0 else bin3(images)

    def place(self, band: int) -> tuple[slice, slice]:
        """Rows and columns of the ``band``-th band's cutout that the window is."""
        first = [axis[0, 0] / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (VIS_CUTOUT_PIXELS - 1) for axis in (self.y, self.x)]
        scale, side = (1, SIDE) if self.bands[band] == 0 else (_NISP_STEP, NISP_SIDE)
        rows, columns = (round((start - (_EDGE if scale > 1 else 0)) / scale) for start in map(float, first))
        return slice(rows, rows + side), slice(columns, columns + side)

    def seen(self, images: Float32) -> list[Float32]:
        """Light (K, 90, 90), flux per 0.1" pixel, as each band sees it: convolved and binned, without noise."""
        spectra = scipy.fft.rfft2(images)
        coarse = None
        out = []
        for band, transfer in zip(self.bands, self.transfers, strict=True):
            if band == 0:
                out.append(scipy.fft.irfft2(spectra * transfer, s=images.shape[-2:]))
                continue
            if coarse is None:
                coarse = np.concatenate(
                    [spectra[:, : _COARSE // 2, : _COARSE // 2 + 1], spectra[:, -_COARSE // 2 :, : _COARSE // 2 + 1]], axis=1
                )
                coarse *= _binning()
            kept = np.concatenate([transfer[: _COARSE // 2, : _COARSE // 2 + 1], transfer[-_COARSE // 2 :, : _COARSE // 2 + 1]])
            out.append(np.ascontiguousarray(scipy.fft.irfft2(coarse * kept, s=(_COARSE, _COARSE))[:, ::2, ::2]))
        return out

    def psf(self, band: int) -> Float32:
        """The PSF on the band's own pixels, the pixel included, (21, 21), its centre in the middle."""
        point = np.zeros((1, SIDE, SIDE), np.float32)
        middle = SIDE // 2 + 1  # the middle of a NISP pixel
        point[0, middle, middle] = 1.0
        side, centre = (SIDE, middle) if self.bands[band] == 0 else (NISP_SIDE, middle // 3)
        image = self.seen(point)[band].reshape(side, side)[centre - 10 : centre + 11, centre - 10 : centre + 11]
        return np.asarray(image / image.sum(), dtype=np.float32)

    def deviation(self, band: int, light: Float32) -> Float32:
        """Standard deviation of the noise of pixels that hold ``light``, as if they were independent."""
        sigma = self.sigma[band]
        photons = np.clip(light, 0.0, None) / (_SKY_LIGHT[self.bands[band]] * sigma)
        return np.asarray(sigma * np.sqrt(self.correlation[band] * (1.0 + photons)), dtype=np.float32)


@cache
def _binning() -> Any:
    """Sums over 3 by 3 pixels in Fourier space, on a grid of 0.15" whose every second sample is the middle of a NISP pixel."""
    v = np.concatenate([np.arange(_COARSE // 2), np.arange(-_COARSE // 2, 0)]) / SIDE
    u = np.arange(_COARSE // 2 + 1) / SIDE

    def one(f: Float64) -> Any:
        return (1.0 + 2.0 * np.cos(2.0 * np.pi * f)) * np.exp(2j * np.pi * f)

    return (np.outer(one(v), one(u)) * (_COARSE / SIDE) ** 2).astype(np.complex64)


def observe(cutout: CutoutBatch, psfs: Mapping[Band, BandPsf] = MappingProxyType({})) -> Observation:
    """Prepare one cutout.

    Parameters
    ----------
    cutout
        A batch of one.
    psfs
        Those that are known; the mean ones of Euclid stand for others.

    Raises
    ------
    ContentError
        VIS is masked at the object, or has no noise: there is nothing to fit.
    """
    planes = (cutout.vis[0], *cutout.nisp[0])
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    column, row = _window(planes[0] - sky[0], float(sigma[0]))
    steps = (np.arange(SIDE) + _EDGE - 0.5 * (VIS_CUTOUT_PIXELS - 1)) * VIS_PIXEL_SCALE_ARCSEC
    x, y = np.meshgrid(
        (steps + column * NISP_PIXEL_SCALE_ARCSEC).astype(np.float32),
        (steps + row * NISP_PIXEL_SCALE_ARCSEC).astype(np.float32),
    )
    middle_x, middle_y = float(x.mean()), float(y.mean())
    found: list[tuple[Any, ...]] = []
    for band, plane in enumerate(planes):
        first, side, scale = (_EDGE, SIDE, 3) if band == 0 else (0, NISP_SIDE, 1)
        rows, columns = (slice(first + scale * place, first + scale * place + side) for place in (row, column))
        image = np.asarray(plane[rows, columns] - sky[band], dtype=np.float32)
        good = np.isfinite(image)
        usable = np.isfinite(sigma[band]) and sigma[band] > 0.0 and good.mean() > 1.0 - _MOST_BAD
        noise, correlation = _noise(plane) if usable else (0.0, 1.0)
        usable = usable and noise > 0.0
        if not usable:
            if band == 0:
                raise ContentError("VIS is masked here")
            continue
        at_x, at_y = (x, y) if band == 0 else (v.reshape(NISP_SIDE, 3, NISP_SIDE, 3).mean(axis=(1, 3)) for v in (x, y))
        disc = np.hypot(at_x - middle_x, at_y - middle_y) < FIT_RADIUS
        transfer = (psfs.get(BANDS[band]) or mean_of_euclid(BANDS[band])).transfer
        found.append((band, np.where(good, image, 0.0), noise, correlation, good & disc, transfer))
    if np.isnan(cutout.vis[0, 98:102, 98:102]).any():
        raise ContentError("the object's own pixels are masked")
    return Observation(x, y, *(tuple(values) for values in zip(*found, strict=True)))


def _window(vis: Float32, sigma: float) -> tuple[int, int]:
    """First NISP column and row of the window, whose middle is the brightest place near the cutout's."""
    reach = round(SEARCH_RADIUS / VIS_PIXEL_SCALE_ARCSEC) + 3
    middle = VIS_CUTOUT_PIXELS // 2
    part = np.nan_to_num(vis[middle - reach : middle + reach, middle - reach : middle + reach])
    smooth = scipy.ndimage.gaussian_filter(part, 2.0, mode="constant")
    steps = np.arange(-reach, reach) + 0.5
    distance = np.hypot(steps[:, None], steps) * VIS_PIXEL_SCALE_ARCSEC
    # Of two peaks the nearer counts, unless it is several times fainter.
    score = np.where(distance < SEARCH_RADIUS, smooth, -np.inf) * np.exp(-0.5 * (distance / 0.6) ** 2)
    up, right = (int(place) for place in np.unravel_index(int(np.argmax(score)), score.shape))
    if smooth[up, right] < 2.0 * sigma:
        up = right = reach
    first = (NISP_CUTOUT_PIXELS - NISP_SIDE) // 2
    return tuple(first + round((place - reach + 0.5) / 3) for place in (int(right), int(up)))  # type: ignore[return-value]


def _noise(plane: Float32) -> tuple[float, float]:
    """Standard deviation of a band's noise, and how many times that of large apertures exceeds independent pixels' in variance.

    From differences of pixels, so that the wings of galaxies count for nothing: those two apart are independent, neighbours
    correlate by ρ, and the variance of a sum of many is (1 + 2ρ)² times as large.
    """
    spread = [
        float(
            np.nanmedian(
                np.abs(np.concatenate([(plane[:, lag:] - plane[:, :-lag]).ravel(), (plane[lag:] - plane[:-lag]).ravel()]))
            )
        )
        for lag in (1, 2)
    ]
    rho = 1.0 - (spread[0] / spread[1]) ** 2 if spread[1] > 0.0 else 0.0
    return spread[1] * SIGMA_PER_MAD / np.sqrt(2.0), float(np.clip((1.0 + 2.0 * rho) ** 2, 1.0, 3.0))
