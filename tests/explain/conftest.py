import numpy as np
import pytest
import torch
from torch import nn

from scanner.cutouts.quality import measure
from scanner.ensemble import bundles
from scanner.records import CutoutBatch, Targets


def tiny(side, seed=0, channels=2):
    """A network of the layers of Tables 3 and 4 for small images, whose logits depend on every pixel."""
    after = ((side - 2) // 2 - 2) // 2
    network = nn.Sequential(
        nn.Conv2d(channels, 5, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Conv2d(5, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * after**2, 8),
        nn.ReLU(),
        nn.Linear(8, 2),
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        parameter.requires_grad_(False)
    return network


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks gain nothing from more, and threads that wait for one another cost what other tests need."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_network():
    return tiny


@pytest.fixture
def noise():
    """Uniform noise: (n, channels, side, side) float32."""
    return lambda *shape, seed=0: torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def cutouts():
    """Four cutouts: two galaxies with an arc, two without; one pixel of the last is missing."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:200, :200] - 99.5
    radius = np.hypot(y, x)
    galaxy = 40 * np.exp(-radius / 6)
    arc = np.where((np.abs(radius - 14) < 2) & (y > 3), 8.0, 0.0)
    vis = (rng.normal(5, 1, (4, 200, 200)) + galaxy + np.array([1, 1, 0, 0])[:, None, None] * arc).astype(np.float32)
    seen = (vis - 5)[:, 1:199, 1:199].reshape(4, 66, 3, 66, 3).mean(axis=(2, 4))
    nisp = (np.stack([seen, 1.2 * seen, 1.5 * seen], axis=1) + rng.normal(-3, 0.3, (4, 3, 66, 66))).astype(np.float32)
    vis[3, 50, 60] = np.nan
    quality = measure(vis, nisp)
    zeros = np.zeros(4)
    return CutoutBatch(
        targets=Targets(np.arange(4), zeros, zeros, zeros, zeros, np.full(4, 20, np.float32)),
        vis=vis,
        nisp=nisp,
        x0=np.zeros(4, np.int64),
        y0=np.zeros(4, np.int64),
        offset=np.zeros((4, 2), np.float32),
        bad_fraction=quality.bad_fraction,
        sky=quality.sky,
        sigma=quality.sigma,
        flags=np.zeros(4, np.uint32),
    )


@pytest.fixture(scope="session")
def shipped():
    """The bundle that ships with scanner."""
    return bundles.load()
