"""Background sources: galaxies seen through a deflector, or beside it.

In: a random generator, a deflector and options. Out: a :class:`System`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import power_law_magnitude, scaled, source_flux
from scanner.simulation.population.deflectors import Deflector
from scanner.simulation.population.options import Options
from scanner.simulation.population.system import System

SOURCE_MAGNITUDES = (21.8, 26.2)
#: ... in a survey.
SURVEY_SOURCE_MAGNITUDES = (21.8, 27.0)
MAX_OFFSET = 0.9  #: source position of a lens in units of θ_E
NEAR_LENS_OFFSET = (1.2, 2.6)


def draw_source(
    rng: Generator, deflector: Deflector, offset: tuple[float, float], options: Options, max_radius: float = 0.9
) -> System:
    """Put a source at a distance uniform over the annulus ``offset`` (units of θ_E) behind a deflector.

    Half of the sources are one Sérsic profile, half a disc with one to five clumps.
    """
    red = bool(rng.random() < options.red_source_fraction)
    magnitude = power_law_magnitude(rng, *(SURVEY_SOURCE_MAGNITUDES if options.survey else SOURCE_MAGNITUDES))
    low, high = offset
    lens = deflector.lens
    sightline = Sightline((lens,))
    beta = lens.theta_e * math.sqrt(rng.uniform(low * low, high * high))
    direction = rng.uniform(0.0, 2.0 * math.pi)
    x, y = beta * math.cos(direction), beta * math.sin(direction)
    light = source_flux(rng, magnitude, red)
    radius = float(np.clip(0.28 * math.exp(0.6 * rng.standard_normal()), 0.05, max_radius))
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    disc = Component(
        Kind.SERSIC, x, y, light, radius=radius, index=rng.uniform(0.7, 2.2), q=q, angle=angle, seen_through=sightline
    )
    source = [disc]
    if rng.random() < 0.5:
        clump_share = rng.uniform(0.15, 0.6)
        source = [replace(disc, flux=scaled(light, 1.0 - clump_share))]
        source += draw_clumps(rng, disc, scaled(light, clump_share), int(rng.integers(1, 6)))
    return System(tuple(source), sightline, deflector.z_lens, deflector.z_source, deflector.sigma_v_kms, magnitude, x, y, red)


def draw_clumps(rng: Generator, disc: Component, light: Flux, count: int) -> list[Component]:
    """Star-forming knots in a disc: ``count`` of them share ``light``; bluer than the disc."""
    weights = rng.dirichlet(np.full(count, 1.5))
    c, s = math.cos(disc.angle), math.sin(disc.angle)
    vis, y, j, h = light
    clumps = []
    for weight in weights:
        along, across = rng.normal(0.0, 0.75 * disc.radius, 2)
        across *= disc.q
        fade = rng.uniform(0.6, 1.0)
        share = (vis * weight, y * weight * fade, j * weight * fade, h * weight * fade)
        clumps.append(
            Component(
                Kind.SERSIC,
                disc.x + c * along - s * across,
                disc.y + s * along + c * across,
                share,
                radius=float(np.clip(disc.radius * rng.uniform(0.1, 0.3), 0.04, 0.2)),
                index=1.0,
                q=rng.uniform(0.6, 1.0),
                seen_through=disc.seen_through,
            )
        )
    return clumps
