"""Make tiles of any survey's images: which image stands for which input, then the tiles themselves."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from scanner.errors import InputMissingError, UsageError, importing
from scanner.imaging_surveys import ImagingSurvey, find_survey
from scanner.interface.progress import bar
from scanner.processes import script_kept_from_children, sigterm_interrupts
from scanner.records import Band, BandFiles, ImageRef
from scanner.survey.scan.machine import cores

if TYPE_CHECKING:
    from scanner.sky.prepare import Source
    from scanner.sky.regrid import Method

_COMPANION = re.compile(r"(?<![A-Za-z])(?P<role>RMS|ERR|FLAG|PSF)(?![A-Za-z])", re.IGNORECASE)
_ROLES = {"RMS": "rms", "ERR": "rms", "FLAG": "flag", "PSF": "psf"}
_ASSIGNMENT = re.compile(r"(?P<band>VIS|Y|J|H)=(?P<location>.+)", re.IGNORECASE)
_LEFT_OUT = re.compile(r"(?<![A-Za-z])(BGMOD|BKG|SEGMAP|SEGM?|CAT|WHT|CTX|EXP|WEIGHT|MASK)(?![A-Za-z])", re.IGNORECASE)


def prepare(
    images: str | Path | Iterable[str | Path] | Mapping[Band, str | Path | Iterable[str | Path]],
    out: str | Path,
    *,
    survey: str | Path | ImagingSurvey = "euclid",
    method: Method = "spline",
    match_background: bool = False,
    fwhm_arcsec: Mapping[Band, float] | None = None,
    zero_points: Mapping[Band, float] | None = None,
    tile_pixels: int | None = None,
    name: str | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> Path:
    """Make tiles on the grid that is scanned of any survey's images, as ``scanner prepare`` does.

    Images may have any pixels up to 1", projection, rotation, distortion, footprint and frame, and each input may have many of
    them. An interrupted call goes on where it was when it is given again.

    Parameters
    ----------
    images
        Images and folders of images, sorted by the filters in their names; or by the inputs VIS, Y, J, H that they stand for.
        Files that are called alike but for the word RMS (or ERR), FLAG or PSF are companions of an image; so is an extension
        ERR.
    out
        Folder for the tiles and ``tile-list.txt``.
    survey
        Whose images: euclid, roman, lsst, hst, jwst, a TOML or JSON file, or a description.
    method
        How images are resampled: spline; or interp, adaptive or exact, which need the extra ``prepare`` (reproject).
    match_background
        Subtract a level of each image, so that they agree where they overlap.
    fwhm_arcsec
        Width of the PSF that an input is to get, no sharper than its own.
    zero_points
        AB, of inputs whose headers give none.
    tile_pixels
        VIS pixels along a tile.
    name
        What the ids of tiles begin with; the folder's name by default.
    workers
        Processes that make tiles; by default one a core, but no more than there are tiles.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    Path
        The tile list, to be scanned.

    Raises
    ------
    ScannerError
        An image is missing or cannot be understood, or the folder cannot be written: one sentence that says what to do.

    Examples
    --------
    >>> import scanner
    >>> scanner.prepare({"VIS": ["a.fits", "b.fits"], "H": "f160w.fits"}, "sky", survey="hst")  # doctest: +SKIP
    PosixPath('sky/tile-list.txt')
    """
    from scanner.sky.prepare import TILE_PIXELS, PrepareRequest
    from scanner.sky.prepare import prepare as make

    if method != "spline":
        with importing(f"resampling by {method}", "prepare"):
            import reproject  # noqa: F401
    known = survey if isinstance(survey, ImagingSurvey) else find_survey(str(survey))
    folder = Path(out)
    request = PrepareRequest(
        sources=tuple(sources(images, known, zero_points or {})),
        name=name or re.sub(r"[^A-Za-z0-9._+-]", "_", folder.resolve().name).lstrip(".") or "tile",
        method=method,
        tile_pixels=TILE_PIXELS if tile_pixels is None else tile_pixels,
        match_background=match_background,
        fwhm_arcsec=dict(fwhm_arcsec or {}),
    )
    with script_kept_from_children(), sigterm_interrupts(), bar("preparing tiles", shown=progress, unit="tiles") as move:
        return make(
            request,
            folder,
            lambda done, total, tile_id: move(done, total, f"preparing {tile_id}".rstrip()),
            workers or cores(),
        )


def sources(
    images: str | Path | Iterable[str | Path] | Mapping[Band, str | Path | Iterable[str | Path]],
    survey: ImagingSurvey,
    zero_points: Mapping[Band, float],
) -> list[Source]:
    """Images as what they stand for, with their companions; see :func:`prepare`.

    Raises
    ------
    InputMissingError
        There is no such file, or no image in a folder.
    UsageError
        No filter of the survey stands in the name of an image, or one that stands for no input.
    """
    given: list[tuple[Band | None, Path]] = []
    if isinstance(images, Mapping):
        for band, some in images.items():
            given += [(band, path) for path in _paths(some)]
    else:
        given += [(None, path) for path in _paths(images)]
    companions: dict[tuple[str, str], Path] = {}
    plain: list[tuple[Band | None, Path]] = []
    for band, path in given:
        if match := _COMPANION.search(path.name):
            companions[_stem(path), _ROLES[match["role"].upper()]] = path
        elif not _LEFT_OUT.search(path.name):
            plain.append((band, path))
    filters = {path: survey.filter_in(path.name) for _, path in plain}
    chosen = {name: band for band, name in survey.filter_of({name for name in filters.values() if name is not None}).items()}
    found = [_source(band, path, filters[path], chosen, companions, survey, zero_points) for band, path in plain]
    if not any(found):
        raise InputMissingError("No image was given; name FITS files, or folders that hold some.")
    return [one for one in found if one is not None]


def _source(
    band: Band | None,
    path: Path,
    filter_name: str | None,
    chosen: Mapping[str, Band],
    companions: Mapping[tuple[str, str], Path],
    survey: ImagingSurvey,
    zero_points: Mapping[Band, float],
) -> Source | None:
    """An image with its companions; None if its filter is not the nearest to any input."""
    from scanner.sky.prepare import Source

    if band is None and filter_name is None:
        known = ", ".join(survey.filters)
        raise UsageError(
            f"{path}: no filter of {survey.name} stands in its name ({known}); give it as VIS={path.name}, or another survey."
        )
    stands_for = band if band is not None else chosen.get(filter_name or "")
    if stands_for is None:
        return None
    there = {
        role: ImageRef(str(companions[_stem(path), role]))
        for role in ("rms", "flag", "psf")
        if (_stem(path), role) in companions
    }
    image = ImageRef(str(path))
    if "rms" not in there and (own := _error_extension(path)) is not None:
        there["rms"] = own
    typical = survey.filters[filter_name] if filter_name is not None else None
    zero_point = zero_points.get(stands_for, typical.zero_point if typical is not None else None)
    return Source(
        band=stands_for,
        files=BandFiles(image=image, **there),
        zero_point=zero_point,
        fwhm_arcsec=None if typical is None else typical.fwhm_arcsec,
    )


def _paths(some: str | Path | Iterable[str | Path]) -> list[Path]:
    """Files of names, of folders, and of patterns such as ``i/*.fits``."""
    from scanner.sky.tile_files import is_image

    found: list[Path] = []
    for one in [some] if isinstance(some, str | Path) else some:
        path = Path(one)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if is_image(file.name) and not file.name.startswith("."))
            if not inside:
                raise InputMissingError(f"{path}: holds no FITS image.")
            found += inside
        elif path.is_file():
            found.append(path)
        elif matches := sorted(path.parent.glob(path.name)):
            found += matches
        else:
            raise InputMissingError(f"{path}: there is no such file; check the path.")
    return found


def by_band(words: Iterable[str]) -> tuple[list[str], dict[Band, list[str]]]:
    """Words of a command line: images that are sorted by their names, and those given as ``BAND=FILE``."""
    plain: list[str] = []
    named: dict[Band, list[str]] = {}
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        if match is None or Path(word).exists():
            plain.append(word)
        else:
            band = next(one for one in get_args(Band) if one == match["band"].upper())
            named.setdefault(band, []).append(match["location"])
    return plain, named


def _stem(path: Path) -> str:
    """What the names of an image and its companions have in common, and their folder."""
    return f"{path.parent}/{re.sub(r'[-_.]+', '_', _COMPANION.sub('', path.name))}".upper()


def _error_extension(path: Path) -> ImageRef | None:
    """The extension ERR of an image, as JWST's and Roman's pipelines write it; None where there is none."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
                return ImageRef(str(path), "ERR") if "ERR" in hdus else None
        except Exception:  # what is wrong with it is said where it is opened as an image
            return None
