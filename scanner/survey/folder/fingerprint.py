"""What a result depends on, as short hashes: of settings, of each input file, and of all files of a tile.

A committed tile is skipped only if its fingerprints of inputs, settings and bundle agree: equal ones give equal bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from scanner.config import RunConfig, StorageConfig
from scanner.errors import ForbiddenError, TileError, UsageError
from scanner.records import ImageRef, Tile
from scanner.sky.local_files import local_path, regular_file
from scanner.storage import is_remote, open_store, split

SAMPLED_BLOCKS = 16
BLOCK_BYTES = 65_536
_HEX_DIGITS = 32


def of_config(config: RunConfig, provider: str) -> str:
    """Hash of the settings that change a tile's scores: all but the engine, the stores, merging, and what only decides.

    A session's threads count: they change the order of its sums, and so the last digits of the scores.

    Parameters
    ----------
    config
        The run's configuration.
    provider
        The inference provider that really runs, since ``auto`` may mean another one elsewhere.
    """
    relevant = config.model_dump_json(include={"targets": True, "cutouts": True, "scoring": {"threads", "screen"}})
    return hashlib.sha256(f"{provider}\n{relevant}".encode()).hexdigest()[:_HEX_DIGITS]


def of_files(tile: Tile, storage: StorageConfig) -> dict[str, str]:
    """Hash of each of a tile's input files, by role (``VIS.image``, ``Y.flag``, ``catalogue``).

    Of a local file its size and 16 blocks of 64 KiB spread evenly over it, ends included, are hashed: a mosaic holds
    gigabytes, so not every byte is read, and a new version of a product changes its header, which is sampled. Of a file on an
    object store, its size and version as the store tells them.

    Parameters
    ----------
    tile
        The tile as the tile list names it.
    storage
        How object stores are reached.

    Raises
    ------
    TileError
        A file is missing or unreadable.
    UnavailableError
        A store does not answer.
    """
    return {role: _of_file(reference, storage) for role, reference in tile.files.items()}


def combined(files: Mapping[str, str]) -> str:
    """One hash of those of all files."""
    text = "".join(f"{role}\n{digest}\n" for role, digest in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def of_tile(tile: Tile, storage: StorageConfig) -> str:
    """Hash of a tile's inputs; see :func:`of_files`."""
    return combined(of_files(tile, storage))


def bytes_of_tile(tile: Tile) -> int:
    """Bytes on disk of a tile's distinct input files; missing ones count as nothing."""
    paths = {local_path(reference.path) for reference in tile.files.values()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _of_file(reference: ImageRef, storage: StorageConfig) -> str:
    digest = hashlib.sha256(f"{reference.extension}\n".encode())
    if is_remote(reference.path):
        folder, name = split(reference.path)
        try:
            entry = open_store(folder, storage).entry(name)
        except (ForbiddenError, UsageError) as error:
            raise TileError(str(error)) from None
        if entry is None:
            raise TileError(f"{reference.path}: there is no such file; check the path in the tile list.")
        digest.update(f"{entry.size}\n{entry.version}\n".encode())
    else:
        _sample(local_path(reference.path), digest)
    return digest.hexdigest()[:_HEX_DIGITS]


def _sample(path: Path, digest: hashlib._Hash) -> None:
    try:
        with regular_file(path, str(path)).open("rb") as file:
            size = file.seek(0, 2)
            digest.update(size.to_bytes(8, "little"))
            last = max(size - BLOCK_BYTES, 0)
            starts = {round(last * step / (SAMPLED_BLOCKS - 1)) for step in range(SAMPLED_BLOCKS)}
            for start in sorted(starts):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    except OSError as error:
        raise TileError(f"{path}: cannot be read ({error.strerror}); check the path in the tile list.") from None
