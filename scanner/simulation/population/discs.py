"""Disc galaxies as wholes: how bright and how large the ones that are looked at are, and those seen from the edge.

In: a random generator. Out: :class:`LabelledObject` about the origin. Dust takes nothing away here, since pixels must not
become negative: a lane is the gap between the two sides of a disc, and what shines in it does so in the infrared.
"""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import galaxy_flux, scaled
from scanner.simulation.population.options import Options
from scanner.simulation.population.system import LabelledObject


def main_magnitude(rng: Generator) -> float:
    """Galaxies bright enough to be looked at, distributed much as the deflectors are."""
    return min(max(rng.normal(21.0, 1.2), 17.8), 23.3)


def disc_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a disc, arcsec."""
    return min(max(0.85 * math.pow(10.0, -0.12 * (magnitude - 21.0) + 0.15 * rng.standard_normal()), 0.3), 3.5)


def edge_on(rng: Generator, options: Options) -> LabelledObject:
    """A disc seen from its edge."""
    return LabelledObject("edge_on", edge_on_light(rng, main_magnitude(rng)))


def edge_on_light(rng: Generator, magnitude: float) -> list[Component]:
    """A thin disc with a bulge; often a dust lane, a thick disc, sometimes a warp."""
    light = galaxy_flux(rng, magnitude, redder=rng.uniform(0.0, 0.5))
    angle, share = rng.uniform(0.0, math.pi), rng.uniform(0.03, 0.4)
    disc = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(light, 1.0 - share),
        radius=1.2 * disc_radius(rng, magnitude),
        index=rng.uniform(0.6, 1.1),
        q=rng.uniform(0.09, 0.2),
        angle=angle,
    )
    bulge = replace(
        disc,
        flux=scaled(light, share),
        radius=disc.radius * rng.uniform(0.12, 0.3),
        index=rng.uniform(1.0, 3.5),
        q=rng.uniform(0.45, 0.9),
    )
    parts = [*(_with_lane(rng, disc) if rng.random() < 0.5 else [disc]), bulge]
    if rng.random() < 0.4:
        thick = replace(disc, flux=scaled(disc.flux, rng.uniform(0.1, 0.3)), q=min(2.5 * disc.q, 0.4), index=1.0)
        parts.append(replace(thick, radius=disc.radius * rng.uniform(0.9, 1.3)))
    if rng.random() < 0.25:
        parts += _warp(rng, disc)
    return parts


def _with_lane(rng: Generator, disc: Component) -> list[Component]:
    """The sides of a disc above and below its dust, one brighter as it is tilted, and what the infrared sees between."""
    vis, y, j, h = disc.flux
    between, tilt = rng.uniform(0.08, 0.2), rng.uniform(0.4, 0.75)
    # Dust dims VIS most: what is between holds a smaller share of VIS than of H.
    middle: Flux = (0.35 * between * vis, 0.9 * between * y, 1.2 * between * j, 1.5 * between * h)
    sides = (vis - middle[0], y - middle[1], j - middle[2], h - middle[3])
    # The sides are thin and well apart, so that the gap between them survives the telescope where the galaxy is large.
    offset = disc.q * disc.radius * rng.uniform(0.5, 0.8)
    across = (-math.sin(disc.angle) * offset, math.cos(disc.angle) * offset)
    return [
        replace(disc.moved(*across), flux=scaled(sides, tilt), q=0.45 * disc.q, index=0.7),
        replace(disc.moved(-across[0], -across[1]), flux=scaled(sides, 1.0 - tilt), q=0.45 * disc.q, index=0.7),
        replace(disc, flux=middle, q=0.4 * disc.q),
    ]


def _warp(rng: Generator, disc: Component) -> list[Component]:
    """Ends of a disc that bend away from its plane, to opposite sides."""
    bend, reach, share = rng.normal(0.0, 0.2), disc.radius * rng.uniform(1.2, 1.6), rng.uniform(0.03, 0.08)
    ends = []
    for side in (-1.0, 1.0):
        turn = disc.angle + 0.6 * bend
        end = replace(disc, flux=scaled(disc.flux, share), radius=0.4 * disc.radius, index=0.6, angle=disc.angle + bend)
        ends.append(replace(end, q=min(2.0 * disc.q, 0.35)).moved(side * reach * math.cos(turn), side * reach * math.sin(turn)))
    return ends
