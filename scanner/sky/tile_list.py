"""The tile list: which mosaics belong together, one tile a line, or one folder of tiles a line."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, InputMissingError, TileListError, UsageError
from scanner.records import BANDS, TILE_ID_PATTERN, Band, BandFiles, FailedTile, ImageRef, Tile
from scanner.sky.local_files import irregular
from scanner.storage import open_store, read_file
from scanner.storage.in_order import in_order
from scanner.storage.location import SCHEMES, bucket_and_key, is_remote, split

COMPANIONS = ("RMS", "FLAG", "PSF")
KEYS = ("ID", *BANDS, "CATALOGUE", *(f"{band}_{companion}" for band in BANDS for companion in COMPANIONS))
_WORD = re.compile(r"""(?: [^\s"'\\] | \\. | "(?:[^"\\]|\\.)*" | '[^']*' )+""", re.VERBOSE)
_PIECE = re.compile(r"""\\(?P<escaped>.) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<plain>.)""", re.VERBOSE)
_QUOTED = re.compile(r"""[\\"']""")
_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_]+)=(?P<value>.*)")
_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: Subfolders of a tile that hold its mosaics in the public archive.
INSTRUMENTS = ("VIS", "NISP", "NIR")
FITS_SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
TABLE_SUFFIXES = (*FITS_SUFFIXES, ".ecsv", ".csv", ".parquet")
Role = Literal["image", "rms", "flag", "catalogue"]
#: What a file is to its tile: (band, "image"), (band, "rms"), (band, "flag") or (None, "catalogue").
_Place = tuple[Band | None, Role]
#: Folders on object stores that are listed at a time: each costs some requests of tens of milliseconds.
LISTED_TOGETHER = 16
#: More folders than this take so long that the log says so.
REPORTED_FOLDERS = 500
logger = logging.getLogger("scanner.sky.tile_list")


@dataclass(frozen=True)
class TileList:
    """What a tile list says, in the order of its lines.

    ``tiles``: those whose VIS mosaic is named. ``failed``: those that lack a folder or VIS, and why.
    """

    tiles: tuple[Tile, ...]
    failed: tuple[FailedTile, ...]

    def __len__(self) -> int:
        return len(self.tiles) + len(self.failed)


def read(location: str | Path, storage: StorageConfig = StorageConfig()) -> TileList:
    """Read a tile list.

    A UTF-8 text file, local or on an object store. ``#`` at the start of a word begins a comment; blank lines count for
    nothing; words with blanks in them stand in quotes, as in a shell. Paths are absolute, relative to the list's own folder or
    prefix, or URLs (``file://`` becomes a local path, those of object stores are kept as they stand); a list may mix them. A
    line is either

    - ``id=102018665 VIS=… Y=… J=… H=…`` with, where they exist, ``catalogue=…`` and ``VIS_RMS=…``, ``Y_FLAG=…``, ``H_PSF=…``
      and so on. Keys may be in either case. ``file.fits[VIS_BGSUB]`` or ``file.fits[7]`` names an extension of a
      multi-extension file. A line is of this form if its first word begins with one of these keys and ``=``; write ``./id=7``
      to name a folder of that name; or
    - a folder, local or on an object store, whose files are found by Euclid's names, e.g.
      ``EUC_MER_BGSUB-MOSAIC-VIS_TILE102018665-ACBD03_….fits``, ``EUC_MER_MOSAIC-NIR-Y-RMS_TILE102018665-….fits`` and
      ``EUC_MER_FINAL-CAT_TILE102018665-….fits``. If the catalogue lies elsewhere, ``catalogue=file`` or ``catalogue=folder/``
      follows. Subfolders ``VIS``, ``NISP`` and ``NIR``, as the public archive has them, are read too, others not. In a folder

      - FITS files (``.fits``, ``.fits.gz``, ``.fits.fz``) with ``VIS``, ``NIR-Y`` (``NIR_Y``, ``NISP-Y``, …) as a word of their
        name are mosaics of that band, or its companion where the word ``RMS`` or ``FLAG`` is there too;
      - tables (FITS, ECSV, CSV, Parquet) with the word ``CAT`` (``CATALOG``, ``CATALOGUE``) are the catalogue;
      - point-spread functions, background models, segmentation maps, and the morphology and cutout catalogues are left out;
      - ``TILE<digits>`` in a name says which tile a file is of. A folder with files of several tiles yields all of them, in
        order of their ids. Files without a number belong to the folder's one tile; its id is the number in the folder's name,
        else that name.

    A tile whose folder or VIS mosaic is missing is a failed tile, and the others go on without it. A line that cannot be
    understood, a tile id given twice (in whatever case), or a list without tiles is an error of the whole list.

    Mosaics are not opened, and files named one by one are not looked for: a missing one costs its tile when it is opened.

    Parameters
    ----------
    location
        The list, a local path or URL; its folder is where relative paths begin.
    storage
        How object stores are reached.

    Raises
    ------
    InputMissingError
        The list is not there or cannot be read; a bucket is not there or takes no such credentials.
    UnavailableError
        A store does not answer.
    TileListError
        A line cannot be understood, a tile id is given twice, or the list holds no tile.
    """
    location = str(location)
    base, _ = split(location)
    try:
        text = _content(location, storage).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TileListError(f"{location}: is not UTF-8 text; give a tile list, one tile a line.") from None
    entries = [(number, read_line(line, base, f"{location}:{number}")) for number, line in enumerate(text.split("\n"), start=1)]
    tiles: list[Tile] = []
    failed: list[FailedTile] = []
    named: dict[str, tuple[str, int]] = {}
    for number, entry in _with_tiles_of_folders(entries, location, storage):
        # Ids name folders, and some disks take names that differ in case for one.
        if earlier := named.get(entry.tile_id.casefold()):
            what = "" if earlier[0] == entry.tile_id else f" as {earlier[0]}, the same folder on some disks"
            raise TileListError(
                f"{location}:{number}: tile {entry.tile_id} stands in line {earlier[1]} already{what}; remove one."
            )
        named[entry.tile_id.casefold()] = entry.tile_id, number
        if isinstance(entry, Tile):
            tiles.append(entry)
        else:
            failed.append(entry)
    if not named:
        raise TileListError(f"{location}: the list holds no tile; write one a line: a folder, or id=… VIS=… Y=… J=… H=….")
    return TileList(tuple(tiles), tuple(failed))


def _content(location: str, storage: StorageConfig) -> bytes:
    if not is_remote(location):
        # It is read again when the run goes on, or one of its objects is repeated: a pipe would be empty then.
        if kind := irregular(Path(location)):
            raise InputMissingError(f"{location}: the tile list cannot be read ({kind}).")
        try:
            return Path(location).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputMissingError(f"{location}: the tile list cannot be read ({reason}).") from None
    try:
        return read_file(location, storage)
    except FileNotFoundError:
        raise InputMissingError(f"{location}: the tile list cannot be read (no such object).") from None


def _with_tiles_of_folders(
    entries: list[tuple[int, Tile | FailedTile | FolderLine | None]], location: str, storage: StorageConfig
) -> list[tuple[int, Tile | FailedTile]]:
    """Entries by line, the folders among them replaced by their tiles; object stores are asked for many at a time."""
    folders = {number: entry for number, entry in entries if isinstance(entry, FolderLine)}

    def tiles(number: int) -> list[Tile | FailedTile]:
        return find_tiles(folders[number].folder, f"{location}:{number}", storage, folders[number].catalogue)

    n_remote = sum(is_remote(line.folder) for line in folders.values())
    if n_remote > REPORTED_FOLDERS:
        logger.info("listing %d folders of tiles on object stores", n_remote)
    found = dict(zip(folders, in_order(tiles, folders, LISTED_TOGETHER), strict=True))
    listed: list[tuple[int, Tile | FailedTile]] = []
    for number, entry in entries:
        if entry is not None:
            listed += [(number, tile) for tile in (found[number] if isinstance(entry, FolderLine) else [entry])]
    return listed


@dataclass(frozen=True)
class FolderLine:
    """A line that names a folder, and perhaps where its catalogue is: a file, or a folder, which ends in ``/``."""

    folder: str
    catalogue: str | None = None


def read_line(line: str, base: str, where: str) -> Tile | FailedTile | FolderLine | None:
    """Read one line.

    Parameters
    ----------
    line
        Its text.
    base
        Folder or prefix where relative paths begin.
    where
        ``list:line``, with which every message begins.

    Returns
    -------
    Tile, FailedTile, FolderLine or None
        None: a blank line, or a comment.

    Raises
    ------
    TileListError
        The line cannot be understood.
    """
    if _CONTROL.search(line.rstrip("\r")):
        raise TileListError(f"{where}: holds control characters; give a plain text file.")
    words = _words(line, where)
    if not words:
        return None
    first = _ASSIGNMENT.fullmatch(words[0])
    if first is not None and first["key"].upper() in KEYS:
        return _read_assignments(words, base, where)
    catalogue = None
    if len(words) == 2 and (second := _ASSIGNMENT.fullmatch(words[1])) and second["key"].upper() == "CATALOGUE":
        if not second["value"]:
            raise TileListError(f"{where}: {second['key']} is empty.")
        catalogue = _resolve(second["value"], base, where).rstrip("/") + ("/" if second["value"].endswith("/") else "")
    elif len(words) > 1:
        raise TileListError(
            f"{where}: cannot understand {words[1]!r} after {words[0]!r}; "
            "write one folder a line (in quotes if it has blanks; catalogue=… may follow), or id=… VIS=… Y=… J=… H=…."
        )
    return FolderLine(_resolve(words[0], base, where), catalogue)


def _words(line: str, where: str) -> list[str]:
    """Words of a line, quotes and backslashes undone, without its comment."""
    words = []
    position = 0
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        if line[position] == "#":
            break
        match = _WORD.match(line, position)
        if match is None or (match.end() < len(line) and not line[match.end()].isspace()):
            raise TileListError(f"{where}: a quote or a backslash is left open.")
        # Most words have nothing to be undone, and a long list has a million of them.
        words.append("".join(map(_plain, _PIECE.finditer(match[0]))) if _QUOTED.search(match[0]) else match[0])
        position = match.end()
    return words


def _plain(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return re.sub(r"\\(.)", r"\1", piece["double"])
    return next(text for text in piece.group("escaped", "single", "plain") if text is not None)


def _read_assignments(words: list[str], base: str, where: str) -> Tile | FailedTile:
    values: dict[str, str] = {}
    for word in words:
        match = _ASSIGNMENT.fullmatch(word)
        key = match["key"].upper() if match else ""
        if match is None or key not in KEYS:
            raise TileListError(f"{where}: cannot understand {word!r}; the keys are {', '.join(KEYS)}.")
        if key in values:
            raise TileListError(f"{where}: {match['key']} is given twice.")
        if not match["value"]:
            raise TileListError(f"{where}: {match['key']} is empty.")
        values[key] = match["value"]
    tile_id = values.pop("ID", None)
    if tile_id is None:
        raise TileListError(f"{where}: the line names files but no tile; add id=….")
    if not re.fullmatch(TILE_ID_PATTERN, tile_id):
        raise TileListError(f"{where}: {tile_id!r} cannot be a tile id; use letters, digits and ._+- (not a dot first).")
    files = {key: _image(value, base, where) for key, value in values.items()}
    for band in BANDS:
        orphans = [f"{band}_{companion}" for companion in COMPANIONS if f"{band}_{companion}" in files]
        if orphans and band not in files:
            raise TileListError(f"{where}: {orphans[0]} is given without {band}.")
    if "VIS" not in files:
        return FailedTile(tile_id=tile_id, reason=f"{where}: no VIS mosaic is given; add VIS=….")
    return Tile(
        tile_id=tile_id,
        bands={
            band: BandFiles(
                image=files[band],
                rms=files.get(f"{band}_RMS"),
                flag=files.get(f"{band}_FLAG"),
                psf=files.get(f"{band}_PSF"),
            )
            for band in BANDS
            if band in files
        },
        catalogue=files.get("CATALOGUE"),
    )


def _image(value: str, base: str, where: str) -> ImageRef:
    match = _EXTENSION.fullmatch(value)
    if match is None:
        return ImageRef(path=_resolve(value, base, where))
    extension = match["extension"]
    number = int(extension) if extension.isascii() and extension.isdigit() and len(extension) < 6 else extension
    return ImageRef(path=_resolve(match["path"], base, where), extension=number)


def _resolve(value: str, base: str, where: str) -> str:
    """Local path or URL, absolute or below the list's folder; ``file://`` undone; object stores' as they stand."""
    match = _SCHEME.fullmatch(value)
    if match is None:
        return _url_below(value, base, where) if is_remote(base) and not value.startswith("/") else str(Path(base) / value)
    scheme = match["scheme"].lower()
    if scheme != "file" and scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise TileListError(f"{where}: {value}: {scheme}:// cannot be read; give a local path, file:// or {known}.")
    try:
        url = urlsplit(value)
    except ValueError as error:
        raise TileListError(f"{where}: {value}: is not a URL ({error}).") from None
    if scheme in SCHEMES:
        if not _BUCKET.fullmatch(url.netloc) or not url.path.strip("/"):
            raise TileListError(f"{where}: {value}: names no object; write {scheme}://bucket/key.")
        return value
    local = unquote(url.path)
    if url.netloc not in ("", "localhost") or not local.startswith("/") or _CONTROL.search(local):
        raise TileListError(f"{where}: {value}: is no file of this machine; write file:///folder/name.")
    return local


def _url_below(value: str, base: str, where: str) -> str:
    """URL of a relative path; object stores know nothing of ``..``."""
    bucket, key = bucket_and_key(base)
    parts = key.split("/") if key else []
    for part in value.split("/"):
        if part == "..":
            if not parts:
                raise TileListError(f"{where}: {value}: leads out of the bucket {bucket.partition('://')[2]}.")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join([bucket, *parts])


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Z]){pattern}(?![A-Z])")


_BAND_WORDS: dict[Band, re.Pattern[str]] = {
    "VIS": _word("VIS"),
    "Y": _word("NI(?:R|SP)[-_]Y"),
    "J": _word("NI(?:R|SP)[-_]J"),
    "H": _word("NI(?:R|SP)[-_]H"),
}
_LEFT_OUT = _word("(?:PSF|BGMOD|BKG|BACKGROUND|SEGMAP|SEGMENTATION|MORPH|CUTOUTS|WEIGHT)")
_CATALOGUE_WORD = _word("CAT(?:ALOG(?:UE)?)?")
_TILE_WORD = re.compile(r"(?<![A-Z])TILE[-_]?(\d{1,64})", re.ASCII)


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
        groups = _group(_files_of(folder, storage, INSTRUMENTS), folder_id)
        if catalogue is not None:
            _add_catalogues(groups, catalogue, storage)
    except _UnlistedError as error:
        return [_failed(folder_id, where, str(error))]
    return [_assemble(tile_id, places, folder, where, catalogue) for tile_id, places in sorted(groups.items())]


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


def _add_catalogues(groups: dict[str, dict[_Place, list[_File]]], catalogue: str, storage: StorageConfig) -> None:
    """Give each tile the catalogue of its number; a file that is named is that of the folder's only tile, whatever its name."""
    only = next(iter(groups)) if len(groups) == 1 else None
    if catalogue.endswith("/"):
        found = [(_tile_number(file.name) or only, file) for file in _files_of(catalogue, storage)]
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
    if suffix is None or _LEFT_OUT.search(upper):
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
    if ("VIS", "image") not in places:
        return _failed(tile_id, where, f"{folder}: has no VIS mosaic (a name such as *VIS*.fits); add it, or name it")
    for band in BANDS:
        orphans = [role for role in ("rms", "flag") if (band, role) in places and (band, "image") not in places]
        if orphans:
            return _failed(tile_id, where, f"{folder}: has the {orphans[0].upper()} of {band} and no mosaic of {band}; add it")
    if catalogue is not None and not places.get((None, "catalogue")):
        return _failed(tile_id, where, f"{catalogue}: is or holds no catalogue of tile {tile_id}; add it, or name the file")

    def reference(band: Band | None, role: Role) -> ImageRef | None:
        files = places.get((band, role))
        return ImageRef(path=files[0].location) if files else None

    bands: dict[Band, BandFiles] = {}
    for band in BANDS:
        image = reference(band, "image")
        if image is not None:
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
