"""Labelled four-band cutouts: draw, observe, measure, label.

In: a preset, a seed and object numbers. Out: :class:`LabelledCutouts`, pixels and truth. Object ``i`` of a preset and seed
is the same, bit for bit, whatever batch or process draws it; presets never share objects, because the preset's name is
part of every object's seed.

Labels: :mod:`scanner.simulation.population.labels`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
from scanner.simulation.datasets.truth import TruthRow
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population import classes, populations
from scanner.simulation.population.labels import NO_ARCS, ArcMeasurement, Label, label, measure_arcs
from scanner.simulation.population.populations import System
from scanner.simulation.telescope import instrument, noise

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
class LabelledCutouts:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 in image units; ``truth``: N rows."""

    vis: Float32
    nisp: Float32
    truth: list[TruthRow]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class Exposure:
    """How one cutout is observed: PSFs (VIS, Y, J, H), their orientation, level of the sky's noise, NISP geometry."""

    psfs: tuple[instrument.Psf, ...]
    roll: float
    level: float
    native: bool


@dataclass(frozen=True)
class CutoutScene:
    """What one cutout shows. ``rng`` goes on to give the noise. ``x, y``: the object's place, arcsec from the centre."""

    rng: Generator
    class_name: str
    components: list[Component]
    system: System | None
    x: float
    y: float
    magnitude: float
    exposure: Exposure


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
    return observe([draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices], indices)


def draw_scene(preset: Preset, rng: Generator) -> CutoutScene:
    """Draw what a cutout shows and how it is observed, but no pixel. The exposure does not depend on what it shows."""
    class_name = classes.draw_class(rng, preset.lens_fraction)
    middle = classes.draw_object(rng, class_name)
    largest = preset.jitter_arcsec if rng.random() < preset.centred_fraction else preset.offset_arcsec
    x, y = (float(value) for value in rng.uniform(-largest, largest, 2))
    light = [component.flux[0] for component in middle.components if component.lens is None]
    half_side = 0.5 * CANVAS_PIXELS * VIS_PIXEL_SCALE_ARCSEC
    components = populations.moved(middle.components, x, y) + populations.draw_field(rng, half_side)
    if rng.random() < preset.bright_star_fraction:
        distance, turn = rng.uniform(2.5, 10.0), rng.uniform(0.0, 2.0 * math.pi)
        components.append(
            populations.draw_star(rng, x + distance * math.cos(turn), y + distance * math.sin(turn), rng.uniform(14.5, 19.5))
        )
    return CutoutScene(
        rng=rng,
        class_name=class_name,
        components=components,
        system=None if middle.system is None else middle.system.moved(x, y),
        x=x,
        y=y,
        magnitude=instrument.magnitude(sum(light), "VIS") if light else math.nan,
        exposure=draw_exposure(rng, preset.native_fraction),
    )


def draw_exposure(rng: Generator, native_fraction: float) -> Exposure:
    """Draw a telescope's state: any orientation, PSF widths ±10%, sky level ±20%."""
    roll, width = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(0.9, 1.1))
    psfs = tuple(instrument.draw_psf(rng, band, roll, width) for band in BANDS)
    # Sky noise goes with the square root of the sky's level.
    level = math.sqrt(rng.uniform(0.8, 1.2))
    return Exposure(psfs=psfs, roll=roll, level=level, native=bool(rng.random() < native_fraction))


def observe(scenes: Sequence[CutoutScene], target_ids: Sequence[int]) -> LabelledCutouts:
    """Render scenes, measure their arcs without noise, observe them."""
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    rest = scene.render([[c for c in item.components if c.lens is None] for item in scenes], raster)
    arcs = scene.render([[c for c in item.components if c.lens is not None] for item in scenes], raster)
    vis = np.empty((len(scenes), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((len(scenes), len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    truth = []
    for row, (item, target_id) in enumerate(zip(scenes, target_ids, strict=True)):
        arc_vis, measurement = None, NO_ARCS
        transfers = [psf.transfer(CANVAS_PIXELS, CANVAS_PIXELS) for psf in item.exposure.psfs]
        if item.system is not None:
            sources = [c for c in item.components if c.lens is not None]
            arc_vis = instrument.convolve(arcs[row, 0], transfers[0])
            measurement = measure_arcs(arc_vis, float(arcs[row, 0].sum(dtype=np.float64)) / total_flux(sources)[0])
            rest[row, 1:] += arcs[row, 1:]
        canvases = [instrument.convolve(rest[row, channel], transfers[channel]) for channel in range(len(BANDS))]
        if arc_vis is not None:
            canvases[0] += arc_vis
        _expose(item, canvases, vis[row], nisp[row])
        truth.append(_truth(target_id, item, measurement))
    return LabelledCutouts(vis=vis, nisp=nisp, truth=truth)


def _expose(item: CutoutScene, canvases: list[Float32], vis: Float32, nisp: Float32) -> None:
    """Add stars and noise, crop, bin; the VIS and NISP cutouts share the pixel corner in the canvas' middle."""
    for component in item.components:
        if component.kind is Kind.POINT:
            x = component.x / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (CANVAS_PIXELS - 1)
            y = component.y / VIS_PIXEL_SCALE_ARCSEC + 0.5 * (CANVAS_PIXELS - 1)
            magnitude = instrument.magnitude(component.flux[0], "VIS")
            for channel, canvas in enumerate(canvases):
                instrument.add_star(
                    canvas, x, y, component.flux[channel], item.exposure.psfs[channel], magnitude, item.exposure.roll
                )
    inside = slice(MARGIN_PIXELS - 1, MARGIN_PIXELS + VIS_CUTOUT_PIXELS + 1)
    image = np.minimum(canvases[0][inside, inside], instrument.SATURATION["VIS"])
    white = item.rng.standard_normal(image.shape, dtype=np.float32)
    vis[...] = image[1:-1, 1:-1] + noise.vis_noise(white, image, item.exposure.level)
    fine = 3 * NISP_CUTOUT_PIXELS
    first = (CANVAS_PIXELS - fine) // 2
    inside = slice(first, first + fine)
    for channel, band in enumerate(NISP_BANDS):
        binned = np.minimum(noise.bin3(canvases[channel + 1][inside, inside]), instrument.SATURATION[band])
        if item.exposure.native:
            white = item.rng.standard_normal(binned.shape, dtype=np.float32)
            nisp[channel] = binned + white * noise.native_rms(binned, band, item.exposure.level)
        else:
            # Positions of the 0.1" pixels on the 0.3" pixels they were resampled from: any phase, it differs per pointing.
            rows, columns = (np.arange(fine) / 3.0 + phase for phase in item.rng.uniform(0.0, 1.0, 2))
            white = item.rng.standard_normal((NISP_CUTOUT_PIXELS + 2, NISP_CUTOUT_PIXELS + 2), dtype=np.float32)
            scatter = noise.bin3(noise.resampled(white, rows, columns))
            nisp[channel] = binned + scatter * noise.rms(binned / 9.0, band, item.exposure.level)


def _truth(target_id: int, item: CutoutScene, arcs: ArcMeasurement) -> TruthRow:
    system = item.system
    verdict = Label() if system is None else label(system, arcs)
    nan = math.nan
    return TruthRow(
        target_id=target_id,
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
        psf_roll=item.exposure.roll,
        native_nisp_noise=item.exposure.native,
    )
