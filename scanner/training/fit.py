"""Trains one member, or goes on where a run was stopped.

In: scaled images, truth and split of a dataset, a :class:`~scanner.training.presets.Preset`, a seed, a folder. Out: the folder
as :mod:`scanner.training.checkpoint` describes it, and the member as the paper's network. Refused: a folder that holds another
run.

A resumed run ends with the same weights, bit for bit on the same machine with the same number of threads. A time budget
shortens all stages alike before the first step; it never stops a run in the middle.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from scanner.evaluation.labelled_data import Truth
from scanner.records import MemberName
from scanner.training import checkpoint
from scanner.training.allocator import keep_freed_memory
from scanner.training.checkpoint import FitRecord, Plan
from scanner.training.network import Twin, fold, transplant
from scanner.training.presets import Preset
from scanner.training.scaled import ScaledImages
from scanner.training.split import Split
from scanner.training.trainer import Report, Trainer


def fit(
    images: ScaledImages,
    truth: Truth,
    split: Split,
    *,
    member: MemberName,
    preset: Preset,
    seed: int,
    folder: Path,
    dataset_sha256: str,
    time_budget: float | None = None,
    start: tuple[MemberName, dict[str, torch.Tensor]] | None = None,
    threads: int = 1,
    report: Report = lambda row: None,
) -> tuple[nn.Sequential, FitRecord]:
    """Train a member, or go on where ``folder`` stands.

    Parameters
    ----------
    images, truth, split
        Row-aligned; the calibration rows are not touched.
    member, preset, seed
        What to train, and how.
    folder
        Where the run lives; the same call with the same folder resumes.
    dataset_sha256
        Fingerprint of the dataset.
    time_budget
        Seconds the run should take; the preset's passes are cut to fit, never extended. None: all of them.
    start
        A member of the same architecture and the state of its twin, to begin with instead of random weights.
    threads
        Threads of torch.
    report
        Called after every validation.

    Returns
    -------
    torch.nn.Sequential, FitRecord
        The member as :func:`scanner.networks.build` has it, in evaluation mode, and the record of the run.

    Raises
    ------
    UsageError
        ``folder`` holds a run with other settings.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    trainer = Trainer(images, truth, split, member, preset, seed)
    if start is not None and isinstance(trainer.network, Twin):
        transplant(start[1], start[0], trainer.network)
    with torch.random.fork_rng(devices=[]):
        share = 1.0
        if time_budget is not None and not (folder / checkpoint.PLAN).exists():
            share = trainer.share_of_budget(time_budget)
        plan = checkpoint.agree(
            folder,
            Plan(
                member=member,
                preset=preset,
                seed=seed,
                dataset_sha256=dataset_sha256,
                n_train=len(trainer.rows),
                time_budget=time_budget,
                start_from=None if start is None else start[0],
                steps=tuple(trainer.steps(stage, share) for stage in preset.stages(member)),
            ),
        )
        state = checkpoint.load(folder)
        trainer.run(plan, folder, state, report)
    network = trainer.network
    if isinstance(network, Twin):
        folded = fold(network)
    else:
        assert isinstance(network, nn.Sequential)
        folded = network.eval()
    last = min(
        (row for row in state.history if row["stage"] == preset.stages(member)[-1].name), key=lambda row: row["validation_loss"]
    )
    record = FitRecord(
        plan=plan,
        passes=state.passes,
        seconds=state.seconds,
        threads=threads,
        validation_loss=last["validation_loss"],
        validation_auroc=last["auroc"],
        validation_auroc_visible=last["auroc_visible"],
    )
    checkpoint.finish(folder, folded, record)
    return folded, record
