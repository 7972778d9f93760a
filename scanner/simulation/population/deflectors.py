"""Deflectors, and the sources behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator

from scanner.simulation import lensing
from scanner.simulation.lensing import Lens, Sightline
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.population.discs import edge_on_light, spiral_light
from scanner.simulation.population.galaxies import (
    FABER_JACKSON_SCATTER,
    SHELL_FRACTION,
    EarlyType,
    Options,
    System,
    apparent_magnitude,
    early_type,
    faber_jackson,
    power_law_magnitude,
    scaled,
    source_flux,
)

THETA_E_RANGE = (0.5, 3.0)
#: ... in a survey.
SURVEY_THETA_E_RANGE = (0.3, 3.0)
_TRIED_AT_ONCE = 16

#: Kinds of deflectors of the wide sky, and the largest θ_E that a kind has (arcsec).
DeflectorKind = Literal["early", "bright", "disc", "invisible"]
KIND_SHARES: dict[DeflectorKind, float] = {"early": 0.68, "bright": 0.14, "disc": 0.10, "invisible": 0.08}
_LARGEST_THETA_E: dict[DeflectorKind, float] = {"early": math.inf, "bright": math.inf, "disc": 2.0, "invisible": 3.0}
#: Where θ_E is flat, arcsec; the share beyond falls off exponentially with the scale, as far as the end.
FLAT_THETA_E_RANGE, _TAIL_SHARE, _TAIL_SCALE, LARGEST_THETA_E = (0.3, 6.0), 0.07, 1.5, 10.0
#: Velocity dispersions of galaxies, km/s; a mass that asks for more is a group's, whose galaxy has one of N(290, 30). No group
#: has a smaller θ_E than the last number, arcsec.
GALAXY_SIGMA_RANGE, _CENTRAL_SIGMA, _SMALLEST_GROUP = (110.0, 350.0), (290.0, 30.0), 2.0
#: VIS magnitudes of nearby deflectors, of those of the preset that measures on them, and of invisible ones.
_BRIGHT_MAGNITUDES, BRIGHT_MAGNITUDES, INVISIBLE_MAGNITUDES = (16.5, 20.0), (18.0, 20.0), (25.0, 29.0)


@dataclass(frozen=True)
class Deflector:
    """A mass and its place: ``lens`` with the θ_E (arcsec) that belongs to a source at ``z_source``.

    ``magnitude``: VIS, of its galaxy. ``others``: galaxies of its group whose masses bend light as well.
    """

    lens: Lens
    z_lens: float
    z_source: float
    sigma_v_kms: float
    magnitude: float = math.nan
    others: tuple[Lens, ...] = ()

    @property
    def sightline(self) -> Sightline:
        """All masses in one plane, the main one first."""
        planes = 1 + len(self.others)
        return Sightline((self.lens, *self.others), (0.0,) * (planes * (planes - 1) // 2))

    @property
    def is_group(self) -> bool:
        """Whether no single galaxy has this mass."""
        return self.sigma_v_kms > GALAXY_SIGMA_RANGE[1]


def draw_deflector(rng: Generator, options: Options) -> tuple[EarlyType, Deflector]:
    """A massive galaxy and the redshift of something behind it, as seen among lenses: 0.5" < θ_E < 3".

    Non-lensing ellipticals are drawn here as well, so that the deflector alone tells nothing of the class. Velocity
    dispersions N(215, 50) km/s, lens redshifts 0.05 + Γ(5, 0.12), source redshifts as :func:`source_redshifts`; of these
    what fits the range of θ_E.
    """
    if options.wide:
        return _draw_wide(rng, options)
    smallest, largest = SURVEY_THETA_E_RANGE if options.survey else THETA_E_RANGE
    while True:
        sigma = np.maximum(rng.normal(215.0, 50.0, _TRIED_AT_ONCE), 80.0)
        z_lens = np.minimum(rng.gamma(5.0, 0.12, _TRIED_AT_ONCE) + 0.05, 2.0)
        z_source = source_redshifts(rng, _TRIED_AT_ONCE)
        theta = lensing.einstein_radius_arcsec(sigma, z_lens, z_source)
        usable = np.flatnonzero((z_source > z_lens + 0.1) & (theta > smallest) & (theta < largest))
        if len(usable):
            break
    pick = usable[0]
    speed, z = float(sigma[pick]), float(z_lens[pick])
    galaxy = deflector_light(rng, speed, z, options.shell_fraction)
    return galaxy, Deflector(mass_of(rng, galaxy, float(theta[pick])), z, float(z_source[pick]), speed, galaxy.magnitude)


def _draw_wide(rng: Generator, options: Options) -> tuple[EarlyType, Deflector]:
    """A deflector of the wide sky: θ_E first, then a kind that can have it, then redshifts and light that fit."""
    while True:
        theta, kind = _wide_theta_e(rng, options), _wide_kind(rng, options)
        if theta > _LARGEST_THETA_E[kind]:
            if options.deflectors != "any":
                continue
            kind = "early"
        for _ in range(_TRIED_AT_ONCE):
            nearest = 0.5 if kind == "invisible" else 0.05
            z = float(rng.uniform(0.03, 0.4) if kind == "bright" else min(rng.gamma(5.0, 0.12) + nearest, 2.0))
            z_source = source_redshift(rng)
            if z_source < z + 0.1:
                continue
            # θ_E grows with the square of the velocity dispersion.
            sigma = math.sqrt(theta / float(lensing.einstein_radius_arcsec(1.0, z, z_source)))
            single = kind in ("disc", "invisible") or theta < _SMALLEST_GROUP
            if sigma < GALAXY_SIGMA_RANGE[0] or (single and sigma > GALAXY_SIGMA_RANGE[1]):
                continue
            galaxy = _wide_light(rng, kind, sigma, z, options)
            if galaxy is not None:
                lens = mass_of(rng, galaxy, theta)
                return galaxy, Deflector(lens, z, z_source, sigma, galaxy.magnitude)


def _wide_theta_e(rng: Generator, options: Options) -> float:
    if rng.random() >= options.flat_share:
        # As a survey's lenses: 5, 50, 95 % at 0.37, 0.8, 1.7".
        return max(0.8 * math.exp(0.46 * rng.standard_normal()), float(rng.uniform(0.3, 0.4)))
    if rng.random() < _TAIL_SHARE:
        return min(FLAT_THETA_E_RANGE[1] + float(rng.exponential(_TAIL_SCALE)), LARGEST_THETA_E)
    return float(rng.uniform(*FLAT_THETA_E_RANGE))


def _wide_kind(rng: Generator, options: Options) -> DeflectorKind:
    if options.deflectors != "any":
        return options.deflectors
    return list(KIND_SHARES)[int(rng.choice(len(KIND_SHARES), p=list(KIND_SHARES.values())))]


def _wide_light(rng: Generator, kind: DeflectorKind, sigma_v_kms: float, z: float, options: Options) -> EarlyType | None:
    """The galaxy of a deflector; None where it would not be of its kind."""
    if kind == "disc":
        # Discs of one mass scatter more, and young stars outshine old ones.
        absolute = faber_jackson(sigma_v_kms) - 0.3 + 0.5 * rng.standard_normal()
        magnitude = min(max(apparent_magnitude(absolute, z) - 0.4 * z, 18.3), 24.0)
        light = edge_on_light(rng, magnitude) if rng.random() < 0.5 else spiral_light(rng, magnitude)
        return EarlyType(light, z, magnitude, absolute, light[0].radius, light[0].q, light[0].angle)
    if sigma_v_kms > GALAXY_SIGMA_RANGE[1]:
        absolute = faber_jackson(rng.normal(*_CENTRAL_SIGMA)) + FABER_JACKSON_SCATTER * rng.standard_normal()
        galaxy = early_type(rng, z, absolute, envelope=True)
        halo = replace(
            galaxy.components[0],
            flux=scaled(galaxy.components[0].flux, rng.uniform(0.1, 0.3)),
            radius=rng.uniform(3.0, 6.0),
            index=1.0,
            q=0.7,
        )
        galaxy = replace(galaxy, components=[*galaxy.components, halo])
    else:
        galaxy = deflector_light(rng, sigma_v_kms, z, options.shell_fraction)
    if kind == "invisible":
        magnitude = rng.uniform(*INVISIBLE_MAGNITUDES)
        dimmed = 10.0 ** (-0.4 * (magnitude - galaxy.magnitude))
        parts = [replace(part, flux=scaled(part.flux, dimmed)) for part in galaxy.components]
        return replace(galaxy, components=parts, magnitude=magnitude)
    low, high = (-math.inf, math.inf) if kind != "bright" else _BRIGHT_MAGNITUDES
    if options.deflectors == "bright":
        low, high = BRIGHT_MAGNITUDES
    return galaxy if low < galaxy.magnitude < high else None


def source_redshifts(rng: Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Redshifts of faint background galaxies, 0.3 + Γ(5, 0.42), at most 8."""
    return np.minimum(rng.gamma(5.0, 0.42, count) + 0.3, 8.0)


def source_redshift(rng: Generator) -> float:
    """One of them."""
    return float(source_redshifts(rng, 1)[0])


def magnitude_of(sigma_v_kms: float, z: float, scatter_mag: float = 0.0) -> float:
    """VIS magnitude of a galaxy on the mean Faber-Jackson relation, or ``scatter_mag`` off it."""
    return apparent_magnitude(faber_jackson(sigma_v_kms) + scatter_mag, z)


def deflector_light(rng: Generator, sigma_v_kms: float, z: float, shell_fraction: float = SHELL_FRACTION) -> EarlyType:
    """A galaxy of a velocity dispersion at a redshift, with the scatter of the Faber-Jackson relation."""
    magnitude = faber_jackson(sigma_v_kms) + FABER_JACKSON_SCATTER * rng.standard_normal()
    return early_type(rng, z, magnitude, shell_fraction=shell_fraction)


def mass_of(rng: Generator, galaxy: EarlyType, theta_e: float) -> Lens:
    """Mass about the origin that follows the light nearly, with shear from afar."""
    gamma1, gamma2 = rng.uniform(-0.05, 0.05, 2)
    q = min(max(galaxy.q + 0.07 * rng.standard_normal(), 0.5), 0.98)
    return Lens(theta_e, q, galaxy.angle + 0.15 * rng.standard_normal(), 0.0, 0.0, float(gamma1), float(gamma2))


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
