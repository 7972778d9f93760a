"""The tile list: which mosaics belong together, one tile a line, or one folder of tiles a line."""

from __future__ import annotations

import codecs
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.config import StorageConfig
from scanner.errors import InputMissingError, TileListError
from scanner.imaging_surveys import EUCLID, ImagingSurvey
from scanner.records import BANDS, BandFiles, FailedTile, ImageRef, Tile
from scanner.sky.local_files import irregular
from scanner.sky.tile_files import TILE_ID, find_tiles
from scanner.storage import read_file
from scanner.storage.contract import SCHEMES, bucket_and_key, in_order, is_remote, split

COMPANIONS = ("RMS", "FLAG", "PSF")
_BAND_OF = {f"{band}_{companion}": band for band in BANDS for companion in COMPANIONS}
KEYS = ("ID", *BANDS, "CATALOGUE", *_BAND_OF)
_WORD = re.compile(r"""(?: [^\s"'\\] | \\. | "(?:[^"\\]|\\.)*" | '[^']*' )+""", re.VERBOSE)
_PIECE = re.compile(r"""\\(?P<escaped>.) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<plain>.)""", re.VERBOSE)
_SPECIAL = re.compile(r"""[\\"'#]""")
_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_]+)=(?P<value>.*)")
_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
#: What :class:`~pathlib.Path` writes otherwise: empty parts, dots, a slash at the end.
_UNTIDY = re.compile(r"//|(?:^|/)\.(?:/|$)|/$")
#: Folders on object stores that are listed at a time: each costs some requests of tens of milliseconds.
LISTED_TOGETHER = 16
#: More folders than this take so long that the log says so.
REPORTED_FOLDERS = 500
logger = logging.getLogger("scanner.sky.tile_list")


class ListedTiles(Mapping[str, Tile]):
    """The tiles of a list by their ids, in the order of its lines.

    A list may have a million lines, whose records together take gigabytes: one that names files is read again whenever its
    tile is asked for.
    """

    def __init__(self, content: bytes, base: str) -> None:
        self._content, self._base = content, base
        #: Tiles that were found in folders, and where the lines of the others begin.
        self._places: dict[str, Tile | int] = {}

    def __getitem__(self, tile_id: str) -> Tile:
        place = self._places[tile_id]
        if isinstance(place, Tile):
            return place
        end = self._content.find(b"\n", place)
        line = self._content[place : None if end < 0 else end].decode()
        return _tile(_assignments(_words(line, tile_id), tile_id), self._base, tile_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def add(self, tile_id: str, place: Tile | int) -> None:
        """Put a tile, or where its line begins, behind those that are here."""
        self._places[tile_id] = place


@dataclass(frozen=True)
class TileList:
    """What a tile list says, in the order of its lines.

    ``location``: of the list. ``tiles``: by id, those whose VIS mosaic is named. ``failed``: those that lack a folder or VIS,
    and why.
    """

    location: str
    tiles: Mapping[str, Tile]
    failed: tuple[FailedTile, ...]

    def __len__(self) -> int:
        return len(self.tiles) + len(self.failed)

    def tile(self, tile_id: str) -> Tile:
        """One tile.

        Raises
        ------
        InputMissingError
            The list does not have it, or not its files.
        """
        if tile_id in self.tiles:
            return self.tiles[tile_id]
        for failure in self.failed:
            if failure.tile_id == tile_id:
                raise InputMissingError(failure.reason)
        raise InputMissingError(f"{self.location}: has no tile {tile_id} any more; put its line back, or name another list.")


def read(location: str | Path, storage: StorageConfig = StorageConfig(), survey: ImagingSurvey = EUCLID) -> TileList:
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
    survey
        Whose names the files in folders have.

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
    content = _content(location, storage).removeprefix(codecs.BOM_UTF8)
    tiles = ListedTiles(content, base)
    failed: list[FailedTile] = []
    named: dict[str, int] = {}
    for number, tile_id, found in _with_tiles_of_folders(_entries(content, base, location), location, storage, survey):
        # Ids name folders, and some disks take names that differ in case for one.
        if earlier := named.get(tile_id.casefold()):
            known = {*tiles, *(failure.tile_id for failure in failed)}
            other = "" if tile_id in known else next(one for one in known if one.casefold() == tile_id.casefold())
            what = f" as {other}, the same folder on some disks" if other else ""
            raise TileListError(f"{location}:{number}: tile {tile_id} stands in line {earlier} already{what}; remove one.")
        named[tile_id.casefold()] = number
        if isinstance(found, FailedTile):
            failed.append(found)
        else:
            tiles.add(tile_id, found)
    if not named:
        raise TileListError(f"{location}: the list holds no tile; write one a line: a folder, or id=… VIS=… Y=… J=… H=….")
    return TileList(location, tiles, tuple(failed))


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


@dataclass(frozen=True)
class FolderLine:
    """A line that names a folder, and perhaps where its catalogue is: a file, or a folder, which ends in ``/``."""

    folder: str
    catalogue: str | None = None


def _entries(content: bytes, base: str, location: str) -> list[tuple[int, str, int | FailedTile | FolderLine]]:
    """Of each line that says something its number, the id of its tile, and where it begins, or what came of it."""
    entries: list[tuple[int, str, int | FailedTile | FolderLine]] = []
    start = 0
    for number, raw in enumerate(io.BytesIO(content), start=1):
        where = f"{location}:{number}"
        try:
            line = raw.removesuffix(b"\n").decode()
        except UnicodeDecodeError:
            raise TileListError(f"{location}: is not UTF-8 text; give a tile list, one tile a line.") from None
        entry = read_line(line, base, where)
        if isinstance(entry, FolderLine):
            entries.append((number, "", entry))
        elif entry is not None:
            tile_id = entry["ID"]
            reason = f"{where}: no VIS mosaic is given; add VIS=…."
            entries.append((number, tile_id, start if "VIS" in entry else FailedTile(tile_id=tile_id, reason=reason)))
        start += len(raw)
    return entries


def _with_tiles_of_folders(
    entries: list[tuple[int, str, int | FailedTile | FolderLine]], location: str, storage: StorageConfig, survey: ImagingSurvey
) -> Iterator[tuple[int, str, int | FailedTile | Tile]]:
    """Entries by line, the folders among them replaced by their tiles; object stores are asked for many at a time."""
    folders = {number: entry for number, _, entry in entries if isinstance(entry, FolderLine)}

    def tiles(number: int) -> list[Tile | FailedTile]:
        return find_tiles(folders[number].folder, f"{location}:{number}", storage, folders[number].catalogue, survey)

    n_remote = sum(is_remote(line.folder) for line in folders.values())
    if n_remote > REPORTED_FOLDERS:
        logger.info("listing %d folders of tiles on object stores", n_remote)
    found = in_order(tiles, folders, LISTED_TOGETHER)
    for number, tile_id, entry in entries:
        if isinstance(entry, FolderLine):
            yield from ((number, tile.tile_id, tile) for tile in next(found))
        else:
            yield number, tile_id, entry


def read_line(line: str, base: str, where: str) -> dict[str, str] | FolderLine | None:
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
    dict, FolderLine or None
        The line's values by their keys, in capitals; or its folder. None: a blank line, or a comment.

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
        values = _assignments(words, where)
        for key, value in values.items():
            if key != "ID":
                _resolve(value, base, where)
        return values
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
    if not _SPECIAL.search(line):
        return line.split()
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
        words.append("".join(map(_plain, _PIECE.finditer(match[0]))))
        position = match.end()
    return words


def _plain(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return re.sub(r"\\(.)", r"\1", piece["double"])
    return next(text for text in piece.group("escaped", "single", "plain") if text is not None)


def _assignments(words: list[str], where: str) -> dict[str, str]:
    """Values of a line that names files, by their keys."""
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
    if "ID" not in values:
        raise TileListError(f"{where}: the line names files but no tile; add id=….")
    if not TILE_ID.match(values["ID"]):
        raise TileListError(f"{where}: {values['ID']!r} cannot be a tile id; use letters, digits and ._+- (not a dot first).")
    for companion, band in _BAND_OF.items():
        if companion in values and band not in values:
            raise TileListError(f"{where}: {companion} is given without {band}.")
    return values


def _tile(values: dict[str, str], base: str, where: str) -> Tile:
    files = {key: _image(value, base, where) for key, value in values.items() if key != "ID"}
    return Tile(
        tile_id=values["ID"],
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
    match = _SCHEME.fullmatch(value) if "://" in value else None
    if match is None:
        if is_remote(base) and not value.startswith("/"):
            return _url_below(value, base, where)
        path = value if value.startswith("/") or base == "." else f"{base}/{value}"
        return str(Path(path)) if _UNTIDY.search(path) else path
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
