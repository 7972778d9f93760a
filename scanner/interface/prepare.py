"""What others have, made ours: images of any survey as tiles, labels that others gave as labelled sets."""

from __future__ import annotations

import hashlib
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import InputMissingError, UsageError, importing
from scanner.imaging_surveys import ImagingSurvey, find_survey
from scanner.interface.progress import bar
from scanner.processes import script_kept_from_children, sigterm_interrupts
from scanner.records import Band, BandFiles, ImageRef, ResamplingMethod
from scanner.storage import is_remote, open_store, split

# Tables and mosaics are read where they are used: a name of the package costs nothing before.
if TYPE_CHECKING:
    from scanner.labels.importing import ImportedSetRecord
    from scanner.labels.table import Purpose
    from scanner.sky.prepare import Source

#: Word in the name of a companion → what it is to its image.
_ROLES = {
    "RMS": "rms",
    "ERR": "rms",
    "FLAG": "flag",
    "PSF": "psf",
    **dict.fromkeys(("WHT", "WEIGHT", "IVM", "IVAR"), "weight"),
}
_COMPANION = re.compile(rf"(?<![A-Za-z])(?P<role>{'|'.join(_ROLES)})(?![A-Za-z])", re.IGNORECASE)
#: Words that only images have in their names, such as Hubble's x_drz.fits beside x_wht.fits.
_IMAGE_WORD = re.compile(r"(?<![A-Za-z])(SCI|DR[ZC]|IMG|IMAGE)(?![A-Za-z])", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"(?P<band>VIS|Y|J|H)=(?P<location>.+)", re.IGNORECASE)
_LEFT_OUT = re.compile(r"(?<![A-Za-z])(BGMOD|BKG|SEGMAP|SEGM?|CAT|CTX|EXP|MASK)(?![A-Za-z0-9])", re.IGNORECASE)
#: Below the folder of the tiles: images of object stores, until the tiles are made.
FETCHED = ".fetched"


def prepare(
    images: str | Path | Iterable[str | Path] | Mapping[Band, str | Path | Iterable[str | Path]],
    out: str | Path,
    *,
    survey: str | Path | ImagingSurvey = "euclid",
    method: ResamplingMethod = "spline",
    match_background: bool = False,
    fwhm_arcsec: Mapping[Band, float] | None = None,
    zero_points: Mapping[Band, float] | None = None,
    tile_pixels: int | None = None,
    name: str | None = None,
    workers: int | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> Path:
    """Make tiles on the grid that is scanned of any survey's images, as ``scanner prepare`` does.

    Images may have any pixels up to 1", projection, rotation, distortion, footprint and frame, and each input may have many of
    them. An interrupted call goes on where it was when it is given again.

    Parameters
    ----------
    images
        Images and folders of images, sorted by the filters in their names; or by the inputs VIS, Y, J, H that they stand for.
        Those on object stores (``s3://…``) are fetched into ``out`` first, and removed when the tiles are made.
        Files that are called alike but for the word RMS (or ERR), WHT (or WEIGHT, IVM, IVAR: inverse variance), FLAG or PSF
        are companions of an image; so is an extension ERR.
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
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
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
    from scanner.processes import cores
    from scanner.sky.prepare import TILE_PIXELS, PrepareRequest
    from scanner.sky.prepare import prepare as make

    if method != "spline":
        with importing(f"resampling by {method}", "prepare"):
            import reproject  # noqa: F401
    known = survey if isinstance(survey, ImagingSurvey) else find_survey(str(survey))
    folder = Path(out).resolve()
    storage = configuration.load_storage(config, endpoint, anonymous)
    with script_kept_from_children(), sigterm_interrupts(), bar("preparing tiles", shown=progress, unit="tiles") as move:

        def here(location: str) -> ImageRef:
            if is_remote(location):
                move(0, 1, f"fetching {split(location)[1]}")
            return _here(location, folder / FETCHED, storage)

        request = PrepareRequest(
            sources=tuple(sources(images, known, zero_points or {}, storage, here)),
            name=name or re.sub(r"[^A-Za-z0-9._+-]", "_", folder.name).lstrip(".") or "tile",
            method=method,
            tile_pixels=TILE_PIXELS if tile_pixels is None else tile_pixels,
            match_background=match_background,
            fwhm_arcsec=dict(fwhm_arcsec or {}),
        )
        made = make(
            request,
            Path(out),
            lambda done, total, tile_id: move(done, total, f"preparing {tile_id}".rstrip()),
            workers or cores(),
        )
    shutil.rmtree(folder / FETCHED, ignore_errors=True)
    return made


def _here(location: str, folder: Path, storage: StorageConfig) -> ImageRef:
    """A file that can be read in place: itself, or its copy in a folder of this version of it."""
    from scanner.sky.local_files import fetched_file

    if not is_remote(location):
        return ImageRef(location)
    place, name = split(location)
    entry = open_store(place, storage).entry(name)
    version = hashlib.sha256(f"{location} {entry.version if entry else ''}".encode()).hexdigest()[:16]
    return fetched_file(ImageRef(location), folder / version, storage)


def sources(
    images: str | Path | Iterable[str | Path] | Mapping[Band, str | Path | Iterable[str | Path]],
    survey: ImagingSurvey,
    zero_points: Mapping[Band, float],
    storage: StorageConfig | None = None,
    here: Callable[[str], ImageRef] = ImageRef,
) -> list[Source]:
    """Images as what they stand for, with their companions; see :func:`prepare`. ``here``: makes files local.

    Raises
    ------
    InputMissingError
        There is no such file, or no image in a folder.
    UsageError
        No filter of the survey stands in the name of an image, or one that stands for no input.
    """
    named = images.items() if isinstance(images, Mapping) else [(None, images)]
    given: list[tuple[Band | None, str]] = []
    for band, some in named:
        for one in [some] if isinstance(some, str | Path) else some:
            given += [(band, location) for location in _locations(str(one), storage or StorageConfig())]
    companions: dict[tuple[str, str], str] = {}
    plain: list[tuple[Band | None, str]] = []
    for band, location in given:
        name = split(location)[1]
        if match := _COMPANION.search(name):
            companions[_stem(location), _ROLES[match["role"].upper()]] = location
        elif not _LEFT_OUT.search(name):
            plain.append((band, location))
    filters = {location: survey.filter_in(split(location)[1]) for _, location in plain}
    chosen = {name: band for band, name in survey.filter_of({name for name in filters.values() if name is not None}).items()}
    found = [_source(band, one, filters[one], chosen, companions, survey, zero_points, here) for band, one in plain]
    if not any(found):
        raise InputMissingError("No image was given; name FITS files, or folders that hold some.")
    return [one for one in found if one is not None]


def _source(
    band: Band | None,
    location: str,
    filter_name: str | None,
    chosen: Mapping[str, Band],
    companions: Mapping[tuple[str, str], str],
    survey: ImagingSurvey,
    zero_points: Mapping[Band, float],
    here: Callable[[str], ImageRef],
) -> Source | None:
    """An image with its companions; None if its filter is not the nearest to any input."""
    from scanner.sky.prepare import Source

    if band is None and filter_name is None:
        known, name = ", ".join(survey.filters), split(location)[1]
        raise UsageError(
            f"{location}: no filter of {survey.name} stands in its name ({known}); give it as VIS={name}, or another survey."
        )
    stands_for = band if band is not None else chosen.get(filter_name or "")
    if stands_for is None:
        return None
    image, stem = here(location), _stem(location)
    there = {role: here(companions[stem, role]) for role in ("rms", "flag", "psf") if (stem, role) in companions}
    if "rms" not in there and (own := _error_extension(image)) is not None:
        there["rms"] = own
    weighted = "rms" not in there and (stem, "weight") in companions
    typical = survey.filters[filter_name] if filter_name is not None else None
    zero_point = zero_points.get(stands_for, typical.zero_point if typical is not None else None)
    return Source(
        band=stands_for,
        files=BandFiles(image=image, **there),
        weight=here(companions[stem, "weight"]) if weighted else None,
        zero_point=zero_point,
        fwhm_arcsec=None if typical is None else typical.fwhm_arcsec,
    )


def _locations(one: str, storage: StorageConfig) -> list[str]:
    """The files of a name, of a folder, or of a pattern such as ``i/*.fits``; names that begin with "." are left out."""
    from scanner.sky.tile_files import is_image

    place, name = split(one)
    if is_remote(one):
        if is_image(one):
            matches = [entry.name for entry in open_store(place, storage).entries() if fnmatchcase(entry.name, name)]
            found = [f"{place}/{match}" for match in matches]
        else:
            place = one.rstrip("/")
            inside = sorted(open_store(place, storage).names(""))
            found = [f"{place}/{key}" for key in inside if is_image(key) and not key.rpartition("/")[2].startswith(".")]
        if not found:
            raise InputMissingError(f"{one}: there is no such image, nor a folder with some; check the URL.")
        return found
    if Path(one).is_dir():
        found = sorted(str(path) for path in Path(one).rglob("*") if is_image(path.name) and not path.name.startswith("."))
        if not found:
            raise InputMissingError(f"{one}: holds no FITS image; name another folder, or the files.")
        return found
    found = [one] if Path(one).is_file() else sorted(str(path) for path in Path(place).glob(name))
    if not found:
        raise InputMissingError(f"{one}: there is no such file; check the path.")
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


def _stem(location: str) -> str:
    """What the names of an image and its companions have in common, and their folder."""
    place, name = split(location)
    return f"{place}/{re.sub(r'[-_.]+', '_', _IMAGE_WORD.sub('', _COMPANION.sub('', name)))}".upper()


def _error_extension(image: ImageRef) -> ImageRef | None:
    """The extension ERR of an image, as JWST's and Roman's pipelines write it; None where there is none."""
    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(image.path, memmap=False, lazy_load_hdus=True) as hdus:
                return replace(image, extension="ERR") if "ERR" in hdus else None
        except Exception:  # what is wrong with it is said where it is opened as an image
            return None


def import_labels(
    table: str | Path,
    out: str | Path,
    *,
    tiles: str | Path | None = None,
    cutouts: str | Path | None = None,
    preset: str | None = None,
    columns: Mapping[str, str] | None = None,
    lens: Sequence[str] = (),
    not_lens: Sequence[str] = (),
    purpose: Purpose | None = None,
    scale_arcsec: float | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> ImportedSetRecord:
    """Make a labelled set of a table of labels, as ``scanner labels import`` does.

    Parameters
    ----------
    table
        CSV, ECSV, FITS, VOTable or Parquet: positions, labels or grades, perhaps weights, files and ids.
    out
        Folder of the set, which must not be there; ``left-out.ecsv`` in it says which rows are not in the set, and why.
    tiles
        A tile list, as of :func:`scanner.scan`: cutouts are cut from its mosaics.
    cutouts
        In its place, a folder of cutouts: FITS, or ``.npy``.
    preset
        Kind of table: ``slde``, ``euclid-sage``, ``zooniverse``, ``anomalymatch``.
    columns
        Names of columns by what they hold: ``ra``, ``dec``, ``label``, ``weight``, ``file``, ``id``, ``grade``, ``field``,
        ``theta_e``.
    lens, not_lens
        Labels of lenses, and of non-lenses; ``>=0.5`` and the like for numbers. Other labels are left out.
    purpose
        ``evaluation``: nothing may be trained on the set; by default the preset's, or ``training``.
    scale_arcsec
        Width of a pixel in cutouts without a WCS.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Returns
    -------
    ImportedSetRecord
        ``n_objects``, ``n_lenses``, and ``n_left_out`` by reason.

    Raises
    ------
    UsageError
        Settings that make no sense.
    InputMissingError, ContentError
        Table, list or folder cannot be used; pixels are of the wrong scale; no row can be used.
    OutputError
        The folder is there already, or cannot be written.

    Examples
    --------
    >>> import scanner
    >>> imported = scanner.import_labels("grades.csv", "graded", tiles="sky/tile-list.txt")  # doctest: +SKIP
    >>> imported.n_objects, imported.n_left_out  # doctest: +SKIP
    (97, {'outside': 3})
    """
    from scanner.labels import importing

    with sigterm_interrupts(), bar("cutting", shown=progress, unit="objects") as move:
        return importing.import_labels(
            Path(table),
            Path(out),
            tiles=None if tiles is None else str(tiles),
            cutouts=None if cutouts is None else Path(cutouts),
            preset=preset,
            columns=columns,
            lens=lens,
            not_lens=not_lens,
            purpose=purpose,
            scale_arcsec=scale_arcsec,
            storage=configuration.load_storage(config, endpoint, anonymous),
            report=move,
        )
