"""Batches of cutouts with known content."""

import numpy as np
import pytest

from scanner.cutouts.quality import measure
from scanner.records import CutoutBatch, Targets


def _make_batch(n, seed=0, first_id=0, holes=False):
    random = np.random.default_rng(seed)
    vis = random.normal(0.3, 0.02, (n, 200, 200)).astype(np.float32)
    nisp = random.normal(-1.0, 0.5, (n, 3, 66, 66)).astype(np.float32)
    vis[:, 95:105, 95:105] += random.uniform(0, 20, (n, 1, 1)).astype(np.float32)
    if holes:
        vis[:, :7] = np.nan
        nisp[:, 1, 3:5] = np.nan
    quality = measure(vis, nisp)
    targets = Targets(
        target_id=np.arange(first_id, first_id + n, dtype=np.int64) - 2**62,
        ra=random.uniform(0, 360, n),
        dec=random.uniform(-90, 90, n),
        x=random.uniform(100, 19000, n),
        y=random.uniform(100, 19000, n),
        magnitude=random.uniform(18, 23, n).astype(np.float32),
    )
    return CutoutBatch(
        targets=targets,
        vis=vis,
        nisp=nisp,
        x0=random.integers(-100, 19000, n),
        y0=random.integers(-100, 19000, n),
        offset=random.uniform(-1, 1, (n, 2)).astype(np.float32),
        bad_fraction=quality.bad_fraction,
        sky=quality.sky,
        sigma=quality.sigma,
        flags=random.integers(0, 256, n).astype(np.uint32),
    )


@pytest.fixture
def make_batch():
    return _make_batch
