"""Disc galaxies and what looks like arcs in them: spirals, edge-on discs, rings."""

from __future__ import annotations

import math
from dataclasses import replace

from numpy.random import Generator

from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.galaxies import LabelledObject, Options, galaxy_flux, scaled


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
