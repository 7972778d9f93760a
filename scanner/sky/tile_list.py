"""The tile list: which mosaics belong together, one tile a line (or one folder of tiles a line).

In: a UTF-8 text file, local or on an object store. ``#`` at the start of a word begins a comment; blank lines count for
nothing; words with blanks in them stand in quotes, as in a shell. Paths are absolute, relative to the list's own folder or
prefix, or URLs (``file://`` becomes a local path, ``s3://`` is kept as it stands); a list may mix them. A line is either

- a folder, whose bands are found by Euclid's file names (see :mod:`scanner.sky.tile_folder`); if the catalogue lies elsewhere,
  ``catalogue=file`` or ``catalogue=folder/`` follows; or
- ``id=102018665 VIS=… Y=… J=… H=…`` with, where they exist, ``catalogue=…`` and ``VIS_RMS=…``, ``Y_FLAG=…``, ``H_PSF=…`` and
  so on. Keys may be in either case. ``file.fits[VIS_BGSUB]`` or ``file.fits[7]`` names an extension of a multi-extension
  file. A line is of this form if its first word begins with one of these keys and ``=``; write ``./id=7`` to name a folder of
  that name.

Out: a :class:`TileList`: the tiles that can be opened, and those that cannot because a folder or a band is missing: the others
go on without them. Refused as a whole (:class:`~scanner.errors.TileListError`, naming file and line): lines that cannot be
understood, a tile id given twice, a list without tiles. Stores that do not answer or take no credentials: see
:mod:`scanner.storage.contract`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from scanner.config import StorageConfig
from scanner.errors import InputMissingError, TileListError
from scanner.records import FailedTile, Tile
from scanner.sky.tile_folder import find_tiles
from scanner.sky.tile_line import FolderLine, read_line
from scanner.storage.in_order import in_order
from scanner.storage.location import is_remote, split
from scanner.storage.open import read_file

#: Folders on object stores that are listed at a time: each costs some requests of tens of milliseconds.
LISTED_TOGETHER = 16
#: More folders than this take long enough to be told of.
TOLD_FOLDERS = 500

logger = logging.getLogger("scanner.sky.tile_list")


@dataclass(frozen=True)
class TileList:
    """What a tile list says, in the order of its lines.

    ``tiles``: those whose four mosaics are named. ``failed``: those that lack a folder or a band, and why.
    """

    tiles: tuple[Tile, ...]
    failed: tuple[FailedTile, ...]

    def __len__(self) -> int:
        return len(self.tiles) + len(self.failed)


def read(location: str | Path, storage: StorageConfig = StorageConfig()) -> TileList:
    """Read a tile list.

    Mosaics are not opened, and files named one by one are not looked for: that is :mod:`scanner.sky.mosaic`'s work, where
    their absence costs one tile.

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
    line_of: dict[str, int] = {}
    for number, entry in _listed(entries, location, storage):
        if entry.tile_id in line_of:
            raise TileListError(
                f"{location}:{number}: tile {entry.tile_id} stands in line {line_of[entry.tile_id]} already; remove one."
            )
        line_of[entry.tile_id] = number
        if isinstance(entry, Tile):
            tiles.append(entry)
        else:
            failed.append(entry)
    if not line_of:
        raise TileListError(f"{location}: the list holds no tile; write one a line: a folder, or id=… VIS=… Y=… J=… H=….")
    return TileList(tuple(tiles), tuple(failed))


def _content(location: str, storage: StorageConfig) -> bytes:
    if not is_remote(location):
        try:
            return Path(location).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputMissingError(f"{location}: the tile list cannot be read ({reason}).") from None
    try:
        return read_file(location, storage)
    except FileNotFoundError:
        raise InputMissingError(f"{location}: the tile list cannot be read (no such object).") from None


def _listed(
    entries: list[tuple[int, Tile | FailedTile | FolderLine | None]], location: str, storage: StorageConfig
) -> list[tuple[int, Tile | FailedTile]]:
    """Entries by line, the folders among them replaced by their tiles; object stores are asked for many at a time."""
    folders = {number: entry for number, entry in entries if isinstance(entry, FolderLine)}

    def tiles(number: int) -> list[Tile | FailedTile]:
        return find_tiles(folders[number].folder, f"{location}:{number}", storage, folders[number].catalogue)

    n_remote = sum(is_remote(line.folder) for line in folders.values())
    if n_remote > TOLD_FOLDERS:
        logger.info("listing %d folders of tiles on object stores", n_remote)
    found = dict(zip(folders, in_order(tiles, folders, LISTED_TOGETHER), strict=True))
    listed: list[tuple[int, Tile | FailedTile]] = []
    for number, entry in entries:
        if entry is not None:
            listed += [(number, tile) for tile in (found[number] if isinstance(entry, FolderLine) else [entry])]
    return listed
