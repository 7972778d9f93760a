"""Labelled four-band cutouts: draw, observe, measure, label.

In: a preset, a seed and object numbers. Out: :class:`LabelledCutouts`, pixels and truth. Object ``i`` of a preset and seed
is the same, bit for bit, whatever batch or process draws it; presets never share objects, because the preset's name is
part of every object's seed.

Labels: :mod:`scanner.simulation.labels`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from pydantic import Field

from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Float32,
    Record,
)
from scanner.simulation import classes, instrument, noise, populations, scene
from scanner.simulation.galaxies import Component, Kind, total_flux
from scanner.simulation.labels import NO_ARCS, ArcMeasurement, Label, label, measure_arcs
from scanner.simulation.populations import System

PresetName = Literal["train", "eval", "quick"]

#: 2" around the cutout: objects there reach in, and the periodic convolution wraps out there.
MARGIN_PIXELS = 20
CANVAS_PIXELS = VIS_CUTOUT_PIXELS + 2 * MARGIN_PIXELS


class Preset(Record):
    """How the objects of a dataset are drawn."""

    name: PresetName
    lens_fraction: float = Field(ge=0, le=1, description="Share of objects drawn as lenses.")
    centred_fraction: float = Field(0.8, ge=0, le=1, description="Share of objects within jitter_arcsec of the centre.")
    jitter_arcsec: float = Field(0.15, ge=0, description="Largest offset of centred objects along x and y.")
    offset_arcsec: float = Field(4.0, ge=0, description="Largest offset of the others along x and y.")
    native_fraction: float = Field(0.5, ge=0, le=1, description='Share of cutouts with white, native 0.3" NISP noise.')
    bright_star_fraction: float = Field(0.08, ge=0, le=1, description="Share of cutouts with a bright star beside the object.")


PRESETS: dict[PresetName, Preset] = {
    "train": Preset(name="train", lens_fraction=0.5),
    "eval": Preset(name="eval", lens_fraction=0.25),
    "quick": Preset(name="quick", lens_fraction=0.5),
}


@dataclass(frozen=True)
class TruthRow:
    """One row of ``truth.parquet``: what was drawn, and what can be measured of it without noise. NaN: does not apply."""

    target_id: int
    is_lens: bool
    visible: bool
    class_name: str
    x_arcsec: float
    y_arcsec: float
    theta_e_arcsec: float
    z_lens: float
    z_source: float
    sigma_v_kms: float
    source_magnitude_vis: float
    source_offset_arcsec: float
    red_source: bool
    magnification: float
    mag_eff: float
    n_source_im: int
    n_pix_source: int
    arc_snr: float
    magnitude_vis: float
    psf_roll: float
    native_nisp_noise: bool


@dataclass(frozen=True)
class LabelledCutouts:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 in image units; ``truth``: N rows."""

    vis: Float32
    nisp: Float32
    truth: list[TruthRow]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class _Drawn:
    rng: Generator
    class_name: str
    components: list[Component]
    system: System | None
    x: float
    y: float
    magnitude: float
    roll: float
    psfs: tuple[instrument.Psf, ...]
    level: float
    native: bool


def object_generator(preset: str, seed: int, index: int) -> Generator:
    """The random numbers of one object."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(preset.encode()), seed, index])))


def draw(preset: Preset, seed: int, indices: Sequence[int]) -> LabelledCutouts:
    """Draw the objects ``indices`` of a preset and seed.

    Memory: about 2 MB an object while drawing; ask for a few dozen at a time.

    Returns
    -------
    LabelledCutouts
        In the order of ``indices``.
    """
    drawn = [_draw_one(preset, object_generator(preset.name, seed, index)) for index in indices]
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    rest = scene.render([[c for c in item.components if c.lens is None] for item in drawn], raster)
    arcs = scene.render([[c for c in item.components if c.lens is not None] for item in drawn], raster)
    vis = np.empty((len(drawn), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((len(drawn), len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    truth = []
    for row, (item, index) in enumerate(zip(drawn, indices, strict=True)):
        arc_vis, measurement = None, NO_ARCS
        transfers = [psf.transfer(CANVAS_PIXELS, CANVAS_PIXELS) for psf in item.psfs]
        if item.system is not None:
            sources = [c for c in item.components if c.lens is not None]
            arc_vis = instrument.convolve(arcs[row, 0], transfers[0])
            measurement = measure_arcs(arc_vis, float(arcs[row, 0].sum(dtype=np.float64)) / total_flux(sources)[0])
            rest[row, 1:] += arcs[row, 1:]
        canvases = [instrument.convolve(rest[row, channel], transfers[channel]) for channel in range(len(BANDS))]
        if arc_vis is not None:
            canvases[0] += arc_vis
        _observe(item, canvases, vis[row], nisp[row])
        truth.append(_truth(index, item, measurement))
    return LabelledCutouts(vis=vis, nisp=nisp, truth=truth)


def _draw_one(preset: Preset, rng: Generator) -> _Drawn:
    class_name = classes.draw_class(rng, preset.lens_fraction)
    middle = classes.draw_object(rng, class_name)
    largest = preset.jitter_arcsec if rng.random() < preset.centred_fraction else preset.offset_arcsec
    x, y = (float(value) for value in rng.uniform(-largest, largest, 2))
    light = [component.flux[0] for component in middle.components if component.lens is None]
    magnitude = instrument.magnitude(sum(light), "VIS") if light else math.nan
    half_side = 0.5 * CANVAS_PIXELS * VIS_PIXEL_SCALE_ARCSEC
    components = populations.moved(middle.components, x, y) + populations.draw_field(rng, half_side)
    if rng.random() < preset.bright_star_fraction:
        distance, turn = rng.uniform(2.5, 10.0), rng.uniform(0.0, 2.0 * math.pi)
        components.append(
            populations.draw_star(rng, x + distance * math.cos(turn), y + distance * math.sin(turn), rng.uniform(14.5, 19.5))
        )
    roll = float(rng.uniform(0.0, 2.0 * math.pi))
    width = float(rng.uniform(0.9, 1.1))
    psfs = tuple(instrument.draw_psf(rng, band, roll, width) for band in BANDS)
    # Sky noise goes with the square root of the sky's level, which varies by ±20%.
    level = math.sqrt(rng.uniform(0.8, 1.2))
    return _Drawn(
        rng=rng,
        class_name=class_name,
        components=components,
        system=None if middle.system is None else middle.system.moved(x, y),
        x=x,
        y=y,
        magnitude=magnitude,
        roll=roll,
        psfs=psfs,
        level=level,
        native=bool(rng.random() < preset.native_fraction),
    )


def _observe(item: _Drawn, canvases: list[Float32], vis: Float32, nisp: Float32) -> None:
    """Add stars and noise, crop, bin; the VIS and NISP cutouts share the pixel corner in the canvas' middle."""
    for component in item.components:
        if component.kind is Kind.POINT:
            x = component.x / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (CANVAS_PIXELS - 1)
            y = component.y / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (CANVAS_PIXELS - 1)
            magnitude = instrument.magnitude(component.flux[0], "VIS")
            for channel, canvas in enumerate(canvases):
                instrument.add_star(canvas, x, y, component.flux[channel], item.psfs[channel], magnitude, item.roll)
    inside = slice(MARGIN_PIXELS - 1, MARGIN_PIXELS + VIS_CUTOUT_PIXELS + 1)
    image = np.minimum(canvases[0][inside, inside], instrument.SATURATION["VIS"])
    white = item.rng.standard_normal(image.shape, dtype=np.float32)
    vis[...] = image[1:-1, 1:-1] + noise.vis_noise(white, image, item.level)
    fine = 3 * NISP_CUTOUT_PIXELS
    first = (CANVAS_PIXELS - fine) // 2
    inside = slice(first, first + fine)
    for channel, band in enumerate(NISP_BANDS):
        binned = np.minimum(noise.bin3(canvases[channel + 1][inside, inside]), instrument.SATURATION[band])
        if item.native:
            white = item.rng.standard_normal(binned.shape, dtype=np.float32)
            nisp[channel] = binned + white * noise.native_rms(binned, band, item.level)
        else:
            # Positions of the 0.1" pixels on the 0.3" pixels they were resampled from: any phase, it differs per pointing.
            rows, columns = (np.arange(fine) / 3.0 + phase for phase in item.rng.uniform(0.0, 1.0, 2))
            white = item.rng.standard_normal((NISP_CUTOUT_PIXELS + 2, NISP_CUTOUT_PIXELS + 2), dtype=np.float32)
            scatter = noise.bin3(noise.resampled(white, rows, columns))
            nisp[channel] = binned + scatter * noise.rms(binned / 9.0, band, item.level)


def _truth(index: int, item: _Drawn, arcs: ArcMeasurement) -> TruthRow:
    system = item.system
    verdict = Label() if system is None else label(system, arcs)
    nan = math.nan
    return TruthRow(
        target_id=index,
        is_lens=verdict.is_lens,
        visible=verdict.visible,
        class_name=item.class_name,
        x_arcsec=item.x,
        y_arcsec=item.y,
        theta_e_arcsec=nan if system is None else system.lens.theta_e,
        z_lens=nan if system is None else system.z_lens,
        z_source=nan if system is None else system.z_source,
        sigma_v_kms=nan if system is None else system.sigma_v_kms,
        source_magnitude_vis=nan if system is None else system.source_magnitude,
        source_offset_arcsec=nan if system is None else system.source_offset,
        red_source=system is not None and system.red_source,
        magnification=verdict.magnification,
        mag_eff=arcs.mag_eff,
        n_source_im=verdict.n_source_im,
        n_pix_source=arcs.n_pix_source,
        arc_snr=arcs.arc_snr,
        magnitude_vis=item.magnitude,
        psf_roll=item.roll,
        native_nisp_noise=item.native,
    )


def truth_columns(rows: Sequence[TruthRow]) -> dict[str, Any]:
    """The rows as columns, ready for :func:`pyarrow.table`."""
    return {item.name: [getattr(row, item.name) for row in rows] for item in fields(TruthRow)}
