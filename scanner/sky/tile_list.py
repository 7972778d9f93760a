"""The tile list: which mosaics belong together, one tile a line (or one folder of tiles a line).

In: a UTF-8 text file. ``#`` at the start of a word begins a comment; blank lines count for nothing; words with blanks in them
stand in quotes, as in a shell. Paths are absolute, relative to the list's own folder, or URLs (``file://`` becomes a local
path, ``s3://`` is kept as it stands). A line is either

- a folder, whose bands are found by Euclid's file names (see :mod:`scanner.sky.tile_folder`); or
- ``id=102018665 VIS=… Y=… J=… H=…`` with, where they exist, ``catalogue=…`` and ``VIS_RMS=…``, ``Y_FLAG=…``, ``H_PSF=…`` and
  so on. Keys may be in either case. ``file.fits[VIS_BGSUB]`` or ``file.fits[7]`` names an extension of a multi-extension
  file. A line is of this form if its first word begins with one of these keys and ``=``; write ``./id=7`` to name a folder of
  that name.

Out: a :class:`TileList`: the tiles that can be opened, and those that cannot because a folder or a band is missing: the others
go on without them. Refused as a whole (:class:`~scanner.errors.TileListError`, naming file and line): lines that cannot be
understood, a tile id given twice, a list without tiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scanner.errors import InputMissingError, TileListError
from scanner.records import BANDS, TILE_ID_PATTERN, BandFiles, FailedTile, ImageRef, Tile
from scanner.sky.tile_folder import find_tiles

COMPANIONS = ("RMS", "FLAG", "PSF")
KEYS = ("ID", *BANDS, "CATALOGUE", *(f"{band}_{companion}" for band in BANDS for companion in COMPANIONS))
#: URL schemes that an image may have; a local path has none.
SCHEMES = ("file", "s3")

_WORD = re.compile(r"""(?: [^\s"'\\] | \\. | "(?:[^"\\]|\\.)*" | '[^']*' )+""", re.VERBOSE)
_PIECE = re.compile(r"""\\(?P<escaped>.) | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>[^']*)' | (?P<plain>.)""", re.VERBOSE)
_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_]+)=(?P<value>.*)")
_EXTENSION = re.compile(r"(?P<path>.+)\[(?P<extension>[^\[\]]+)\]")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://.*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class TileList:
    """What a tile list says, in the order of its lines.

    ``tiles``: those whose four mosaics are named. ``failed``: those that lack a folder or a band, and why.
    """

    tiles: tuple[Tile, ...]
    failed: tuple[FailedTile, ...]

    def __len__(self) -> int:
        return len(self.tiles) + len(self.failed)


def read(path: str | Path) -> TileList:
    """Read a tile list.

    Mosaics are not opened, and files named one by one are not looked for: that is :mod:`scanner.sky.mosaic`'s work, where
    their absence costs one tile.

    Parameters
    ----------
    path
        The list; its folder is where relative paths begin.

    Raises
    ------
    InputMissingError
        The list is not there or cannot be read.
    TileListError
        A line cannot be understood, a tile id is given twice, or the list holds no tile.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise TileListError(f"{path}: is not UTF-8 text; give a tile list, one tile a line.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputMissingError(f"{path}: the tile list cannot be read ({reason}).") from None
    tiles: list[Tile] = []
    failed: list[FailedTile] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        for entry in _read_line(line, path.parent, where):
            if entry.tile_id in line_of:
                raise TileListError(
                    f"{where}: tile {entry.tile_id} stands in line {line_of[entry.tile_id]} already; remove one."
                )
            line_of[entry.tile_id] = number
            if isinstance(entry, Tile):
                tiles.append(entry)
            else:
                failed.append(entry)
    if not line_of:
        raise TileListError(f"{path}: the list holds no tile; write one a line: a folder, or id=… VIS=… Y=… J=… H=….")
    return TileList(tuple(tiles), tuple(failed))


def _read_line(line: str, base: Path, where: str) -> list[Tile | FailedTile]:
    if _CONTROL.search(line.rstrip("\r")):
        raise TileListError(f"{where}: holds control characters; give a plain text file.")
    words = _split(line, where)
    if not words:
        return []
    first = _ASSIGNMENT.fullmatch(words[0])
    if first is not None and first["key"].upper() in KEYS:
        return [_read_assignments(words, base, where)]
    if len(words) > 1:
        raise TileListError(
            f"{where}: cannot understand {words[1]!r} after {words[0]!r}; "
            "write one folder a line (in quotes if it has blanks), or id=… VIS=… Y=… J=… H=…."
        )
    return find_tiles(_resolve(words[0], base, where), where)


def _split(line: str, where: str) -> list[str]:
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
        words.append("".join(_plain(piece) for piece in _PIECE.finditer(match[0])))
        position = match.end()
    return words


def _plain(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return re.sub(r"\\(.)", r"\1", piece["double"])
    return next(text for text in piece.group("escaped", "single", "plain") if text is not None)


def _read_assignments(words: list[str], base: Path, where: str) -> Tile | FailedTile:
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
    missing = [band for band in BANDS if band not in files]
    if missing:
        reason = f"{where}: no mosaic is given for {', '.join(missing)}; add {' '.join(f'{band}=…' for band in missing)}."
        return FailedTile(tile_id=tile_id, reason=reason)
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
        },
        catalogue=files.get("CATALOGUE"),
    )


def _image(value: str, base: Path, where: str) -> ImageRef:
    match = _EXTENSION.fullmatch(value)
    if match is None:
        return ImageRef(path=_resolve(value, base, where))
    extension = match["extension"]
    number = int(extension) if extension.isascii() and extension.isdigit() and len(extension) < 6 else extension
    return ImageRef(path=_resolve(match["path"], base, where), extension=number)


def _resolve(value: str, base: Path, where: str) -> str:
    """Local path, absolute or below the list's folder; ``file://`` undone; ``s3://`` as it stands."""
    match = _SCHEME.fullmatch(value)
    if match is None:
        return str(base / value)
    scheme = match["scheme"].lower()
    if scheme not in SCHEMES:
        raise TileListError(f"{where}: {value}: {scheme}:// cannot be read; give a local path, file:// or s3://.")
    try:
        url = urlsplit(value)
    except ValueError as error:
        raise TileListError(f"{where}: {value}: is not a URL ({error}).") from None
    if scheme == "s3":
        if not url.netloc or not url.path.strip("/"):
            raise TileListError(f"{where}: {value}: names no object; write s3://bucket/key.")
        return value
    local = unquote(url.path)
    if url.netloc not in ("", "localhost") or not local.startswith("/") or _CONTROL.search(local):
        raise TileListError(f"{where}: {value}: is no file of this machine; write file:///folder/name.")
    return local
