"""Many little tiles from one drawn sky: they share its mosaics and differ in their catalogues.

Paths in ``tile-list.txt`` are relative, so the folder can be copied to an object store. Two tiles cannot be scanned: the VIS
mosaic of ``truncated`` ends half-way, and that of ``unreadable`` cannot be opened. A third, ``packed``, has to be decompressed
first.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
from astropy.table import Table

BANDS = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
TRUNCATED, UNREADABLE, PACKED = "truncated", "unreadable", "packed"


def write_little_tiles(sky: Path, folder: Path, n_tiles: int = 42, n_objects: int = 4) -> Path:
    """Write the tiles; return the path of their list. Equal arguments give equal bytes."""
    folder.mkdir(parents=True)
    drawn = sorted(path for path in sky.glob("9*") if path.is_dir())
    mosaics = {path: {band: _copied(path, name, folder) for band, name in BANDS.items()} for path in drawn}
    catalogues = {path: Table.read(next(path.glob("*FINAL-CAT*"))) for path in drawn}
    lines = []
    for number in range(n_tiles):
        source = drawn[number % len(drawn)]
        rows, files = catalogues[source], dict(mosaics[source])
        tile_id = {0: TRUNCATED, n_tiles // 2: UNREADABLE, n_tiles - 1: PACKED}.get(number, f"{number:03d}")
        vis = folder / files["VIS"]
        if tile_id == TRUNCATED:
            files["VIS"] = "truncated.fits"
            (folder / "truncated.fits").write_bytes(vis.read_bytes()[: vis.stat().st_size // 2])
        elif tile_id == UNREADABLE:
            # Not by its permissions, which mean nothing to root: a link to itself can be opened by nobody.
            files["VIS"] = "unreadable.fits"
            (folder / "unreadable.fits").symlink_to("unreadable.fits")
        elif tile_id == PACKED:
            files["VIS"] = "packed.fits.gz"
            (folder / "packed.fits.gz").write_bytes(gzip.compress(vis.read_bytes(), compresslevel=1, mtime=0))
        first = number // len(drawn) * n_objects
        rows[np.arange(first, first + n_objects) % len(rows)].write(folder / f"objects-{tile_id}.fits")
        words = [f"id={tile_id}", *(f"{band}={file}" for band, file in files.items()), f"catalogue=objects-{tile_id}.fits"]
        lines.append(" ".join(words))
    listed = folder / "tile-list.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return listed


def _copied(tile: Path, name: str, folder: Path) -> str:
    (source,) = tile.glob(f"*BGSUB-MOSAIC-{name}_*")
    target = f"{tile.name}-{name}.fits"
    shutil.copyfile(source, folder / target)
    return target
