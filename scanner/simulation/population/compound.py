"""Compound lenses: two galaxies in one line of sight, a far source bent by both, and the rear galaxy bent by the front one.

In: a random generator and options. Out: a :class:`LabelledObject` of two systems, each with two images or more: the rear galaxy
behind the front one, and the far source behind both. A *compound arc* has both well off the axis, so that they are seen as
arcs; a *double ring* has them close to it (Wilde et al. 2022, section 2.2, who tell the two apart by these offsets). The
lower-redshift galaxy is the heavier one two thirds of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.lensing.images import find_images
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Kind, total_flux
from scanner.simulation.population.colours import source_flux
from scanner.simulation.population.deflectors import (
    SURVEY_THETA_E_RANGE,
    THETA_E_RANGE,
    Deflector,
    deflector_light,
    mass_of,
    source_redshifts,
)
from scanner.simulation.population.early_types import FABER_JACKSON_SCATTER, EarlyType, faber_jackson
from scanner.simulation.population.massive_galaxies import with_neighbours
from scanner.simulation.population.options import Options
from scanner.simulation.population.sources import background_galaxy, draw_source
from scanner.simulation.population.system import LabelledObject, System, moved
from scanner.simulation.telescope.photometry import magnitude

HEAVIER_IN_FRONT = 2.0 / 3.0
#: Offsets, unlensed and in units of the front galaxy's θ_E: of the rear galaxy from the front one, and of the far source from
#: the middle of both, each weighted by its θ_E.
ARC_OFFSETS, RING_OFFSETS = (0.3, 0.9), (0.0, 0.3)
#: Share of rear galaxies without young stars; galaxies this heavy mostly are.
_QUIESCENT_REAR = 0.6
_TRIED_AT_ONCE = 64
_SMALLEST_GAP = 0.1  # in redshift, between front and rear galaxy and the far source


@dataclass(frozen=True)
class LineOfSight:
    """Redshifts and velocity dispersions (km/s) of the front and the rear galaxy, and θ_E (arcsec) for what is behind them."""

    z_front: float
    z_rear: float
    z_far: float
    sigma_front_kms: float
    sigma_rear_kms: float

    @property
    def front_theta_e(self) -> float:
        """Of the front galaxy for the far source (Wilde et al. 2022, equation 1)."""
        return float(cosmology.einstein_radius_arcsec(self.sigma_front_kms, self.z_front, self.z_far))

    @property
    def rear_theta_e(self) -> float:
        """Of the rear galaxy for the far source."""
        return float(cosmology.einstein_radius_arcsec(self.sigma_rear_kms, self.z_rear, self.z_far))

    @property
    def coupling(self) -> float:
        """Share of the front galaxy's deflection that is felt at the rear one."""
        return float(cosmology.coupling(self.z_front, self.z_rear, self.z_far))


def compound_arc(rng: Generator, options: Options) -> LabelledObject:
    """Arcs of two sources behind one galaxy, the nearer of which bends the light of the farther."""
    return _draw(rng, options, "compound_arc", ARC_OFFSETS)


def double_ring(rng: Generator, options: Options) -> LabelledObject:
    """As :func:`compound_arc`, but close to the axis: two rings, whole or nearly so."""
    return _draw(rng, options, "double_ring", RING_OFFSETS)


def draw_line_of_sight(rng: Generator, options: Options) -> LineOfSight:
    """Two galaxies of the deflectors' population and a source behind both, in which both sources are visibly lensed.

    The front galaxy's θ_E for the rear one is as large as that of a single lens, and both together bend the far source's light
    no more than a single lens may. Which of the two is heavier is decided first, so that no selection changes the share.
    """
    smallest, largest = SURVEY_THETA_E_RANGE if options.survey else THETA_E_RANGE
    heavier_in_front = rng.random() < HEAVIER_IN_FRONT
    while True:
        light, heavy = np.sort(np.maximum(rng.normal(215.0, 50.0, (2, _TRIED_AT_ONCE)), 80.0), axis=0)
        z_front, z_rear = np.sort(np.minimum(rng.gamma(5.0, 0.12, (2, _TRIED_AT_ONCE)) + 0.05, 2.0), axis=0)
        z_far = source_redshifts(rng, _TRIED_AT_ONCE)
        front, rear = (heavy, light) if heavier_in_front else (light, heavy)
        for_rear = cosmology.einstein_radius_arcsec(front, z_front, z_rear)
        for_far = cosmology.einstein_radius_arcsec([front, rear], [z_front, z_rear], z_far).sum(axis=0)
        in_order = (z_rear > z_front + _SMALLEST_GAP) & (z_far > z_rear + _SMALLEST_GAP)
        usable = np.flatnonzero(in_order & (for_rear > smallest) & (for_far < largest))
        if len(usable):
            k = usable[0]
            return LineOfSight(float(z_front[k]), float(z_rear[k]), float(z_far[k]), float(front[k]), float(rear[k]))


def compound_systems(
    line: LineOfSight, front: Lens, rear: Lens, rear_light: list[Component], far: System, quiescent: bool
) -> tuple[System, System]:
    """Both systems of a line of sight.

    Parameters
    ----------
    line
        Redshifts and masses.
    front, rear
        Deflectors with θ_E and shear for the far source.
    rear_light
        Components of the rear galaxy, in place.
    far
        The far source, in place, whatever it is seen through.
    quiescent
        Whether the rear galaxy is red.
    """
    share = line.coupling
    nearer = Sightline(
        (replace(front, theta_e=share * front.theta_e, gamma1=share * front.gamma1, gamma2=share * front.gamma2),)
    )
    both = Sightline((front, rear), (share,))
    return (
        System(
            tuple(replace(component, seen_through=nearer) for component in rear_light),
            nearer,
            line.z_front,
            line.z_rear,
            line.sigma_front_kms,
            magnitude(total_flux(rear_light)[0], "VIS"),
            rear.x,
            rear.y,
            quiescent,
        ),
        replace(
            far,
            source=tuple(replace(component, seen_through=both) for component in far.source),
            sightline=both,
            z_lens=line.z_rear,
            z_source=line.z_far,
            sigma_v_kms=line.sigma_rear_kms,
        ),
    )


def _draw(rng: Generator, options: Options, class_name: str, offsets: tuple[float, float]) -> LabelledObject:
    # Both planes of a compound lens are single galaxies, also in the wide sky.
    options = options.model_copy(update={"wide": False, "survey": options.survey or options.wide})
    line = draw_line_of_sight(rng, options)
    galaxy = deflector_light(rng, line.sigma_front_kms, line.z_front)
    mass = mass_of(rng, galaxy, line.front_theta_e)
    foreground, deflector = with_neighbours(
        rng, galaxy, Deflector(mass, line.z_front, line.z_far, line.sigma_front_kms, galaxy.magnitude), options
    )
    front = deflector.lens

    quiescent = bool(rng.random() < _QUIESCENT_REAR)
    beyond = deflector_light(rng, line.sigma_rear_kms, line.z_rear) if quiescent else _star_forming(rng, line)
    low, high = (line.coupling * front.theta_e * offset for offset in offsets)
    distance, turn = math.sqrt(rng.uniform(low * low, high * high)), rng.uniform(0.0, 2.0 * math.pi)
    x, y = distance * math.cos(turn), distance * math.sin(turn)
    rear = replace(mass_of(rng, beyond, line.rear_theta_e), x=x, y=y)

    weight = rear.theta_e / (front.theta_e + rear.theta_e)
    while True:
        far = draw_source(rng, deflector, offsets, options).moved(weight * x, weight * y)
        systems = compound_systems(line, front, rear, moved(beyond.components, x, y), far, quiescent)
        if find_images(far.source_x, far.source_y, systems[1].sightline).count[0] > 1:
            return LabelledObject(class_name, foreground, systems)


def _star_forming(rng: Generator, line: LineOfSight) -> EarlyType:
    """A rear galaxy with young stars: as bright as its mass says, blue, with the structure of any blue source."""
    absolute = faber_jackson(line.sigma_rear_kms) + FABER_JACKSON_SCATTER * rng.standard_normal()
    vis = absolute + float(cosmology.distance_modulus(line.z_rear)) + 0.4 * line.z_rear
    light = source_flux(rng, vis, False, line.z_rear)
    radius_kpc = 10.0 ** (0.5 + 0.18 * rng.standard_normal())
    radius = min(max(radius_kpc * float(cosmology.arcsec_per_kpc(line.z_rear)), 0.1), 0.9)
    q, angle = rng.uniform(0.35, 1.0), rng.uniform(0.0, math.pi)
    main = Component(Kind.SERSIC, 0.0, 0.0, light, radius=radius, q=q, angle=angle)
    return EarlyType(background_galaxy(rng, main, red=False), line.z_rear, vis, absolute, radius, q, angle)
