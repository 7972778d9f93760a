"""Images a second of the whole pipeline, on one and two cores, against lenstronomy drawing the same content.

Run: ``python benchmarks/simulating.py [--n 512] [--lenstronomy 12] [--preset train]``. Rows:

- drawing alone: scenes, light, PSF, noise, truth, in one process,
- to disk, one and two processes: ``scanner simulate dataset`` with store, truth and components, start of processes included,
- lenstronomy: single lenses, compound arcs and double rings with its light instead of ours, everything else alike; the ratio is
  that of the two on such objects, in one process.

Times are of the processor (user and system, all processes), which a busy machine inflates by no more than its caches; ``wall``
is the clock. One image is one object in four bands.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scanner.simulation import GeneratorName, PresetName
from scanner.simulation.datasets.cutouts import draw
from scanner.simulation.datasets.dataset import DatasetRequest, draw_dataset
from scanner.simulation.datasets.presets import PRESETS

LENSES: tuple[PresetName, ...] = ("red-sources", "compound-arc", "double-ring")


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of processor and clock."""

    def processor() -> float:
        parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(part.ru_utime + part.ru_stime for part in parts)

    before, start = processor(), time.perf_counter()
    work()
    return processor() - before, time.perf_counter() - start


def row(name: str, n: int, cost: tuple[float, float], cores: int = 1) -> float:
    """Print one row; returns images a second of ``cores`` idle cores."""
    rate = cores * n / cost[0]
    print(f"{name:42} {n:6} {1e3 * cost[0] / n:10.1f} {rate:12.1f} {n / cost[1]:10.1f}", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--lenstronomy", type=int, default=12)
    parser.add_argument("--preset", choices=list(PRESETS), default="train")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    preset = PRESETS[options.preset]
    draw(preset, 2, range(16))  # imports and tables
    print(f"{'':42} {'images':>6} {'ms each':>10} {'per second':>12} {'by clock':>10}")
    row(f"{preset.name}: drawing alone, 1 core", options.n, spent(lambda: draw(preset, 1, range(options.n))))
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            request = DatasetRequest(preset=preset.name, n_objects=options.n, seed=1)
            cost = spent(lambda: draw_dataset(request, Path(folder) / str(workers), workers))  # noqa: B023
            row(f"{preset.name}: to disk, {workers} core{'s' * (workers > 1)}", options.n, cost, workers)

    def lenses(generator: GeneratorName, n: int) -> Callable[[], object]:
        return lambda: [draw(PRESETS[name], 1, range(n), generator) for name in LENSES]

    each = max(1, options.lenstronomy // len(LENSES))
    lenses("lenstronomy", 1)()
    ours = row("lenses: fast, 1 core", len(LENSES) * each * 8, spent(lenses("fast", each * 8)))
    theirs = row("lenses: lenstronomy, 1 core", len(LENSES) * each, spent(lenses("lenstronomy", each)))
    print(f"fast over lenstronomy, the same content: {ours / theirs:.0f} times")


if __name__ == "__main__":
    main()
