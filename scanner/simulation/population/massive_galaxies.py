"""Objects around a massive galaxy: lenses, and what looks most like them.

In: a random generator. Out: :class:`LabelledObject` about the origin. All share one population
of deflectors and of satellites, so that only the light that could be an arc tells the classes apart.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import power_law_magnitude, scaled, source_flux
from scanner.simulation.population.deflectors import Deflector, draw_deflector
from scanner.simulation.population.early_types import EarlyType
from scanner.simulation.population.groups import surroundings
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import MAX_OFFSET, NEAR_LENS_OFFSET, draw_clumps, draw_source
from scanner.simulation.population.system import LabelledObject


def lens(rng: Generator, options: Options) -> LabelledObject:
    """A lens; whether its arcs can be seen is another matter."""
    galaxy, deflector = massive_galaxy(rng, options)
    system = draw_source(rng, deflector, (0.0, MAX_OFFSET), options)
    return LabelledObject("lens", galaxy, (system,))


def near_lens(rng: Generator, options: Options) -> LabelledObject:
    """A source outside the caustics: one image on the side, hardly stretched."""
    galaxy, deflector = massive_galaxy(rng, options)
    system = draw_source(rng, deflector, NEAR_LENS_OFFSET, options, max_radius=0.3 * deflector.lens.theta_e)
    return LabelledObject("near_lens", galaxy, (system,))


def elliptical(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy with no more than its satellites."""
    galaxy, _ = massive_galaxy(rng, options)
    return LabelledObject("elliptical", galaxy)


def with_companions(rng: Generator, options: Options) -> LabelledObject:
    """One to three small galaxies at the distances of arcs, turned at random."""
    galaxy, _ = massive_galaxy(rng, options)
    for _ in range(int(rng.integers(1, 4))):
        galaxy += _companion(rng, rng.uniform(0.6, 2.5), tangential=False)
    return LabelledObject("companion", galaxy)


def tangential(rng: Generator, options: Options) -> LabelledObject:
    """Arc-like without lensing: stretched companions, curved segments, or a chain of knots on a circle."""
    galaxy, deflector = massive_galaxy(rng, options)
    radius = deflector.lens.theta_e * rng.uniform(0.8, 1.8)
    shape = rng.random()
    if shape < 0.6:
        for _ in range(1 + int(rng.random() < 0.4)):
            galaxy += _companion(rng, radius * rng.uniform(0.85, 1.3), tangential=True)
    elif shape < 0.8:  # a curved tail or a stretch of spiral arm: its centre of curvature is not the galaxy
        light = source_flux(rng, power_law_magnitude(rng, 21.6, 24.5), bool(rng.random() < 0.3))
        shift, turn = rng.normal(0.0, 0.5 * radius, 2), rng.uniform(0.0, 2.0 * math.pi)
        galaxy.append(
            Component(
                Kind.ANNULUS,
                float(shift[0]),
                float(shift[1]),
                light,
                radius=radius * rng.uniform(0.8, 2.0),
                width=rng.uniform(0.06, 0.2),
                q=rng.uniform(0.7, 1.0),
                phase=turn,
                extent=rng.uniform(0.12, 0.45),
            )
        )
    else:
        start, step = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.25, 0.6)
        light = source_flux(rng, power_law_magnitude(rng, 22.5, 25.5), False)
        for k in range(int(rng.integers(2, 5))):
            turn, distance = start + k * step * rng.uniform(0.7, 1.3), radius * rng.uniform(0.85, 1.2)
            galaxy.append(
                Component(
                    Kind.SERSIC,
                    distance * math.cos(turn),
                    distance * math.sin(turn),
                    scaled(light, rng.uniform(0.4, 1.0)),
                    radius=rng.uniform(0.06, 0.2),
                    index=1.0,
                    q=rng.uniform(0.5, 1.0),
                    angle=rng.uniform(0.0, math.pi),
                )
            )
    return LabelledObject("tangential", galaxy)


def massive_galaxy(rng: Generator, options: Options) -> tuple[list[Component], Deflector]:
    """A deflector with its satellites and, for some, its group."""
    return with_neighbours(rng, *draw_deflector(rng, options))


def with_neighbours(rng: Generator, galaxy: EarlyType, deflector: Deflector) -> tuple[list[Component], Deflector]:
    """Satellites and, for some, a group around a galaxy; the group's shear acts on what is behind."""
    around = surroundings(rng, galaxy, deflector.z_source)
    lens = deflector.lens
    sheared = replace(lens, gamma1=lens.gamma1 + around.gamma1, gamma2=lens.gamma2 + around.gamma2)
    return galaxy.components + _satellites(rng) + around.components, replace(deflector, lens=sheared)


def _satellites(rng: Generator) -> list[Component]:
    """Neighbours that any massive galaxy has, lens or not."""
    return [part for _ in range(rng.poisson(0.35)) for part in _companion(rng, rng.uniform(0.8, 3.5), tangential=False)]


def _companion(rng: Generator, distance: float, tangential: bool) -> list[Component]:
    """A small galaxy beside the main one, coloured as sources are; if tangential, stretched as an arc would be."""
    magnitude = power_law_magnitude(rng, 21.6, 25.2)
    red = bool(rng.random() < 0.35)
    light = source_flux(rng, magnitude, red)
    direction = rng.uniform(0.0, 2.0 * math.pi)
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    if tangential:
        q, angle = rng.uniform(0.15, 0.45), direction + math.pi / 2.0 + 0.25 * rng.standard_normal()
    galaxy = Component(
        Kind.SERSIC,
        distance * math.cos(direction),
        distance * math.sin(direction),
        light,
        radius=float(np.clip(0.3 * math.exp(0.45 * rng.standard_normal()), 0.08, 0.9)),
        index=rng.uniform(0.7, 2.2),
        q=q,
        angle=angle,
    )
    if rng.random() < 0.35:
        share = rng.uniform(0.2, 0.6)
        return [
            replace(galaxy, flux=scaled(light, 1.0 - share)),
            *draw_clumps(rng, galaxy, scaled(light, share), int(rng.integers(1, 4))),
        ]
    return [galaxy]
