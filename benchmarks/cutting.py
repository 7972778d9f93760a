"""Cutting, objects per CPU second of one core: scanner, a loop over ``Cutout2D``, and Cutana, on the same tile in one run.

    python benchmarks/cutting.py [--cutana PYTHON] [--geometry bin|slice|warp] [--size 9600] [--objects 4000]

``PYTHON`` is the interpreter of an environment with Cutana 0.4 (it needs other versions of some packages than scanner). Every
contender cuts four bands around the same targets, files in the page cache: scanner and ``Cutout2D`` 200² VIS pixels and 66²
NISP pixels of 0.3" (3×3 sums where NISP lies on the VIS grid), Cutana 200² pixels of each band, which is all that it can do.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from synthetic_tile import write_tile

from scanner.config import CutoutsConfig
from scanner.cutouts.extract import cut, cut_pixels
from scanner.records import NISP_BANDS, Targets, Tile
from scanner.sky.tile_images import open_tile

BATCH = 64
CUTANA = """
import sys, time, warnings
import numpy as np, pandas as pd
from loguru import logger
logger.remove()
warnings.simplefilter("ignore")
from cutana import create_cutouts_direct, get_default_config
folder, positions, raw = sys.argv[1], np.load(sys.argv[2]), sys.argv[3] == "raw"
config = get_default_config()
config.target_resolution = 200
config.apply_flux_conversion = False
config.normalisation_method = "none"
names = ["VIS", "Y", "J", "H"]
config.selected_extensions = [{"name": name, "ext": "PRIMARY"} for name in names]
config.channel_weights = {name: [float(i == j) for j in range(4)] for i, name in enumerate(names)}
config.do_only_cutout_extraction = raw
files = str([f"{folder}/{name}.fits" for name in names])
table = pd.DataFrame({"SourceID": [str(i) for i in range(len(positions))], "RA": positions[:, 0], "Dec": positions[:, 1]})
table["diameter_pixel"], table["fits_file_paths"] = 200, files
best = 1e9
for _ in range(3):
    start = time.process_time()
    results = create_cutouts_direct(table, config, max_workers=1)
    best = min(best, time.process_time() - start)
assert sum(len(result["metadata"]) for result in results) == len(table)
print(len(table) / best)
"""


def rate(count: int, work: Callable[[], None], repeats: int = 3) -> float:
    """Objects per CPU second, the best of some repeats: the least disturbed one."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return count / min(seconds)


def scanner_rates(tile: Tile, targets: Targets) -> dict[str, float]:
    with open_tile(tile, CutoutsConfig(), None) as images:
        print(f"alignment: {images.alignment.case}")
        start = time.process_time()
        for band in NISP_BANDS:
            images.source(band)
        print(f"warping: {time.process_time() - start:.1f} s, not counted below")
        x0, y0, _ = images.alignment.place(targets.x, targets.y)

        def pixels() -> None:
            for first in range(0, len(targets), BATCH):
                cut_pixels(images, x0[first : first + BATCH], y0[first : first + BATCH])

        def whole() -> None:
            for _ in cut(images, targets, BATCH):
                pass

        return {
            "scanner, pixels": rate(len(targets), pixels),
            "scanner, pixels, quality and flags": rate(len(targets), whole),
        }


def cutout2d_rates(tile: Tile, targets: Targets) -> dict[str, float]:
    hdus = {band: fits.open(files.image.path, memmap=True)[0] for band, files in tile.bands.items()}
    images = {band: (hdu.data, WCS(hdu.header)) for band, hdu in hdus.items()}
    fine = images["VIS"][0].shape == images["Y"][0].shape
    sizes = {band: 200 if band == "VIS" else 198 if fine else 66 for band in images}
    positions = {band: np.transpose(wcs.all_world2pix(targets.ra, targets.dec, 0)) for band, (_, wcs) in images.items()}

    def take(band: str, cutout: Cutout2D) -> None:
        if fine and band != "VIS":
            cutout.data.reshape(66, 3, 66, 3).sum(axis=(1, 3))
        else:
            np.asarray(cutout.data, dtype=np.float32)

    def by_pixel() -> None:
        for row in range(len(targets)):
            for band, (data, _) in images.items():
                take(band, Cutout2D(data, positions[band][row], sizes[band], mode="partial", fill_value=np.nan))

    def by_sky() -> None:
        for row in range(len(targets)):
            position = SkyCoord(targets.ra[row] * units.deg, targets.dec[row] * units.deg)
            for band, (data, wcs) in images.items():
                take(band, Cutout2D(data, position, sizes[band], wcs=wcs, mode="partial", fill_value=np.nan))

    return {
        "Cutout2D, pixel positions": rate(len(targets), by_pixel, 1),
        "Cutout2D, SkyCoord and WCS": rate(len(targets), by_sky, 1),
    }


def cutana_rates(python: str, folder: Path, targets: Targets) -> dict[str, float]:
    np.save(folder / "positions.npy", np.stack([targets.ra, targets.dec], axis=1))
    rates = {}
    for mode, name in (("raw", "Cutana, raw extraction"), ("full", "Cutana, as it is")):
        command = [python, "-c", CUTANA, str(folder), str(folder / "positions.npy"), mode]
        result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if result.returncode:
            print(f"{name} did not run: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        else:
            rates[name] = float(result.stdout.split()[-1])
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cutana", metavar="PYTHON")
    parser.add_argument("--geometry", choices=["bin", "slice", "warp"], default="bin")
    parser.add_argument("--size", type=int, default=9600)
    parser.add_argument("--objects", type=int, default=4000)
    parser.add_argument("--slow-objects", type=int, default=500, help="objects given to the slower contenders")
    parser.add_argument("--folder", help="where to make the tile; default: the system's temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        tile, targets = write_tile(folder, arguments.size, arguments.geometry, arguments.objects)
        targets = targets.take(np.argsort(targets.y))
        few = targets.take(np.arange(min(arguments.slow_objects, len(targets))))
        rates = scanner_rates(tile, targets) | cutout2d_rates(tile, few)
        if arguments.cutana:
            rates |= cutana_rates(arguments.cutana, folder, few)
    ours = rates["scanner, pixels"]
    for name, value in rates.items():
        print(f"{name:40s} {value:10,.0f} objects/s {ours / value:8.1f}x")


if __name__ == "__main__":
    main()
