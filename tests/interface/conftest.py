"""A labelled set of discs, some of them brighter in the middle, to train and to measure on."""

import made_dataset
import numpy as np
import pytest


def _write(folder, n):
    noise = np.random.default_rng(0)
    is_lens = noise.random(n) < 0.5
    vis, nisp = noise.normal(5, 1, (n, 200, 200)).astype(np.float32), noise.normal(5, 1, (n, 3, 66, 66)).astype(np.float32)
    vis[is_lens, 90:110, 90:110] += 20
    columns = {
        "target_id": np.arange(n),
        "is_lens": is_lens,
        "class_name": np.where(is_lens, "lens", "elliptical").tolist(),
        "arc_snr": np.where(is_lens, 60, np.nan).astype(np.float32),
        "visible": is_lens,
        "x_arcsec": np.zeros(n),
        "y_arcsec": np.zeros(n),
    }
    sky, sigma = np.full((n, 4), 5, np.float32), np.ones((n, 4), np.float32)
    return made_dataset.write_dataset(folder, columns, vis, nisp, sky, sigma, {"preset": "discs", "seed": n})


@pytest.fixture(scope="session")
def write_dataset():
    """Writes a set of so many objects into a folder, which it returns."""
    return _write
