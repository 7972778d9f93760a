"""Background sources: galaxies seen through a deflector, or beside it.

In: a random generator, a deflector and options. Out: a :class:`System`. :func:`background_galaxy` draws the light of such a
galaxy anywhere, lensed or not, so that look-alikes are made of the same stuff as sources.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.colours import power_law_magnitude, scaled, source_flux
from scanner.simulation.population.deflectors import Deflector
from scanner.simulation.population.options import Options
from scanner.simulation.population.system import System

SOURCE_MAGNITUDES = (21.8, 26.2)
#: ... in a survey.
SURVEY_SOURCE_MAGNITUDES = (21.8, 27.0)
#: Of the wide sky: a share of the sources is bright, so that arcs outshine their galaxies; sources of whole rings are.
WIDE_SOURCE_MAGNITUDES, BRIGHT_SOURCES, BRIGHT_SHARE = (21.0, 26.2), (19.5, 22.5), 0.08
RING_SOURCES, RING_OFFSET = (20.5, 23.5), 0.12
MAX_OFFSET = 0.9  #: source position of a lens in units of θ_E
NEAR_LENS_OFFSET = (1.2, 2.6)
RADIUS_RANGE, MEDIAN_RADIUS = (0.05, 0.9), 0.28  #: arcsec


def source_magnitude(rng: Generator, options: Options) -> float:
    """VIS magnitude of a source, unlensed."""
    if options.wide:
        bright = rng.random() < BRIGHT_SHARE
        return rng.uniform(*BRIGHT_SOURCES) if bright else power_law_magnitude(rng, *WIDE_SOURCE_MAGNITUDES)
    return power_law_magnitude(rng, *(SURVEY_SOURCE_MAGNITUDES if options.survey else SOURCE_MAGNITUDES))


def draw_source(
    rng: Generator,
    deflector: Deflector,
    offset: tuple[float, float],
    options: Options,
    clearance: float = 0.0,
    magnitude: float | None = None,
) -> System:
    """Put a source behind a deflector.

    Parameters
    ----------
    rng, deflector, options
        Random numbers, what the source is seen through, what the preset asks for.
    offset
        Range of distances from the deflector, units of θ_E, uniform over the area of the annulus.
    clearance
        Half-light radii of the source by which it is moved out further.
    magnitude
        VIS, unlensed, instead of that of :func:`source_magnitude`.
    """
    red = bool(rng.random() < options.red_source_fraction)
    magnitude = source_magnitude(rng, options) if magnitude is None else magnitude
    radius = source_radius(rng, magnitude)
    low, high = offset
    beta = deflector.lens.theta_e * math.sqrt(rng.uniform(low * low, high * high)) + clearance * radius
    direction = rng.uniform(0.0, 2.0 * math.pi)
    middle_x, middle_y = deflector.sightline.middle
    x, y = middle_x + beta * math.cos(direction), middle_y + beta * math.sin(direction)
    main = Component(
        Kind.SERSIC,
        x,
        y,
        source_flux(rng, magnitude, red, deflector.z_source),
        radius=radius,
        q=rng.uniform(0.35, 1.0),
        angle=rng.uniform(0.0, math.pi),
        seen_through=deflector.sightline,
    )
    return System(
        source=tuple(background_galaxy(rng, main, red)),
        sightline=deflector.sightline,
        z_lens=deflector.z_lens,
        z_source=deflector.z_source,
        sigma_v_kms=deflector.sigma_v_kms,
        source_magnitude=magnitude,
        source_x=x,
        source_y=y,
        red_source=red,
        lens_magnitude=deflector.magnitude,
    )


def source_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a faint galaxy, arcsec: median 0.28" at VIS 24.9, larger where brighter."""
    radius = MEDIAN_RADIUS * math.exp(0.55 * rng.standard_normal() - 0.12 * (magnitude - 24.9))
    return min(max(radius, RADIUS_RANGE[0]), RADIUS_RANGE[1])


def background_galaxy(rng: Generator, main: Component, red: bool) -> list[Component]:
    """Structure for a galaxy whose place, flux, radius, axis ratio and angle are those of ``main``, which comes first.

    Red ones: one profile of any concentration, or a bulge in a disc. Others: a smooth disc, a disc with a bulge, with one to
    six clumps, or lopsided, its brightest clump at one end.
    """
    light, kind = main.flux, rng.random()
    if kind < (0.7 if red else 0.3):
        return [replace(main, index=rng.uniform(1.2, 4.0) if red else rng.uniform(0.7, 2.2))]
    disc = replace(main, index=rng.uniform(0.7, 1.2))
    if red or kind < 0.45:
        share = rng.uniform(0.15, 0.5)
        bulge = replace(main, radius=max(0.3 * main.radius, 0.04), index=rng.uniform(1.5, 3.5), q=max(main.q, 0.6))
        vis, y, j, h = bulge.flux
        redder = rng.uniform(1.0, 1.5)
        return [
            replace(disc, flux=scaled(light, 1.0 - share)),
            replace(bulge, flux=scaled((vis, redder * y, redder * j, redder * h), share)),
        ]
    share = rng.uniform(0.15, 0.6)
    body = replace(disc, flux=scaled(light, 1.0 - share))
    if kind < 0.9:
        return [body, *draw_clumps(rng, disc, scaled(light, share), int(rng.integers(1, 7)))]
    reach = main.radius * rng.uniform(0.7, 1.5) * float(rng.choice([-1.0, 1.0]))
    head = replace(
        main,
        x=main.x + reach * math.cos(main.angle),
        y=main.y + reach * math.sin(main.angle),
        flux=scaled(light, share),
        radius=max(main.radius * rng.uniform(0.15, 0.4), 0.04),
        index=1.0,
        q=rng.uniform(0.6, 1.0),
    )
    return [body, head]


def draw_clumps(rng: Generator, disc: Component, light: Flux, count: int) -> list[Component]:
    """Star-forming knots in a disc: ``count`` of them share ``light``; bluer than the disc."""
    weights = rng.dirichlet(np.full(count, 1.5))
    c, s = math.cos(disc.angle), math.sin(disc.angle)
    places, shapes = rng.normal(0.0, 0.75 * disc.radius, (count, 2)), rng.uniform(0.6, 1.0, (count, 2))
    sizes = rng.uniform(0.1, 0.3, count)
    vis, y, j, h = light
    clumps = []
    for weight, (along, across), (fade, q), size in zip(
        weights.tolist(), places.tolist(), shapes.tolist(), sizes.tolist(), strict=True
    ):
        across *= disc.q
        clumps.append(
            Component(
                Kind.SERSIC,
                disc.x + c * along - s * across,
                disc.y + s * along + c * across,
                (vis * weight, y * weight * fade, j * weight * fade, h * weight * fade),
                radius=min(max(disc.radius * size, 0.04), 0.2),
                index=1.0,
                q=q,
                seen_through=disc.seen_through,
            )
        )
    return clumps
