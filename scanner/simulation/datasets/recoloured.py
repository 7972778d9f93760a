"""The same lenses with sources of other colours: what a finder makes of red rings.

In: a preset, a seed, object numbers, colours. Out: labelled cutouts that differ in nothing but the NISP light of their sources,
down to the noise's random numbers (VIS to a thousandth of the noise: brighter arcs are drawn more finely). Refused: nothing.

A source's VIS light stays as it is, so that its arcs are as easily seen in VIS whatever the colour. Colours lie on the line
from the mean blue to the mean red galaxy of the source's own redshift; all pieces of a source change by the same factor, so
bulges stay redder than their discs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

from scanner.simulation.datasets.cutout_scene import CutoutScene, draw_scene, object_generator
from scanner.simulation.datasets.labelled_cutouts import LabelledCutouts, observe
from scanner.simulation.datasets.presets import Preset
from scanner.simulation.light.components import Component, Flux
from scanner.simulation.population.colours import fluxes, source_colours
from scanner.simulation.population.system import System
from scanner.simulation.telescope.photometry import magnitude


def recoloured(scene: CutoutScene, vis_minus_h: float) -> CutoutScene:
    """The scene with every lensed source as red as asked, VIS - H in AB mag; it draws the same noise, however often."""
    return replace(
        scene, rng=deepcopy(scene.rng), systems=tuple(_recoloured_system(system, vis_minus_h) for system in scene.systems)
    )


def draw_recoloured(
    preset: Preset, seed: int, indices: Sequence[int], colours: Sequence[float]
) -> Iterator[tuple[float, LabelledCutouts]]:
    """Draw the objects ``indices`` once for every colour; see :mod:`scanner.simulation.datasets.labelled_cutouts`."""
    scenes = [draw_scene(preset, object_generator(preset.name, seed, index)) for index in indices]
    for colour in colours:
        yield colour, observe([recoloured(scene, colour) for scene in scenes], indices)


def _recoloured_system(system: System, vis_minus_h: float) -> System:
    blue, red = (source_colours(is_red, system.z_source) for is_red in (False, True))
    share = (vis_minus_h - sum(blue)) / (sum(red) - sum(blue))
    vis_y, y_j, j_h = (a + share * (b - a) for a, b in zip(blue, red, strict=True))
    before = system.unlensed_flux
    wanted = fluxes(magnitude(before[0], "VIS"), vis_y, y_j, j_h)
    factors = (1.0, *(new / old for new, old in zip(wanted[1:], before[1:], strict=True)))
    return replace(
        system,
        source=tuple(_scaled(component, factors) for component in system.source),
        point_images=tuple(_scaled(image, factors) for image in system.point_images),
        point_flux=_by_band(system.point_flux, factors),
    )


def _scaled(component: Component, factors: Sequence[float]) -> Component:
    return replace(component, flux=_by_band(component.flux, factors))


def _by_band(light: Flux, factors: Sequence[float]) -> Flux:
    vis, y, j, h = (value * factor for value, factor in zip(light, factors, strict=True))
    return vis, y, j, h
