"""Compound lenses as Wilde et al. (2022) made them: section 2.2 and Table 1, to be drawn by lenstronomy.

In: a random generator, a class and which parameters. Out: a :class:`LabelledObject` as every class has, for the same telescope,
labels and truth; :mod:`~scanner.simulation.population.lenstronomy_light` turns it into pixels. Refused: other classes
(KeyError).

``physical`` parameters are those of :mod:`~scanner.simulation.population.compound`. ``paper`` parameters are Table 1's, where
it agrees with itself and with the paper's text:

========================  =======================  =======================================================================
Table 1                   drawn                    why
========================  =======================  =======================================================================
R_sersic 0.2-7"           as stated                geometric mean of the half-light ellipse's axes, as in lenstronomy
n_sersic 1.5-20           1.5-4                    the published notebook's range; no galaxy has 20
angle, axis ratio         as stated                mass and light alike
source x, y ±5"           by the scene             the whole object is moved: here the front galaxy is in the origin
arc: lenses ±5" away      within 0.9 θ_E           nearly all the others are not lensed
ring: lenses ±0.25" away  as stated                of the far source
Gamma ±0.5                ±0.05, both components   the published notebook's external shear; 0.5 is stronger than most lenses
========================  =======================  =======================================================================

The lower-redshift galaxy is the heavier one two thirds of the time, as the text says; θ_E follow from equation 1, and
magnitudes from the velocity dispersions by the Faber-Jackson relation with a K-correction. The rear galaxy is a source as well
as a lens: its light passes by the front one. There are no satellites, and flux is linear.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from numpy.random import Generator

from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Flux, Kind, total_flux
from scanner.simulation.population import compound
from scanner.simulation.population.colours import power_law_magnitude, source_flux
from scanner.simulation.population.compound import LineOfSight, compound_systems, draw_line_of_sight
from scanner.simulation.population.deflectors import deflector_light
from scanner.simulation.population.options import TRAINING
from scanner.simulation.population.sources import MAX_OFFSET, SOURCE_MAGNITUDES
from scanner.simulation.population.system import LabelledObject, System

Parameters = Literal["paper", "physical"]
R_SERSIC_ARCSEC, N_SERSIC, AXIS_RATIO = (0.2, 7.0), (1.5, 4.0), (0.3, 1.0)
RING_OFFSET_ARCSEC = 0.25  #: of a lens from the far source along x and y
LARGEST_SHEAR = 0.05

_PHYSICAL = {"compound_arc": compound.compound_arc, "double_ring": compound.double_ring}


def draw_paper_object(rng: Generator, class_name: str, parameters: Parameters) -> LabelledObject:
    """Draw a compound lens about the origin.

    Parameters
    ----------
    rng
        Random numbers.
    class_name
        ``compound_arc`` or ``double_ring``.
    parameters
        ``paper``: Table 1; ``physical``: the same object as :func:`scanner.simulation.population.classes.draw_object` draws.

    Raises
    ------
    KeyError
        Another class.
    """
    physical = _PHYSICAL[class_name]
    if parameters == "physical":
        return physical(rng, TRAINING)
    line = draw_line_of_sight(rng, TRAINING)
    rear_offset, far_offset = _arc_offsets(rng, line) if class_name == "compound_arc" else _ring_offsets(rng)
    front_light = _profile(rng, total_flux(deflector_light(rng, line.sigma_front_kms, line.z_front).components), (0.0, 0.0))
    rear_light = _profile(rng, total_flux(deflector_light(rng, line.sigma_rear_kms, line.z_rear).components), rear_offset)
    front, rear = _mass(rng, front_light, line.front_theta_e), _mass(rng, rear_light, line.rear_theta_e)
    far = _far_source(rng, line, far_offset, front)
    return LabelledObject(class_name, [front_light], compound_systems(line, front, rear, [rear_light], far, quiescent=True))


def _arc_offsets(rng: Generator, line: LineOfSight) -> tuple[tuple[float, float], tuple[float, float]]:
    """Places of the rear galaxy and the far source from the front galaxy, each within 0.9 of its θ_E for them."""
    return _within(rng, MAX_OFFSET * line.coupling * line.front_theta_e), _within(rng, MAX_OFFSET * line.front_theta_e)


def _ring_offsets(rng: Generator) -> tuple[tuple[float, float], tuple[float, float]]:
    """As :func:`_arc_offsets`, with both galaxies in a square about the far source."""
    front, rear = rng.uniform(-RING_OFFSET_ARCSEC, RING_OFFSET_ARCSEC, (2, 2)).tolist()
    return (rear[0] - front[0], rear[1] - front[1]), (-front[0], -front[1])


def _within(rng: Generator, radius: float) -> tuple[float, float]:
    """A place in a circle."""
    distance, turn = radius * math.sqrt(rng.random()), rng.uniform(0.0, 2.0 * math.pi)
    return distance * math.cos(turn), distance * math.sin(turn)


def _profile(rng: Generator, light: Flux, place: tuple[float, float]) -> Component:
    """A galaxy as Table 1 has it."""
    q = rng.uniform(*AXIS_RATIO)
    radius = rng.uniform(*R_SERSIC_ARCSEC) / math.sqrt(q)  # major axis
    return Component(
        Kind.SERSIC, *place, light, radius=radius, index=rng.uniform(*N_SERSIC), q=q, angle=rng.uniform(0.0, math.pi)
    )


def _mass(rng: Generator, light: Component, theta_e: float) -> Lens:
    """Mass that follows the light, with external shear."""
    gamma1, gamma2 = rng.uniform(-LARGEST_SHEAR, LARGEST_SHEAR, 2).tolist()
    return Lens(theta_e, light.q, light.angle, light.x, light.y, gamma1, gamma2)


def _far_source(rng: Generator, line: LineOfSight, place: tuple[float, float], front: Lens) -> System:
    """The far source, as seen through the front galaxy alone."""
    red = bool(rng.random() < TRAINING.red_source_fraction)
    vis = power_law_magnitude(rng, *SOURCE_MAGNITUDES)
    sightline = Sightline((front,))
    light = replace(_profile(rng, source_flux(rng, vis, red, line.z_far), place), seen_through=sightline)
    return System((light,), sightline, line.z_front, line.z_far, line.sigma_front_kms, vis, *place, red)
