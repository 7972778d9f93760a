import numpy as np
import pytest
import torch

from scanner.ensemble import bundle as written
from scanner.ensemble.bundle import BundleContent, MemberEntry
from scanner.ensemble.calibration import MeanProbability, OperatingCurve, fit
from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.networks import build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS
from scanner.training.export import merge_onnx


def _members():
    members = {name: build(name, seed=seed).eval() for seed, name in enumerate(MEMBERS)}
    for network in members.values():
        with torch.no_grad():
            network[-1].weight.mul_(10.0)
    return members


@pytest.fixture(scope="session")
def models():
    """The ONNX graph of untrained networks, by preprocessing."""
    return {preprocessing: merge_onnx(_members(), preprocessing) for preprocessing in ("minmax", "asinh_mad")}


@pytest.fixture(scope="session")
def write_bundle(models):
    """Write a bundle of untrained networks to a folder, with a grid and a threshold from made-up logits, or without."""

    def _write(out, *, preprocessing="asinh_mad", labelled=True, **changed):
        rng = np.random.default_rng(7)
        labels = rng.random(3000) < 0.6
        logits = (rng.normal(size=(3000, 7)) + 1.5 * labels[:, None]).astype(np.float32)
        parts = {"calibration": MeanProbability()}
        if labelled:
            grid = EmbeddingGrid.build(logits[:2000], logits[:2000, :2], labels[:2000], held_out=logits[2000:], cells=20)
            parts = {
                "calibration": fit(logits[:2000], labels[:2000], sky_prevalence=1e-3),
                "grid": grid,
                "curve": OperatingCurve.of(grid.lookup(logits[2000:]).value, labels[2000:]),
                "class_prior": 0.6,
            }
        options = {
            "name": "untrained",
            "version": "1",
            "description": "Untrained networks.",
            "members": [
                MemberEntry(name=name, bands=MEMBER_BANDS[name], pixels=MEMBER_PIXELS[name], parameters=1, source="random")
                for name in MEMBERS
            ],
            "preprocessing": preprocessing,
            "model": models[preprocessing],
            "texts": {"MODEL_CARD.md": "# Untrained\n"},
        }
        return written.write_bundle(out, BundleContent(**{**options, **parts, **changed}))

    return _write


@pytest.fixture(scope="session")
def bundle(write_bundle, tmp_path_factory):
    """A complete bundle; not to be changed."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "untrained")


@pytest.fixture(scope="session")
def cutouts():
    """Six cutouts as a scorer takes them: vis, nisp, sky, sigma, bad_fraction, flags."""
    rng = np.random.default_rng(11)
    vis = rng.normal(0.1, 0.003, (6, 200, 200)).astype(np.float32)
    nisp = rng.normal(2.0, 4.0, (6, 3, 66, 66)).astype(np.float32)
    vis[:, 90:110, 90:110] += rng.uniform(0.01, 1, (6, 1, 1)).astype(np.float32)
    nisp[:, :, 30:36, 30:36] += rng.uniform(10, 1e4, (6, 3, 1, 1)).astype(np.float32)
    sky = np.tile(np.float32([0.1, 2.0, 2.0, 2.0]), (6, 1))
    sigma = np.tile(np.float32([0.003, 4.0, 4.0, 4.0]), (6, 1))
    return vis, nisp, sky, sigma, np.zeros((6, 4), dtype=np.float32), np.zeros(6, dtype=np.uint32)
