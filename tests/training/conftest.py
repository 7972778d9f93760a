import numpy as np
import pytest

from scanner.training.data import Truth, split
from scanner.training.scaled import scale_batch


def draw(n, seed=0):
    """Discs, some with a ring: VIS, NISP, sky, sigma, truth. Noise of σ 1 on a sky of 5."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :200] - 99.5
    radius = np.hypot(y, x)
    is_lens = rng.random(n) < 0.5
    is_lens[:2] = [True, False]
    vis = rng.normal(5, 1, (n, 200, 200)).astype(np.float32) + 30 * np.exp(-((radius / 6) ** 2)).astype(np.float32)
    nisp = rng.normal(5, 1, (n, 3, 66, 66)).astype(np.float32)
    ring = np.exp(-(((radius - 14) / 3) ** 2)).astype(np.float32)
    vis[is_lens] += 12 * ring
    nisp[is_lens] += 12 * ring[1:199, 1:199].reshape(66, 3, 66, 3).mean(axis=(1, 3))
    truth = Truth(
        target_id=np.arange(n),
        is_lens=is_lens,
        class_name=np.where(is_lens, "lens", np.where(rng.random(n) < 0.5, "elliptical", "elliptical+companions")),
        arc_snr=np.where(is_lens, 60, np.nan).astype(np.float32),
        visible=is_lens,
        position=np.zeros((n, 2), np.float32),
    )
    return vis, nisp, np.full((n, 4), 5, np.float32), np.ones((n, 4), np.float32), truth


@pytest.fixture(scope="session")
def labelled():
    vis, nisp, sky, sigma, truth = draw(120)
    return scale_batch(vis, nisp, sky, sigma, "asinh_mad"), truth, split(len(truth), 0)
