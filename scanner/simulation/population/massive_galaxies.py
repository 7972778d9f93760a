"""Objects around a massive galaxy: lenses, and what looks most like them.

In: a random generator. Out: :class:`LabelledObject` about the origin. All share one population
of deflectors, of satellites and of groups around, so that only the light that could be an arc tells the classes apart.
"""

from __future__ import annotations

from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component
from scanner.simulation.population.companions import arc_like, companions, satellites
from scanner.simulation.population.deflectors import Deflector, draw_deflector
from scanner.simulation.population.early_types import EarlyType
from scanner.simulation.population.groups import surroundings
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, NEAR_LENS_OFFSET, draw_source
from scanner.simulation.population.system import LabelledObject

#: A near-lens's source keeps this many of its half-light radii away from where it would be imaged twice.
NEAR_LENS_CLEARANCE = 0.7


def massive_galaxy(rng: Generator, options: Options) -> tuple[list[Component], Deflector]:
    """A deflector as :func:`with_neighbours` gives it."""
    return with_neighbours(rng, *draw_deflector(rng, options))


def with_neighbours(rng: Generator, galaxy: EarlyType, deflector: Deflector) -> tuple[list[Component], Deflector]:
    """A deflector with its satellites and, for some, its group, whose shear acts on what is behind."""
    around = surroundings(rng, galaxy, deflector.z_source)
    lens = deflector.lens
    sheared = replace(lens, gamma1=lens.gamma1 + around.gamma1, gamma2=lens.gamma2 + around.gamma2)
    return galaxy.components + satellites(rng, galaxy) + around.components, replace(deflector, lens=sheared)


def lens(rng: Generator, options: Options) -> LabelledObject:
    """A lens; whether its arcs can be seen is another matter."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("lens", light, (draw_source(rng, deflector, (0.0, MAX_OFFSET), options),))


def near_lens(rng: Generator, options: Options) -> LabelledObject:
    """A source of the same kind outside the caustics: one image on the side, hardly stretched."""
    light, deflector = massive_galaxy(rng, options)
    system = draw_source(rng, deflector, NEAR_LENS_OFFSET, options, clearance=NEAR_LENS_CLEARANCE)
    return LabelledObject("near_lens", light, (system,))


def elliptical(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy with no more than what any of them has around."""
    return LabelledObject("elliptical", massive_galaxy(rng, options)[0])


def with_companions(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and small ones at the distances of arcs."""
    return LabelledObject("companion", massive_galaxy(rng, options)[0] + companions(rng, options))


def tangential(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and light that looks like arcs."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("tangential", light + arc_like(rng, deflector.lens.theta_e, options))
