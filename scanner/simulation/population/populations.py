"""What is on the sky: deflectors, sources, lens systems, field galaxies and stars, drawn from one random generator each.

In: a numpy ``Generator``. Out: lists of :class:`Component` about the origin, in arcsec, and
for systems with a deflector a :class:`System` with its true parameters. All numbers are by eye against a few real Euclid
images, not fitted; colours are VIS-Y, Y-J, J-H in AB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.light.components import Component, Flux, Kind
from scanner.simulation.telescope.instrument import flux

THETA_E_RANGE = (0.5, 3.0)
RED_SOURCE_FRACTION = 0.18
FIELD_DENSITY = 9.0 / 400.0  #: galaxies per square arcsec, VIS 18.5-26.5
STAR_DENSITY = 0.25 / 400.0
FIELD_MAGNITUDES = (18.5, 26.5)
SOURCE_MAGNITUDES = (21.8, 26.2)
COUNT_SLOPE = 0.3
MAX_OFFSET = 0.9  #: source position of a lens in units of θ_E
NEAR_LENS_OFFSET = (1.2, 2.6)


@dataclass(frozen=True)
class System:
    """A deflector and the source behind it; lengths in arcsec, angles in radians."""

    lens: Lens
    z_lens: float
    z_source: float
    sigma_v_kms: float
    source_magnitude: float
    source_x: float
    source_y: float
    red_source: bool

    @property
    def source_offset(self) -> float:
        """Angle between source and lens, arcsec."""
        return math.hypot(self.source_x - self.lens.x, self.source_y - self.lens.y)

    def moved(self, dx: float, dy: float) -> System:
        """The same system elsewhere."""
        lens = replace(self.lens, x=self.lens.x + dx, y=self.lens.y + dy)
        return replace(self, lens=lens, source_x=self.source_x + dx, source_y=self.source_y + dy)


@dataclass(frozen=True)
class LabelledObject:
    """What stands in the middle of a cutout; ``system`` where there is a source behind a deflector."""

    class_name: str
    components: list[Component]
    system: System | None = None


def fluxes(vis: float, vis_y: float, y_j: float, j_h: float) -> Flux:
    """Image units in the four bands from a VIS magnitude and colours."""
    y = vis - vis_y
    return flux(vis, "VIS"), flux(y, "Y"), flux(y - y_j, "J"), flux(y - y_j - j_h, "H")


def scaled(light: Flux, share: float) -> Flux:
    """A share of a flux."""
    vis, y, j, h = light
    return vis * share, y * share, j * share, h * share


def power_law_magnitude(rng: Generator, bright: float, faint: float) -> float:
    """A magnitude from counts ``∝ 10^(0.3 m)``."""
    low, high = 10.0 ** (COUNT_SLOPE * bright), 10.0 ** (COUNT_SLOPE * faint)
    return float(np.log10(low + rng.random() * (high - low)) / COUNT_SLOPE)


def galaxy_radius(rng: Generator, magnitude: float) -> float:
    """Half-light radius of a field galaxy of a VIS magnitude, arcsec."""
    return float(np.clip(0.36 * 10.0 ** (-0.1 * (magnitude - 23.0) + 0.18 * rng.standard_normal()), 0.05, 3.0))


def galaxy_flux(rng: Generator, magnitude: float, redder: float = 0.0) -> Flux:
    """Colours of an ordinary field galaxy."""
    a, b, c = rng.standard_normal(3)
    return fluxes(magnitude, 0.6 + redder + 0.35 * a, 0.2 + 0.25 * redder + 0.12 * b, 0.2 + 0.25 * redder + 0.12 * c)


def source_flux(rng: Generator, magnitude: float, red: bool) -> Flux:
    """Colours of a lensed source (or of a companion that looks like one)."""
    a, b, c = rng.standard_normal(3)
    if red:
        return fluxes(magnitude, 1.3 + 0.4 * a, 0.45 + 0.15 * b, 0.4 + 0.15 * c)
    return fluxes(magnitude, 0.15 + 0.25 * a, 0.1 + 0.12 * b, 0.1 + 0.12 * c)


def draw_deflector(rng: Generator) -> tuple[list[Component], System]:
    """A massive galaxy and the redshift of something behind it, as seen among lenses: 0.5" < θ_E < 3".

    Non-lensing ellipticals are drawn here as well, so that the deflector alone tells nothing of the class. The light
    follows the fundamental plane roughly: ``M_r = -22.3 - 10 log10(σ/220)``, scatter 0.35 mag, with a K-correction.
    """
    while True:
        sigma = rng.normal(215.0, 50.0, 32)
        z_lens = rng.gamma(5.0, 0.12, 32) + 0.05
        z_source = rng.gamma(5.0, 0.42, 32) + 0.3
        behind = (sigma > 80.0) & (z_source > z_lens + 0.1) & (z_source < 8.0) & (z_lens < 2.0)
        theta = cosmology.einstein_radius_arcsec(np.abs(sigma), np.minimum(z_lens, 8.0), np.minimum(z_source, 8.0))
        usable = np.flatnonzero(behind & (theta > THETA_E_RANGE[0]) & (theta < THETA_E_RANGE[1]))
        if len(usable):
            break
    pick = usable[0]
    speed, z, z_far, theta_e = float(sigma[pick]), float(z_lens[pick]), float(z_source[pick]), float(theta[pick])
    absolute = -22.3 - 10.0 * math.log10(speed / 220.0) + 0.35 * rng.standard_normal()
    k_correction = 0.15 + 1.05 * z + 0.25 * z * z - 0.1  # old stellar population in 550-900 nm
    magnitude = absolute + float(cosmology.distance_modulus(z)) + k_correction
    a, b, c = rng.standard_normal(3)
    light = fluxes(magnitude, 0.65 + 1.15 * z + 0.08 * a, 0.24 + 0.2 * z + 0.05 * b, 0.28 + 0.2 * z + 0.05 * c)
    radius_kpc = 10.0 ** (0.72 - 0.24 * (absolute + 22.3) + 0.12 * rng.standard_normal())
    radius = float(np.clip(radius_kpc * float(cosmology.arcsec_per_kpc(z)), 0.15, 3.5))
    q, angle = rng.uniform(0.55, 0.98), rng.uniform(0.0, math.pi)
    bulge = Component(Kind.SERSIC, 0.0, 0.0, light, radius=radius, index=rng.uniform(1.5, 4.0), q=q, angle=angle)
    components = [bulge]
    if rng.random() < 0.3:  # lenticular: part of the light in a flatter disc
        share = rng.uniform(0.15, 0.5)
        disc_q = float(np.clip(q * rng.uniform(0.55, 1.0), 0.25, 0.98))
        disc = Component(
            Kind.SERSIC, 0.0, 0.0, scaled(light, share), radius=radius * rng.uniform(1.1, 1.8), index=1.0, q=disc_q, angle=angle
        )
        components = [replace(bulge, flux=scaled(light, 1.0 - share), radius=0.8 * radius), disc]
    shear = rng.uniform(-0.05, 0.05, 2)
    lens = Lens(
        theta_e,
        float(np.clip(q + 0.07 * rng.standard_normal(), 0.5, 0.98)),
        angle + 0.15 * rng.standard_normal(),
        0.0,
        0.0,
        float(shear[0]),
        float(shear[1]),
    )
    red = bool(rng.random() < RED_SOURCE_FRACTION)
    system = System(lens, z, z_far, speed, power_law_magnitude(rng, *SOURCE_MAGNITUDES), math.nan, math.nan, red)
    return components, system


def draw_source(
    rng: Generator, system: System, offset: tuple[float, float], max_radius: float = 0.9
) -> tuple[list[Component], System]:
    """Put the system's source at a distance uniform over the annulus ``offset`` (units of θ_E) and draw its light.

    Half of the sources are one Sérsic profile, half a disc with one to five clumps.
    """
    low, high = offset
    beta = system.lens.theta_e * math.sqrt(rng.uniform(low * low, high * high))
    direction = rng.uniform(0.0, 2.0 * math.pi)
    x, y = beta * math.cos(direction), beta * math.sin(direction)
    light = source_flux(rng, system.source_magnitude, system.red_source)
    radius = float(np.clip(0.28 * math.exp(0.6 * rng.standard_normal()), 0.05, max_radius))
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    disc = Component(Kind.SERSIC, x, y, light, radius=radius, index=rng.uniform(0.7, 2.2), q=q, angle=angle, lens=system.lens)
    components = [disc]
    if rng.random() < 0.5:
        clump_share = rng.uniform(0.15, 0.6)
        components = [replace(disc, flux=scaled(light, 1.0 - clump_share))]
        components += draw_clumps(rng, disc, scaled(light, clump_share), int(rng.integers(1, 6)))
    return components, replace(system, source_x=x, source_y=y)


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
                lens=disc.lens,
            )
        )
    return clumps


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


def moved(components: Sequence[Component], dx: float, dy: float) -> list[Component]:
    """All components shifted."""
    return [component.moved(dx, dy) for component in components]
