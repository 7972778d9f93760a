import made_dataset
import numpy as np
import pytest

from scanner.labelled_set import Truth
from scanner.training.data import Labels, scale_batch, split


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
        class_name=np.where(is_lens, "lens", np.where(rng.random(n) < 0.5, "elliptical", "companion")),
        arc_snr=np.where(is_lens, 60, np.nan).astype(np.float32),
        visible=is_lens,
        position=np.zeros((n, 2), np.float32),
    )
    return vis, nisp, np.full((n, 4), 5, np.float32), np.ones((n, 4), np.float32), truth


def _write_dataset(folder, n, seed):
    """A dataset folder as the simulator writes it."""
    vis, nisp, sky, sigma, truth = draw(n, seed)
    columns = {
        "target_id": truth.target_id,
        "is_lens": truth.is_lens,
        "class_name": truth.class_name.tolist(),
        "arc_snr": truth.arc_snr,
        "visible": truth.visible,
        "x_arcsec": truth.position[:, 1],
        "y_arcsec": truth.position[:, 0],
    }
    return made_dataset.write_dataset(folder, columns, vis, nisp, sky, sigma, {"preset": "rings", "seed": seed, "n": n})


@pytest.fixture(scope="session")
def labelled():
    vis, nisp, sky, sigma, truth = draw(120)
    known = np.zeros((len(truth), 4), dtype=bool), np.ones(len(truth), np.float32)
    labels = Labels(truth.is_lens, truth.arc_snr, truth.visible, truth.position, *known)
    return scale_batch(vis, nisp, sky, sigma, "asinh_mad"), labels, split(len(labels))


@pytest.fixture(scope="session")
def drawn():
    return draw


@pytest.fixture(scope="session")
def write_dataset():
    return _write_dataset
