"""Magnitudes, colours and fluxes of everything on the sky, as (VIS, Y, J, H) in image units.

In: a random generator, magnitudes and colours in AB (VIS-Y, Y-J, J-H). Out: fluxes. The numbers are by eye against a few real
Euclid images, not fitted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from scanner.records import BANDS, Float64
from scanner.simulation.light.components import Flux
from scanner.simulation.telescope.photometry import ZERO_POINT, flux

COUNT_SLOPE = 0.3


def fluxes(vis: float, vis_y: float, y_j: float, j_h: float) -> Flux:
    """Image units in the four bands from a VIS magnitude and colours."""
    y = vis - vis_y
    return flux(vis, "VIS"), flux(y, "Y"), flux(y - y_j, "J"), flux(y - y_j - j_h, "H")


def flux_rows(vis: Float64, vis_y: Float64, y_j: Float64, j_h: Float64) -> Float64:
    """(N, 4) image units from arrays (N,): :func:`fluxes` of many."""
    y = vis - vis_y
    magnitudes = np.stack([vis, y, y - y_j, y - y_j - j_h], axis=1)
    return np.asarray(np.power(10.0, 0.4 * (np.array([ZERO_POINT[band] for band in BANDS]) - magnitudes)))


def scaled(light: Flux, share: float) -> Flux:
    """A share of a flux."""
    vis, y, j, h = light
    return vis * share, y * share, j * share, h * share


def power_law_magnitudes(rng: Generator, bright: float, faint: float, count: int) -> Float64:
    """Magnitudes from counts ``∝ 10^(0.3 m)``."""
    low, high = 10.0 ** (COUNT_SLOPE * bright), 10.0 ** (COUNT_SLOPE * faint)
    return np.asarray(np.log10(low + rng.random(count) * (high - low)) / COUNT_SLOPE)


def power_law_magnitude(rng: Generator, bright: float, faint: float) -> float:
    """One of them."""
    return float(power_law_magnitudes(rng, bright, faint, 1)[0])


def galaxy_flux(rng: Generator, magnitude: float, redder: float = 0.0) -> Flux:
    """Colours of an ordinary field galaxy."""
    a, b, c = rng.standard_normal(3)
    return fluxes(magnitude, 0.6 + redder + 0.35 * a, 0.2 + 0.25 * redder + 0.12 * b, 0.2 + 0.4 * redder + 0.12 * c)


def source_colours(red: bool, z: float) -> tuple[float, float, float]:
    """Mean VIS-Y, Y-J and J-H of lensed sources at a redshift, AB.

    The break at 4000 Å reddens VIS-Y about z = 1.2, Y-J about 1.9 and J-H about 2.8: much in a galaxy without young stars,
    little in others. Beyond z = 4.5 the Lyman forest takes light from VIS.
    """
    vis_y, y_j, j_h = (math.exp(-(((z - centre) / width) ** 2)) for centre, width in ((1.2, 0.6), (1.9, 0.55), (2.8, 0.7)))
    # VIS reaches from 550 to 920 nm; 0.7: what the forest takes of what lies blueward of Lyman α.
    forest = -2.5 * math.log10(1.0 - 0.7 * min(max((0.1216 * (1.0 + z) - 0.55) / 0.37, 0.0), 0.95))
    if red:
        return 0.95 + 0.8 * vis_y + forest, 0.35 + 0.4 * y_j, 0.3 + 0.35 * j_h
    return 0.05 + 0.3 * vis_y + forest, 0.05 + 0.2 * y_j, 0.05 + 0.2 * j_h


def source_flux(rng: Generator, magnitude: float, red: bool, z: float) -> Flux:
    """Light of a lensed source (or of a companion that looks like one) at a redshift, scattered about the mean colours."""
    a, b, c = rng.standard_normal(3)
    vis_y, y_j, j_h = source_colours(red, z)
    if red:
        return fluxes(magnitude, vis_y + 0.3 * a, y_j + 0.15 * b, j_h + 0.15 * c)
    return fluxes(magnitude, vis_y + 0.22 * a, y_j + 0.1 * b, j_h + 0.1 * c)
