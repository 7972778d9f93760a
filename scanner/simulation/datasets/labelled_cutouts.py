"""Labelled four-band cutouts: draw, observe, measure, label.

In: a preset, a seed and object numbers. Out: :class:`LabelledCutouts`, pixels and truth. Object ``i`` of a preset and seed
is the same, bit for bit, whatever batch or process draws it.

Labels: :mod:`scanner.simulation.population.labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scanner.cutouts.store import IMAGE_SHAPES
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.simulation.datasets.component_table import component_columns
from scanner.simulation.datasets.cutout_scene import CutoutScene, draw_scene, object_generator
from scanner.simulation.datasets.presets import Preset
from scanner.simulation.datasets.truth import TruthRow, truths_of
from scanner.simulation.light import scene
from scanner.simulation.population.labels import ArcMeasurement, measure_system
from scanner.simulation.population.lenstronomy_light import lensed_light, unlensed_light
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, add_stars, blur, expose
from scanner.simulation.telescope.stars import Star

GeneratorName = Literal["fast", "lenstronomy"]
#: Objects rendered at once: their canvases stay within the cache.
_BATCH = 16


@dataclass(frozen=True)
class LabelledCutouts:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 in image units; ``truth``: N rows; ``components``: see there."""

    vis: Float32
    nisp: Float32
    truth: list[TruthRow]
    components: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.truth)


def draw(preset: Preset, seed: int, indices: Sequence[int], generator: GeneratorName = "fast") -> LabelledCutouts:
    """Draw the objects ``indices`` of a preset and seed.

    Memory: 0.25 MB an object, and 50 MB.

    Parameters
    ----------
    preset, seed, indices
        Which objects.
    generator
        What traces the rays.

    Returns
    -------
    LabelledCutouts
        In the order of ``indices``.

    Raises
    ------
    UsageError
        lenstronomy is asked for and not installed.
    """
    scenes = [draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices]
    return observe(scenes, indices, generator)


def observe(scenes: Sequence[CutoutScene], target_ids: Sequence[int], generator: GeneratorName = "fast") -> LabelledCutouts:
    """Render scenes, measure their arcs without noise, observe them."""
    vis, nisp = (np.empty((len(scenes), *shape), np.float32) for shape in IMAGE_SHAPES.values())
    measured: list[list[ArcMeasurement]] = []
    for start in range(0, len(scenes), _BATCH):
        some = scenes[start : start + _BATCH]
        canvases, arcs = noiseless(some, generator)
        here = slice(start, start + len(some))
        vis[here], nisp[here] = expose(canvases, [item.exposure for item in some], [item.rng for item in some])
        measured += arcs
    return LabelledCutouts(vis, nisp, truths_of(target_ids, scenes, measured), component_columns(target_ids, scenes))


def noiseless(
    scenes: Sequence[CutoutScene], generator: GeneratorName = "fast", like: Any = None
) -> tuple[Any, list[list[ArcMeasurement]]]:
    """Light as the telescope's optics hand it on: blurred, with stars, without artefacts, saturation and noise.

    Parameters
    ----------
    scenes
        What to draw.
    generator
        What traces the rays.
    like
        An array of the library and device to compute with, with the fast generator; numpy by default.

    Returns
    -------
    tuple
        Canvases (N, 4, 240, 240) float32, VIS Y J H; and for every scene, what was measured of the arcs of each of its systems.
    """
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    places = [(row, system) for row, item in enumerate(scenes) for system in item.systems]
    if generator == "fast":
        light = scene.render([item.components for item in scenes], raster, like=like)
        arcs = scene.render([system.source for _, system in places], raster, like=like)
    else:
        light = np.stack([unlensed_light(item.components, raster) for item in scenes])
        nothing = np.zeros((0, *light.shape[1:]), np.float32)
        arcs = np.concatenate([nothing, *(lensed_light(item.systems, raster) for item in scenes if item.systems)])
    exposures = [item.exposure for item in scenes]
    # VIS arcs are convolved apart from the rest, to be measured; the sum is the same.
    arcs_seen = blur(arcs[:, :1], [exposures[row] for row, _ in places], (0,))[:, 0]
    measured: list[list[ArcMeasurement]] = [[] for _ in scenes]
    for k, (row, system) in enumerate(places):
        seen_by = exposures[row]
        measured[row].append(measure_system(system, float(arcs[k, 0].sum()), arcs_seen[k], seen_by.psfs[0], seen_by.roll))
        light[row, 1:] += arcs[k, 1:]
    canvases = blur(light, exposures)
    for k, (row, _) in enumerate(places):
        canvases[row, 0] += arcs_seen[k]
    add_stars(canvases, exposures, [[Star(c.x, c.y, c.flux) for c in item.points] for item in scenes])
    return canvases, measured
