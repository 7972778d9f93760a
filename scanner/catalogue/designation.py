"""Names of candidates in the style of the IAU: ``EUCL JHHMMSS.ss+DDMMSS.s``.

In: positions. Out: names. Coordinates are truncated, not rounded, as the IAU's recommendations for nomenclature ask. Refused:
nothing; a position that is not finite is named ``EUCL J?``.
"""

from __future__ import annotations

import numpy as np

from scanner.records import Float64

PREFIX = "EUCL"
_CENTISECONDS_PER_DEGREE = 24_000
_DECISECONDS_PER_DEGREE = 36_000
#: Fraction of the last digit below which a binary float may lie under the decimal number it stands for.
_TOLERANCE = 1e-5


def designations(ra: Float64, dec: Float64) -> list[str]:
    """Name positions.

    Parameters
    ----------
    ra, dec
        (N,) degrees, ICRS.
    """
    return [_designation(float(a), float(d)) for a, d in zip(ra, dec, strict=True)]


def _designation(ra: float, dec: float) -> str:
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return f"{PREFIX} J?"
    time = int(ra % 360.0 * _CENTISECONDS_PER_DEGREE + _TOLERANCE) % (360 * _CENTISECONDS_PER_DEGREE)
    angle = int(abs(dec) * _DECISECONDS_PER_DEGREE + _TOLERANCE)
    hours, minutes, centiseconds = time // 360_000, time // 6_000 % 60, time % 6_000
    degrees, arcminutes, deciseconds = angle // 36_000, angle // 600 % 60, angle % 600
    right = f"{hours:02d}{minutes:02d}{centiseconds // 100:02d}.{centiseconds % 100:02d}"
    up = f"{degrees:02d}{arcminutes:02d}{deciseconds // 10:02d}.{deciseconds % 10:d}"
    return f"{PREFIX} J{right}{'-' if dec < 0 else '+'}{up}"
