"""Zero points: AB magnitudes to the units of the mosaics, ``10^(0.4 (zero point - magnitude))``, and back."""

from __future__ import annotations

import math

from scanner.records import Band

ZERO_POINT: dict[Band, float] = {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9}


def flux(magnitude: float, band: Band) -> float:
    """Image units of an AB magnitude."""
    return float(10.0 ** (0.4 * (ZERO_POINT[band] - magnitude)))


def magnitude(light: float, band: Band) -> float:
    """AB magnitude of a flux in image units."""
    return ZERO_POINT[band] - 2.5 * math.log10(light)
