"""Massive galaxies that bend light, and the redshift of something behind them.

In: a random generator and options. Out: the galaxy's light about the origin, and a :class:`Deflector`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.population.colours import fluxes, scaled
from scanner.simulation.population.options import Options

THETA_E_RANGE = (0.5, 3.0)
#: ... in a survey.
SURVEY_THETA_E_RANGE = (0.3, 3.0)


@dataclass(frozen=True)
class Deflector:
    """A mass and its place: ``lens`` with the θ_E (arcsec) that belongs to a source at ``z_source``."""

    lens: Lens
    z_lens: float
    z_source: float
    sigma_v_kms: float


def draw_deflector(rng: Generator, options: Options) -> tuple[list[Component], Deflector]:
    """A massive galaxy and the redshift of something behind it, as seen among lenses: 0.5" < θ_E < 3".

    Non-lensing ellipticals are drawn here as well, so that the deflector alone tells nothing of the class. The light
    follows the fundamental plane roughly: ``M_r = -22.3 - 10 log10(σ/220)``, scatter 0.35 mag, with a K-correction.
    """
    smallest, largest = SURVEY_THETA_E_RANGE if options.survey else THETA_E_RANGE
    while True:
        sigma = rng.normal(215.0, 50.0, 32)
        z_lens = rng.gamma(5.0, 0.12, 32) + 0.05
        z_source = rng.gamma(5.0, 0.42, 32) + 0.3
        behind = (sigma > 80.0) & (z_source > z_lens + 0.1) & (z_source < 8.0) & (z_lens < 2.0)
        theta = cosmology.einstein_radius_arcsec(np.abs(sigma), np.minimum(z_lens, 8.0), np.minimum(z_source, 8.0))
        usable = np.flatnonzero(behind & (theta > smallest) & (theta < largest))
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
    return components, Deflector(lens, z, z_far, speed)
