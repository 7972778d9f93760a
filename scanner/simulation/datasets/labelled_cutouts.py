"""Labelled four-band cutouts: draw, observe, measure, label.

In: a preset, a seed and object numbers. Out: :class:`LabelledCutouts`, pixels and truth. Object ``i`` of a preset and seed
is the same, bit for bit, whatever batch or process draws it.

Labels: :mod:`scanner.simulation.population.labels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Float32
from scanner.simulation.datasets.cutout_scene import CutoutScene, draw_scene, object_generator
from scanner.simulation.datasets.presets import Preset
from scanner.simulation.datasets.truth import TruthRow, truth_of
from scanner.simulation.light import scene
from scanner.simulation.light.components import Kind, total_flux
from scanner.simulation.population.labels import ArcMeasurement, measure_arcs
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, blur, expose
from scanner.simulation.telescope.stars import Star


@dataclass(frozen=True)
class LabelledCutouts:
    """``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66) float32 in image units; ``truth``: N rows."""

    vis: Float32
    nisp: Float32
    truth: list[TruthRow]

    def __len__(self) -> int:
        return len(self.truth)


def draw(preset: Preset, seed: int, indices: Sequence[int]) -> LabelledCutouts:
    """Draw the objects ``indices`` of a preset and seed.

    Memory: about 2 MB an object while drawing; ask for a few dozen at a time.

    Returns
    -------
    LabelledCutouts
        In the order of ``indices``.
    """
    return observe([draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices], indices)


def observe(scenes: Sequence[CutoutScene], target_ids: Sequence[int]) -> LabelledCutouts:
    """Render scenes, measure their arcs without noise, observe them."""
    raster = scene.centred_raster(CANVAS_PIXELS, VIS_PIXEL_SCALE_ARCSEC)
    light = scene.render([item.components for item in scenes], raster)
    places = [(row, number) for row, item in enumerate(scenes) for number in range(len(item.systems))]
    arcs = scene.render([scenes[row].systems[number].source for row, number in places], raster)
    exposures = [item.exposure for item in scenes]
    # VIS arcs are convolved apart from the rest, to be measured; the sum is the same.
    arcs_seen = blur(arcs[:, :1], [exposures[row] for row, _ in places], (0,))[:, 0]
    measured: list[list[ArcMeasurement]] = [[] for _ in scenes]
    for k, (row, number) in enumerate(places):
        unlensed = total_flux(scenes[row].systems[number].source)[0]
        measured[row].append(measure_arcs(arcs_seen[k], float(arcs[k, 0].sum()) / unlensed))
        light[row, 1:] += arcs[k, 1:]
    canvases = blur(light, exposures)
    for k, (row, _) in enumerate(places):
        canvases[row, 0] += arcs_seen[k]
    stars = [[Star(c.x, c.y, c.flux) for c in item.components if c.kind is Kind.POINT] for item in scenes]
    vis, nisp = expose(canvases, exposures, stars, [item.rng for item in scenes])
    truth = [truth_of(*parts) for parts in zip(target_ids, scenes, measured, strict=True)]
    return LabelledCutouts(vis=vis, nisp=nisp, truth=truth)
