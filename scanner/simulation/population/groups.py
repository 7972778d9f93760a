"""Galaxies that stand together: the surroundings of a massive galaxy, groups and clusters.

In: a random generator and the galaxy in the middle. Out: light about the origin, and the shear that the neighbours' masses
make there. Nothing here is lensed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.light.components import Component
from scanner.simulation.population.colours import scaled
from scanner.simulation.population.deflectors import Deflector, draw_deflector
from scanner.simulation.population.early_types import EarlyType, early_type, velocity_dispersion
from scanner.simulation.population.field import draw_field_galaxy
from scanner.simulation.population.options import Options
from scanner.simulation.population.system import LabelledObject, moved

#: Share of massive galaxies with a group around them.
IN_GROUP = 0.2
#: Slope of the members' counts per magnitude, ``∝ 10^(slope m)``, and share of members that are still blue.
LUMINOSITY_SLOPE, BLUE_MEMBERS = 0.25, 0.2
LARGEST_SHEAR = 0.12
#: Members of a wide sky's group that bend light by themselves: how many at most, and their smallest θ_E, arcsec.
MASSES, SMALLEST_MASS = 3, 0.1


@dataclass(frozen=True)
class Surroundings:
    """Light of the neighbours, the external shear of their masses at the origin, and ``masses`` that bend light themselves."""

    components: list[Component]
    gamma1: float = 0.0
    gamma2: float = 0.0
    masses: tuple[Lens, ...] = ()


def surroundings(rng: Generator, galaxy: EarlyType, deflector: Deflector, options: Options) -> Surroundings:
    """The group that a massive galaxy may stand in; empty for most, never for a group's mass."""
    z_source = deflector.z_source
    if options.wide and deflector.is_group:
        reach, compact = max(9.0, 1.5 * deflector.lens.theta_e), rng.random() < 0.3
        count, gap = (rng.integers(3, 6), 0.0) if compact else (rng.integers(4, 16), rng.uniform(0.5, 1.5))
        return members(rng, galaxy, int(count), (1.2, reach), z_source, gap, masses=MASSES)
    if rng.random() >= IN_GROUP:
        return Surroundings([])
    return members(rng, galaxy, int(rng.integers(2, 7)), (2.2, 11.0), z_source, masses=MASSES if options.wide else 0)


def members(
    rng: Generator,
    galaxy: EarlyType,
    count: int,
    distances: tuple[float, float],
    z_source: float | None = None,
    gap: float = 0.3,
    masses: int = 0,
) -> Surroundings:
    """Galaxies at the redshift of the one in the middle and up to four magnitudes fainter, mostly red.

    Parameters
    ----------
    rng, galaxy
        Random numbers; the galaxy at the origin.
    count, distances
        How many, and how near and how far, arcsec; as many at any distance, so that they crowd towards the middle.
    z_source
        Redshift for which the members' shear is wanted; without it there is none.
    gap
        Magnitudes by which they are fainter at least.
    masses
        How many of them at most bend light by themselves; the others only shear it.
    """
    components: list[Component] = []
    bending: list[Lens] = []
    gamma1 = gamma2 = 0.0
    # θ_E of a member with 1 km/s; it grows with the square.
    per_square = float(cosmology.einstein_radius_arcsec(1.0, galaxy.z, z_source)) if z_source is not None else 0.0
    for _ in range(count):
        distance, turn = rng.uniform(*distances), rng.uniform(0.0, 2.0 * math.pi)
        x, y = distance * math.cos(turn), distance * math.sin(turn)
        fainter = math.log10(1.0 + rng.random() * (10.0 ** (4.0 * LUMINOSITY_SLOPE) - 1.0)) / LUMINOSITY_SLOPE
        absolute = galaxy.absolute_magnitude + gap + fainter
        theta_e, q, angle = per_square * velocity_dispersion(absolute) ** 2, 0.8, 0.0
        if rng.random() < BLUE_MEMBERS:
            components += draw_field_galaxy(rng, x, y, galaxy.magnitude + gap + fainter)
        else:
            member = early_type(rng, galaxy.z, absolute)
            components += moved(member.components, x, y)
            q, angle = member.q, member.angle
        if theta_e > SMALLEST_MASS and len(bending) < masses:
            bending.append(Lens(theta_e, q, angle, x, y, 0.0, 0.0))
            continue
        # The shear of an isothermal sphere at distance r is θ_E/2r, stretching towards it.
        shear = 0.5 * theta_e / distance
        gamma1, gamma2 = gamma1 - shear * math.cos(2.0 * turn), gamma2 - shear * math.sin(2.0 * turn)
    limit = min(1.0, LARGEST_SHEAR / max(math.hypot(gamma1, gamma2), 1e-9))
    return Surroundings(components, limit * gamma1, limit * gamma2, tuple(bending))


def group(rng: Generator, options: Options) -> LabelledObject:
    """A massive galaxy among four to ten others; in compact groups they are as bright and near."""
    galaxy, _ = draw_deflector(rng, options)
    compact = rng.random() < 0.4
    count = int(rng.integers(3, 6)) if compact else int(rng.integers(4, 11))
    around = members(rng, galaxy, count, (1.0, 4.0 if compact else 9.0))
    return LabelledObject("group", galaxy.components + around.components)


def cluster(rng: Generator, options: Options) -> LabelledObject:
    """A brightest cluster galaxy, its envelope, light between the galaxies, and dozens of red members."""
    z = rng.uniform(0.2, 1.1)
    bcg = early_type(rng, z, rng.normal(-23.4, 0.4), envelope=True)
    # Not always is the galaxy in the middle of the cutout the one in the middle of the cluster.
    around = members(rng, bcg, int(rng.integers(8, 26)), (0.8, 14.0), gap=1.0).components
    halo = replace(bcg.components[0], flux=scaled(bcg.components[0].flux, rng.uniform(0.1, 0.3)), radius=6.0, index=1.0, q=0.7)
    parts = [*bcg.components, halo, *around]
    if rng.random() < 0.4:
        satellite = early_type(rng, z, bcg.absolute_magnitude + rng.uniform(0.8, 2.5))
        turn, distance = rng.uniform(0.0, 2.0 * math.pi), rng.uniform(2.0, 7.0)
        parts = satellite.components + moved(parts, distance * math.cos(turn), distance * math.sin(turn))
    return LabelledObject("cluster", parts)
