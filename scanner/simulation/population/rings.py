"""Ring galaxies: rings of discs and bars, rings about nothing but a core, rings of collisions, polar rings.

In: a random generator. Out: :class:`LabelledObject` about the origin: the look of a complete Einstein ring, without a lens.
"""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import galaxy_flux, scaled
from scanner.simulation.population.discs import disc_radius, main_magnitude
from scanner.simulation.population.options import Options
from scanner.simulation.population.system import LabelledObject


def ring(rng: Generator, options: Options) -> LabelledObject:
    """One ring galaxy; a fifth each are detached, collisional and polar, the rest are rings of discs."""
    magnitude, kind = main_magnitude(rng), rng.random()
    if kind < 0.4:
        parts = _resonance(rng, magnitude)
    elif kind < 0.6:
        parts = _detached(rng, magnitude)
    elif kind < 0.8:
        parts = _collisional(rng, magnitude)
    else:
        parts = _polar(rng, magnitude)
    return LabelledObject("ring", parts)


def _resonance(rng: Generator, magnitude: float) -> list[Component]:
    """A ring in a disc about a bulge and, mostly, a bar that ends on it."""
    radius, q, angle = disc_radius(rng, magnitude), rng.uniform(0.45, 1.0), rng.uniform(0.0, math.pi)
    old, share = galaxy_flux(rng, magnitude, redder=0.4), rng.uniform(0.12, 0.35)
    blue = galaxy_flux(rng, magnitude, redder=-0.2)
    disc = Component(Kind.SERSIC, 0.0, 0.0, scaled(old, 0.6), radius=1.1 * radius, index=1.0, q=q, angle=angle)
    bulge = replace(disc, flux=scaled(old, 0.25), radius=0.2 * radius, index=rng.uniform(1.0, 3.0), q=max(q, 0.7))
    parts = [*_circle(rng, radius * rng.uniform(0.8, 1.2), q, angle, scaled(blue, share)), disc, bulge]
    if rng.random() < 0.6:
        turn = rng.uniform(0.0, math.pi)
        bar = replace(bulge, flux=scaled(old, 0.2), radius=0.5 * radius, index=0.6, q=rng.uniform(0.2, 0.4), angle=angle + turn)
        parts.append(bar)
    return parts


def _detached(rng: Generator, magnitude: float) -> list[Component]:
    """A round, blue ring about a red core, with nothing between: what is hardest to tell from a lens."""
    radius, angle = rng.uniform(0.6, 2.0), rng.uniform(0.0, math.pi)
    share, q = rng.uniform(0.12, 0.4), rng.uniform(0.75, 1.0)
    core = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(galaxy_flux(rng, magnitude, redder=rng.uniform(0.5, 1.0)), 1.0 - share),
        radius=radius * rng.uniform(0.2, 0.5),
        index=rng.uniform(1.5, 4.0),
        q=rng.uniform(0.6, 1.0),
        angle=rng.uniform(0.0, math.pi),
    )
    blue = scaled(galaxy_flux(rng, magnitude, redder=-0.3), share)
    return [core, *_circle(rng, radius, q, angle, blue)]


def _collisional(rng: Generator, magnitude: float) -> list[Component]:
    """A ring that is brighter on one side, its nucleus off the middle or on the ring, and the intruder nearby."""
    radius, q, angle = rng.uniform(0.7, 2.2), rng.uniform(0.5, 1.0), rng.uniform(0.0, math.pi)
    light = galaxy_flux(rng, magnitude, redder=rng.uniform(-0.3, 0.1))
    share, side = rng.uniform(0.5, 0.8), rng.uniform(0.0, 2.0 * math.pi)
    parts = _circle(rng, radius, q, angle, scaled(light, 0.6 * share))
    parts.append(replace(parts[0], flux=scaled(light, 0.4 * share), phase=side, extent=rng.uniform(0.5, 1.2)))
    reach, turn = radius * rng.uniform(0.1, 0.9), angle + side
    nucleus = Component(
        Kind.SERSIC,
        reach * math.cos(turn),
        q * reach * math.sin(turn),
        scaled(galaxy_flux(rng, magnitude, redder=0.4), 1.0 - share),
        radius=0.25 * radius,
        index=rng.uniform(1.0, 3.0),
        q=rng.uniform(0.6, 1.0),
    )
    parts.append(nucleus)
    if rng.random() < 0.6:
        away, distance = rng.uniform(0.0, 2.0 * math.pi), radius * rng.uniform(1.5, 3.0)
        intruder = galaxy_flux(rng, magnitude + rng.uniform(0.5, 2.5), redder=0.3)
        parts.append(
            replace(nucleus, x=distance * math.cos(away), y=distance * math.sin(away), flux=intruder, radius=0.3 * radius)
        )
    return parts


def _polar(rng: Generator, magnitude: float) -> list[Component]:
    """A lenticular with a ring nearly at right angles, seen more or less from its edge."""
    radius, angle = disc_radius(rng, magnitude), rng.uniform(0.0, math.pi)
    host = galaxy_flux(rng, magnitude, redder=rng.uniform(0.4, 0.9))
    body = Component(Kind.SERSIC, 0.0, 0.0, scaled(host, 0.85), radius=0.6 * radius, index=rng.uniform(1.5, 3.5), angle=angle)
    tilt = angle + 0.5 * math.pi + 0.25 * rng.standard_normal()
    blue = scaled(galaxy_flux(rng, magnitude, redder=-0.1), rng.uniform(0.08, 0.3))
    return [
        replace(body, q=rng.uniform(0.35, 0.7)),
        *_circle(rng, radius * rng.uniform(1.0, 1.7), rng.uniform(0.15, 0.5), tilt, blue),
    ]


def _circle(rng: Generator, radius: float, q: float, angle: float, light: Flux) -> list[Component]:
    """A ring and the knots on it."""
    share, count = rng.uniform(0.0, 0.4), int(rng.integers(0, 9))
    whole = Component(
        Kind.ANNULUS,
        0.0,
        0.0,
        scaled(light, 1.0 - share if count else 1.0),
        radius=radius,
        width=radius * rng.uniform(0.06, 0.2),
        q=q,
        angle=angle,
    )
    parts, c, s = [whole], math.cos(angle), math.sin(angle)
    for weight in rng.dirichlet([1.5] * count).tolist() if count else []:
        turn, r = rng.uniform(0.0, 2.0 * math.pi), radius * rng.normal(1.0, 0.05)
        along, across = r * math.cos(turn), q * r * math.sin(turn)
        knot = Component(Kind.SERSIC, c * along - s * across, s * along + c * across, scaled(light, share * weight))
        parts.append(replace(knot, radius=min(max(radius * rng.uniform(0.05, 0.15), 0.04), 0.25), q=rng.uniform(0.5, 1.0)))
    return parts
