"""Painted light on real pixels: through the tile's PSF, with the noise of its own photons.

In: scenes that list what is painted, the tile's :class:`Brush`, and real pixels in the simulation's units (zero points of
:mod:`~scanner.simulation.telescope.photometry`). Out: light and noise to add to them. Nothing is refused.

The real pixels hold the sky's noise already. Painted light adds Poisson noise of its own, with the correlation that resampling
gives to noise: white on native pixels, spread over neighbours on a mosaic's 0.1" pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from scanner.records import BANDS, NISP_BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Band, Float32
from scanner.simulation.datasets.cutout_scene import CutoutScene
from scanner.simulation.datasets.labelled_cutouts import noiseless
from scanner.simulation.injection.request import TileSummary
from scanner.simulation.injection.tile_survey import flux_scale
from scanner.simulation.population.labels import ArcMeasurement
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, Exposure, add_stars, draw_exposure
from scanner.simulation.telescope.psf import Psf, draw_psf
from scanner.simulation.telescope.stars import Star


@dataclass(frozen=True)
class Brush:
    """How light is painted into one tile.

    ``psfs``: those that have an image. ``widths``: factors on the widths of our own PSFs, for the others. ``grain``: factor on
    the standard deviation of the noise of painted light, in the simulation's units. ``native``: NISP bands with 0.3" pixels.
    """

    psfs: dict[Band, Psf]
    widths: dict[Band, float]
    grain: dict[Band, float]
    native: dict[Band, bool]


def brush_of(summary: TileSummary, psfs: dict[Band, Psf]) -> Brush:
    """What a tile's summary says, as the painter needs it."""
    cases = summary.alignment.split("/")
    cases = cases * len(NISP_BANDS) if len(cases) == 1 else cases
    grain = {
        band: math.sqrt(optics.variance_slope / flux_scale(optics.zero_point, band) / noise.VARIANCE_SLOPE[band])
        for band, optics in summary.bands.items()
    }
    widths = {band: optics.psf_width for band, optics in summary.bands.items()}
    return Brush(psfs, widths, grain, {band: case != "bin" for band, case in zip(NISP_BANDS, cases, strict=True)})


def tile_exposure(rng: Generator, brush: Brush) -> Exposure:
    """How painted light is seen: the tile's PSF; where it has no image, ours with its width and an orientation of its own.

    The orientation of the painted light's PSF is drawn for every object, whatever its class, so that it tells nothing.
    """
    native = all(brush.native.values())
    exposure = draw_exposure(rng, 1.0 if native else 0.0)
    psfs = tuple(
        brush.psfs[band] if band in brush.psfs else draw_psf(rng, band, exposure.roll, brush.widths[band]) for band in BANDS
    )
    return replace(exposure, psfs=psfs, native=native)


@dataclass(frozen=True)
class Paint:
    """Painted light of N cutouts and its noise, in the simulation's units; images as in a cutout store.

    ``vis``, ``vis_noise`` (N, 200, 200); ``nisp``, ``nisp_noise`` (N, 3, 66, 66); ``measured``: arcs of each scene's systems.
    """

    vis: Float32
    nisp: Float32
    vis_noise: Float32
    nisp_noise: Float32
    measured: list[list[ArcMeasurement]]


def paint(scenes: Sequence[CutoutScene], brushes: Sequence[Brush]) -> Paint:
    """Draw the painted light of scenes, and its noise from each scene's own random numbers."""
    canvases, measured = noiseless(scenes)
    add_stars(canvases, [item.exposure for item in scenes], [[Star(c.x, c.y, c.flux) for c in item.points] for item in scenes])
    margin, fine = (CANVAS_PIXELS - VIS_CUTOUT_PIXELS) // 2, 3 * NISP_CUTOUT_PIXELS
    first = (CANVAS_PIXELS - fine) // 2
    inside = slice(first, first + fine)
    nisp = noise.bin3(canvases[:, 1:, inside, inside])
    vis_noise = np.empty((len(scenes), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp_noise = np.empty_like(nisp)
    for row, (item, brush) in enumerate(zip(scenes, brushes, strict=True)):
        wide = canvases[row, 0, margin - 1 : -margin + 1, margin - 1 : -margin + 1]
        vis_noise[row] = brush.grain["VIS"] * vis_grain(item.rng, wide)
        for k, band in enumerate(NISP_BANDS):
            phase = item.exposure.phases[k]
            nisp_noise[row, k] = brush.grain[band] * nisp_grain(item.rng, nisp[row, k], band, brush.native[band], phase)
    return Paint(canvases[:, 0, margin:-margin, margin:-margin], nisp, vis_noise, nisp_noise, measured)


def vis_grain(rng: Generator, light: Any) -> Float32:
    """Noise of painted light in VIS, correlated as the mosaic's; ``light`` is one pixel wider on each side."""
    white = rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(noise.vis_noise(white, light, 0.0), dtype=np.float32)


def nisp_grain(rng: Generator, light: Any, band: Band, native: bool, phase: tuple[float, float]) -> Float32:
    """Noise of painted light in 0.3" pixels of NISP, (n, n): native, or summed from a mosaic's 0.1" pixels."""
    n = len(light)
    if native:
        return np.asarray(rng.standard_normal((n, n), dtype=np.float32) * noise.native_rms(light, band, 0.0), dtype=np.float32)
    white = rng.standard_normal((n + 2, n + 2), dtype=np.float32)
    rows, columns = (np.arange(3 * n) / 3.0 + shift for shift in phase)
    scatter = noise.bin3(noise.resampled(white, rows, columns))
    return np.asarray(scatter * noise.rms(light / 9.0, band, 0.0), dtype=np.float32)
