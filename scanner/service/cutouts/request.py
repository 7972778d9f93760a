"""What a client asks of a cutout: which bands, which part of it, in which format, how it is drawn.

In: names and values of a query, as :mod:`scanner.service.vo.parameters` reads them. Out: :class:`CutoutRequest`. Refused
(:class:`UsageError`; the message names the parameter, what was given and what it takes): values that make no sense or exceed
what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from scanner.errors import UsageError
from scanner.records import BANDS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Band
from scanner.report.colour import CURVES, Curve, Stretch

Format = Literal["fits", "png", "webp"]
Picture = Literal["VIS", "Y", "J", "H", "colour", "nisp", "all"]
#: Side of the whole cutout.
WHOLE_ARCSEC = VIS_CUTOUT_PIXELS * VIS_PIXEL_SCALE_ARCSEC
SMALLEST_ARCSEC = 1.0
LARGEST_ZOOM = 8
LARGEST_SIGMA = 1e6
LARGEST_SATURATION = 4.0
#: Wavelengths that the bands let through, in metres: where the response is half of its peak (Euclid Collaboration: Cropper et
#: al. 2024 for VIS, Schirmer et al. 2022, table 1, for NISP).
PASSBANDS_M: dict[Band, tuple[float, float]] = {
    "VIS": (5.3e-7, 9.2e-7),
    "Y": (9.496e-7, 1.2123e-6),
    "J": (1.1676e-6, 1.567e-6),
    "H": (1.5215e-6, 2.0214e-6),
}
MEDIA_TYPES: dict[Format, str] = {"fits": "application/fits", "png": "image/png", "webp": "image/webp"}
_PICTURES: dict[str, Picture] = {name.lower(): name for name in get_args(Picture)}


@dataclass(frozen=True)
class Circle:
    """A circle on the sky in degrees (ICRS)."""

    ra: float
    dec: float
    radius: float


@dataclass(frozen=True)
class CutoutRequest:
    """One cutout, as it is wanted.

    ``bands``: those of a FITS file, None: those that ``picture`` stands for. ``picture``: what is drawn. ``circle``: only the
    part that holds it. ``size_arcsec``: side of the inner field that is wanted. ``zoom``: pixels of the picture along each side
    of one of the cutout. ``invert``: dark on white.
    """

    format: Format = "fits"
    picture: Picture = "all"
    bands: tuple[Band, ...] | None = None
    circle: Circle | None = None
    size_arcsec: float = WHOLE_ARCSEC
    stretch: Stretch = Stretch()
    saturation: float = 1.0
    zoom: int = 1
    invert: bool = False

    @property
    def fits_bands(self) -> tuple[Band, ...]:
        """The bands of a FITS file."""
        if self.bands is not None:
            return self.bands
        if self.picture == "nisp":
            return BANDS[1:]
        return tuple(band for band in BANDS if band == self.picture) or BANDS


def parse_format(values: Sequence[str]) -> Format:
    """``fits``, ``png`` or ``webp``, or one of their media types; the first value that is known."""
    for value in values:
        wanted = value.strip().lower().partition(";")[0]
        for name, media_type in MEDIA_TYPES.items():
            if wanted in (name, media_type, f"image/{name}"):
                return name
    if values:
        raise UsageError(f"FORMAT={values[0]}: is none of {', '.join(MEDIA_TYPES)}.")
    return "fits"


def parse_band(value: str) -> tuple[Picture, tuple[Band, ...] | None]:
    """A band's or picture's name, or an interval of wavelengths in metres (two numbers, or one).

    Returns
    -------
    tuple
        What is drawn, and the bands of a FITS file: those that let some of the wavelengths through, which may be none; None:
        those of the picture.
    """
    picture = _PICTURES.get(value.strip().lower())
    if picture is not None:
        return picture, None
    try:
        numbers = [float(part) for part in value.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or any(math.isnan(number) for number in numbers) or numbers[0] > numbers[-1]:
        raise UsageError(
            f"BAND={value}: is none of {', '.join(_PICTURES.values())}, and no interval of wavelengths in metres ('5e-7 9e-7')."
        )
    low, high = numbers[0], numbers[-1]
    bands = tuple(band for band in BANDS if PASSBANDS_M[band][0] <= high and PASSBANDS_M[band][1] >= low)
    if len(bands) == 1:
        return bands[0], bands
    return ("nisp" if bands and "VIS" not in bands else "all"), bands


def parse_circle(name: str, value: str) -> Circle:
    """A circle from "RA DEC RADIUS" in degrees."""
    try:
        ra, dec, radius = (float(part) for part in value.split())
    except ValueError:
        raise UsageError(f"{name}={value}: is no circle; give 'RA DEC RADIUS' in degrees.") from None
    if not (math.isfinite(ra) and 0 <= ra <= 360 and -90 <= dec <= 90 and 0 <= radius <= 180):
        raise UsageError(f"{name}={value}: RA is 0 to 360, DEC -90 to 90, RADIUS 0 to 180 degrees.")
    return Circle(ra, dec, radius)


def parse_position(value: str) -> Circle:
    """The circle of a SODA ``POS``: "CIRCLE RA DEC RADIUS"."""
    shape, _, rest = value.strip().partition(" ")
    if shape.upper() != "CIRCLE":
        raise UsageError(f"POS={value}: only CIRCLE is supported; give 'CIRCLE RA DEC RADIUS' in degrees.")
    return parse_circle("POS", rest)


def parse_number(name: str, value: str, lowest: float, highest: float) -> float:
    """A number between two others."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not lowest <= number <= highest:
        raise UsageError(f"{name}={value}: is no number from {lowest:g} to {highest:g}.")
    return number


def parse_zoom(value: str) -> int:
    """A whole number from 1 to :data:`LARGEST_ZOOM`."""
    number = parse_number("ZOOM", value, 1, LARGEST_ZOOM)
    if number != int(number):
        raise UsageError(f"ZOOM={value}: is no whole number from 1 to {LARGEST_ZOOM}.")
    return int(number)


def parse_curve(value: str) -> Curve:
    """The name of a stretch."""
    for curve in CURVES:
        if value.strip().lower() == curve:
            return curve
    raise UsageError(f"STRETCH={value}: is none of {', '.join(CURVES)}.")


def parse_switch(name: str, value: str) -> bool:
    """``1`` or ``true``, ``0`` or ``false``."""
    wanted = value.strip().lower()
    if wanted in ("1", "true"):
        return True
    if wanted in ("0", "false"):
        return False
    raise UsageError(f"{name}={value}: is neither 0 nor 1.")
