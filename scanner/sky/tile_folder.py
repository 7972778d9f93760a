"""The tiles in a folder, found by Euclid's file names.

In: a folder (not its subfolders), e.g. with ``EUC_MER_BGSUB-MOSAIC-VIS_TILE102018665-ACBD03_….fits``,
``EUC_MER_MOSAIC-NIR-Y-RMS_TILE102018665-….fits`` and ``EUC_MER_FINAL-CAT_TILE102018665-….fits``. Upper and lower case are one.

- FITS files (``.fits``, ``.fits.gz``, ``.fits.fz``) with ``VIS``, ``NIR-Y`` (``NIR_Y``, ``NISP-Y``, …) as a word of their name
  are mosaics of that band, or its companion where the word ``RMS`` or ``FLAG`` is there too.
- Tables (FITS, ECSV, CSV, Parquet) with the word ``CAT`` (``CATALOG``, ``CATALOGUE``) are the catalogue.
- Point-spread functions, background models, segmentation maps, and the morphology and cutout catalogues are passed over.
- ``TILE<digits>`` in a name says which tile a file is of. A folder with files of several tiles yields all of them, in order of
  their ids. Files without a number belong to the folder's one tile; its id is the number in the folder's name, else that name.

Out: tiles, and failed tiles (no such folder, bands missing, two files for one band: both are named). Nothing is raised.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from scanner.records import BANDS, TILE_ID_PATTERN, Band, BandFiles, FailedTile, ImageRef, Tile

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


def find_tiles(folder: str, where: str) -> list[Tile | FailedTile]:
    """Find the tiles of a folder.

    Parameters
    ----------
    folder
        Local path or URL of the folder.
    where
        ``list:line``, with which every reason begins.

    Returns
    -------
    list of Tile or FailedTile
        At least one.
    """
    path = Path(folder)
    folder_id = _folder_tile_id(path)
    if folder.lower().startswith("s3://"):
        return [_failed(folder_id, where, f"{folder}: a folder cannot be listed over s3://; name the files, id=… VIS=…")]
    try:
        names = sorted(entry.name for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except NotADirectoryError:
        return [_failed(folder_id, where, f"{folder}: is a file, not a folder; name the files of the tile, id=… VIS=…")]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return [_failed(folder_id, where, f"{folder}: the tile's folder cannot be read ({reason}); check the path")]
    groups = _group(names, folder_id)
    return [_assemble(tile_id, places, path, where) for tile_id, places in sorted(groups.items())]


def _group(names: Iterable[str], folder_id: str) -> dict[str, dict[_Place, list[str]]]:
    """Files of each tile by their place; files without a tile number join the folder's one tile."""
    groups: dict[str, dict[_Place, list[str]]] = defaultdict(lambda: defaultdict(list))
    unnumbered: list[tuple[_Place, str]] = []
    for name in names:
        place = _place(name)
        match = _TILE_WORD.search(name.upper())
        if place is None:
            continue
        if match is None:
            unnumbered.append((place, name))
        else:
            groups[match[1]][place].append(name)
    if unnumbered or not groups:
        home = next(iter(groups)) if len(groups) == 1 else folder_id
        for place, name in unnumbered:
            groups[home][place].append(name)
        groups.setdefault(home, {})
    return groups


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


def _assemble(tile_id: str, places: dict[_Place, list[str]], folder: Path, where: str) -> Tile | FailedTile:
    if not re.fullmatch(TILE_ID_PATTERN, tile_id):
        return _failed(tile_id, where, f"{folder}: {tile_id!r} cannot be a tile id; name the files of the tile, id=… VIS=…")
    for (band, role), names in places.items():
        if len(names) > 1:
            what = " ".join(part for part in (band, role) if part)
            return _failed(tile_id, where, f"{folder}: {names[0]} and {names[1]} are both the {what}; keep one, or name it")
    missing = [band for band in BANDS if (band, "image") not in places]
    if missing:
        reason = f"{folder}: has no mosaic of {', '.join(missing)} (names such as *VIS*.fits, *NIR-Y*.fits); add it, or name it"
        return _failed(tile_id, where, reason)

    def reference(band: Band | None, role: Role) -> ImageRef | None:
        names = places.get((band, role))
        return ImageRef(path=str(folder / names[0])) if names else None

    bands: dict[Band, BandFiles] = {}
    for band in BANDS:
        image = ImageRef(path=str(folder / places[band, "image"][0]))
        bands[band] = BandFiles(image=image, rms=reference(band, "rms"), flag=reference(band, "flag"))
    return Tile(tile_id=tile_id, bands=bands, catalogue=reference(None, "catalogue"))


def _folder_tile_id(folder: Path) -> str:
    # A link keeps its own name: only a path that ends in no name at all is resolved.
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name or "unnamed"
    match = _TILE_WORD.search(name.upper())
    return match[1] if match else name


def _failed(tile_id: str, where: str, reason: str) -> FailedTile:
    return FailedTile(tile_id=tile_id, reason=f"{where}: {reason}.")
