"""Trains one member, or goes on where a run was stopped.

In: scaled images, labels and split, a :class:`FitRequest`, a folder. Out: the folder as :mod:`scanner.training.checkpoint`
describes it, and the member as the paper's network. Refused: a folder that holds another run.

Without a time budget, a resumed run ends with the same weights, bit for bit on the same machine with the same number of
threads.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scanner.errors import UsageError
from scanner.records import MemberName
from scanner.training import checkpoint
from scanner.training.allocator import keep_freed_memory
from scanner.training.checkpoint import FitRecord, Kept, Plan
from scanner.training.device import fastest_precision, usable_device
from scanner.training.folding import fold, mean_of, renormalise, transplant, unfold
from scanner.training.history import best_row
from scanner.training.labels import Labels, Split
from scanner.training.network import Twin
from scanner.training.presets import Beginning, Preset, Stage
from scanner.training.scaled import ScaledImages
from scanner.training.stage_run import SILENT, Reports, run_stages
from scanner.training.trainer import Trainer, Validation

#: Training rows that the statistics of a bundle's member are measured on.
STATISTICS_ROWS = 256


@dataclass(frozen=True)
class Start:
    """What a member begins as.

    ``name``: the member that it copies, or the fingerprint of the bundle that it comes from. ``twin``: state of the twin of
    ``name``. ``network``: the bundle's network. One of the two is given. ``trained_on``: fingerprints of the sets that the
    bundle was trained on.
    """

    name: str
    twin: tuple[MemberName, dict[str, torch.Tensor]] | None = None
    network: nn.Sequential | None = None
    trained_on: tuple[str, ...] = ()

    @property
    def beginning(self) -> Beginning:
        """In the words of the preset."""
        return "bundle" if self.network is not None else "copy"


@dataclass(frozen=True)
class FitRequest:
    """What to train, and how.

    ``dataset_sha256``: fingerprint of the data. ``time_budget``: seconds the run should take; the preset's passes are cut to
    fit, never extended. None: all of them. ``start``: None for He-initialised weights. ``threads``: of torch. ``clock``: what
    counts the budget; the process's own time makes runs comparable on a machine that has other work too.
    """

    member: MemberName
    preset: Preset
    seed: int
    dataset_sha256: str
    time_budget: float | None = None
    start: Start | None = None
    threads: int = 1
    device: str = "cpu"
    clock: Callable[[], float] = time.monotonic


def fit(
    images: ScaledImages,
    labels: Labels,
    split: Split,
    request: FitRequest,
    folder: Path,
    reports: Reports = SILENT,
) -> tuple[nn.Sequential, FitRecord]:
    """Train a member, or go on where ``folder`` stands.

    Parameters
    ----------
    images, labels, split
        Row-aligned; the calibration rows are not touched.
    request
        What to train.
    folder
        Where the run lives; the same call with the same folder resumes.
    reports
        Whom to tell of the progress.

    Returns
    -------
    torch.nn.Sequential, FitRecord
        The member as :func:`scanner.networks.build` has it, in evaluation mode, and the record of the run.

    Raises
    ------
    UsageError
        ``folder`` holds a run with other settings, there are too few objects, or the training diverged.
    KeyboardInterrupt
        SIGTERM or SIGINT came; the run has been saved.
    """
    keep_freed_memory()
    torch.set_num_threads(request.threads)
    preset, member, start = request.preset, request.member, request.start
    device = usable_device(request.device)
    begun = checkpoint.read_plan(folder)
    precision = fastest_precision(device) if begun is None else begun.precision
    trainer = Trainer(images, labels, split, member, preset, request.seed, device, request.clock, precision)
    if not trainer.can_validate:
        raise UsageError(
            f"{len(labels)} objects are too few to train on: the validation rows (6%) need visible lenses and non-lenses; "
            "draw more."
        )
    with torch.random.fork_rng(devices=[]):
        state = checkpoint.load(folder, device)
        if start is not None:
            _begin_as(trainer, start, preset.stages(member, start.beginning)[0], fresh=not state.network)
        stages = preset.stages(member, "random" if start is None else start.beginning)
        plan = _plan(trainer, request, stages, fresh=begun is None)
        plan = checkpoint.agree(folder, plan)
        run_stages(trainer, plan, stages, folder, state, reports)
    network = trainer.network
    folded = fold(network) if isinstance(network, Twin) else network.cpu().eval()
    assert isinstance(folded, nn.Sequential)
    best = best_row(state.rows)
    found, kept = Validation(best.validation_loss, best.validation_accuracy, best.auroc, best.auroc_visible), "trained"
    if start is not None and start.network is not None and preset.share_of_bundle:
        folded, found, kept = best_of_both(trainer, stages[-1], start.network, folded, found)
    record = FitRecord(
        plan=plan,
        passes=state.passes,
        seconds=state.seconds,
        threads=request.threads,
        device=request.device,
        history=state.rows,
        kept=kept,
        validation_loss=found.loss,
        validation_auroc=found.auroc,
        validation_auroc_visible=found.auroc_visible,
    )
    checkpoint.finish(folder, folded, record)
    return folded, record


def best_of_both(
    trainer: Trainer, stage: Stage, begun: nn.Sequential, ended: nn.Sequential, found: Validation
) -> tuple[nn.Sequential, Validation, Kept]:
    """A bundle's network, what it was trained to, or the mean of their weights, whichever has the lowest validation loss.

    After a few passes the mean is the best one; after many there is a ridge between the two. A network that was at its end
    stays as it was.

    Parameters
    ----------
    trainer, stage
        What validates, on the images of that stage; the trainer's network is replaced.
    begun, ended
        The bundle's network, and the trained one.
    found
        Of ``ended``.

    Returns
    -------
    torch.nn.Sequential, Validation, Kept
        The best of the three, ``ended`` where all are alike; its figures; which one it is.
    """
    best: tuple[nn.Sequential, Validation, Kept] = ended, found, "trained"
    others: dict[Kept, nn.Sequential] = {"mean": mean_of(begun, ended, trainer.preset.share_of_bundle), "bundle": begun}
    feed = trainer.feed(stage)
    for name, network in others.items():
        trainer.network = copy.deepcopy(network).to(trainer.device)
        validated = trainer.validate(feed)
        if validated.loss < best[1].loss:
            best = network, validated, name
    return best


def _begin_as(trainer: Trainer, start: Start, first: Stage, *, fresh: bool) -> None:
    """Give the network its first weights; where a run is resumed (not ``fresh``) only the form of the head matters."""
    network = trainer.network
    if start.network is not None and not isinstance(network, Twin):
        network.load_state_dict(start.network.state_dict())
    elif start.network is not None and isinstance(network, Twin):
        unfold(start.network, network)
        if fresh and trainer.preset.batch_norm:
            feed = trainer.feed(first)
            rows = np.sort(np.random.default_rng(trainer.seed).permutation(trainer.rows)[:STATISTICS_ROWS])
            renormalise(network, [feed.read(part, trainer.shifts(feed, part)) for part in np.array_split(rows, 8) if len(part)])
    elif start.twin is not None and isinstance(network, Twin):
        transplant(start.twin[1], start.twin[0], network)


def _plan(trainer: Trainer, request: FitRequest, stages: tuple[Stage, ...], *, fresh: bool) -> Plan:
    share, seconds = 1.0, None
    if request.time_budget is not None and fresh:
        started = request.clock()
        needed = trainer.seconds_needed(stages)
        left = max(0.01 * request.time_budget, request.time_budget - (request.clock() - started))
        share = min(1.0, left / sum(needed))
        seconds = tuple(left * part / sum(needed) for part in needed)
    return Plan(
        member=request.member,
        preset=request.preset,
        seed=request.seed,
        precision=trainer.precision,
        dataset_sha256=request.dataset_sha256,
        n_train=len(trainer.rows),
        time_budget=request.time_budget,
        beginning="random" if request.start is None else request.start.beginning,
        begins_as=None if request.start is None else request.start.name,
        seen_before=() if request.start is None else request.start.trained_on,
        steps=tuple(trainer.steps(stage, share) for stage in stages),
        seconds=seconds,
    )
