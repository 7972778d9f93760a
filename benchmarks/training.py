"""How fast a member trains, against a plain loop and against what the processor can multiply.

    python benchmarks/training.py [--members OU-VIS OU-66 ...] [--steps 4] [--device cpu]

Images of random numbers, batches of 64. For each member: the stages of preset ``best`` (central crop; full image with the
first convolutions frozen) and the full image with everything trained, as :class:`scanner.training.trainer.Trainer` does them
(reading, turning and optimiser included); and a plain loop: the paper's network in torch's own memory format, no frozen layers,
glibc's malloc as it comes (in a process of its own). Rates are images per CPU-second of this process, so that other work on
the machine counts less. The share is of the float32 matrix product of 1024 x 1024 measured in the same process: multiply-adds
of the paper's layers, backward counted twice, over the time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from scanner.networks import architecture_of, build
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, MemberName
from scanner.training.data import SHAPES, Labels, ScaledImages, split
from scanner.training.presets import BEST, Stage
from scanner.training.trainer import Trainer, keep_freed_memory
from scanner.training.twin import LAYOUTS

N, BATCH = 256, 64


def clock(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def rate(step: Callable[[int], object], steps: int, device: str) -> float:
    """Images a second of ``step``, after two untimed ones."""
    for number in range(2):
        step(number)
    started = clock(device)
    for number in range(steps):
        step(2 + number)
    return steps * BATCH / (clock(device) - started)


def matmul_peak(device: str) -> float:
    """Multiply-adds a second of a float32 product of two 1024 x 1024 matrices."""
    matrix = torch.rand(1024, 1024, device=device)
    best = 0.0
    for _ in range(5):
        started = clock(device)
        for _ in range(5):
            matrix @ matrix
        best = max(best, 5 * 1024**3 / (clock(device) - started))
    return best


def multiply_adds(member: MemberName, side: int, frozen: int = 0) -> float:
    """Multiply-adds of one training step of one image: forward, and twice that backward for what is trained."""
    architecture = architecture_of(member)
    channels, total = len(MEMBER_BANDS[member]), 0.0
    cropped = side < MEMBER_PIXELS[member]
    for number, (kernels, pixels, pooled) in enumerate(architecture.convolutions):
        padded = cropped and number >= {200: 4, 66: 5}[MEMBER_PIXELS[member]]
        side = side + (2 if padded else 0) - pixels + 1
        forward = side * side * kernels * channels * pixels**2
        # The first trained layer needs no gradient of its input.
        total += forward * (1 if number < frozen else 2 if number == frozen else 3)
        channels, side = kernels, side // 2 if pooled else side
    return total + 3 * (architecture.features * architecture.hidden + 2 * architecture.hidden)


def data() -> tuple[ScaledImages, Labels]:
    generator = np.random.default_rng(0)
    arrays = {name: generator.random((N, *shape), dtype=np.float32).astype(np.float16) for name, shape in SHAPES.items()}
    labels = Labels(
        np.arange(N) % 2 == 0,
        np.full(N, 50, np.float32),
        np.arange(N) % 2 == 0,
        np.zeros((N, 2), dtype=np.float32),
        np.zeros((N, 4), dtype=bool),
        np.ones(N, np.float32),
    )
    return ScaledImages(**arrays, preprocessing="asinh_mad"), labels


def plain(member: MemberName, steps: int, device: str) -> float:
    """The paper's network, everything trained, as a first attempt would."""
    network = build(member, seed=0).train().to(device)
    side = MEMBER_PIXELS[member]
    images = torch.rand(BATCH, len(MEMBER_BANDS[member]), side, side, device=device)
    labels = torch.arange(BATCH, device=device) % 2
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-4)

    def step(number: int) -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()

    return rate(step, steps, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", nargs="+", choices=MEMBERS, default=["OU-VIS", "OU-200", "OU-66", "OU-JYH", "OU-J"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", choices=MEMBERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.plain is not None:
        print(plain(arguments.plain, arguments.steps, arguments.device))
        return
    keep_freed_memory()
    images, labels = data()
    peak = matmul_peak(arguments.device)
    print(f"matrix product: {peak / 1e9:.1f} G multiply-adds a second")
    print(f"{'member':8}{'what':>24}{'images/s':>10}{'against plain':>15}{'share of peak':>15}")
    for member in arguments.members:
        crop, full, _ = BEST.stages(member, "random")
        words = [sys.executable, __file__, "--plain", member, "--steps", str(arguments.steps), "--device", arguments.device]
        reference = float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        side = MEMBER_PIXELS[member]
        line(member, "plain loop", reference, reference, multiply_adds(member, side) / peak)
        for what, stage in (("full", full.model_copy(update={"frozen": 0})), ("full, frozen", full), ("crop", crop)):
            found = trained(images, labels, member, stage, arguments.steps, arguments.device)
            pixels = LAYOUTS[side].crop_pixels if stage.cropped else side
            line(member, what, found, reference, multiply_adds(member, pixels, stage.frozen) / peak)


def trained(images: ScaledImages, labels: Labels, member: MemberName, stage: Stage, steps: int, device: str) -> float:
    trainer = Trainer(images, labels, split(N), member, BEST, 0, torch.device(device))
    optimiser, feed = trainer.begin(stage), trainer.feed(stage)
    trainer.network.train()
    return rate(lambda number: trainer.step(optimiser, *trainer.batch(feed, 0, stage, number)), steps, device)


def line(member: str, what: str, found: float, reference: float, seconds_at_peak: float) -> None:
    print(f"{member:8}{what:>24}{found:10.1f}{found / reference:15.2f}{found * seconds_at_peak:15.0%}", flush=True)


if __name__ == "__main__":
    main()
