"""Draw docs/images/simulation/injection.webp: lenses and look-alikes painted into (simulated) mosaics.

    python docs/images/simulation/injection.py

Two tiles are drawn, then taken for a user's own: what was in them already stands for the real sky. Left to right of each pair:
VIS, and colour of VIS and NISP; 12" a side.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from scanner.cutouts.store import CutoutStore
from scanner.report import colour
from scanner.simulation.injection.inject import inject
from scanner.simulation.injection.places import InjectionRequest
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list

#: Rows of the sheet, from above; three objects of each.
CLASSES = (("lens", False), ("lens", True), ("companion", False), ("tangential", False), ("near_lens", False))
COLUMNS, HALF = 3, 60


def main() -> None:
    """Draw tiles, paint into them, put three objects of each class side by side."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_tiles(TilesRequest(n_tiles=5, size=1600, seed=11, lenses_per_tile=2), folder / "tiles", workers=2)
        tiles = tuple(tile_list.read(folder / "tiles" / "tile-list.txt").tiles.values())
        request = InjectionRequest(preset="train", n_objects=150, seed=5, tiles=tiles, codec="exact")
        inject(request, folder / "set", workers=2)
        truth = pq.read_table(folder / "set" / "truth.parquet").to_pylist()
        batch = CutoutStore(folder / "set" / "cutouts.zarr").read(np.arange(len(truth)))
    rows = []
    for class_name, into_sky in CLASSES:
        brightest = sorted(range(len(truth)), key=lambda k: -truth[k]["arc_snr"])
        chosen = [
            k
            for k, row in ((k, truth[k]) for k in brightest)
            if row["class_name"] == class_name
            and row["into_sky"] == into_sky
            and (row["visible"] or class_name != "lens")
            and max(abs(row["x_arcsec"]), abs(row["y_arcsec"])) < 3.5
            and batch.bad_fraction[k].max() < 0.02
        ]
        pictures = [_picture(batch, k, truth[k]) for k in chosen[:COLUMNS]]
        pictures += [np.full((4 * HALF + 4, 8 * HALF + 8, 3), 255, dtype=np.uint8)] * (COLUMNS - len(pictures))
        rows.append(np.hstack(pictures))
    sheet = np.vstack(rows)
    Image.fromarray(sheet).save(Path(__file__).with_suffix(".webp"), "WEBP", quality=62, method=6)


def _picture(batch, k, row):
    vis, nisp, sky, sigma = batch.vis[k], batch.nisp[k], batch.sky[k], batch.sigma[k]
    x, y = (round(99.5 + 10.0 * row[axis]) for axis in ("x_arcsec", "y_arcsec"))
    inside = slice(y - HALF, y + HALF), slice(x - HALF, x + HALF)
    grey = np.repeat(colour.vis_image(vis, sky, sigma)[..., None], 3, axis=-1)
    both = [
        picture[inside][::-1].repeat(2, axis=0).repeat(2, axis=1)
        for picture in (grey, colour.colour_image(vis, nisp, sky, sigma))
    ]
    return np.hstack([np.pad(picture, ((2, 2), (2, 2), (0, 0)), constant_values=255) for picture in both])


if __name__ == "__main__":
    main()
