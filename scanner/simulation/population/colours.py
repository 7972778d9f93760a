"""Magnitudes, colours and fluxes of everything on the sky, as (VIS, Y, J, H) in image units.

In: a random generator, magnitudes and colours in AB (VIS-Y, Y-J, J-H). Out: fluxes. The numbers are by eye against a few real
Euclid images, not fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from scanner.simulation.light.components import Flux
from scanner.simulation.telescope.photometry import flux

COUNT_SLOPE = 0.3


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
