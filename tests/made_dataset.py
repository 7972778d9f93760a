"""Labelled datasets of given pixels, as the simulator writes them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scanner.cutouts.store import CutoutWriter
from scanner.records import CutoutBatch, Targets


def write_dataset(folder, columns, vis, nisp, sky, sigma, description, bad_fraction=None):
    """Write a dataset folder; ``columns``: of its truth, ``description``: of its ``dataset.json``."""
    n = len(vis)
    zeros = np.zeros(n)
    batch = CutoutBatch(
        targets=Targets(np.asarray(columns["target_id"]), zeros, zeros, zeros, zeros, np.full(n, 20, np.float32)),
        vis=vis,
        nisp=nisp,
        x0=np.zeros(n, np.int64),
        y0=np.zeros(n, np.int64),
        offset=np.zeros((n, 2), np.float32),
        bad_fraction=np.zeros((n, 4), np.float32) if bad_fraction is None else bad_fraction,
        sky=sky,
        sigma=sigma,
        flags=np.zeros(n, np.uint32),
    )
    folder.mkdir(parents=True)
    with CutoutWriter(
        folder / "cutouts.zarr", tile_id="simulated", wcs_header="", zero_points={}, units={}, codec="compact"
    ) as writer:
        writer.append(batch)
    pq.write_table(pa.table(columns), folder / "truth.parquet")
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder
