"""The unrelated sky: field galaxies and stars, anywhere.

In: a random generator. Out: components in arcsec. Counts, sizes and colours agree within their errors with 18 galaxies of one
real Euclid field of a quarter of a square arcminute; galaxies of 22 to 25 mag are as lumpy and lopsided there as here.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.records import Float64
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import flux_rows, fluxes, galaxy_flux, power_law_magnitudes, scaled
from scanner.simulation.population.sources import background_galaxy

FIELD_DENSITY = 17.0 / 400.0  #: galaxies per square arcsec, VIS 18.5-27
STAR_DENSITY = 0.25 / 400.0
FIELD_MAGNITUDES = (18.5, 27.0)
#: Galaxies that are never seen singly but roughen the sky: as many again, since counts go on rising.
UNSEEN_DENSITY, UNSEEN_MAGNITUDES = 17.0 / 400.0, (27.0, 28.0)
#: Brighter galaxies show a bulge and a disc; fainter ones than the second nothing but one profile.
_BRIGHT, _FAINT = 21.5, 25.0
_RED = 0.25
#: Fainter galaxies are bluer: magnitudes of VIS-Y per magnitude beyond VIS 22.
_BLUER = 0.07
_DOUBLE_STARS = 0.2


def galaxy_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a field galaxy of a VIS magnitude, arcsec."""
    return float(galaxy_radii(rng, np.array([magnitude]))[0])


def galaxy_radii(rng: Generator, magnitudes: Float64) -> Float64:
    """Half-light radii of many: 0.36" at VIS 23, scatter 0.22 dex."""
    logarithm = -0.12 * (magnitudes - 23.0) + 0.22 * rng.standard_normal(len(magnitudes))
    return np.clip(0.36 * np.power(10.0, logarithm), 0.05, 3.0)


def draw_field_galaxy(rng: Generator, x: float, y: float, magnitude: float) -> list[Component]:
    """An ordinary galaxy: the fainter, the simpler; in between mostly lumpy."""
    red = bool(rng.random() < _RED)
    light = galaxy_flux(rng, magnitude, redder=(0.5 if red else 0.0) - _BLUER * max(magnitude - 22.0, 0.0))
    radius, q, angle = galaxy_radius(rng, magnitude), rng.uniform(0.25, 1.0), rng.uniform(0.0, math.pi)
    main = Component(Kind.SERSIC, x, y, light, radius=radius, q=q, angle=angle)
    if magnitude > _FAINT:
        return [replace(main, index=rng.uniform(0.7, 2.5))]
    if magnitude > _BRIGHT:
        return background_galaxy(rng, main, red)
    if red and rng.random() < 0.5:
        return [replace(main, index=rng.uniform(2.5, 4.5), radius=0.8 * radius, q=max(q, 0.5))]
    share = rng.uniform(0.1, 0.5)
    bulge = replace(main, flux=scaled(light, share), radius=0.25 * radius, index=rng.uniform(2.0, 3.5), q=max(q, 0.6))
    disc = replace(main, flux=scaled(light, 1.0 - share), radius=1.2 * radius)
    if rng.random() < 0.6:
        disc = replace(
            disc,
            kind=Kind.SPIRAL,
            arms=int(rng.choice([1, 2, 2, 3, 4])),
            contrast=rng.uniform(0.3, 1.5),
            winding=float(rng.choice([-1.0, 1.0])) * rng.uniform(1.2, 4.0),
            phase=rng.uniform(0.0, 2.0 * math.pi),
        )
    return [disc, bulge]


def draw_star(rng: Generator, x: float, y: float, magnitude: float) -> Component:
    """A star of the Galaxy: from F to M, the fainter the cooler."""
    cool = min(max(rng.normal(0.1 * (magnitude - 16.0), 0.3), 0.0), 1.0)
    a, b, c = rng.standard_normal(3)
    return Component(
        Kind.POINT,
        x,
        y,
        fluxes(magnitude, 0.2 + 0.9 * cool + 0.08 * a, 0.03 + 0.17 * cool + 0.04 * b, -0.02 + 0.08 * cool + 0.04 * c),
    )


def draw_stars(rng: Generator, magnitude: float) -> list[Component]:
    """A star at the origin, a fifth of them double."""
    stars = [draw_star(rng, 0.0, 0.0, magnitude)]
    if rng.random() < _DOUBLE_STARS:
        distance, turn = math.exp(rng.uniform(math.log(0.12), math.log(3.0))), rng.uniform(0.0, 2.0 * math.pi)
        stars.append(draw_star(rng, distance * math.cos(turn), distance * math.sin(turn), magnitude + rng.exponential(1.2)))
    return stars


def draw_field(rng: Generator, half_side: float) -> list[Component]:
    """Unrelated galaxies and stars over a square of ``2 half_side`` arcsec."""
    area = (2.0 * half_side) ** 2
    seen, unseen = rng.poisson((FIELD_DENSITY * area, UNSEEN_DENSITY * area)).tolist()
    places = rng.uniform(-half_side, half_side, (seen + unseen, 2))
    magnitudes = np.concatenate(
        [power_law_magnitudes(rng, *FIELD_MAGNITUDES, seen), power_law_magnitudes(rng, *UNSEEN_MAGNITUDES, unseen)]
    )
    faint = magnitudes > _FAINT
    components = _faint_galaxies(rng, places[faint], magnitudes[faint])
    for (x, y), magnitude in zip(places[~faint].tolist(), magnitudes[~faint].tolist(), strict=True):
        components += draw_field_galaxy(rng, x, y, magnitude)
    for _ in range(rng.poisson(STAR_DENSITY * area)):
        x, y = rng.uniform(-half_side, half_side, 2).tolist()
        components.append(draw_star(rng, x, y, rng.uniform(18.0, 24.5)))
    return components


def _faint_galaxies(rng: Generator, places: Float64, magnitudes: Float64) -> list[Component]:
    """Many galaxies too faint to show more than one profile: as :func:`draw_field_galaxy`, at once, for they are most."""
    count = len(magnitudes)
    redder = np.where(rng.random(count) < _RED, 0.5, 0.0) - _BLUER * (magnitudes - 22.0)
    a, b, c = rng.standard_normal((3, count))
    light = flux_rows(
        magnitudes, 0.6 + redder + 0.35 * a, 0.2 + 0.25 * redder + 0.12 * b, 0.2 + 0.4 * redder + 0.12 * c
    ).tolist()
    shapes = rng.uniform((0.25, 0.0, 0.7), (1.0, math.pi, 2.5), (count, 3)).tolist()
    return [
        Component(Kind.SERSIC, x, y, (vis, y_band, j, h), radius=radius, index=index, q=q, angle=angle)
        for (x, y), (vis, y_band, j, h), radius, (q, angle, index) in zip(
            places.tolist(), light, galaxy_radii(rng, magnitudes).tolist(), shapes, strict=True
        )
    ]
