"""Objects around a massive galaxy: lenses, and what looks most like them.

All share one population of deflectors, of satellites and of groups around, so that only the light that could be an arc tells
the classes apart.
"""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component
from scanner.simulation.population.colours import power_law_magnitude
from scanner.simulation.population.companions import arc_like, companions, satellites
from scanner.simulation.population.deflectors import Deflector, draw_deflector
from scanner.simulation.population.early_types import EarlyType
from scanner.simulation.population.field import draw_field_galaxy
from scanner.simulation.population.groups import surroundings
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, NEAR_LENS_OFFSET, RING_OFFSET, RING_SOURCES, draw_source
from scanner.simulation.population.system import LabelledObject, moved

#: A near-lens's source keeps this many of its half-light radii away from where it would be imaged twice.
NEAR_LENS_CLEARANCE = 0.7
#: Distances of somebody else's lens, arcsec, and by how much they exceed its θ_E at least; VIS magnitudes of who is beside it.
BESIDE_DISTANCES, BESIDE_GAP, BESIDE_MAGNITUDES = (3.0, 6.0), 1.2, (20.0, 25.0)


def massive_galaxy(rng: Generator, options: Options) -> tuple[list[Component], Deflector]:
    """A deflector as :func:`with_neighbours` gives it."""
    return with_neighbours(rng, *draw_deflector(rng, options), options)


def with_neighbours(
    rng: Generator, galaxy: EarlyType, deflector: Deflector, options: Options
) -> tuple[list[Component], Deflector]:
    """A deflector with its satellites and, for some, its group, whose masses act on what is behind."""
    around = surroundings(rng, galaxy, deflector, options)
    lens = deflector.lens
    sheared = replace(lens, gamma1=lens.gamma1 + around.gamma1, gamma2=lens.gamma2 + around.gamma2)
    light = galaxy.components + satellites(rng, galaxy, options) + around.components
    return light, replace(deflector, lens=sheared, others=around.masses)


def lens(rng: Generator, options: Options) -> LabelledObject:
    """A lens; whether its arcs can be seen is another matter."""
    light, deflector = massive_galaxy(rng, options)
    if options.ring_share and rng.random() < options.ring_share:
        ring = draw_source(rng, deflector, (0.0, RING_OFFSET), options, magnitude=rng.uniform(*RING_SOURCES))
        return LabelledObject("lens", light, (ring,))
    return LabelledObject("lens", light, (draw_source(rng, deflector, (0.0, MAX_OFFSET), options),))


def near_lens(rng: Generator, options: Options) -> LabelledObject:
    """A source of the same kind outside the caustics: one image on the side, hardly stretched."""
    light, deflector = massive_galaxy(rng, options)
    # No member of a group may image it twice either.
    alone = replace(deflector, others=())
    system = draw_source(rng, alone, NEAR_LENS_OFFSET, options, clearance=NEAR_LENS_CLEARANCE)
    return LabelledObject("near_lens", light, (system,))


def elliptical(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy with no more than what any of them has around."""
    return LabelledObject("elliptical", massive_galaxy(rng, options)[0])


def with_companions(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and small ones at the distances of arcs."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("companion", light + companions(rng, options, deflector.lens.theta_e))


def tangential(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy and light that looks like arcs."""
    light, deflector = massive_galaxy(rng, options)
    return LabelledObject("tangential", light + arc_like(rng, deflector.lens.theta_e, options))


def beside_lens(rng: Generator, options: Options) -> LabelledObject:
    """A galaxy beside somebody else's lens: what a person would say of the centre is "no lens"."""
    other = lens(rng, options)
    nearest = max(BESIDE_DISTANCES[0], other.systems[0].lens.theta_e + BESIDE_GAP)
    distance = rng.uniform(nearest, max(BESIDE_DISTANCES[1], nearest + BESIDE_GAP))
    turn = rng.uniform(0.0, 2.0 * math.pi)
    x, y = distance * math.cos(turn), distance * math.sin(turn)
    galaxy = draw_field_galaxy(rng, 0.0, 0.0, power_law_magnitude(rng, *BESIDE_MAGNITUDES))
    systems = tuple(system.moved(x, y) for system in other.systems)
    return LabelledObject("beside_lens", galaxy + moved(other.components, x, y), systems, off_centre=True)
