"""Spiral galaxies: arms of young stars over an old disc, bars, bulges, knots; grand, many-armed and flocculent.

In: a random generator. Out: components or a :class:`LabelledObject` about the origin. Arms are bluer than the disc between
them, and the old disc's own arms lag behind, so that one side of an arm is red, as where dust lies.
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

_FLOCCULENT, _BARRED = 0.35, 0.4


def spiral(rng: Generator, options: Options) -> LabelledObject:
    """A spiral bright enough to be looked at."""
    return LabelledObject("spiral", spiral_light(rng, main_magnitude(rng)))


def spiral_light(rng: Generator, magnitude: float) -> list[Component]:
    """Disc, arms, bulge, bar and knots of a spiral of a VIS magnitude, seen from any direction but the edge."""
    light = galaxy_flux(rng, magnitude)
    old = _redder(light, rng.uniform(0.2, 0.6))
    bulge_share, arm_share = rng.uniform(0.02, 0.35), rng.uniform(0.2, 0.45)
    knot_share = rng.uniform(0.0, 0.1)
    disc = Component(
        Kind.SPIRAL,
        0.0,
        0.0,
        scaled(old, 1.0 - bulge_share - arm_share - knot_share),
        radius=disc_radius(rng, magnitude),
        q=rng.uniform(0.28, 1.0),
        angle=rng.uniform(0.0, math.pi),
        index=rng.uniform(0.7, 1.3),
        arms=int(rng.choice([1, 2, 2, 2, 2, 3, 4])),
        contrast=rng.uniform(0.2, 0.7),
        winding=float(rng.choice([-1.0, 1.0])) * math.exp(rng.uniform(0.2, 1.4)),
        phase=rng.uniform(0.0, 2.0 * math.pi),
    )
    young = scaled(_redder(light, -rng.uniform(0.1, 0.4)), arm_share)
    if rng.random() < _FLOCCULENT:
        arms = _flocculent(rng, replace(disc, flux=young))
    else:
        lag = math.copysign(rng.uniform(0.1, 0.5), disc.winding)
        arms = [_lopsided(rng, replace(disc, flux=young, contrast=rng.uniform(0.8, 3.0), phase=disc.phase + lag))]
    parts = [disc, *arms, *_centre(rng, disc, scaled(_redder(light, rng.uniform(0.3, 0.8)), bulge_share))]
    count = int(rng.integers(0, 8))
    return parts + (_knots(rng, arms[0], scaled(young, knot_share / arm_share), count) if count else [])


def _redder(light: Flux, by: float) -> Flux:
    """The same VIS light, Y, J and H brighter by a magnitude ``by`` that grows with wavelength."""
    vis, y, j, h = light
    return vis, y * 10.0 ** (0.4 * by), j * 10.0 ** (0.5 * by), h * 10.0 ** (0.6 * by)


def _lopsided(rng: Generator, arms: Component) -> Component:
    """Arms whose middle is not the galaxy's."""
    dx, dy = rng.normal(0.0, 0.08 * arms.radius, 2).tolist()
    return arms.moved(dx, dy)


def _flocculent(rng: Generator, arms: Component) -> list[Component]:
    """Two or three systems of many short arms that do not agree with each other."""
    count = int(rng.integers(2, 4))
    return [
        _lopsided(
            rng,
            replace(
                arms,
                flux=scaled(arms.flux, 1.0 / count),
                radius=arms.radius * rng.uniform(0.7, 1.3),
                arms=int(rng.integers(2, 7)),
                contrast=rng.uniform(0.6, 2.0),
                winding=math.copysign(math.exp(rng.uniform(0.2, 1.5)), arms.winding),
                phase=rng.uniform(0.0, 2.0 * math.pi),
            ),
        )
        for _ in range(count)
    ]


def _centre(rng: Generator, disc: Component, light: Flux) -> list[Component]:
    """A bulge, in a barred galaxy with its bar."""
    bulge = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        light,
        radius=disc.radius * rng.uniform(0.08, 0.28),
        index=rng.uniform(1.0, 3.5),
        q=max(disc.q, rng.uniform(0.6, 0.9)),
        angle=disc.angle,
    )
    if rng.random() >= _BARRED:
        return [bulge]
    # A bar lies in the plane: turned by ``turn`` there, it is foreshortened as the disc is.
    turn, share = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(0.4, 0.8)
    along, across = math.cos(turn), disc.q * math.sin(turn)
    bar = replace(
        bulge,
        flux=scaled(light, share),
        radius=disc.radius * rng.uniform(0.3, 0.6) * math.hypot(along, across),
        index=0.6,
        q=rng.uniform(0.2, 0.45),
        angle=disc.angle + math.atan2(across, along),
    )
    return [replace(bulge, flux=scaled(light, 1.0 - share)), bar]


def _knots(rng: Generator, arms: Component, light: Flux, count: int) -> list[Component]:
    """Star-forming regions on the arms, stretched along them."""
    c, s = math.cos(arms.angle), math.sin(arms.angle)
    knots = []
    for weight in rng.dirichlet([1.2] * count).tolist():
        radius = arms.radius * rng.uniform(0.35, 1.7)
        # On an arm: the phase of the arms' pattern is a multiple of 2π there.
        turn = arms.phase + arms.winding * math.log(radius) + 2.0 * math.pi * int(rng.integers(arms.arms)) / arms.arms
        turn += 0.12 * rng.standard_normal()
        along, across = radius * math.cos(turn), arms.q * radius * math.sin(turn)
        # Along the arm: mostly around the centre.
        heading = math.atan2(arms.q * math.cos(turn), -math.sin(turn))
        knots.append(
            Component(
                Kind.SERSIC,
                arms.x + c * along - s * across,
                arms.y + s * along + c * across,
                scaled(light, weight),
                radius=min(max(arms.radius * rng.uniform(0.05, 0.18), 0.04), 0.3),
                index=rng.uniform(0.6, 1.0),
                q=rng.uniform(0.35, 1.0),
                angle=arms.angle + heading,
            )
        )
    return knots
