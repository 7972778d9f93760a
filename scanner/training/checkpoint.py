"""What a training run leaves on disk, so that it can be stopped at any moment and go on as if it had not been.

In: a run's folder. Out: ``plan.json`` (what is to be done, fixed before the first step), ``checkpoint.pt`` (where it stands),
and at the end ``member.npz`` and ``fit.json``. Refused: a folder whose plan is another one, a checkpoint that is not one. All
files are replaced atomically; tensors are read with ``weights_only``, arrays without pickle.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from scanner.atomic_file import write_atomically
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.networks import build
from scanner.records import MemberName, Record
from scanner.training.device import Precision
from scanner.training.history import HistoryRow
from scanner.training.presets import Beginning, Preset

#: Whose weights a member ends with: those of the best validation, those of the bundle that it began as, or their mean.
Kept = Literal["trained", "mean", "bundle"]
KEPT_IN_WORDS: Mapping[Kept, str] = {"trained": "as trained", "mean": "mean with the bundle's", "bundle": "the bundle's"}
PLAN, CHECKPOINT, MEMBER, FIT = "plan.json", "checkpoint.pt", "member.npz", "fit.json"


class Plan(Record):
    """Everything that decides the weights of a run, apart from the hardware.

    ``begins_as``: the member or the bundle (by fingerprint) that a copy or a continued member begins as. ``seen_before``:
    fingerprints of the sets that such a bundle was trained on. ``steps``: of each stage, as planned. ``seconds``: what each
    stage may take where there is a time budget; the steps are then corrected while it runs, so that it ends in time.
    ``precision``: what convolutions are computed in, also where a run goes on elsewhere.
    """

    member: MemberName
    preset: Preset
    seed: int
    precision: Precision
    dataset_sha256: str
    n_train: int
    time_budget: float | None
    beginning: Beginning = "random"
    begins_as: str | None = None
    seen_before: tuple[str, ...] = ()
    steps: tuple[int, ...]
    seconds: tuple[float, ...] | None = None


class FitRecord(Record):
    """What a finished run says of itself; the figures of the validation rows are of the weights that were ``kept``."""

    plan: Plan
    passes: float
    seconds: float
    threads: int
    device: str
    history: tuple[HistoryRow, ...]
    kept: Kept
    validation_loss: float
    validation_auroc: float
    validation_auroc_visible: float

    def described(self) -> str:
        """One line for people."""
        return (
            f"{self.plan.member}: {self.passes:.1f} passes in {self.seconds / 60:.1f} min, weights {KEPT_IN_WORDS[self.kept]}; "
            f"validation loss {self.validation_loss:.4f}, AUROC {self.validation_auroc:.3f}, "
            f"visible {self.validation_auroc_visible:.3f}"
        )


@dataclass
class State:
    """Where a run stands.

    ``stage``; ``step`` of ``total`` in it, ``progress`` along its schedule (0 to 1), ``stage_seconds`` spent in it.
    ``network``, ``optimiser``: as they are; ``best``, ``best_loss``, ``without_gain``: the best of the stage so far, and how
    many validations ago. ``loss_sum``, ``n_correct``, ``n_steps``, ``n_seen``: of the batches since the last validation.
    ``history``, ``passes``, ``seconds``: of the whole run.
    """

    stage: int = 0
    step: int = 0
    total: int = 0
    progress: float = 0.0
    stage_seconds: float = 0.0
    network: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    best_loss: float = float("inf")
    without_gain: int = 0
    loss_sum: float = 0.0
    n_correct: int = 0
    n_steps: int = 0
    n_seen: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    passes: float = 0.0
    seconds: float = 0.0

    @property
    def rows(self) -> tuple[HistoryRow, ...]:
        """The history as records."""
        return tuple(HistoryRow.model_validate(row) for row in self.history)


def save(folder: Path, state: State) -> None:
    """Write the checkpoint."""
    stream = io.BytesIO()
    torch.save(vars(state), stream)
    write_atomically(folder / CHECKPOINT, stream.getvalue())


def load(folder: Path, device: torch.device | None = None) -> State:
    """Read the checkpoint onto a device (the CPU unless given), or start anew where there is none.

    Raises
    ------
    ContentError
        The file is not a checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return State()
    try:
        return State(**torch.load(path, map_location=device or "cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, TypeError, EOFError):
        raise ContentError(f"{path}: not a checkpoint of this version; remove it to train anew.") from None


def read_plan(folder: Path) -> Plan | None:
    """The plan of the run that ``folder`` holds, None where there is none.

    Raises
    ------
    ContentError
        The file is not a plan.
    """
    path = folder / PLAN
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return Plan.from_bytes(content, path, "choose another --out", wrong="not the plan of a training run")


def agree(folder: Path, plan: Plan) -> Plan:
    """Write the plan of a new run, or return that of the run that ``folder`` holds if it was started with the same settings.

    Raises
    ------
    UsageError
        The folder holds a run with other settings; the message names the first that differs.
    """
    found = read_plan(folder)
    if found is None:
        write_atomically(folder / PLAN, plan.to_bytes())
        return plan
    for name in ("member", "preset", "seed", "dataset_sha256", "n_train", "time_budget", "beginning", "begins_as"):
        if getattr(found, name) != getattr(plan, name):
            raise UsageError(f"{folder}: holds a training run with another {name}; choose another --out or remove it.")
    return found


def finish(folder: Path, network: nn.Sequential, record: FitRecord) -> None:
    """Write the trained member and what is to be said of it."""
    stream = io.BytesIO()
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(stream, allow_pickle=False, **arrays)
    write_atomically(folder / MEMBER, stream.getvalue())
    write_atomically(folder / FIT, record.to_bytes())


def read_member(folder: Path) -> tuple[nn.Sequential, FitRecord]:
    """Read a finished member.

    Raises
    ------
    InputMissingError
        The folder holds no finished run.
    ContentError
        Its files are not what :func:`finish` wrote.
    """
    if not (folder / FIT).exists() or not (folder / MEMBER).exists():
        raise InputMissingError(f"{folder}: no finished training run; run 'scanner train member' with this --out first.")
    try:
        record = FitRecord.model_validate_json((folder / FIT).read_text(encoding="utf-8"))
        network = build(record.plan.member, seed=0)
        with np.load(folder / MEMBER, allow_pickle=False) as arrays:
            network.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    except (ValidationError, RuntimeError, ValueError, OSError, EOFError):
        raise ContentError(f"{folder}: its {MEMBER} or {FIT} is damaged; train the member again.") from None
    return network.eval(), record
