"""Positions on the sky, in degrees (ICRS): distances, HEALPix indices, and names in the style of the IAU."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from scanner.records import Float64, Int64

#: The finest order whose indices fit 64 bits: cells of 0.4 mas.
HEALPIX_ORDER = 29


def healpix_29(ra: Float64, dec: Float64) -> Int64:
    """HEALPix index of order 29, nested; ``ra``, ``dec`` (N,) in degrees."""
    # A third of a second to import, which --help should not wait for.
    import astropy.units as u
    from astropy_healpix import lonlat_to_healpix

    index = lonlat_to_healpix(ra * u.deg, dec * u.deg, 2**HEALPIX_ORDER, order="nested")
    return np.asarray(index, dtype=np.int64)


def cell_numbers(ra: Float64, dec: Float64, order: int) -> Int64:
    """HEALPix cells of an order, nested, (N,) int64: those of one larger cell have numbers in a row."""
    return healpix_29(ra, dec) >> 2 * (HEALPIX_ORDER - order)


def unit_vectors(ra: Float64, dec: Float64) -> Float64:
    """Directions as unit vectors, (N, 3); ``ra``, ``dec`` (N,) in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


def chord(radius_arcsec: float) -> float:
    """Straight distance between unit vectors that are ``radius_arcsec`` apart."""
    return float(2.0 * np.sin(0.5 * np.radians(radius_arcsec / 3600.0)))


def chord_angle_deg(length: Float64) -> Float64:
    """Angle in degrees between unit vectors that are ``length`` apart, of any shape; precise for the smallest angles too."""
    return np.asarray(np.degrees(2.0 * np.arcsin(np.minimum(0.5 * np.asarray(length), 1.0))))


def separation_deg(ra: Float64, dec: Float64, other_ra: Float64, other_dec: Float64) -> Float64:
    """Angular distance of positions in degrees, (N,); all in degrees, (N,) or one number."""
    return chord_angle_deg(np.linalg.norm(unit_vectors(ra, dec) - unit_vectors(other_ra, other_dec), axis=-1))


def nearest(ra: Float64, dec: Float64, other_ra: Float64, other_dec: Float64) -> tuple[Float64, Int64]:
    """Distance in arcsec from each of (N,) positions to the nearest of others, (N,), and which that is, (N,).

    All in degrees. Where there are no others: infinity, and -1.
    """
    from scipy.spatial import KDTree

    if not len(other_ra):
        return np.full(len(ra), np.inf), np.full(len(ra), -1, dtype=np.int64)
    length, index = KDTree(unit_vectors(other_ra, other_dec)).query(unit_vectors(ra, dec))
    return chord_angle_deg(length) * 3600.0, np.asarray(index, dtype=np.int64)


#: Acronym of designations, where a survey has no other (:mod:`scanner.imaging_surveys`).
PREFIX = "EUCL"
_DESIGNATION = re.compile(
    r"(?:([A-Z][A-Z0-9-]{0,15})[\s_]+|(EUCL))?J(\d\d)(\d\d)(\d\d\.\d\d)([+-])(\d\d)(\d\d)(\d\d\.\d)", re.IGNORECASE
)
_CENTISECONDS_PER_DEGREE = 24_000
_DECISECONDS_PER_DEGREE = 36_000
#: Fraction of the last digit below which a binary float may lie under the decimal number it stands for.
_TOLERANCE = 1e-5


def parse_designation(text: str) -> tuple[str, float, float] | None:
    """The name that a text means, in full, and the right ascension and declination in degrees that its digits say.

    The survey's acronym may be left out: the name then begins with ``J``. The object lies just beyond the position, whose
    digits are truncated. None: it is no full name.
    """
    match = _DESIGNATION.fullmatch(text)
    if match is None:
        return None
    prefix, euclid, hours, minutes, seconds, sign, degrees, arcminutes, arcseconds = match.groups()
    ra = 15 * (int(hours) + int(minutes) / 60 + float(seconds) / 3600)
    dec = int(degrees) + int(arcminutes) / 60 + float(arcseconds) / 3600
    acronym = f"{prefix or euclid} ".upper() if prefix or euclid else ""
    return f"{acronym}J{''.join(match.groups()[2:])}", ra, -dec if sign == "-" else dec


def designations(ra: Float64, dec: Float64, prefix: str = PREFIX) -> list[str]:
    """Names in the style of the IAU, such as ``EUCL JHHMMSS.ss+DDMMSS.s``; ``EUCL J?`` where a position is not finite.

    Coordinates are truncated, not rounded, as the IAU's recommendations for nomenclature ask.

    Parameters
    ----------
    ra, dec
        (N,) degrees, ICRS.
    prefix
        The survey's acronym.
    """
    beginning = f"{prefix} J"
    n_characters = len(f"{beginning}HHMMSS.ss+DDMMSS.s")
    known = np.isfinite(ra) & np.isfinite(dec)
    ra, dec = np.where(known, ra, 0.0), np.where(known, dec, 0.0)
    time = (ra % 360.0 * _CENTISECONDS_PER_DEGREE + _TOLERANCE).astype(np.int64) % (360 * _CENTISECONDS_PER_DEGREE)
    angle = (np.abs(dec) * _DECISECONDS_PER_DEGREE + _TOLERANCE).astype(np.int64)
    sign = np.where(dec < 0, ord("-"), ord("+"))
    right = [time // 360_000, time // 6_000 % 60, time % 6_000 // 100, None, time % 100]
    up = [angle // 36_000, angle // 600 % 60, angle % 600 // 10, None, angle % 10]
    letters = np.full((len(ra), n_characters), ord("."), dtype=np.uint32)
    letters[:, : len(beginning)] = [ord(letter) for letter in beginning]
    place = len(beginning)
    for number in right:
        place = _write_digits(letters, place, number, 2)
    letters[:, place] = sign
    place += 1
    for number in up[:-1]:
        place = _write_digits(letters, place, number, 2)
    _write_digits(letters, place, up[-1], 1)
    names: list[str] = letters.view(f"U{n_characters}").ravel().tolist()
    return [name if one else f"{prefix} J?" for name, one in zip(names, known.tolist(), strict=True)]


def _write_digits(letters: NDArray[np.uint32], place: int, number: Int64 | None, digits: int) -> int:
    """Write a number's digits into the columns from ``place``, or leave the point where it is; returns the next column."""
    if number is None:
        return place + 1
    for digit in range(digits):
        letters[:, place + digit] = ord("0") + number // 10 ** (digits - 1 - digit) % 10
    return place + digits
