"""Which files make a tile: by their names in a folder, by the extensions of a file, or as they are named one by one."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, InputMissingError, UsageError
from scanner.imaging_surveys import EUCLID, ImagingSurvey
from scanner.records import TILE_ID_PATTERN, Band, BandFiles, FailedTile, ImageRef, Tile
from scanner.storage import open_store
from scanner.storage.contract import is_remote, split

TILE_ID = re.compile(TILE_ID_PATTERN.removesuffix("$") + r"\Z")
#: Subfolders of a tile that hold its mosaics in the public archive.
INSTRUMENTS = ("VIS", "NISP", "NIR")
FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
TABLE_SUFFIXES = (*FITS_SUFFIXES, ".ecsv", ".csv", ".parquet")
Role = Literal["image", "rms", "flag", "catalogue"]
#: What a file is to its tile: (filter, "image"), (filter, "rms"), (filter, "flag") or (None, "catalogue").
_Place = tuple[str | None, Role]


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Z]){pattern}(?![A-Z])")


_LEFT_OUT = _word("(?:PSF|BGMOD|BKG|BACKGROUND|SEGMAP|SEGMENTATION|MORPH|CUTOUTS|WEIGHT|WHT|IVM|IVAR|CTX)")
_CATALOGUE_WORD = _word("CAT(?:ALOG(?:UE)?)?")
_TILE_WORD = re.compile(r"(?<![A-Z])TILE[-_]?(\d{1,64})", re.ASCII)


@dataclass(frozen=True, order=True)
class _File:
    name: str
    location: str


class _UnlistedError(Exception):
    """A folder cannot be listed; the message says why."""


def find_tiles(
    folder: str, where: str, storage: StorageConfig, catalogue: str | None = None, survey: ImagingSurvey = EUCLID
) -> list[Tile | FailedTile]:
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
    survey
        Whose names the files have.

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
        groups = _group(_files_of(folder, storage, INSTRUMENTS), folder_id, survey)
        if catalogue is not None:
            _add_catalogues(groups, catalogue, storage, survey)
    except _UnlistedError as error:
        return [_failed(folder_id, where, str(error))]
    return [_assemble(tile_id, places, folder, where, catalogue, survey) for tile_id, places in sorted(groups.items())]


def _files_of(folder: str, storage: StorageConfig, subfolders: tuple[str, ...] = ()) -> list[_File]:
    """Files of a folder and of the named subfolders, by name."""
    names = _remote_names(folder, storage) if is_remote(folder) else _local_names(folder)
    files = [_File(name, _child(folder, name)) for name, is_folder in names if not is_folder]
    for name, is_folder in names:
        if is_folder and name.upper() in subfolders:
            files += _files_of(_child(folder, name), storage)
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


def _child(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else str(Path(folder) / name)


def _add_catalogues(
    groups: dict[str, dict[_Place, list[_File]]], catalogue: str, storage: StorageConfig, survey: ImagingSurvey
) -> None:
    """Give each tile the catalogue of its number; a file that is named is that of the folder's only tile, whatever its name."""
    only = next(iter(groups)) if len(groups) == 1 else None
    if catalogue.endswith("/"):
        found = [(_tile_number(file.name) or only, file) for file in _files_of(catalogue, storage)]
        found = [(tile_id, file) for tile_id, file in found if _place(file.name, survey) == (None, "catalogue")]
    else:
        name = split(catalogue)[1]
        found = [(only or _tile_number(name), _File(name, catalogue))]
    for tile_id, file in found:
        if tile_id in groups:
            groups[tile_id][None, "catalogue"].append(file)


def _group(files: Iterable[_File], folder_id: str, survey: ImagingSurvey) -> dict[str, dict[_Place, list[_File]]]:
    """Files of each tile by their place; files without a tile number join the folder's one tile."""
    groups: dict[str, dict[_Place, list[_File]]] = defaultdict(lambda: defaultdict(list))
    unnumbered: list[tuple[_Place, _File]] = []
    for file in files:
        place, number = _place(file.name, survey), _tile_number(file.name)
        if place is None:
            continue
        if number is None:
            unnumbered.append((place, file))
        else:
            groups[number][place].append(file)
    if unnumbered or not groups:
        home = next(iter(groups)) if len(groups) == 1 else folder_id
        # Euclid numbers its tiles; of other surveys, images of several places differ in all but the filter of their names.
        several = survey != EUCLID and max(Counter(place for place, _ in unnumbered).values(), default=0) > 1
        for place, file in unnumbered:
            groups[survey.without_filter(_without_suffix(file.name)) if several else home][place].append(file)
        if not groups:
            groups[home] = defaultdict(list)
    return groups


def _without_suffix(name: str) -> str:
    """A file's name without what says that it is an image, and of what kind."""
    return re.sub(r"\.FITS(\.[GF]Z)?$|[-_](RMS|FLAG)(?![A-Z])", "", name, flags=re.IGNORECASE)


def _tile_number(name: str) -> str | None:
    match = _TILE_WORD.search(name.upper())
    return match[1] if match else None


def _place(name: str, survey: ImagingSurvey) -> _Place | None:
    upper = name.upper()
    suffix = next((suffix for suffix in TABLE_SUFFIXES if upper.endswith(suffix.upper())), None)
    if suffix is None or _LEFT_OUT.search(upper):
        return None
    if _CATALOGUE_WORD.search(upper):
        return None, "catalogue"
    if suffix not in FITS_SUFFIXES:
        return None
    filter_name = survey.filter_in(name)
    return None if filter_name is None else (filter_name, _role(upper))


def _role(upper: str) -> Role:
    return "rms" if _word("(?:RMS|ERR)").search(upper) else "flag" if _word("FLAG").search(upper) else "image"


def _assemble(
    tile_id: str, places: dict[_Place, list[_File]], folder: str, where: str, catalogue: str | None, survey: ImagingSurvey
) -> Tile | FailedTile:
    if not TILE_ID.match(tile_id):
        return _failed(tile_id, where, f"{folder}: {tile_id!r} cannot be a tile id; name the files of the tile, id=… VIS=…")
    chosen = survey.filter_of({name for name, role in places if name is not None and role == "image"})
    used = {*chosen.values(), None}
    for (name, role), files in places.items():
        if len(files) > 1 and name in used:
            what = " ".join(part for part in (name, role) if part)
            names = f"{files[0].name} and {files[1].name}"
            return _failed(tile_id, where, f"{folder}: {names} are both the {what}; keep one, or name it")
    if "VIS" not in chosen:
        vis = survey.filter_of().get("VIS", "VIS")
        return _failed(tile_id, where, f"{folder}: has no VIS mosaic (a name such as *{vis}*.fits); add it, or name it")
    images = {name for name, role in places if role == "image"}
    for name, role in places:
        if name not in images and role in ("rms", "flag"):
            return _failed(tile_id, where, f"{folder}: has the {role.upper()} of {name} and no mosaic of {name}; add it")
    if catalogue is not None and not places.get((None, "catalogue")):
        return _failed(tile_id, where, f"{catalogue}: is or holds no catalogue of tile {tile_id}; add it, or name the file")

    def reference(name: str | None, role: Role) -> ImageRef | None:
        files = places.get((name, role))
        return ImageRef(path=files[0].location) if files else None

    bands: dict[Band, BandFiles] = {}
    for band, name in chosen.items():
        image = reference(name, "image")
        if image is not None:
            bands[band] = BandFiles(image=image, rms=reference(name, "rms"), flag=reference(name, "flag"))
    return Tile(tile_id=tile_id, bands=bands, catalogue=reference(None, "catalogue"))


def is_image(location: str) -> bool:
    """Whether a location is called like a FITS file, perhaps with an extension behind it."""
    return re.sub(r"\[[^\[\]]+\]$", "", location).lower().endswith(FITS_SUFFIXES)


def is_folder(location: str) -> bool:
    """Whether a location is a folder: a local one, or a URL that ends in ``/``."""
    return location.endswith("/") if is_remote(location) else Path(location).is_dir()


def named_tiles(locations: Sequence[str], storage: StorageConfig, survey: ImagingSurvey = EUCLID) -> list[Tile | FailedTile]:
    """The tiles that folders and images, named one by one, make.

    - A folder with images is one tile or several, see :func:`~scanner.sky.tile_list.read`; one without is all of its folders.
    - Where no name in a folder tells a filter, each image is a tile that has no other band.
    - Images that have the names of filters belong together as in a folder.
    - A file whose extensions are named after filters, such as ``VIS_BGSUB``, ``NIR_Y_BGSUB`` and ``VIS_RMS``, is a tile.
    - Any other image is a tile that has no other band.

    Parameters
    ----------
    locations
        Local paths or URLs; those of folders on object stores end in ``/``.
    storage
        How object stores are reached.
    survey
        Whose names the files have.

    Raises
    ------
    InputMissingError
        A file is not there, or a folder holds no image; bucket or credentials do not hold.
    UnavailableError
        A store does not answer.
    """
    found: list[Tile | FailedTile] = []
    images: list[_File] = []
    for location in locations:
        if is_folder(location):
            found += _tiles_below(location.rstrip("/") if not is_remote(location) else location, storage, survey)
        elif is_image(location):
            images.append(_File(split(location)[1], location))
        else:
            raise InputMissingError(f"{location}: is no folder and no FITS image; a tile list is named alone.")
    found += _tiles_of_images(images, survey)
    return _with_ids_of_their_own(found)


def _tiles_below(folder: str, storage: StorageConfig, survey: ImagingSurvey, depth: int = 2) -> list[Tile | FailedTile]:
    try:
        names = _remote_names(folder, storage) if is_remote(folder) else _local_names(folder)
    except _UnlistedError as error:
        raise InputMissingError(f"{error}.") from None
    below = [_child(folder, name) for name, is_one in names if is_one]
    files = [_File(name, _child(folder, name)) for name, is_one in sorted(names) if not is_one and is_image(name)]
    if files or any(Path(one).name.upper() in INSTRUMENTS for one in below):
        tiles = find_tiles(folder, folder, storage, survey=survey)
        if any(isinstance(tile, Tile) for tile in tiles) or any(_place(file.name, survey) for file in files):
            return tiles
        return _tiles_of_images([file for file in files if not _LEFT_OUT.search(file.name.upper())], survey)
    found = [tile for one in sorted(below) if depth > 1 for tile in _tiles_below(one, storage, survey, depth - 1)]
    if not found and depth > 1:
        raise InputMissingError(f"{folder}: holds no FITS image, nor do its folders; name another folder, or a tile list.")
    return found


def _tiles_of_images(images: Sequence[_File], survey: ImagingSurvey) -> list[Tile | FailedTile]:
    """Tiles of images: those with filters in their names together, each other one a tile of its own."""
    whole = [(file, _tile_of_extensions(file, survey)) for file in images]
    found: list[Tile | FailedTile] = [tile for _, tile in whole if tile is not None]
    rest = [file for file, tile in whole if tile is None]
    named = [file for file in rest if _place(_image_name(file), survey) is not None]
    if named:
        groups = _group([_File(_image_name(file), file.location) for file in named], _joint_id(named), survey)
        found += [_assemble(tile_id, places, "the images named", tile_id, None, survey) for tile_id, places in groups.items()]
    for file in rest:
        if file not in named:
            tile_id = re.sub(r"[^A-Za-z0-9._+-]", "_", _without_suffix(_image_name(file))).lstrip(".")[:100] or "image"
            found.append(Tile(tile_id=tile_id, bands={"VIS": BandFiles(image=_reference(file.location))}))
    return found


def _image_name(file: _File) -> str:
    return re.sub(r"\[[^\[\]]+\]$", "", file.name)


def _joint_id(files: Sequence[_File]) -> str:
    """Id of the tile of images without a number: what their names begin with, or their folder's name."""
    return _folder_tile_id(split(files[0].location)[0])


def _reference(location: str) -> ImageRef:
    match = re.fullmatch(r"(.+)\[([^\[\]]+)\]", location)
    if match is None:
        return ImageRef(path=location)
    return ImageRef(path=match[1], extension=int(match[2]) if match[2].isdigit() else match[2])


def _tile_of_extensions(file: _File, survey: ImagingSurvey) -> Tile | None:
    """A file whose images are called after filters, VIS among them, as a tile; None where it is none."""
    from astropy.io import fits

    if is_remote(file.location) or file.location.endswith("]"):
        return None
    if not Path(file.location).is_file():
        raise InputMissingError(f"{file.location}: there is no such file; check the path.")
    places: dict[_Place, ImageRef] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(file.location, memmap=False, lazy_load_hdus=True) as hdus:
                for hdu in hdus:
                    name, shape = hdu.name.upper(), getattr(hdu, "shape", ())
                    if name and hdu.is_image and len(shape) == 2 and not _LEFT_OUT.search(name):
                        filter_name = survey.filter_in(name)
                        if filter_name is not None:
                            places.setdefault((filter_name, _role(name)), ImageRef(path=file.location, extension=hdu.name))
    except Exception:  # what is wrong with it is said where it is opened as a mosaic
        return None
    chosen = survey.filter_of({name for name, role in places if name is not None and role == "image"})
    if "VIS" not in chosen:
        return None
    return Tile(
        tile_id=re.sub(r"[^A-Za-z0-9._+-]", "_", _without_suffix(file.name)).lstrip(".")[:100] or "image",
        bands={
            band: BandFiles(image=places[name, "image"], rms=places.get((name, "rms")), flag=places.get((name, "flag")))
            for band, name in chosen.items()
        },
    )


def _with_ids_of_their_own(tiles: Sequence[Tile | FailedTile]) -> list[Tile | FailedTile]:
    """Tiles of which no two have one id: the second and further ones get a number."""
    seen: Counter[str] = Counter()
    found = []
    for tile in tiles:
        seen[tile.tile_id.casefold()] += 1
        number = seen[tile.tile_id.casefold()]
        found.append(tile if number == 1 else tile.model_copy(update={"tile_id": f"{tile.tile_id}-{number}"}))
    return found


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
