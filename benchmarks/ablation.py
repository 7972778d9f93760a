"""What each ingredient of preset ``best`` is worth, all at equal time.

    python benchmarks/ablation.py --data SET --out FOLDER --minutes 20 [--workers 2] [--only NAME ...] [--report]

Trains OU-66 from random weights by preset ``paper``, by ``paper`` with one ingredient of ``best`` each, by ``best``, and by
``best`` without one ingredient each, ``--workers`` side by side with one thread each. Every run gets the same minutes of
processor time, so other work on the machine takes nothing from it; both presets also run with a second seed, which shows how
far two runs of the same recipe lie apart. Passes are never the limit: each run trains for its whole time. Scaling the images
is not counted.

Prints a Markdown table: passes over the training rows (of crops + of full images), and on the calibration rows, which no run
has seen or been chosen by, the AUROC of visible lenses against non-lenses and the recall of visible lenses at a false-positive
rate of 1e-2, with 95% intervals, and the AUROC less that of the preset it was made from (paired, same objects). Killed and
given again, it goes on; finished runs stay in ``--out``. ``--report`` prints the table of those alone.

``paper`` differs from section 3.2 in one thing: its weights are chosen from 8 validations, not 250, which would take longer
than the training. The trainable form of the network, which everything but scaling, rate, batch and faint lenses needs, drops
out the features before the head only, so that "less dropout" is the line to compare those with.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scanner.ensemble.preprocessing import Preprocessing
from scanner.evaluation.metrics import delong, recalls_at_fpr
from scanner.interval import normal_interval
from scanner.networks import DROPOUT, LENS, NON_LENS
from scanner.records import MEMBER_PIXELS, Float32, Int64, MemberName
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord
from scanner.training.data import ScaledImages, TrainingData, open_scaled, scale_data
from scanner.training.fit import FitRequest, fit
from scanner.training.presets import BEST, PAPER, Preset, Stage
from scanner.training.trainer import Feed

MEMBER: MemberName = "OU-66"
LOG_ODDS = "held-out.npy"
FPR = 1e-2
#: More passes than any run will make.
UNLIMITED = 10


@dataclass(frozen=True)
class Variant:
    """A recipe, the one it is compared with, and its seed."""

    preset: Preset
    base: str
    seed: int = 1


def changed(preset: Preset, stages: tuple[Stage, ...] = (), every: dict[str, Any] | None = None, **fields: Any) -> Preset:
    """``preset`` with other ``stages``, other fields in ``every`` stage, and other ``fields``."""
    found = tuple(stage.model_copy(update=every or {}) for stage in stages or preset.stages_66)
    return preset.model_copy(update={**fields, "stages_66": found})


def variants() -> dict[str, Variant]:
    """All recipes by name, in the order of the table."""
    paper_stage = PAPER.stages_66[0].model_copy(update={"name": "full", "validations": 8})
    paper = changed(PAPER, (paper_stage,))
    crop, full, dense = (stage.model_copy(update={"passes": UNLIMITED * stage.passes}) for stage in BEST.stages_66)
    best = changed(BEST, (crop, full, dense))
    # As in best: ten passes over crops to one over full images.
    paper_crop = paper_stage.model_copy(update={"name": "crop", "cropped": True, "passes": crop.passes, "jitter": crop.jitter})
    paper_full = paper_stage.model_copy(update={"passes": full.passes})
    all_trained = full.model_copy(update={"frozen": 0})
    twin: dict[str, Any] = {"twin": True, "batch_norm": False, "tied": False, "dropout": DROPOUT}
    added = {
        "asinh": changed(paper, preprocessing="asinh_mad"),
        "bright arcs only": changed(paper, min_arc_snr=BEST.min_arc_snr),
        "one cycle": changed(paper, every={"schedule": "cycle", "learning_rate": full.learning_rate}),
        "small batches": changed(paper, every={"batch": full.batch}),
        "less dropout": changed(paper, **{**twin, "dropout": BEST.dropout}),
        "batch norm": changed(paper, **{**twin, "batch_norm": True}),
        "tied head": changed(paper, **{**twin, "tied": True}),
        "tied head and crops": changed(paper, (paper_crop, paper_full), **{**twin, "tied": True}),
    }
    removed = {
        "asinh": changed(best, preprocessing="minmax"),
        "bright arcs only": changed(best, min_arc_snr=0.0),
        "one cycle": changed(best, every={"schedule": "constant", "learning_rate": paper_stage.learning_rate}),
        "small batches": changed(best, every={"batch": paper_stage.batch}),
        "less dropout": changed(best, dropout=DROPOUT),
        "batch norm": changed(best, batch_norm=False),
        "crops": changed(best, (all_trained,)),
        "crops and tied head": changed(best, (all_trained,), tied=False),
        "full images": changed(best, (crop,)),
        "frozen layers": changed(best, (crop, all_trained, dense)),
        "dense stage": changed(best, (crop, full)),
        "weight decay": changed(best, weight_decay=0.0),
    }
    return {
        "paper": Variant(paper, "paper"),
        "paper again": Variant(paper, "paper", seed=2),
        **{f"paper + {name}": Variant(preset, "paper") for name, preset in added.items()},
        "best": Variant(best, "best"),
        "best again": Variant(best, "best", seed=2),
        **{f"best - {name}": Variant(preset, "best") for name, preset in removed.items()},
    }


def run_folder(out: Path, name: str) -> Path:
    return out / name.replace(" ", "-")


def scaled_folder(out: Path, preprocessing: Preprocessing) -> Path:
    return out / f"scaled-{preprocessing}"


def train(name: str, paths: tuple[Path, ...], out: Path, minutes: float) -> None:
    """Train a variant in this process, or go on with it, and score the rows that are held out."""
    variant = variants()[name]
    data = TrainingData(paths)
    images = open_scaled(scaled_folder(out, variant.preset.preprocessing), variant.preset.preprocessing)
    request = FitRequest(
        member=MEMBER,
        preset=variant.preset,
        seed=variant.seed,
        dataset_sha256=data.fingerprint,
        time_budget=60.0 * minutes,
        clock=time.process_time,
    )
    folder = run_folder(out, name)
    try:
        network, _ = fit(images, data.labels, data.split, request, folder)
    except KeyboardInterrupt:
        return
    np.save(folder / LOG_ODDS, log_odds(network, images, data.split.calibration))


def log_odds(network: nn.Sequential, images: ScaledImages, rows: Int64) -> Float32:
    """What the paper's network says of full images, (n,) lens log-odds."""
    feed = Feed(images, MEMBER, MEMBER_PIXELS[MEMBER])
    parts = np.array_split(rows, -(-len(rows) // 128))
    with torch.inference_mode():
        found = [network(feed.read(part).contiguous(memory_format=torch.channels_last)) for part in parts]
    logits = torch.cat(found)
    return np.asarray(logits[:, LENS] - logits[:, NON_LENS], dtype=np.float32)


def train_all(names: Sequence[str], paths: tuple[Path, ...], out: Path, minutes: float, workers: int) -> None:
    """Train variants in processes of their own; told to stop, all of them save themselves first."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    context = multiprocessing.get_context("spawn")
    pending = list(names)
    running: dict[Any, tuple[str, SpawnProcess]] = {}
    try:
        while pending or running:
            while pending and len(running) < workers:
                name = pending.pop(0)
                process = context.Process(target=train, args=(name, paths, out, minutes))
                process.start()
                running[process.sentinel] = name, process
            for sentinel in wait(list(running)):
                name, process = running.pop(sentinel)
                process.join()
                print(f"{name}: {'failed' if process.exitcode else 'done'}", file=sys.stderr, flush=True)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join()


def passes(record: FitRecord) -> str:
    """Passes of crops and of full images."""
    ends = {row.stage: row.epoch for row in record.history}
    crops = ends.get("crop", 0.0)
    return f"{crops:.1f} + {ends.get('full', crops) - crops:.1f}"


def table(data: TrainingData, out: Path) -> str:
    """The finished variants."""
    rows = data.split.calibration
    counted = ~data.labels.is_lens[rows] | data.labels.visible[rows]
    is_lens = data.labels.is_lens[rows][counted]
    known = variants()
    scores = {
        name: np.load(run_folder(out, name) / LOG_ODDS)[counted]
        for name in known
        if (run_folder(out, name) / LOG_ODDS).exists()
    }
    lines = [
        f"{is_lens.sum()} visible lenses, {(~is_lens).sum()} non-lenses, unseen; trained on {len(data.split.train)} or fewer\n",
        "| recipe | passes (crop + full) | AUROC, visible | less its preset's | recall at FPR 1e-2 |",
        "|---|---|---|---|---|",
    ]
    for name, found in scores.items():
        variant = known[name]
        record = FitRecord.model_validate_json((run_folder(out, name) / checkpoint.FIT).read_text(encoding="utf-8"))
        values, covariance = delong(np.stack([found, scores.get(variant.base, found)]), is_lens)
        value = normal_interval(float(values[0]), math.sqrt(covariance[0, 0]), high=1.0)
        gain = ""
        if name != variant.base and variant.base in scores:
            variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
            less = normal_interval(float(values[0] - values[1]), math.sqrt(max(0.0, variance)))
            gain = f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]"
        recall = recalls_at_fpr(found[is_lens], found[~is_lens], (FPR,)).interval(0, 0)
        lines.append(f"| {name} | {passes(record)} | {value} | {gain} | {recall} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(variants()))
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()
    data, known = TrainingData(given.data), variants()
    if not given.report:
        names = [name for name in given.only or known if not (run_folder(given.out, name) / LOG_ODDS).exists()]
        for preprocessing in sorted({known[name].preset.preprocessing for name in names}):
            scale_data(data, scaled_folder(given.out, preprocessing), preprocessing, given.workers)
        train_all(names, data.paths, given.out, given.minutes, given.workers)
    print(table(data, given.out))


if __name__ == "__main__":
    main()
