"""Galaxies that meet: two discs or one remnant, tails that curve and fade, bridges, double nuclei.

In: a random generator. Out: :class:`LabelledObject` about the origin.
"""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import galaxy_flux, scaled
from scanner.simulation.population.discs import disc_radius, main_magnitude
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import draw_clumps
from scanner.simulation.population.system import LabelledObject, moved

_REMNANT = 0.35


def merger(rng: Generator, options: Options) -> LabelledObject:
    """Two galaxies near each other, or one with two nuclei, and one to three tails."""
    magnitude = main_magnitude(rng)
    light = galaxy_flux(rng, magnitude, redder=rng.uniform(-0.2, 0.3))
    remnant = rng.random() < _REMNANT
    first = _disturbed(rng, magnitude, light)
    radius = first[0].radius
    separation, turn = radius * (rng.uniform(0.2, 0.6) if remnant else rng.uniform(1.2, 3.2)), rng.uniform(0.0, 2.0 * math.pi)
    x, y = separation * math.cos(turn), separation * math.sin(turn)
    fainter = rng.uniform(0.0, 2.0)
    second = galaxy_flux(rng, magnitude + fainter, redder=rng.uniform(-0.2, 0.5))
    if remnant:
        other = [Component(Kind.SERSIC, x, y, scaled(second, 0.4), radius=max(0.15 * radius, 0.06), index=1.5, q=0.8)]
    else:
        other = moved(_disturbed(rng, magnitude + fainter, second), x, y)
    parts = first + other
    sense = float(rng.choice([-1.0, 1.0]))
    for number in range(int(rng.choice([1, 2, 2, 3]))):
        # The first two leave the two galaxies to opposite sides, turning the same way.
        base = (0.0, 0.0) if number % 2 == 0 else (x, y)
        heading = turn + (math.pi if number % 2 == 0 else 0.0) + 0.7 * rng.standard_normal()
        parts += _tail(rng, base, heading, sense, radius, light)
    if not remnant and rng.random() < 0.5:
        parts.append(_bridge(rng, x, y, light))
    if rng.random() < 0.6:
        parts += draw_clumps(rng, first[0], scaled(light, rng.uniform(0.03, 0.2)), int(rng.integers(1, 6)))
    return LabelledObject("merger", parts)


def _disturbed(rng: Generator, magnitude: float, light: Flux) -> list[Component]:
    """A disc with open, one-sided arms, and a bulge that is not in its middle."""
    share = rng.uniform(0.1, 0.45)
    disc = Component(
        Kind.SPIRAL,
        0.0,
        0.0,
        scaled(light, 1.0 - share),
        radius=0.8 * disc_radius(rng, magnitude),
        index=rng.uniform(0.8, 1.6),
        q=rng.uniform(0.35, 0.95),
        angle=rng.uniform(0.0, math.pi),
        arms=int(rng.choice([1, 1, 2])),
        contrast=rng.uniform(0.3, 1.8),
        winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(0.6, 2.0),
        phase=rng.uniform(0.0, 2.0 * math.pi),
    )
    dx, dy = rng.normal(0.0, 0.12 * disc.radius, 2).tolist()
    bulge = Component(
        Kind.SERSIC,
        dx,
        dy,
        scaled(light, share),
        radius=max(disc.radius * rng.uniform(0.1, 0.3), 0.05),
        index=rng.uniform(1.0, 3.0),
        q=rng.uniform(0.6, 1.0),
        angle=disc.angle,
    )
    return [disc, bulge]


def _tail(
    rng: Generator, base: tuple[float, float], heading: float, sense: float, radius: float, light: Flux
) -> list[Component]:
    """A tail that leaves ``base`` along ``heading`` and curves to one side: brightest near its base, wider and fainter on."""
    curve = radius * math.exp(rng.uniform(0.2, 1.3))
    centre = heading + 0.5 * math.pi * sense
    x, y = base[0] + curve * math.cos(centre), base[1] + curve * math.sin(centre)
    length, share = rng.uniform(0.5, 1.6), rng.uniform(0.03, 0.14)
    width = radius * rng.uniform(0.08, 0.2)
    start = centre + math.pi  # where the base is, as seen from the centre of the curve
    vis, y_band, j, h = light
    blue = rng.uniform(0.7, 1.0)
    tail: Flux = (vis, blue * y_band, blue * j, blue * h)
    near = Component(
        Kind.ANNULUS,
        x,
        y,
        scaled(tail, 0.6 * share),
        radius=curve,
        width=width,
        q=rng.uniform(0.85, 1.0),
        angle=start,
        phase=sense * 0.35 * length,
        extent=0.35 * length,
    )
    far = replace(near, flux=scaled(tail, 0.4 * share), width=1.6 * width, phase=sense * 0.9 * length, extent=0.4 * length)
    parts = [near, far]
    if rng.random() < 0.4:  # a knot at the end
        end = start + sense * length * rng.uniform(0.8, 1.4)
        knot = Component(Kind.SERSIC, x + curve * math.cos(end), y + curve * math.sin(end), scaled(tail, 0.15 * share))
        parts.append(replace(knot, radius=rng.uniform(0.08, 0.25), q=rng.uniform(0.5, 1.0), angle=end))
    return parts


def _bridge(rng: Generator, x: float, y: float, light: Flux) -> Component:
    """Light between two galaxies."""
    length = math.hypot(x, y)
    return Component(
        Kind.SERSIC,
        0.5 * x,
        0.5 * y,
        scaled(light, rng.uniform(0.02, 0.08)),
        radius=0.4 * length,
        index=0.5,
        q=rng.uniform(0.15, 0.4),
        angle=math.atan2(y, x) + 0.2 * rng.standard_normal(),
    )
