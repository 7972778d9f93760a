"""What one cutout shows and how it is observed: everything that is drawn before the first pixel.

In: a preset, a seed and an object's number. Out: :class:`CutoutScene`. Every object has a generator of its own, seeded by the
preset's name, the seed and its number, so that presets share no object and an object is the same in any batch or process.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from scanner.records import VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.datasets.presets import Preset
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population import classes
from scanner.simulation.population.field import draw_field, draw_star
from scanner.simulation.population.paper_compound import draw_paper_object
from scanner.simulation.population.system import System, moved
from scanner.simulation.telescope.exposure import CANVAS_PIXELS, Exposure, draw_exposure

#: Distances from the object, arcsec, and VIS magnitudes of the bright star that some cutouts have beside it.
STAR_DISTANCES, STAR_MAGNITUDES = (2.5, 10.0), (14.5, 19.5)


@dataclass(frozen=True)
class CutoutScene:
    """What one cutout shows; positions in arcsec from its centre.

    ``rng`` goes on to give the noise. ``x, y``: the object's place. ``components``: the object's ``n_object`` unlensed
    pieces of light, then the field and, where there is one, a bright star. ``systems``: lensed light, nearest source first.
    ``off_centre``: the systems are those of another galaxy.
    """

    rng: Generator
    class_name: str
    components: list[Component]
    n_object: int
    systems: tuple[System, ...]
    x: float
    y: float
    exposure: Exposure
    off_centre: bool = False

    @property
    def points(self) -> list[Component]:
        """Stars, and the images of lensed quasars."""
        stars = [component for component in self.components if component.kind is Kind.POINT]
        return stars + [image for system in self.systems for image in system.point_images]


def object_generator(preset: str, seed: int, index: int) -> Generator:
    """The random numbers of one object."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(preset.encode()), seed, index])))


def draw_offset(rng: Generator, preset: Preset) -> tuple[float, float]:
    """Where the object lies from the cutout's centre, arcsec."""
    largest = preset.jitter_arcsec if rng.random() < preset.centred_fraction else preset.offset_arcsec
    x, y = rng.uniform(-largest, largest, 2)
    return float(x), float(y)


def draw_scene(preset: Preset, rng: Generator) -> CutoutScene:
    """Draw what a cutout shows and how it is observed, but no pixel. Only the class artefact has a say in the exposure."""
    class_name = classes.draw_class(rng, {str(name): share for name, share in preset.mix.items()})
    of_paper = preset.parameters == "paper"
    middle = draw_paper_object(rng, class_name, "paper") if of_paper else classes.draw_object(rng, class_name, preset.options)
    x, y = draw_offset(rng, preset)
    components = moved(middle.components, x, y)
    if not of_paper:
        components += draw_field(rng, 0.5 * CANVAS_PIXELS * VIS_PIXEL_SCALE_ARCSEC)
    if rng.random() < preset.bright_star_fraction:
        distance, turn = rng.uniform(*STAR_DISTANCES), rng.uniform(0.0, 2.0 * math.pi)
        place = x + distance * math.cos(turn), y + distance * math.sin(turn)
        components.append(draw_star(rng, *place, rng.uniform(*STAR_MAGNITUDES)))
    return CutoutScene(
        rng=rng,
        class_name=class_name,
        components=components,
        n_object=len(middle.components),
        systems=tuple(system.moved(x, y) for system in middle.systems),
        x=x,
        y=y,
        exposure=draw_exposure(
            rng,
            preset.native_fraction,
            artefact_on_object=class_name == "artefact",
            at=(x, y),
            variety=preset.variety,
            dropout=preset.dropout,
        ),
        off_centre=middle.off_centre,
    )
