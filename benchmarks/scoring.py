"""How fast seven networks score.

    python benchmarks/scoring.py [BUNDLE] [--cores 1 2] [--seconds 20] [--json FILE]

Prints objects per second of the bundle's merged graph against torch in eager mode and against seven separate sessions, all from
raw cutouts to log-odds, one thread a core, in one run; and what share of the peak (a 2048³ matrix product on the same core, in
the same run; in bfloat16 where that computes) that is. BUNDLE is a folder or the name of an installed bundle, the default one
if left out. Install ``scanner[openvino]`` instead of ``scanner[cpu]`` to have OpenVINO in the table, on a processor with AMX in
bfloat16 too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.utils import Extractor
from torch import nn

from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.preprocessing import (
    ASINH_OFFSET,
    ASINH_RANGE,
    CLIP_SIGMA,
    MINMAX_FLOOR,
    SOFTENING_SIGMA,
    resize_matrix,
)
from scanner.ensemble.session import ONNX_NAME, open_session
from scanner.networks import LENS, NON_LENS
from scanner.records import BANDS, MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, MemberName
from scanner.training.export import read_members

MERGED = tuple(f"merged ONNX, {provider}" for provider in ("cpu", "openvino", "openvino-bfloat16"))
VARIANTS = ("torch eager", "torch channels_last", "seven ONNX sessions", *MERGED)
TORCH_BATCH = 8
PEAK_SIDE = 2048


class Cutouts(NamedTuple):
    """What a session takes."""

    vis: np.ndarray
    nisp: np.ndarray
    sky: np.ndarray
    sigma: np.ndarray

    def rows(self, start: int, stop: int) -> Cutouts:
        """Some of them."""
        return Cutouts(*(values[start:stop] for values in self))


class Rate(NamedTuple):
    """What one process did in its seconds."""

    objects: int
    wall_s: float
    cpu_s: float
    peak_gflops: float


def synthetic(n: int, seed: int = 0) -> Cutouts:
    """Noise with a galaxy in the middle, magnitudes apart in brightness, some beside a saturated star."""
    rng = np.random.default_rng(seed)
    vis = rng.normal(0.1, 0.003, (n, 200, 200)).astype(np.float32)
    nisp = rng.normal(0.0, 4.0, (n, 3, 66, 66)).astype(np.float32)
    for side, images, scale, faint in ((200, vis, 5.0, -2.0), (66, nisp, 2.0, 1.0)):
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        shape = (n,) + (1,) * (images.ndim - 1)
        images += (10 ** rng.uniform(faint, faint + 3, shape) * np.exp(-np.hypot(x, y) / scale)).astype(np.float32)
    vis[::10, 30:33, 150:153] = 300.0
    sky = np.tile(np.float32([0.1, 0, 0, 0]), (n, 1))
    return Cutouts(vis, nisp, sky, np.tile(np.float32([0.003, 4, 4, 4]), (n, 1)))


def multiply_adds(members: dict[MemberName, nn.Sequential]) -> int:
    """Multiplications of all members for one object."""
    total = 0
    for name, network in members.items():
        images = torch.zeros(1, len(MEMBER_BANDS[name]), MEMBER_PIXELS[name], MEMBER_PIXELS[name])
        for layer in network:
            images = layer(images)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                total += layer.weight.numel() * (images[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1)
    return total


def torch_scorer(bundle: Bundle, channels_last: bool) -> Callable[[Cutouts], np.ndarray]:
    """The same computation in torch's eager mode, float32, the scaling shared by the members as in the graph."""
    members = read_members(bundle.path / "ensemble.onnx")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    members = {name: network.to(memory_format=layout) for name, network in members.items()}
    matrices = {pair: torch.from_numpy(resize_matrix(*pair)).float() for pair in ((200, 66), (66, 200))}
    minmax = bundle.manifest.preprocessing == "minmax"

    def resize(images: torch.Tensor, side: int) -> torch.Tensor:
        if images.shape[-1] == side:
            return images
        matrix = matrices[images.shape[-1], side]
        return matrix @ images @ matrix.T

    def scale_minmax(images: torch.Tensor) -> torch.Tensor:
        low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
        return (images - low) / (high - low).clamp(min=MINMAX_FLOOR)

    def scale_asinh(images: torch.Tensor, sky: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        signal = ((images - sky[..., None, None]) / sigma[..., None, None]).clamp(*CLIP_SIGMA)
        return (torch.asinh(signal / SOFTENING_SIGMA) + ASINH_OFFSET) / ASINH_RANGE

    def run(cutouts: Cutouts) -> np.ndarray:
        vis, nisp, sky, sigma = (torch.from_numpy(values) for values in cutouts)
        vis = vis[:, None]
        if not minmax:
            vis = scale_asinh(vis, sky[:, :1], sigma[:, :1])
            nisp = scale_asinh(nisp, sky[:, 1:], sigma[:, 1:])
        images = {}
        for side in (66, 200):
            stack = torch.cat([resize(vis, side), resize(nisp, side)], dim=1)
            images[side] = scale_minmax(stack) if minmax else stack
        logits = []
        with torch.inference_mode():
            for name in MEMBERS:
                channels = [BANDS.index(band) for band in MEMBER_BANDS[name]]
                outputs = members[name](images[MEMBER_PIXELS[name]][:, channels].contiguous(memory_format=layout))
                logits.append(outputs[:, LENS] - outputs[:, NON_LENS])
        return torch.stack(logits, dim=1).numpy()

    def in_batches(cutouts: Cutouts) -> np.ndarray:
        starts = range(0, len(cutouts.vis), TORCH_BATCH)
        return np.concatenate([run(cutouts.rows(start, start + TORCH_BATCH)) for start in starts])

    return in_batches


def separate_scorer(bundle: Bundle) -> Callable[[Cutouts], np.ndarray]:
    """Seven sessions of ONNX Runtime, each with its own preprocessing."""
    extractor = Extractor(onnx.shape_inference.infer_shapes(onnx.load_from_string(bundle.model)))
    names = [value.name for value in extractor.graph.input]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = []
    for member in MEMBERS:
        bands = MEMBER_BANDS[member]
        needed = [name for name in names if name != ("nisp" if bands == ("VIS",) else "vis" if "VIS" not in bands else "")]
        model = extractor.extract_model(needed, [f"{member}/log-odds"])
        sessions.append(onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]))

    def run(cutouts: Cutouts) -> np.ndarray:
        given = cutouts._asdict()
        rows = []
        for start in range(len(cutouts.vis)):
            logits = []
            for session in sessions:
                feed = {node.name: given[node.name][start : start + 1] for node in session.get_inputs()}
                logits.append(session.run(None, feed)[0])
            rows.append(np.concatenate(logits, axis=1))
        return np.concatenate(rows)

    return run


def scorer_of(variant: str, bundle: Bundle) -> Callable[[Cutouts], np.ndarray]:
    torch.set_num_threads(1)
    if variant.startswith("torch"):
        return torch_scorer(bundle, variant.endswith("channels_last"))
    if variant.startswith("seven"):
        return separate_scorer(bundle)
    session = open_session(bundle, variant.rpartition(" ")[2])
    return lambda cutouts: session.plain_logits(*cutouts)


def measure_peak(bfloat16: bool, seconds: float = 1.0) -> float:
    """GFLOP/s of 2048³ products: in float32 the better of numpy's and torch's, in bfloat16 torch's."""
    rng = np.random.default_rng(0)
    left, right = (rng.random((PEAK_SIDE, PEAK_SIDE), dtype=np.float32) for _ in range(2))
    tensors = [torch.from_numpy(one).to(torch.bfloat16 if bfloat16 else torch.float32) for one in (left, right)]
    best = 0.0
    for product in (lambda: tensors[0] @ tensors[1], *(() if bfloat16 else (lambda: left @ right,))):
        product()
        start, n = time.process_time(), 0
        while time.process_time() - start < seconds:
            product()
            n += 1
        best = max(best, 2 * n * PEAK_SIDE**3 / (time.process_time() - start) / 1e9)
    return best


def _work(
    variant: str, path: Path, core: int, seconds: float, ready: multiprocessing.Barrier, out: multiprocessing.Queue
) -> None:
    os.sched_setaffinity(0, {core})
    cutouts = synthetic(TORCH_BATCH, seed=core)
    score = scorer_of(variant, bundles.load(path))
    score(cutouts)
    peak = measure_peak(variant.endswith("bfloat16"))
    ready.wait()
    objects, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        objects += len(score(cutouts))
    out.put(Rate(objects, time.perf_counter() - wall, time.process_time() - cpu, peak))


def measure(variant: str, path: Path, n_cores: int, seconds: float) -> list[Rate]:
    """One process a core, pinned, all of them scoring at the same time."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))[:n_cores]
    ready, out = context.Barrier(n_cores), context.Queue()
    workers = [context.Process(target=_work, args=(variant, path, core, seconds, ready, out)) for core in cores]
    for worker in workers:
        worker.start()
    rates = [out.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return rates


def compare_speed(bundle: Bundle, cores: list[int], seconds: float) -> dict[str, object]:
    flops = 2 * multiply_adds(read_members(bundle.path / "ensemble.onnx"))
    available = onnxruntime.get_available_providers()
    variants = [name for name in VARIANTS if "openvino" not in name or ONNX_NAME["openvino"] in available]
    rows = []
    print(f"{bundle.manifest.name}, {flops / 1e9:.2f} GFLOP an object, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':24}{'cores':>6}{'objects/s':>11}{'per CPU-s':>11}{'of peak':>9}{'x eager':>9}")
    for n_cores in cores:
        eager = 0.0
        for variant in variants:
            rates = measure(variant, bundle.path, n_cores, seconds)
            per_wall = sum(rate.objects / rate.wall_s for rate in rates)
            per_cpu = sum(rate.objects for rate in rates) / sum(rate.cpu_s for rate in rates)
            peak = sum(rate.peak_gflops for rate in rates) / len(rates)
            eager = eager or per_cpu
            share = per_cpu * flops / 1e9 / peak
            print(f"{variant:24}{n_cores:6}{per_wall:11.1f}{per_cpu:11.1f}{share:9.0%}{per_cpu / eager:9.2f}", flush=True)
            row = {"variant": variant, "cores": n_cores, "objects_per_s": per_wall, "objects_per_cpu_s": per_cpu}
            rows.append({**row, "peak_gflops": peak, "share_of_peak": share, "times_eager": per_cpu / eager})
    print("\nShares and ratios are per CPU-second: other work on the machine slows the clock on the wall, not this.")
    return {"bundle": bundle.manifest.name, "flop_per_object": flops, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = compare_speed(bundles.load(given.bundle), given.cores, given.seconds)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
