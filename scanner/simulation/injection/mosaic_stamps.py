"""Painted light of one object on the pixels of one band of a mosaic, whatever their scale and orientation.

In: a scene about the object's own place, and the mosaics. Out: :class:`Stamp`, light and noise in the band's units. Refused
(:class:`~scanner.errors.TileError`): bands whose pixels are mirror images of VIS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.errors import TileError
from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32
from scanner.simulation.datasets.cutout_scene import CutoutScene
from scanner.simulation.injection.painting import Brush, vis_grain
from scanner.simulation.injection.tile_survey import flux_scale
from scanner.simulation.light import scene as light
from scanner.simulation.telescope import noise, photometry
from scanner.simulation.telescope.exposure import CANVAS_PIXELS
from scanner.simulation.telescope.psf import Psf, convolve, stack
from scanner.simulation.telescope.stars import add_star
from scanner.sky.alignment import map_pixels
from scanner.sky.mosaic import Mosaic

#: Fine pixels of a stamp that are kept: the rest is where the periodic convolution wraps.
_KEPT = 204
_STEP_PIXELS = 20.0


@dataclass(frozen=True)
class Stamp:
    """``pixels`` (n, n) to add to a mosaic from ``row`` and ``column`` on; may reach outside."""

    row: int
    column: int
    pixels: Float32


@dataclass(frozen=True)
class _Frame:
    """An object in a band: its pixel, the band's turn against VIS (radians), its pixel in arcsec."""

    x: float
    y: float
    turn: float
    scale: float


def paint_stamp(item: CutoutScene, brush: Brush, vis: Mosaic, mosaic: Mosaic, x: float, y: float, rng: Generator) -> Stamp:
    """Paint an object into one band.

    Parameters
    ----------
    item
        What is painted, in arcsec about the object's place, along the axes of the VIS pixels.
    brush
        Of the tile.
    vis, mosaic
        The tile's VIS mosaic and the band's.
    x, y
        The object's place in VIS pixels.
    rng
        Of the noise.
    """
    frame, band = _frame(vis, mosaic, x, y), mosaic.band
    samples = 3 if frame.scale > 2.0 * VIS_PIXEL_SCALE_ARCSEC else 1
    fine = frame.scale / samples
    side = CANVAS_PIXELS // samples
    column, row = round(frame.x) - side // 2, round(frame.y) - side // 2
    x0, y0 = ((first - 0.5 + 0.5 / samples - place) * frame.scale for first, place in ((column, frame.x), (row, frame.y)))
    parts = [*item.components, *(part for system in item.systems for part in system.source)]
    raster = light.Raster(CANVAS_PIXELS, CANVAS_PIXELS, x0, y0, fine)
    image = light.render([[part.rotated(frame.turn) for part in parts]], raster, (band,))[0, 0]
    psf = _rescaled(item.exposure.psfs[BANDS.index(band)], VIS_PIXEL_SCALE_ARCSEC / fine)
    canvas = np.asarray(convolve(image, psf.transfer(CANVAS_PIXELS, CANVAS_PIXELS)), dtype=np.float32)
    for point in item.points:
        star = point.rotated(frame.turn)
        place = (star.x - x0) / fine, (star.y - y0) / fine
        magnitude = photometry.magnitude(star.flux[0], "VIS")
        add_star(canvas[None], *place, (star.flux[BANDS.index(band)],), stack([psf]), magnitude, item.exposure.roll)
    cut = (CANVAS_PIXELS - _KEPT) // 2 // samples
    pixels = _with_noise(canvas, band, samples, cut, brush, item, rng) * np.float32(flux_scale(mosaic.zero_point, band))
    return Stamp(row + cut, column + cut, pixels)


def _with_noise(
    canvas: Float32, band: Band, samples: int, cut: int, brush: Brush, item: CutoutScene, rng: Generator
) -> Float32:
    """The inner pixels of a stamp with the noise of their light."""
    grain = np.float32(brush.grain[band])
    if band == "VIS":
        wide = canvas[cut - 1 : 1 - cut, cut - 1 : 1 - cut]
        return np.asarray(wide[1:-1, 1:-1] + grain * vis_grain(rng, wide), dtype=np.float32)
    image = (noise.bin3(canvas) if samples == 3 else canvas)[cut:-cut, cut:-cut]
    if samples == 3:
        white = rng.standard_normal(image.shape, dtype=np.float32)
        return np.asarray(image + grain * white * noise.native_rms(image, band, 0.0), dtype=np.float32)
    n = len(image)
    rows, columns = (np.arange(n) / 3.0 + phase for phase in item.exposure.phases[BANDS.index(band) - 1])
    coarse = rng.standard_normal((n // 3 + 3, n // 3 + 3), dtype=np.float32)
    scatter = noise.resampled(coarse, rows, columns, rng.standard_normal((n, n), dtype=np.float32))
    return np.asarray(image + grain * scatter * noise.rms(image, band, 0.0), dtype=np.float32)


def _frame(vis: Mosaic, mosaic: Mosaic, x: float, y: float) -> _Frame:
    if mosaic.band == "VIS":
        return _Frame(x, y, 0.0, VIS_PIXEL_SCALE_ARCSEC)
    here_x, here_y = map_pixels(vis.wcs, mosaic.wcs, np.array([x, x + _STEP_PIXELS, x]), np.array([y, y, y + _STEP_PIXELS]))
    right = (here_x[1] - here_x[0]) / _STEP_PIXELS, (here_y[1] - here_y[0]) / _STEP_PIXELS
    up = (here_x[2] - here_x[0]) / _STEP_PIXELS, (here_y[2] - here_y[0]) / _STEP_PIXELS
    area = right[0] * up[1] - right[1] * up[0]
    if not area > 0.0:
        raise TileError(f"{mosaic.name}: its pixels are a mirror image of those of {vis.name}; flip one of them.")
    return _Frame(float(here_x[0]), float(here_y[0]), math.atan2(right[1], right[0]), VIS_PIXEL_SCALE_ARCSEC / math.sqrt(area))


def _rescaled(psf: Psf, factor: float) -> Psf:
    """A PSF on pixels of another size: lengths times ``factor``."""
    lengths = {name: factor * getattr(psf, name) for name in ("sigma_major", "sigma_minor", "dx", "dy")}
    return replace(psf, **lengths)
