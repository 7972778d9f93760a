"""The tiles in a folder, found by Euclid's file names.

In: a folder, local or on an object store, e.g. with ``EUC_MER_BGSUB-MOSAIC-VIS_TILE102018665-ACBD03_….fits``,
``EUC_MER_MOSAIC-NIR-Y-RMS_TILE102018665-….fits`` and ``EUC_MER_FINAL-CAT_TILE102018665-….fits``. Its subfolders ``VIS``,
``NISP`` and ``NIR``, as the public archive has them, are looked into, others not. Upper and lower case are one.

- FITS files (``.fits``, ``.fits.gz``, ``.fits.fz``) with ``VIS``, ``NIR-Y`` (``NIR_Y``, ``NISP-Y``, …) as a word of their name
  are mosaics of that band, or its companion where the word ``RMS`` or ``FLAG`` is there too.
- Tables (FITS, ECSV, CSV, Parquet) with the word ``CAT`` (``CATALOG``, ``CATALOGUE``) are the catalogue. It may lie elsewhere:
  in a second folder, among those of other tiles, or as a file of any name.
- Point-spread functions, background models, segmentation maps, and the morphology and cutout catalogues are passed over.
- ``TILE<digits>`` in a name says which tile a file is of. A folder with files of several tiles yields all of them, in order of
  their ids. Files without a number belong to the folder's one tile; its id is the number in the folder's name, else that name.

Out: tiles, and failed tiles (no such folder, bands missing, two files for one band: both are named). Refused: a store that does
not answer or takes no credentials (see :mod:`scanner.storage.contract`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, UsageError
from scanner.records import BANDS, TILE_ID_PATTERN, Band, BandFiles, FailedTile, ImageRef, Tile
from scanner.storage.location import is_remote, split
from scanner.storage.open import open_store

#: Subfolders of a tile that hold its mosaics in the public archive.
INSTRUMENTS = ("VIS", "NISP", "NIR")
FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
TABLE_SUFFIXES = (*FITS_SUFFIXES, ".ecsv", ".csv", ".parquet")

Role = Literal["image", "rms", "flag", "catalogue"]


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Z]){pattern}(?![A-Z])")


_BAND_WORDS: dict[Band, re.Pattern[str]] = {
    "VIS": _word("VIS"),
    "Y": _word("NI(?:R|SP)[-_]Y"),
    "J": _word("NI(?:R|SP)[-_]J"),
    "H": _word("NI(?:R|SP)[-_]H"),
}
_PASSED_OVER = _word("(?:PSF|BGMOD|BKG|BACKGROUND|SEGMAP|SEGMENTATION|MORPH|CUTOUTS|WEIGHT)")
_CATALOGUE_WORD = _word("CAT(?:ALOG(?:UE)?)?")
_TILE_WORD = re.compile(r"(?<![A-Z])TILE[-_]?(\d{1,64})", re.ASCII)

#: What a file is to its tile: (band, "image"), (band, "rms"), (band, "flag") or (None, "catalogue").
_Place = tuple[Band | None, Role]


@dataclass(frozen=True, order=True)
class _File:
    name: str
    location: str


class _UnlistedError(Exception):
    """A folder cannot be listed; the message says why."""


def find_tiles(folder: str, where: str, storage: StorageConfig, catalogue: str | None = None) -> list[Tile | FailedTile]:
    """Find the tiles of a folder.

    Parameters
    ----------
    folder
        Local path or URL of the folder.
    where
        ``list:line``, with which every reason begins.
    storage
        How object stores are reached.
    catalogue
        Where the catalogue is, if not in the folder: a file, or a folder, which ends in ``/``.

    Returns
    -------
    list of Tile or FailedTile
        At least one.

    Raises
    ------
    InputMissingError
        Credentials or bucket do not hold.
    UnavailableError
        The store does not answer.
    """
    folder_id = _folder_tile_id(folder)
    try:
        groups = _group(_listed(folder, storage, INSTRUMENTS), folder_id)
        if catalogue is not None:
            _add_catalogues(groups, catalogue, storage)
    except _UnlistedError as error:
        return [_failed(folder_id, where, str(error))]
    return [_assemble(tile_id, places, folder, where, catalogue) for tile_id, places in sorted(groups.items())]


def _listed(folder: str, storage: StorageConfig, subfolders: tuple[str, ...] = ()) -> list[_File]:
    """Files of a folder and of the named subfolders, by name."""
    names = _remote_names(folder, storage) if is_remote(folder) else _local_names(folder)
    files = [_File(name, _below(folder, name)) for name, is_folder in names if not is_folder]
    for name, is_folder in names:
        if is_folder and name.upper() in subfolders:
            files += _listed(_below(folder, name), storage)
    return sorted(files)


def _local_names(folder: str) -> list[tuple[str, bool]]:
    try:
        entries = [entry for entry in Path(folder).iterdir() if not entry.name.startswith(".")]
        return [(entry.name, entry.is_dir()) for entry in entries if entry.is_dir() or entry.is_file()]
    except NotADirectoryError:
        raise _UnlistedError(f"{folder}: is a file, not a folder; name the files of the tile, id=… VIS=…") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _UnlistedError(f"{folder}: the tile's folder cannot be read ({reason}); check the path") from None


def _remote_names(folder: str, storage: StorageConfig) -> list[tuple[str, bool]]:
    try:
        entries = open_store(folder, storage).entries()
    except (ForbiddenError, UsageError) as error:
        raise _UnlistedError(str(error).rstrip(".")) from None
    if not entries:
        raise _UnlistedError(f"{folder}: no object lies below it; check the URL of the tile's folder")
    return [(entry.name, entry.is_folder) for entry in entries if not entry.name.startswith(".")]


def _below(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


def _add_catalogues(groups: dict[str, dict[_Place, list[_File]]], catalogue: str, storage: StorageConfig) -> None:
    """Give each tile the catalogue of its number; a file that is named is that of the folder's only tile, whatever its name."""
    only = next(iter(groups)) if len(groups) == 1 else None
    if catalogue.endswith("/"):
        found = [(_tile_number(file.name) or only, file) for file in _listed(catalogue, storage)]
        found = [(tile_id, file) for tile_id, file in found if _place(file.name) == (None, "catalogue")]
    else:
        name = split(catalogue)[1]
        found = [(only or _tile_number(name), _File(name, catalogue))]
    for tile_id, file in found:
        if tile_id in groups:
            groups[tile_id][None, "catalogue"].append(file)


def _group(files: Iterable[_File], folder_id: str) -> dict[str, dict[_Place, list[_File]]]:
    """Files of each tile by their place; files without a tile number join the folder's one tile."""
    groups: dict[str, dict[_Place, list[_File]]] = defaultdict(lambda: defaultdict(list))
    unnumbered: list[tuple[_Place, _File]] = []
    for file in files:
        place, number = _place(file.name), _tile_number(file.name)
        if place is None:
            continue
        if number is None:
            unnumbered.append((place, file))
        else:
            groups[number][place].append(file)
    if unnumbered or not groups:
        home = next(iter(groups)) if len(groups) == 1 else folder_id
        for place, file in unnumbered:
            groups[home][place].append(file)
        groups.setdefault(home, defaultdict(list))
    return groups


def _tile_number(name: str) -> str | None:
    match = _TILE_WORD.search(name.upper())
    return match[1] if match else None


def _place(name: str) -> _Place | None:
    upper = name.upper()
    suffix = next((suffix for suffix in TABLE_SUFFIXES if upper.endswith(suffix.upper())), None)
    if suffix is None or _PASSED_OVER.search(upper):
        return None
    if _CATALOGUE_WORD.search(upper):
        return None, "catalogue"
    if suffix not in FITS_SUFFIXES:
        return None
    band = next((band for band, word in _BAND_WORDS.items() if word.search(upper)), None)
    if band is None:
        return None
    role: Role = "rms" if _word("RMS").search(upper) else "flag" if _word("FLAG").search(upper) else "image"
    return band, role


def _assemble(
    tile_id: str, places: dict[_Place, list[_File]], folder: str, where: str, catalogue: str | None
) -> Tile | FailedTile:
    if not re.fullmatch(TILE_ID_PATTERN, tile_id):
        return _failed(tile_id, where, f"{folder}: {tile_id!r} cannot be a tile id; name the files of the tile, id=… VIS=…")
    for (band, role), files in places.items():
        if len(files) > 1:
            what = " ".join(part for part in (band, role) if part)
            names = f"{files[0].name} and {files[1].name}"
            return _failed(tile_id, where, f"{folder}: {names} are both the {what}; keep one, or name it")
    missing = [band for band in BANDS if (band, "image") not in places]
    if missing:
        reason = f"{folder}: has no mosaic of {', '.join(missing)} (names such as *VIS*.fits, *NIR-Y*.fits); add it, or name it"
        return _failed(tile_id, where, reason)
    if catalogue is not None and not places.get((None, "catalogue")):
        return _failed(tile_id, where, f"{catalogue}: is or holds no catalogue of tile {tile_id}; add it, or name the file")

    def reference(band: Band | None, role: Role) -> ImageRef | None:
        files = places.get((band, role))
        return ImageRef(path=files[0].location) if files else None

    bands: dict[Band, BandFiles] = {}
    for band in BANDS:
        image = ImageRef(path=places[band, "image"][0].location)
        bands[band] = BandFiles(image=image, rms=reference(band, "rms"), flag=reference(band, "flag"))
    return Tile(tile_id=tile_id, bands=bands, catalogue=reference(None, "catalogue"))


def _folder_tile_id(folder: str) -> str:
    if is_remote(folder):
        name = split(folder)[1]
    else:
        # A link keeps its own name: only a path that ends in no name at all is resolved.
        path = Path(folder)
        name = path.name if path.name not in ("", "..") else path.resolve().name or "unnamed"
    return _tile_number(name) or name


def _failed(tile_id: str, where: str, reason: str) -> FailedTile:
    return FailedTile(tile_id=tile_id, reason=f"{where}: {reason}.")
