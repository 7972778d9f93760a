"""The list of known lenses that a user has images of: the paper's Table 7.

In: a UTF-8 text file, one lens a line, ``#`` for comments, paths relative to the list::

    id=SDSSJ0946+1006  VIS=f160w.fits Y=f336w.fits J=f438w.fits H=f814w.fits  ra=146.7379 dec=10.1134
    id=jackpot         VIS=f814w.fits scale=0.05

Bands are named by what they stand for (Table 2); those that are not given are duplicated from the nearest that is.
``file.fits[SCI]`` names an extension. ``ra`` and ``dec`` (degrees) say where the lens is in images with a WCS; else it is in
the middle. ``scale`` (arcsec) is needed where headers have no WCS, ``VIS_scale`` and so on where bands differ.

Out: :class:`KnownLens` in the order of the list. Refused (TileListError, naming the line): words that cannot be understood, a
lens given twice, an empty list.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field

from scanner.errors import InputMissingError, TileListError
from scanner.evaluation.stamp import read_plate, stamp
from scanner.records import BANDS, Band, CutoutBatch, ImageRef, Record

_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")


class KnownLens(Record):
    """One lens: an image for one to four bands, position and pixel scales where they are stated."""

    name: str
    images: dict[Band, ImageRef] = Field(min_length=1)
    scales_arcsec: dict[Band, float]
    position: tuple[float, float] | None = None


def read(path: Path) -> tuple[KnownLens, ...]:
    """Read a list of known lenses.

    Raises
    ------
    InputMissingError
        The list is not there.
    TileListError
        See the module.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TileListError(f"{path}: is not UTF-8 text; give a list, one lens a line.") from None
    except OSError as error:
        raise InputMissingError(f"{path}: the list of known lenses cannot be read ({error.strerror}).") from None
    found: dict[str, KnownLens] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            raise TileListError(f"{where}: a quote is left open.") from None
        if words:
            lens = _lens(words, path.parent, where)
            if lens.name in found:
                raise TileListError(f"{where}: {lens.name} is given twice; remove one.")
            found[lens.name] = lens
    if not found:
        raise TileListError(f"{path}: holds no lens; write one a line: id=NAME VIS=FILE … scale=ARCSEC.")
    return tuple(found.values())


def _lens(words: list[str], base: Path, where: str) -> KnownLens:
    values: dict[str, str] = {}
    keys = ("id", "ra", "dec", "scale", *(band.lower() for band in BANDS), *(f"{band.lower()}_scale" for band in BANDS))
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key.lower() not in keys:
            raise TileListError(
                f"{where}: cannot understand {word!r}; the keys are id, VIS, Y, J, H, ra, dec, scale, VIS_scale …."
            )
        if key.lower() in values:
            raise TileListError(f"{where}: {key} is given twice.")
        values[key.lower()] = value
    images = {band: _image(values[band.lower()], base) for band in BANDS if band.lower() in values}
    if "id" not in values or not images:
        raise TileListError(f"{where}: needs id=NAME and an image of at least one band, such as VIS=FILE.")
    numbers = {
        key: _number(key, value, where) for key, value in values.items() if key in ("ra", "dec") or key.endswith("scale")
    }
    if ("ra" in numbers) != ("dec" in numbers):
        raise TileListError(f"{where}: ra and dec belong together; state both or neither.")
    scales = {band: numbers.get(f"{band.lower()}_scale", numbers.get("scale")) for band in images}
    if any(scale is not None and not scale > 0 for scale in scales.values()):
        raise TileListError(f"{where}: a pixel scale must be more than 0 arcsec.")
    return KnownLens(
        name=values["id"],
        images=images,
        scales_arcsec={band: scale for band, scale in scales.items() if scale is not None},
        position=(numbers["ra"], numbers["dec"]) if "ra" in numbers else None,
    )


def _number(key: str, value: str, where: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise TileListError(f"{where}: {key}={value} is no number.") from None


def _image(value: str, base: Path) -> ImageRef:
    match = _EXTENSION.fullmatch(value)
    path, extension = (value, None) if match is None else (match["path"], match["extension"])
    number = int(extension) if extension is not None and extension.isdigit() else extension
    return ImageRef(path=str(base / path), extension=number)


def cutout(lens: KnownLens, number: int = 1) -> CutoutBatch:
    """Read the images of a lens and make its cutout.

    Raises
    ------
    TileError
        An image cannot be read, or has no WCS where none can be done without.
    """
    plates = {band: read_plate(image, lens.scales_arcsec.get(band), lens.position) for band, image in lens.images.items()}
    return stamp(plates, number)


def cutouts(lenses: Iterable[KnownLens]) -> dict[str, CutoutBatch]:
    """Make the cutout of every lens of a list, by name; see :func:`cutout` for what is refused."""
    return {lens.name: cutout(lens, number) for number, lens in enumerate(lenses, start=1)}
