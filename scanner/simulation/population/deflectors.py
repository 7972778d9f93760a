"""Massive galaxies that bend light, and the redshift of something behind them.

In: a random generator and options. Out: the galaxy's light about the origin, and a :class:`Deflector`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from scanner.simulation.lensing import cosmology
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.population.early_types import (
    FABER_JACKSON_SCATTER,
    SHELL_FRACTION,
    EarlyType,
    apparent_magnitude,
    early_type,
    faber_jackson,
)
from scanner.simulation.population.options import Options

THETA_E_RANGE = (0.5, 3.0)
#: ... in a survey.
SURVEY_THETA_E_RANGE = (0.3, 3.0)
_TRIED_AT_ONCE = 16


@dataclass(frozen=True)
class Deflector:
    """A mass and its place: ``lens`` with the θ_E (arcsec) that belongs to a source at ``z_source``."""

    lens: Lens
    z_lens: float
    z_source: float
    sigma_v_kms: float


def draw_deflector(rng: Generator, options: Options) -> tuple[EarlyType, Deflector]:
    """A massive galaxy and the redshift of something behind it, as seen among lenses: 0.5" < θ_E < 3".

    Non-lensing ellipticals are drawn here as well, so that the deflector alone tells nothing of the class. Velocity
    dispersions N(215, 50) km/s, lens redshifts 0.05 + Γ(5, 0.12), source redshifts as :func:`source_redshifts`; of these
    what fits the range of θ_E.
    """
    smallest, largest = SURVEY_THETA_E_RANGE if options.survey else THETA_E_RANGE
    while True:
        sigma = np.maximum(rng.normal(215.0, 50.0, _TRIED_AT_ONCE), 80.0)
        z_lens = np.minimum(rng.gamma(5.0, 0.12, _TRIED_AT_ONCE) + 0.05, 2.0)
        z_source = source_redshifts(rng, _TRIED_AT_ONCE)
        theta = cosmology.einstein_radius_arcsec(sigma, z_lens, z_source)
        usable = np.flatnonzero((z_source > z_lens + 0.1) & (theta > smallest) & (theta < largest))
        if len(usable):
            break
    pick = usable[0]
    speed, z = float(sigma[pick]), float(z_lens[pick])
    galaxy = deflector_light(rng, speed, z, options.shell_fraction)
    return galaxy, Deflector(mass_of(rng, galaxy, float(theta[pick])), z, float(z_source[pick]), speed)


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
