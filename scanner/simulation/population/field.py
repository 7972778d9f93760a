"""The unrelated sky: field galaxies and stars, anywhere.

In: a random generator. Out: components in arcsec.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import fluxes, galaxy_flux, power_law_magnitude, scaled

FIELD_DENSITY = 9.0 / 400.0  #: galaxies per square arcsec, VIS 18.5-26.5
STAR_DENSITY = 0.25 / 400.0
FIELD_MAGNITUDES = (18.5, 26.5)


def galaxy_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a field galaxy of a VIS magnitude, arcsec."""
    return float(np.clip(0.36 * 10.0 ** (-0.1 * (magnitude - 23.0) + 0.18 * rng.standard_normal()), 0.05, 3.0))


def draw_field_galaxy(rng: Generator, x: float, y: float, magnitude: float) -> list[Component]:
    """An ordinary galaxy: one Sérsic profile, or for brighter ones often a bulge and a disc."""
    light = galaxy_flux(rng, magnitude, redder=0.5 if rng.random() < 0.25 else 0.0)
    radius, q, angle = galaxy_radius(rng, magnitude), rng.uniform(0.25, 1.0), rng.uniform(0.0, math.pi)
    disc = Component(Kind.SERSIC, x, y, light, radius=radius, index=rng.uniform(0.7, 2.5), q=q, angle=angle)
    if magnitude > 23.5 or rng.random() < 0.4:
        return [disc]
    share = rng.uniform(0.1, 0.5)
    bulge = replace(disc, flux=scaled(light, share), radius=0.3 * radius, index=rng.uniform(2.0, 3.5), q=max(q, 0.6))
    return [replace(disc, flux=scaled(light, 1.0 - share), index=1.0), bulge]


def draw_star(rng: Generator, x: float, y: float, magnitude: float) -> Component:
    """A star of the Galaxy."""
    a, b, c = rng.standard_normal(3)
    return Component(Kind.POINT, x, y, fluxes(magnitude, 0.6 + 0.35 * a, 0.1 + 0.08 * b, 0.1 + 0.08 * c))


def draw_field(rng: Generator, half_side: float, density: float = FIELD_DENSITY) -> list[Component]:
    """Unrelated galaxies and stars over a square of ``2 half_side`` arcsec."""
    area = (2.0 * half_side) ** 2
    components: list[Component] = []
    for _ in range(rng.poisson(density * area)):
        x, y = rng.uniform(-half_side, half_side, 2)
        components += draw_field_galaxy(rng, float(x), float(y), power_law_magnitude(rng, *FIELD_MAGNITUDES))
    for _ in range(rng.poisson(STAR_DENSITY * area)):
        x, y = rng.uniform(-half_side, half_side, 2)
        components.append(draw_star(rng, float(x), float(y), rng.uniform(18.0, 24.5)))
    return components
