"""The files of a tile, brought from an object store to this machine.

In: a tile whose files may have ``s3://`` URLs, and the folder that serves the tile. Out: the same tile with local paths, which
remember their URLs; gzip files are decompressed on the way, so that only the plain copy stays. A file is there whole or not at
all; one that is there is not fetched again. Refused: missing, forbidden and damaged files
(:class:`~scanner.errors.TileError`); a full folder (:class:`~scanner.errors.OutputError`); credentials or a bucket that do not
hold for any tile (:class:`~scanner.errors.InputMissingError`); a store that does not answer
(:class:`~scanner.errors.UnavailableError`).
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path

from scanner.config import StorageConfig
from scanner.errors import ForbiddenError, TileError, UsageError
from scanner.records import Band, BandFiles, ImageRef, Tile
from scanner.sky.scratch import decompress, is_gzip, scratch_error
from scanner.storage.location import is_remote, split
from scanner.storage.open import open_store

#: What a file is called until it is there, whole and plain.
_ARRIVING = ".arriving-"


def remote_files(tile: Tile) -> tuple[str, ...]:
    """URLs of the tile's files that have to be fetched, each once."""
    return tuple(dict.fromkeys(reference.path for reference in tile.files.values() if is_remote(reference.path)))


def fetch(tile: Tile, folder: Path, storage: StorageConfig) -> Tile:
    """Fetch the remote files of a tile.

    Parameters
    ----------
    tile
        As the tile list has it; local files are left where they are.
    folder
        Serves this tile alone; it is made if need be, and whoever gives it removes it.
    storage
        How object stores are reached.

    Returns
    -------
    Tile
        With local paths for all that is scanned; point-spread functions keep their URLs.

    Raises
    ------
    ScannerError
        See the module.
    """
    urls = remote_files(tile)
    if not urls:
        return tile
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise scratch_error(folder, error) from None
    local = {url: _fetched(url, folder, storage) for url in urls}

    def here(reference: ImageRef | None) -> ImageRef | None:
        if reference is None or reference.path not in local:
            return reference
        return replace(reference, path=str(local[reference.path]), origin=reference.path)

    bands: dict[Band, BandFiles] = {
        band: files.model_copy(update={"image": here(files.image), "rms": here(files.rms), "flag": here(files.flag)})
        for band, files in tile.bands.items()
    }
    return tile.model_copy(update={"bands": bands, "catalogue": here(tile.catalogue)})


def _fetched(url: str, folder: Path, storage: StorageConfig) -> Path:
    """Local, plain copy of a file; two files of one name in different places do not meet."""
    place, name = split(url)
    prefix = hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / f"{prefix}-{name[:-3] if name.lower().endswith('.gz') else name}"
    if target.exists():
        return target
    arriving = folder / f"{_ARRIVING}{threading.get_ident()}-{target.name}"
    try:
        store = open_store(place, storage)
        entry = store.entry(name)
        if entry is None or entry.is_folder:
            raise FileNotFoundError
        store.fetch(name, arriving)
    except FileNotFoundError:
        raise TileError(f"{url}: there is no such object; check the tile list.") from None
    except (ForbiddenError, UsageError) as error:
        raise TileError(str(error)) from None
    try:
        if is_gzip(arriving):
            decompress(arriving, target, url)
        else:
            arriving.replace(target)
    except OSError as error:
        raise scratch_error(folder, error) from None
    finally:
        arriving.unlink(missing_ok=True)
    return target
