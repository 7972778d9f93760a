"""Occlusion maps: seconds for one object, against whole passes of the network, and how far the two differ.

    python benchmarks/occlusion.py [--bundle BUNDLE] [--share 0.05] [--threads 1]

Whole passes are made for a share of the squares, 32 at a time, and their time is divided by it. Seconds are of the processor,
all threads together: on a machine with other work they say more than the clock, and one thread, which waits for no other,
more than two. The object is a lens of the training preset.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from scanner.ensemble import bundles
from scanner.explain.maps import SQUARE_PIXELS, occlusion
from scanner.explain.networks import lens_output, network_input, restore
from scanner.labelled_set import LabelledSet
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset

BATCH = 32


def whole_passes(network, image, squares, square):
    """Change of the log-odds with each square (row, column) covered, (n,)."""
    found = []
    with torch.inference_mode():
        before = lens_output(network, image)
        for start in range(0, len(squares), BATCH):
            some = squares[start : start + BATCH]
            covered = image.repeat(len(some), 1, 1, 1)
            for number, (row, column) in enumerate(some * square):
                covered[number, :, row : row + square, column : column + square] = 0.0
            found.append((lens_output(network, covered) - before).numpy())
    return np.concatenate(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = bundles.load(arguments.bundle)
    networks = restore(bundle)
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(DatasetRequest(preset="train", n_objects=20, seed=1), Path(folder) / "set")
        dataset = LabelledSet(Path(folder) / "set")
        cutout = dataset.store.read(int(np.flatnonzero(dataset.truth.visible)[0]))
    for member in ("OU-66", "OU-200"):
        network, image = networks[member], network_input(bundle, member, cutout)
        occlusion(network, image)
        clock, processor = time.perf_counter(), time.process_time()
        map_ = occlusion(network, image)[0]
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        side = len(map_)
        chosen = np.random.default_rng(0).choice(side**2, round(side**2 * arguments.share), replace=False)
        squares = np.stack(np.unravel_index(chosen, map_.shape), axis=1)
        start = time.process_time()
        expected = whole_passes(network, image, squares, SQUARE_PIXELS[image.shape[-1]])
        whole = (time.process_time() - start) * side**2 / len(squares)
        difference = np.abs(expected - map_[tuple(squares.T)]).max()
        print(
            f"{member:6s} {side}x{side} map: {processor:.2f} CPU s ({clock:.2f} s by the clock), whole passes {whole:.1f} CPU "
            f"s: {whole / processor:.0f} times less; they differ by {difference:.1e} in log-odds that span {np.ptp(map_):.1f}"
        )


if __name__ == "__main__":
    main()
