"""Galaxies that are no lenses but have structure where arcs would be: spirals, mergers, edge-on discs and rings.

In: a random generator. Out: :class:`LabelledObject` about the origin.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import galaxy_flux, scaled
from scanner.simulation.population.field import draw_field_galaxy
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import draw_clumps
from scanner.simulation.population.system import LabelledObject


def spiral(rng: Generator, options: Options) -> LabelledObject:
    """A bulge, sometimes a bar, and a disc with logarithmic arms and knots."""
    magnitude = _main_magnitude(rng)
    disc_light = galaxy_flux(rng, magnitude)
    radius = float(np.clip(1.05 * 10.0 ** (-0.13 * (magnitude - 21.0) + 0.15 * rng.standard_normal()), 0.4, 3.5))
    q, angle = rng.uniform(0.3, 1.0), rng.uniform(0.0, math.pi)
    bulge_share, clump_share = rng.uniform(0.05, 0.4), rng.uniform(0.0, 0.2)
    disc = Component(
        Kind.SPIRAL,
        0.0,
        0.0,
        scaled(disc_light, 1.0 - bulge_share - clump_share),
        radius=radius,
        q=q,
        angle=angle,
        index=rng.uniform(0.7, 1.2),
        arms=int(rng.choice([1, 2, 2, 2, 3, 4])),
        contrast=rng.uniform(0.4, 2.5),
        winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(1.2, 4.5),
        phase=rng.uniform(0.0, 2.0 * math.pi),
    )
    # The bulge is redder: same VIS share, more in the near infrared.
    redder = galaxy_flux(rng, magnitude, redder=0.5)
    bulge = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(redder, bulge_share),
        radius=radius * rng.uniform(0.12, 0.3),
        index=rng.uniform(1.0, 3.0),
        q=max(q, 0.6),
        angle=angle,
    )
    parts = [disc, bulge]
    if rng.random() < 0.4:
        bar = Component(
            Kind.SERSIC,
            0.0,
            0.0,
            scaled(redder, 0.6 * bulge_share),
            radius=radius * rng.uniform(0.3, 0.55),
            index=0.6,
            q=rng.uniform(0.2, 0.4),
            angle=rng.uniform(0.0, math.pi),
        )
        parts = [disc, replace(bulge, flux=scaled(bulge.flux, 0.4)), bar]
    count = int(rng.integers(0, 9))
    if count:
        parts += draw_clumps(rng, disc, scaled(disc_light, clump_share), count)
    return LabelledObject("spiral", parts)


def merger(rng: Generator, options: Options) -> LabelledObject:
    """Two galaxies with one to three tidal tails."""
    magnitude = _main_magnitude(rng)
    separation, turn = rng.uniform(0.4, 2.2), rng.uniform(0.0, 2.0 * math.pi)
    partner = magnitude + rng.uniform(0.0, 2.0)
    parts = draw_field_galaxy(rng, 0.0, 0.0, magnitude)
    parts += draw_field_galaxy(rng, separation * math.cos(turn), separation * math.sin(turn), partner)
    for _ in range(int(rng.integers(1, 4))):
        # A tail starts at the galaxies and curves away: a segment of a circle through a point near the centre.
        radius, away = rng.uniform(0.8, 3.5), rng.uniform(0.0, 2.0 * math.pi)
        light = galaxy_flux(rng, magnitude + rng.uniform(1.2, 3.0))
        parts.append(
            Component(
                Kind.ANNULUS,
                radius * math.cos(away),
                radius * math.sin(away),
                light,
                radius=radius * rng.uniform(0.8, 1.2),
                width=rng.uniform(0.12, 0.45),
                q=rng.uniform(0.7, 1.0),
                phase=away + math.pi + rng.uniform(-0.8, 0.8),
                extent=rng.uniform(0.2, 0.7),
            )
        )
    if rng.random() < 0.5:
        disc = parts[0]
        knots = galaxy_flux(rng, magnitude + rng.uniform(1.5, 3.0), redder=-0.3)
        parts += draw_clumps(rng, replace(disc, radius=max(disc.radius, 0.6)), knots, int(rng.integers(1, 6)))
    return LabelledObject("merger", parts)


def edge_on(rng: Generator, options: Options) -> LabelledObject:
    """A thin disc, sometimes with a dust lane."""
    magnitude = _main_magnitude(rng)
    light = galaxy_flux(rng, magnitude, redder=0.2)
    radius = float(np.clip(1.1 * 10.0 ** (-0.1 * (magnitude - 21.0) + 0.15 * rng.standard_normal()), 0.5, 3.0))
    angle, share = rng.uniform(0.0, math.pi), rng.uniform(0.05, 0.35)
    disc = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(light, 1.0 - share),
        radius=radius,
        index=rng.uniform(0.8, 1.1),
        q=rng.uniform(0.1, 0.25),
        angle=angle,
    )
    bulge = Component(
        Kind.SERSIC,
        0.0,
        0.0,
        scaled(light, share),
        radius=0.2 * radius,
        index=rng.uniform(1.0, 3.0),
        q=rng.uniform(0.5, 0.9),
        angle=angle,
    )
    parts = [disc, bulge]
    if rng.random() < 0.35:  # dust lane: light taken away along the plane, most in VIS
        vis, y, j, h = disc.flux
        depth = rng.uniform(0.08, 0.2)
        taken = (-depth * vis, -0.5 * depth * y, -0.35 * depth * j, -0.2 * depth * h)
        parts.append(replace(disc, flux=taken, q=0.6 * disc.q))
    return LabelledObject("edge_on", parts)


def ring(rng: Generator, options: Options) -> LabelledObject:
    """A ring with knots about a core: the look of a complete Einstein ring, in one colour with its galaxy or not."""
    magnitude = _main_magnitude(rng)
    radius, q, angle = rng.uniform(0.6, 2.2), rng.uniform(0.6, 1.0), rng.uniform(0.0, math.pi)
    share = rng.uniform(0.15, 0.5)
    ring_light = scaled(galaxy_flux(rng, magnitude, redder=rng.uniform(-0.5, 0.3)), share)
    core = scaled(galaxy_flux(rng, magnitude, redder=0.5), 1.0 - share)
    clump_share = rng.uniform(0.0, 0.5)
    ring = Component(
        Kind.ANNULUS,
        0.0,
        0.0,
        scaled(ring_light, 1.0 - clump_share),
        radius=radius,
        width=radius * rng.uniform(0.08, 0.25),
        q=q,
        angle=angle,
    )
    parts = [
        ring,
        Component(
            Kind.SERSIC,
            0.0,
            0.0,
            core,
            radius=radius * rng.uniform(0.25, 0.6),
            index=rng.uniform(1.0, 3.0),
            q=rng.uniform(0.6, 1.0),
            angle=angle,
        ),
    ]
    c, s = math.cos(angle), math.sin(angle)
    count = int(rng.integers(1, 9))
    for weight in rng.dirichlet(np.full(count, 1.5)):
        turn, r = rng.uniform(0.0, 2.0 * math.pi), radius * rng.normal(1.0, 0.06)
        along, across = r * math.cos(turn), q * r * math.sin(turn)
        parts.append(
            Component(
                Kind.SERSIC,
                c * along - s * across,
                s * along + c * across,
                scaled(ring_light, clump_share * weight),
                radius=rng.uniform(0.06, 0.2),
                index=1.0,
                q=rng.uniform(0.6, 1.0),
            )
        )
    return LabelledObject("ring", parts)


def _main_magnitude(rng: Generator) -> float:
    """Galaxies bright enough to be looked at, distributed much as the deflectors are."""
    return float(np.clip(rng.normal(21.2, 1.1), 18.3, 23.3))
