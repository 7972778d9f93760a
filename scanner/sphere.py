"""Positions on the sky as unit vectors and as HEALPix indices.

In: right ascensions and declinations in degrees. Out: what distances and partitions are computed with, without trouble at the
poles or where right ascension starts again. Nothing is refused; positions have to be finite.
"""

from __future__ import annotations

import astropy.units as u
import numpy as np
from astropy_healpix import lonlat_to_healpix

from scanner.records import Float64, Int64

#: The finest order whose indices fit 64 bits: cells of 0.4 mas.
HEALPIX_ORDER = 29


def healpix_29(ra: Float64, dec: Float64) -> Int64:
    """HEALPix index of order 29, nested; ``ra``, ``dec`` (N,) in degrees."""
    index = lonlat_to_healpix(ra * u.deg, dec * u.deg, 2**HEALPIX_ORDER, order="nested")
    return np.asarray(index, dtype=np.int64)


def unit_vectors(ra: Float64, dec: Float64) -> Float64:
    """Directions as unit vectors, (N, 3); ``ra``, ``dec`` (N,) in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def chord(radius_arcsec: float) -> float:
    """Straight distance between unit vectors that are ``radius_arcsec`` apart."""
    return float(2.0 * np.sin(0.5 * np.radians(radius_arcsec / 3600.0)))
