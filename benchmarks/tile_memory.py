"""Peak memory of cutting a whole tile in one worker process, pages of mapped files included.

    python benchmarks/tile_memory.py [--size 19200] [--geometry bin|slice|warp|warp-fine|all]
        [--objects 20000] [--keep candidates|none] [--companions]

Writes four synthetic mosaics of ``--size`` VIS pixels (bin and warp-fine: 5.9 GB, removed afterwards), with RMS and FLAG beside
them if asked for, then opens, cuts, measures and stores
them in a child process and reports its peak resident set (VmHWM). Linux only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
from synthetic_tile import Geometry, write_tile

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.store import CutoutWriter
from scanner.records import BANDS, BandFiles, ImageRef, Targets, Tile
from scanner.sky.tile_images import open_tile

GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)


def status(field: str) -> float:
    """A field of /proc/self/status, in GB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / 1e9
    raise KeyError(field)


def scan(folder: Path, targets: Targets, keep: str) -> None:
    """What the child does: the whole of a tile's work short of the networks."""
    refs = {path.stem: ImageRef(path=str(path)) for path in folder.glob("*.fits")}
    bands = {band: BandFiles(image=refs[band], rms=refs.get(f"{band}_RMS"), flag=refs.get(f"{band}_FLAG")) for band in BANDS}
    start, idle = time.perf_counter(), status("VmRSS")
    with open_tile(Tile(tile_id="1", bands=bands), CutoutsConfig(), folder) as images:
        opened = time.perf_counter() - start
        for band in BANDS[1:]:
            images.source(band)
        warped = time.perf_counter() - start - opened
        writer = CutoutWriter(folder / "cutouts.zarr", tile_id="1", wcs_header="", zero_points={}, units={}, codec="compact")
        with writer:
            for batch in cut(images, targets, 64):
                if keep == "candidates":
                    writer.append(batch.take(batch.targets.target_id % 100 == 0))
        seconds = time.perf_counter() - start
        print(
            f"{images.alignment.case}: {len(targets)} objects, opened in {opened:.1f} s, warped in {warped:.1f} s, all done in "
            f"{seconds:.0f} s; resident {idle:.2f} GB at the start, peak {status('VmHWM'):.2f} GB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=19200)
    parser.add_argument("--geometry", choices=[*GEOMETRIES, "all"], default="all")
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--keep", choices=["candidates", "none"], default="candidates")
    parser.add_argument("--companions", action="store_true")
    parser.add_argument("--folder", help="where to make the tile; default: the system's temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder = Path(arguments.child)
        targets = Targets(**np.load(folder / "targets.npz"))
        scan(folder, targets, arguments.keep)
        return
    for geometry in GEOMETRIES if arguments.geometry == "all" else (arguments.geometry,):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            _, targets = write_tile(Path(name), arguments.size, geometry, arguments.objects, companions=arguments.companions)
            np.savez(Path(name, "targets.npz"), **vars(targets))
            written = sum(file.stat().st_size for file in Path(name).glob("*.fits")) / 1e9
            print(f"{written:.2f} GB on disk, ", end="", flush=True)
            command = [sys.executable, __file__, "--child", name, "--keep", arguments.keep]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


if __name__ == "__main__":
    main()
