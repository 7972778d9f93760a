"""The trap of section 6 of Wilde et al. (2022): one class turned and mirrored, the other not.

    python benchmarks/orientation.py [--objects 2400] [--seed 1]

All objects are of one kind, ellipticals and stars, and their labels are drawn by lot: nothing can tell the classes apart but a
mistake. A small network is trained to do so, and judged by the AUROC on objects that it has not seen, treated as those it has.
Four ways: a telescope that never rolls, as in the simulations that the paper had, or one that is rolled at random for each
object, as here; and only the "non-lenses" turned and mirrored, or both classes alike, as here. The network sees the inner
4.8" of VIS and of H, asinh in units of the sky's σ.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import torch
from torch import nn

from scanner.ensemble.preprocessing import augment
from scanner.evaluation.metrics import auroc_interval
from scanner.records import BANDS
from scanner.simulation.datasets.cutouts import observe
from scanner.simulation.datasets.presets import PRESETS, CutoutScene, draw_scene, object_generator
from scanner.simulation.telescope.psf import draw_psf

#: Half the sides of the crops, pixels of VIS and of NISP: 4.8 arcsec.
VIS_HALF, NISP_HALF = 24, 8
PASSES, BATCH = 30, 64


def scenes(n: int, seed: int, *, rolled: bool) -> list[CutoutScene]:
    """Ellipticals and stars in the middle; not ``rolled``: all seen through the same PSFs."""
    preset = PRESETS["hard-negatives"].model_copy(
        update={"mix": {"elliptical": 0.5, "star": 0.5}, "centred_fraction": 1.0, "bright_star_fraction": 0.0}
    )
    drawn = [draw_scene(preset, object_generator("orientation", seed, number)) for number in range(n)]
    if rolled:
        return drawn
    fixed = tuple(draw_psf(np.random.default_rng(seed), band, 0.3) for band in BANDS)
    # Artefacts lie along the detectors' rows, which stay where they are as well.
    return [dataclasses.replace(s, exposure=dataclasses.replace(s.exposure, psfs=fixed, roll=0.3)) for s in drawn]


def crops(n: int, seed: int, *, rolled: bool) -> tuple[np.ndarray, np.ndarray]:
    """VIS (n, 48, 48) and H (n, 16, 16) of the same 4.8", scaled, the brightest pixel at 1."""
    found = observe(scenes(n, seed, rolled=rolled), range(n))
    middle = slice(100 - VIS_HALF, 100 + VIS_HALF), slice(33 - NISP_HALF, 33 + NISP_HALF)
    parts = []
    for images, inner in ((found.vis, middle[0]), (found.nisp[:, 2], middle[1])):
        sky = np.median(images, axis=(1, 2), keepdims=True)
        sigma = 1.4826 * np.median(np.abs(images - sky), axis=(1, 2), keepdims=True)
        scaled = np.arcsinh((images - sky) / sigma)[:, inner, inner]
        parts.append((scaled / scaled.max(axis=(1, 2), keepdims=True)).astype(np.float32))
    return parts[0], parts[1]


def network() -> nn.Module:
    """Two convolutions for each band and one linear layer, ten thousand weights."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vis = nn.Sequential(nn.Conv2d(1, 12, 6, stride=3), nn.ReLU())
            self.nisp = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU())
            self.ends = nn.ModuleList(
                nn.Sequential(nn.Conv2d(12, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(1))
                for _ in BANDS[:2]
            )

        def forward(self, vis: torch.Tensor, nisp: torch.Tensor) -> torch.Tensor:
            return (self.ends[0](self.vis(vis)) + self.ends[1](self.nisp(nisp)))[:, 0]

    return Net()


def probe(vis: np.ndarray, nisp: np.ndarray, labels: np.ndarray, *, both: bool, seed: int) -> str:
    """AUROC of a trained network on the half that it has not seen."""
    rng = np.random.default_rng((seed, both))
    orientations = rng.integers(0, 8, len(labels))
    if not both:
        orientations[labels] = 0
    x = [torch.from_numpy(augment(part, orientations))[:, None] for part in (vis, nisp)]
    y = torch.from_numpy(labels.astype(np.float32))
    n_train = len(labels) // 2
    torch.manual_seed(seed)
    net = network()
    net(x[0][:2], x[1][:2])
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-2)
    for _ in range(PASSES):
        for rows in torch.from_numpy(rng.permutation(n_train)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(x[0][rows], x[1][rows]), y[rows]).backward()
            optimiser.step()
    with torch.no_grad():
        scores = net.eval()(x[0][n_train:], x[1][n_train:]).numpy()
    return str(auroc_interval(scores, labels[n_train:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    labels = np.random.default_rng(given.seed).random(given.objects) < 0.5
    print(f"{given.objects} objects, half to train; AUROC of labels drawn by lot, 95% interval\n")
    print(f"{'telescope':22}{'only one class turned':26}both classes turned")
    for rolled, name in ((False, "never rolls"), (True, "rolled at random")):
        vis, nisp = crops(given.objects, given.seed, rolled=rolled)
        found = [probe(vis, nisp, labels, both=both, seed=given.seed) for both in (False, True)]
        print(f"{name:22}{found[0]:26}{found[1]}", flush=True)


if __name__ == "__main__":
    main()
