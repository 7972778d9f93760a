"""One strip of a tile's mosaic as the telescope sees it: image, RMS and FLAG, band after band.

In: the components near the strip, the pixels' grid, the tile's :class:`TileTelescope`. Out: per band three arrays of the
strip's pixels. Noise has a seed a row, and all maps are functions of the position, so that strips join without a seam.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.mosaics import flags
from scanner.simulation.mosaics.tile_geometry import Grid
from scanner.simulation.mosaics.tile_telescope import REACH_ARCSEC, Marks, TileTelescope, tile_generator
from scanner.simulation.telescope import noise, photometry
from scanner.simulation.telescope.artefacts import ONE_SIGMA, artefact_light
from scanner.simulation.telescope.psf import convolve, stack
from scanner.simulation.telescope.stars import SATURATION, add_bleeding, add_star

#: Pixels around a strip that are drawn and thrown away: the PSF's reach, and where the periodic convolution wraps.
_MARGIN = 33
_SCALE = VIS_PIXEL_SCALE_ARCSEC
_EXPOSURES = 4


@dataclass(frozen=True)
class Observed:
    """A strip of one band, (rows, nx) each: float32, float32, int32."""

    band: Band
    image: Float32
    rms: Float32
    flag: NDArray[np.int32]


def observe_strip(
    components: Sequence[Component], grid: Grid, bands: Sequence[Band], rows: tuple[int, int], telescope: TileTelescope
) -> Iterator[Observed]:
    """Draw rows ``rows[0]`` to ``rows[1]`` of a mosaic.

    Parameters
    ----------
    components
        In arcsec from the centre of the grid's sub-pixel (0, 0); all that can reach the strip.
    grid, bands
        The mosaic's pixels, and which bands lie on them.
    rows
        First row and the one after the last.
    telescope
        Of the tile.
    """
    (first, last), samples = rows, grid.samples
    fine_first, fine_rows, nx = first * samples, (last - first) * samples, grid.shape[1] * samples
    ny_canvas = scipy.fft.next_fast_len(fine_rows + 2 * _MARGIN, real=True)
    nx_canvas = scipy.fft.next_fast_len(nx + 2 * _MARGIN, real=True)
    raster = scene.Raster(nx_canvas, ny_canvas, -_MARGIN * _SCALE, (fine_first - _MARGIN) * _SCALE, _SCALE)
    light = scene.render([components], raster, bands)[0]
    stars = [component for component in components if component.kind is Kind.POINT]
    for channel, band in enumerate(bands):
        psf = stack([telescope.psfs[band]])
        canvas = convolve(light[channel], psf.transfer(ny_canvas, nx_canvas)[0])
        for star in stars:
            x, y = star.x / _SCALE + _MARGIN, star.y / _SCALE - fine_first + _MARGIN
            magnitude = photometry.magnitude(star.flux[0], "VIS")
            add_star(canvas[None], x, y, [star.flux[BANDS.index(band)]], psf, magnitude, telescope.roll)
            if band == "VIS":
                add_bleeding(canvas, x, y, star.flux[0], telescope.psfs[band], telescope.roll + 0.5 * math.pi)
        flag = np.zeros((last - first, grid.shape[1]), dtype=np.int32)
        _add_artefacts(canvas, flag, band, fine_first, samples, telescope)
        yield _detected(canvas, flag, band, grid, rows, telescope)


def _add_artefacts(
    canvas: Float32, flag: NDArray[np.int32], band: Band, fine_first: int, samples: int, telescope: TileTelescope
) -> None:
    channel = BANDS.index(band)
    ny, nx = (length * samples for length in flag.shape)
    across, up = (0.0, nx * _SCALE), (fine_first * _SCALE, (fine_first + ny) * _SCALE)
    for artefact in telescope.artefacts(band, across, up, REACH_ARCSEC):
        x, y = artefact.x / _SCALE + _MARGIN, artefact.y / _SCALE - fine_first + _MARGIN
        found = artefact_light((canvas.shape[0], canvas.shape[1]), x, y, artefact, channel)
        if found is None:
            continue
        rows, columns, light = found
        canvas[rows, columns] += light
        if artefact.kind in flags.OF_ARTEFACT:
            y_hit, x_hit = np.nonzero(np.abs(light) > ONE_SIGMA[channel])
            y_hit, x_hit = (y_hit + rows.start - _MARGIN) // samples, (x_hit + columns.start - _MARGIN) // samples
            inside = (y_hit >= 0) & (y_hit < flag.shape[0]) & (x_hit >= 0) & (x_hit < flag.shape[1])
            flag[y_hit[inside], x_hit[inside]] |= flags.OF_ARTEFACT[artefact.kind]


def _detected(
    canvas: Float32, flag: NDArray[np.int32], band: Band, grid: Grid, rows: tuple[int, int], telescope: TileTelescope
) -> Observed:
    """Background, saturation, noise and lost pixels."""
    (first, last), samples = rows, grid.samples
    fine_rows, nx = (last - first) * samples, grid.shape[1]
    # VIS: one pixel more on each side, since correlated noise needs its neighbours.
    wide = 1 if band == "VIS" else 0
    low = _MARGIN - wide
    image = canvas[low : _MARGIN + fine_rows + wide, low : _MARGIN + nx * samples + wide]
    if samples > 1:
        image = noise.bin3(image)
    x, y = _centres(-wide, nx + wide, samples), _centres(first - wide, last + wide, samples)
    image = image + np.float32(samples**2) * telescope.background(band, x, y)
    limit = np.float32(SATURATION[band] / (9.0 if band != "VIS" and samples == 1 else 1.0))
    exposures = telescope.depth(band, x, y)
    inside = slice(wide, wide + last - first), slice(wide, wide + nx)
    flag[exposures[inside] < _EXPOSURES] |= flags.FEWER_EXPOSURES
    flag[image[inside] >= limit] |= flags.SATURATED
    image = np.minimum(image, limit)
    for marks in telescope.marks(band, (x[0], x[-1]), (y[0], y[-1])):
        _lose(exposures, marks, x, y)
    marked = exposures[inside] < telescope.depth(band, x[inside[1]], y[inside[0]])
    flag[marked] |= flags.COSMIC_RAY if band == "VIS" else flags.BAD_PIXEL
    level = np.float32(telescope.level) * np.sqrt(_EXPOSURES / np.maximum(exposures, 1.0))
    fine_first, number, seed = first * samples, telescope.number, telescope.seed
    if band == "VIS":
        white = _white_rows(seed, number, band, fine_first - 1, fine_first + fine_rows + 1, nx + 2)
        pixels = image[inside] + noise.vis_noise(white, image, level, telescope.tails)
        rms = noise.rms(image, band, level)[inside]
    elif samples == 1:
        rms = noise.rms(image, band, level)
        pixels = image + rms * _resampled_white(telescope, band, fine_first, fine_first + fine_rows, nx)
    else:
        rms = noise.native_rms(image, band, level)
        pixels = image + rms * _white_rows(seed, number, band, first, last, nx)
    lost = exposures[inside] < 1.0
    flag[lost] |= flags.NO_DATA
    return Observed(band, np.where(lost, np.float32(0.0), pixels), np.where(lost, np.float32(flags.NO_DATA_RMS), rms), flag)


def _centres(first: int, last: int, samples: int) -> Float64:
    """Centres of pixels ``first`` to ``last``, arcsec from the centre of sub-pixel 0."""
    return np.asarray(_SCALE * (samples * np.arange(first, last) + 0.5 * (samples - 1)), dtype=np.float64)


def _lose(exposures: Float32, marks: Marks, x: Float64, y: Float64) -> None:
    """Take the exposures away that marks have lost."""
    step = x[1] - x[0]
    reach = 0.5 * marks.length + marks.half_width
    left, right = (np.round((marks.x + side * reach - x[0]) / step).astype(np.int64) for side in (-1, 1))
    bottom, top = (np.round((marks.y + side * reach - y[0]) / step).astype(np.int64) for side in (-1, 1))
    near = np.flatnonzero((right >= 0) & (left < len(x)) & (top >= 0) & (bottom < len(y)))
    for k in near.tolist():
        columns, rows = slice(max(0, left[k]), right[k] + 1), slice(max(0, bottom[k]), top[k] + 1)
        dx, dy = x[columns][None, :] - marks.x[k], y[rows][:, None] - marks.y[k]
        c, s = math.cos(marks.angle[k]), math.sin(marks.angle[k])
        beyond = np.maximum(np.abs(c * dx + s * dy) - 0.5 * marks.length[k], 0.0)
        hit = np.hypot(beyond, c * dy - s * dx) <= marks.half_width[k]
        part = exposures[rows, columns]
        part[hit] = np.maximum(part[hit] - (_EXPOSURES - marks.exposures[k]), 0.0)


def _white_rows(seed: int, number: int, name: str, first: int, last: int, nx: int) -> Float32:
    """Rows ``first`` to ``last`` of a field of unit white noise: each row has its own seed, so strips join without a seam."""
    rows = np.empty((last - first, nx), dtype=np.float32)
    for row, target in zip(range(first, last), rows, strict=True):
        # +8: rows just below the image are asked for too, and seeds cannot be negative.
        tile_generator(seed, number, f"noise {name} {row + 8}").standard_normal(out=target, dtype=np.float32)
    return rows


def _resampled_white(telescope: TileTelescope, band: Band, first: int, last: int, nx: int) -> Any:
    """Unit native noise as MER's linear resampling leaves it on 0.1" pixels, per unit of the RMS map (RMS of 0.3" / 3)."""
    phase_y, phase_x = telescope.phases[band]
    low, high = math.floor((first - 1) / 3.0), math.ceil((last + 2) / 3.0) + 3
    white = _white_rows(telescope.seed, telescope.number, band, low, high, nx // 3 + 5)
    own = _white_rows(telescope.seed, telescope.number, f"{band} fine", first, last, nx)
    return noise.resampled(white, np.arange(first, last) / 3.0 + phase_y - low, np.arange(nx) / 3.0 + phase_x, own)
