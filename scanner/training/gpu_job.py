"""A training run in one piece, for a machine that has a GPU and little else: draw, scale, train, export.

    python -m scanner.training.gpu_job --out DIR --budget 9m [--preset paper] [--objects 45000] [--member OU-66 ...]

In: nothing but a seed. The set is drawn on the device, unlike any dataset drawn with another seed, and kept, scaled, in
``--scratch`` (115 kB an object), so that a later call on the same machine finds it; elsewhere it is drawn again. Out, in
``--out``: a folder for each member as ``scanner train member`` leaves it (``member.npz``, ``fit.json``, ``checkpoint.pt``: some
MB each), and ``ensemble.onnx`` once all seven are there; ``scanner train bundle --members DIR --data …`` makes a bundle of them
with a dataset of another seed. When the budget is spent the run saves itself and exits with 0: the same call goes on, also
where ``--out`` was carried to another machine. Refused: a device that is not there, a folder of other runs.

Needs numpy, scipy, array-api-compat, threadpoolctl, pydantic, torch and onnx; neither astropy nor zarr, pyarrow, sep,
lenstronomy or openTSNE.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from scanner.atomic_file import replacement, write_atomically
from scanner.cutouts.quality import measure
from scanner.errors import ScannerError
from scanner.records import DRAWN, MEMBERS
from scanner.simulation.datasets.cutouts import draw_batches
from scanner.simulation.datasets.presets import PRESETS as DRAWN_AS
from scanner.training import checkpoint
from scanner.training.data import SHAPES, Labels, ScaledImages, joined_images, joined_labels, scale_batch, split
from scanner.training.fit import FitRequest, Reports, Start, fit
from scanner.training.presets import PRESET_NAMES, PRESETS, Preset, seconds, training_order

#: Objects drawn at once, and objects in a file of the scratch folder.
BATCH, PART = 256, 2048


class OutOfTimeError(Exception):
    """The budget is spent; what was done is kept."""


def draw_part(preset: Preset, path: Path, seed: int, first: int, n: int, device: str, workers: int) -> None:
    """Draw objects ``first`` to ``first + n - 1`` of preset ``train``, scale them and write them to ``path``."""
    images, labels = [], []
    for batch in draw_batches(DRAWN_AS["train"], seed, n, min(BATCH, n), device, first=first, workers=workers):
        vis, nisp, truth = batch.vis.cpu().numpy(), batch.nisp.cpu().numpy(), batch.truth
        seen = measure(vis, nisp)
        images.append(scale_batch(vis, nisp, seen.sky, seen.sigma, preset.preprocessing))
        snr = np.fmax(truth["arc_snr"], truth["arc_snr_2"]).astype(np.float32)
        position = np.nan_to_num(np.stack([truth["y_arcsec"], truth["x_arcsec"]], axis=1)).astype(np.float32)
        labels.append(Labels(truth["is_lens"], snr, truth["visible"], position, seen.bad_fraction == 1.0))
    scaled = joined_images(images)
    arrays = {name: getattr(scaled, name) for name in SHAPES} | vars(joined_labels(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacement(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def drawn_set(preset: Preset, arguments: argparse.Namespace, deadline: float) -> tuple[ScaledImages, Labels]:
    """Read what is drawn already, and draw the rest.

    Raises
    ------
    OutOfTimeError
        The deadline came first.
    """
    images, labels = [], []
    for first in range(0, arguments.objects, PART):
        n = min(PART, arguments.objects - first)
        path = arguments.scratch / f"{preset.preprocessing}-{arguments.seed}-{first}-{n}.npz"
        if not path.exists():
            if time.monotonic() > deadline:
                raise OutOfTimeError
            draw_part(preset, path, arguments.seed, first, n, arguments.device, arguments.workers)
            print(f"drawn {first + n:,} of {arguments.objects:,}", flush=True)
        with np.load(path) as arrays:
            images.append(ScaledImages(**{name: arrays[name] for name in SHAPES}, preprocessing=preset.preprocessing))
            labels.append(Labels(**{name: arrays[name] for name in Labels.__dataclass_fields__}))
    return joined_images(images), joined_labels(labels)


def train_members(preset: Preset, arguments: argparse.Namespace, images: ScaledImages, labels: Labels) -> None:
    """Train the members that are not finished, copies after what they begin from."""
    waiting = [member for member in training_order(arguments.member) if not (arguments.out / member / checkpoint.FIT).exists()]
    while waiting:
        member = next(member for member in waiting if preset.copies.get(member) not in waiting)
        waiting.remove(member)
        source = preset.copies.get(member)
        request = FitRequest(
            member=member,
            preset=preset,
            seed=arguments.seed,
            dataset_sha256=f"{DRAWN}train:{arguments.seed}:{arguments.objects}",
            time_budget=None if arguments.member_budget is None else seconds(arguments.member_budget),
            start=None if source is None else Start(source, twin=(source, checkpoint.load(arguments.out / source).network)),
            threads=arguments.threads,
            device=arguments.device,
        )
        folder = arguments.out / member
        reports = Reports(validated=lambda rows: print(rows[-1].described(), flush=True))
        _, record = fit(images, labels, split(len(labels)), request, folder, reports)
        print(record.described(), flush=True)


def export(out: Path) -> None:
    """Write ``ensemble.onnx`` if all seven members are there."""
    from scanner.training.assemble import read_ensemble
    from scanner.training.export import merge_onnx

    if all((out / member / checkpoint.FIT).exists() for member in MEMBERS):
        ensemble = read_ensemble(out)
        write_atomically(out / "ensemble.onnx", merge_onnx(ensemble.networks, ensemble.preprocessing))


def main(words: list[str] | None = None) -> int:
    """Run the job; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, help="of the scaled images [OUT/../scratch]")
    parser.add_argument("--budget", default="9m")
    parser.add_argument("--member-budget", help="time for each member [all passes of the preset]")
    parser.add_argument("--preset", choices=PRESET_NAMES, default="best")
    parser.add_argument("--objects", type=int, default=45_000)
    parser.add_argument("--seed", type=int, default=1001)
    parser.add_argument("--member", nargs="+", choices=MEMBERS, default=list(MEMBERS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(words)
    arguments.scratch = arguments.scratch or arguments.out.parent / "scratch"
    preset = PRESETS[arguments.preset]
    # A run that is fitting saves itself first; anywhere else there is nothing to save.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    deadline = time.monotonic() + seconds(arguments.budget)
    try:
        images, labels = drawn_set(preset, arguments, deadline)
        # The run takes this for the request to save itself and stop.
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), os.kill, (os.getpid(), signal.SIGTERM))
        alarm.daemon = True
        alarm.start()
        try:
            train_members(preset, arguments, images, labels)
        finally:
            alarm.cancel()
        export(arguments.out)
    except (OutOfTimeError, KeyboardInterrupt):
        print("the budget is spent; the same call goes on", flush=True)
        return 0
    except ScannerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
