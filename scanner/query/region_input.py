"""Positions, radii and regions as people give them: text such as ``10:00:24 +02:12:00 0.5deg``, and MOC files."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.query.region import Cone, MocRegion, Polygon
from scanner.sphere import HEALPIX_ORDER
from scanner.storage import read_file

if TYPE_CHECKING:
    from mocpy import MOC

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_DEGREES = re.compile(rf"({_NUMBER})(?:d|deg|°)?")
_SEXAGESIMAL = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3})(?P<unit>[:hd°])(?P<minutes>\d{1,2})(?:[:m'′](?:(?P<seconds>\d{1,2}(?:\.\d*)?)[s\"″]?)?)?"
)
_RADIUS = re.compile(rf"({_NUMBER})\s*([a-z°'′\"″]*)")
_DEGREES_PER_UNIT = {
    **dict.fromkeys(("", "d", "deg", "degree", "degrees", "°"), 1.0),
    **dict.fromkeys(("arcmin", "arcminute", "arcminutes", "'", "′"), 1 / 60),
    **dict.fromkeys(("arcsec", "arcsecond", "arcseconds", '"', "″", "''"), 1 / 3600),
    "mas": 1 / 3_600_000,
}
_KEYWORDS = re.compile(r"^\s*(?:CIRCLE|POLYGON)?\s*(?:ICRS\b)?", re.IGNORECASE)
#: Letters of refused text that a message quotes.
_QUOTED_LETTERS = 60
CONE_EXAMPLES = '"150.1 2.2 10arcsec" or "10:00:24 +02:12:00 0.5deg"'
POLYGON_EXAMPLE = '"150 2, 151 2, 151 3"'


def parse_right_ascension(text: str) -> float:
    """Right ascension in degrees; sexagesimal text is in hours, unless it says ``d`` or ``°``."""
    return _angle(text, "right ascension", "150.1, 10:00:24 or 10h00m24s", hours=True)


def parse_declination(text: str) -> float:
    """Declination in degrees."""
    return _angle(text, "declination", "2.2, +02:12:00 or 2d12m0s", hours=False)


def parse_radius(text: str) -> float:
    """Radius in degrees."""
    match = _RADIUS.fullmatch(text.strip())
    if match is None or match[2] not in _DEGREES_PER_UNIT:
        raise UsageError(f"{_quoted(text)} is no radius; write 10arcsec, 5arcmin or 0.5deg (without a unit: degrees).")
    return float(match[1]) * _DEGREES_PER_UNIT[match[2]]


def parse_cone(text: str) -> Cone:
    """A cone from ``RA DEC RADIUS``.

    Right ascension and declination are degrees (``150.1``, ``150.1d``) or sexagesimal with colons or letters, right ascension
    then in hours (``10:00:24.0``, ``10h00m24s``; ``+02:12:00``, ``2d12m0s``, ``2°12′0″``). A radius is in degrees or has a
    unit. Spaces or commas divide; ``CIRCLE ICRS`` and ``POLYGON ICRS`` may stand before them. Anything else is a UsageError.

    Raises
    ------
    UsageError
        It is none.
    """
    words = _words(text)
    # A unit may stand apart from its number.
    if len(words) == 4 and not re.search(r"\d", words[3]):
        words = [*words[:2], words[2] + words[3]]
    if len(words) != 3:
        raise UsageError(f"{_quoted(text)} is no cone; write RA, DEC and RADIUS: {CONE_EXAMPLES}.")
    return Cone(parse_right_ascension(words[0]), parse_declination(words[1]), parse_radius(words[2]))


def parse_polygon(text: str) -> Polygon:
    """A polygon from ``RA DEC, RA DEC, RA DEC …``, its vertices once around.

    Raises
    ------
    UsageError
        It is none.
    """
    words = _words(text)
    if len(words) % 2 or len(words) < 6:
        raise UsageError(f"{_quoted(text)} is no polygon; write RA and DEC of three vertices or more: {POLYGON_EXAMPLE}.")
    vertices = zip(words[::2], words[1::2], strict=True)
    return Polygon([(parse_right_ascension(ra), parse_declination(dec)) for ra, dec in vertices])


def _quoted(text: str) -> str:
    return f'"{text[:_QUOTED_LETTERS]}…"' if len(text) > _QUOTED_LETTERS else f'"{text}"'


def _words(text: str) -> list[str]:
    return _KEYWORDS.sub("", text).replace(",", " ").replace(";", " ").replace("−", "-").split()


def _angle(text: str, what: str, examples: str, *, hours: bool) -> float:
    plain = _DEGREES.fullmatch(text)
    if plain is not None:
        return float(plain[1])
    match = _SEXAGESIMAL.fullmatch(text)
    if match is None or (match["unit"] == "h" and not hours):
        raise UsageError(f"{_quoted(text)} is no {what}; write {examples}.")
    minutes, seconds = int(match["minutes"]), float(match["seconds"] or 0)
    if minutes >= 60 or seconds >= 60:
        raise UsageError(f"{_quoted(text)} is no {what}: minutes and seconds go up to 59; write {examples}.")
    value = int(match["whole"]) + minutes / 60 + seconds / 3600
    in_hours = hours and match["unit"] in ":h"
    return (-value if match["sign"] == "-" else value) * (15 if in_hours else 1)


def read_moc(location: str, storage: StorageConfig) -> MocRegion:
    """Read a MOC (IVOA MOC 2.0) in FITS, JSON or ASCII.

    Parameters
    ----------
    location
        A local path or ``s3://…``.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        There is no such file.
    ContentError
        It is no MOC of the sky.
    """
    try:
        content = read_file(location, storage)
    except (FileNotFoundError, IsADirectoryError):
        raise InputMissingError(f"{location}: there is no such file; name a MOC in FITS, JSON or ASCII.") from None
    try:
        region = MocRegion(_parsed(content))
        ranges = region.ranges()
        if len(ranges) and not 0 <= ranges.min() <= ranges.max() <= 12 << 2 * HEALPIX_ORDER:
            raise ValueError("a cell's number is too large for its order")
        return region
    # The library's errors have no common class.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ContentError(f"{location}: is no MOC of the sky in FITS, JSON or ASCII ({reason}); name another.") from None


def _parsed(content: bytes) -> MOC:
    from mocpy import MOC

    if content.startswith(b"SIMPLE"):
        from astropy.io import fits

        with fits.open(io.BytesIO(content)) as hdus:
            _refuse_orders(
                order for order in (hdus[1].header.get(key) for key in ("MOCORD_S", "MOCORDER")) if order is not None
            )
        with tempfile.TemporaryDirectory(prefix="scanner-moc-") as folder:
            path = Path(folder, "moc.fits")
            path.write_bytes(content)
            return MOC.from_fits(path)
    text = content.decode("ascii")
    if not text.lstrip().startswith("{"):
        _refuse_orders(re.findall(r"(\d+)/", text))
        return MOC.from_string(text, "ascii")
    cells = json.loads(text)
    _refuse_orders(cells)
    return MOC.from_json(cells)


def _refuse_orders(orders: Iterable[str | int]) -> None:
    """Refuse orders that a MOC cannot have: the library takes them modulo something."""
    for order in orders:
        if not 0 <= int(order) <= HEALPIX_ORDER:
            raise ValueError(f"it has order {order}, and {HEALPIX_ORDER} is the highest")
