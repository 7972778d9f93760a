"""How faithfully the merged graph repeats the networks, and its resize scikit-image.

    python benchmarks/fidelity.py [BUNDLE] [--objects 1000] [--data DATASET] [--json FILE]

Compares the log-odds of every member with torch in float64, object by object, and the resize matrices in float32 with
``skimage.transform.resize``. Objects are drawn here, or the first of DATASET (see ``scanner simulate dataset``). BUNDLE is a
folder or the name of an installed bundle, the default one if left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from scoring import Cutouts, synthetic
from skimage import transform

from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.preprocessing import member_input, resize_matrix
from scanner.ensemble.session import open_session
from scanner.labelled_set import LabelledSet
from scanner.networks import LENS, NON_LENS
from scanner.records import MEMBERS
from scanner.training.export import read_members

TORCH_BATCH = 8


def load_cutouts(data: Path | None, n: int) -> Cutouts:
    if data is None:
        return synthetic(n)
    dataset = LabelledSet(data)
    parts = []
    for batch, vis, nisp in dataset.batches(np.arange(min(n, len(dataset))), 100):
        parts.append(Cutouts(vis, nisp, batch.sky, batch.sigma))
    return Cutouts(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def compare(bundle: Bundle, n: int, data: Path | None) -> dict[str, object]:
    cutouts = load_cutouts(data, n)
    n = len(cutouts.vis)
    found = open_session(bundle, "cpu").plain_logits(*cutouts)
    members = {name: network.double() for name, network in read_members(bundle.path / "ensemble.onnx").items()}
    worst: dict[str, float] = {}
    for column, name in enumerate(MEMBERS):
        largest = 0.0
        for start in range(0, n, TORCH_BATCH):
            part = cutouts.rows(start, start + TORCH_BATCH)
            seen = torch.from_numpy(member_input(name, *part, bundle.manifest.preprocessing))
            with torch.inference_mode():
                outputs = members[name](seen).numpy()
            error = np.abs(found[start : start + TORCH_BATCH, column] - (outputs[:, LENS] - outputs[:, NON_LENS]))
            largest = max(largest, float(error.max()))
        worst[name] = largest
        print(
            f"{name:8} max |Δlogit| {largest:.1e} over {n} objects, logits {np.abs(found[:, column]).max():.1f} at most",
            flush=True,
        )
    resize = 0.0
    for pair in ((200, 66), (66, 200)):
        matrix = resize_matrix(*pair).astype(np.float32)
        for seed in range(20):
            image = np.random.default_rng(seed).random((pair[0], pair[0]), dtype=np.float32)
            reference = transform.resize(image.astype(np.float64), (pair[1], pair[1]), order=1)
            resize = max(resize, float(np.abs(matrix @ image @ matrix.T - reference).max()))
    print(f"resize   max |Δ| {resize:.1e} against skimage, images of 0 to 1")
    return {"objects": n, "max_logit_difference": worst, "max_resize_difference": resize}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = compare(bundles.load(given.bundle), given.objects, given.data)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
