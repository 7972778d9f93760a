"""What a result depends on, as short hashes.

In: a tile's files, a configuration. Out: :class:`Fingerprints`. Two runs with equal fingerprints give equal bytes, so a
committed tile is skipped only where all three agree. Refused: files that cannot be read (:class:`TileError`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from scanner.config import RunConfig
from scanner.errors import TileError
from scanner.records import ImageRef, Record, Tile

SAMPLED_BLOCKS = 64
BLOCK_BYTES = 65_536


class Fingerprints(Record):
    """The three things a tile's result depends on, besides the scanner version."""

    inputs: str
    config: str
    bundle: str


def of_config(config: RunConfig, provider: str) -> str:
    """Hash of the settings that change a tile's result: all but the engine and the merging.

    A session's threads count: they change the order of its sums, and so the last digits of the scores.

    Parameters
    ----------
    config
        The run's configuration.
    provider
        The inference provider that really runs, since ``auto`` may mean another one elsewhere.
    """
    relevant = config.model_dump_json(include={"targets": True, "cutouts": True, "scoring": {"beta", "threads"}})
    return hashlib.sha256(f"{provider}\n{relevant}".encode()).hexdigest()[:32]


def of_tile(tile: Tile) -> str:
    """Hash of a tile's inputs: for every file its size and 64 blocks of 64 KiB spread evenly over it, ends included.

    A mosaic holds gigabytes, so not every byte is read; a new version of a product changes its header, which is sampled.

    Raises
    ------
    TileError
        A file is missing or unreadable.
    """
    digest = hashlib.sha256()
    for role, reference in _files(tile):
        digest.update(f"{role}\n{reference.extension}\n".encode())
        _sample(Path(reference.path.removeprefix("file://")), digest)
    return digest.hexdigest()[:32]


def bytes_of_tile(tile: Tile) -> int:
    """Bytes on disk of a tile's distinct input files; missing ones count as nothing."""
    paths = {Path(reference.path.removeprefix("file://")) for _, reference in _files(tile)}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _files(tile: Tile) -> list[tuple[str, ImageRef]]:
    files: list[tuple[str, ImageRef]] = []
    for band, images in tile.bands.items():
        for role, reference in (("image", images.image), ("rms", images.rms), ("flag", images.flag)):
            if reference is not None:
                files.append((f"{band}.{role}", reference))
    if tile.catalogue is not None:
        files.append(("catalogue", tile.catalogue))
    return files


def _sample(path: Path, digest: hashlib._Hash) -> None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest.update(size.to_bytes(8, "little"))
            last = max(size - BLOCK_BYTES, 0)
            starts = {round(last * step / (SAMPLED_BLOCKS - 1)) for step in range(SAMPLED_BLOCKS)}
            for start in sorted(starts):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    except OSError as error:
        raise TileError(f"{path}: cannot be read ({error.strerror}); check the path in the tile list.") from None
