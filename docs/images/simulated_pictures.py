"""Draw the figure of docs/reading-the-results.md from simulated objects: ``python docs/images/simulated_pictures.py``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from scanner.cutouts.store import CutoutStore
from scanner.report import colour
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset

#: Two lenses above; a galaxy with companions stretched like arcs, and a merger, below.
OBJECTS = (50, 27, 21, 61)


def main() -> None:
    """Draw, cut to the inner 10", put side by side."""
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(DatasetRequest(preset="eval", n_objects=64, seed=7, codec="exact"), Path(folder) / "dataset")
        batch = CutoutStore(Path(folder) / "dataset" / "cutouts.zarr").read(np.asarray(OBJECTS))
    rows = []
    for vis, nisp, sky, sigma in zip(batch.vis, batch.nisp, batch.sky, batch.sigma, strict=True):
        grey = np.repeat(colour.vis_image(vis, sky, sigma)[..., None], 3, axis=-1)
        # 66 NISP pixels of 0.3" are 198 of 0.1": one VIS pixel of frame on each side.
        coarse = np.pad(colour.nisp_image(nisp, sky, sigma).repeat(3, axis=0).repeat(3, axis=1), ((1, 1), (1, 1), (0, 0)))
        row = [picture[50:150, 50:150] for picture in (grey, colour.colour_image(vis, nisp, sky, sigma), coarse)]
        framed = [
            np.pad(picture[::-1].repeat(2, axis=0).repeat(2, axis=1), ((2, 2), (2, 2), (0, 0)), constant_values=255)
            for picture in row
        ]
        rows.append(np.hstack(framed))
    sheet = np.vstack([np.hstack(rows[:2]), np.hstack(rows[2:])])
    Image.fromarray(sheet).save(Path(__file__).with_suffix(".webp"), "WEBP", quality=80, method=6)


if __name__ == "__main__":
    main()
