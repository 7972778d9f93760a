"""What a training run leaves on disk, so that it can be stopped at any moment and go on as if it had not been.

In: a run's folder. Out: ``plan.json`` (what is to be done, fixed before the first step), ``checkpoint.pt`` (where it stands),
``history.parquet`` (one row per validation), and at the end ``member.pt`` and ``fit.json``. Refused: a folder whose plan is
another one, a checkpoint that is not one. All files are replaced atomically; tensors are read with ``weights_only``.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError
from torch import nn

from scanner.atomic_file import write_atomically
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.networks import build
from scanner.records import MemberName, Record
from scanner.training.presets import Preset

PLAN, CHECKPOINT, HISTORY, MEMBER, FIT = "plan.json", "checkpoint.pt", "history.parquet", "member.pt", "fit.json"


class Plan(Record):
    """Everything that decides the weights of a run, apart from the hardware."""

    member: MemberName
    preset: Preset
    seed: int
    dataset_sha256: str
    n_train: int
    time_budget: float | None
    start_from: MemberName | None = None
    steps: tuple[int, ...]


class FitRecord(Record):
    """What a finished run says of itself."""

    plan: Plan
    passes: float
    seconds: float
    threads: int
    validation_loss: float
    validation_auroc: float
    validation_auroc_visible: float


@dataclass(frozen=True)
class HistoryRow:
    """One validation; ``passes`` and ``seconds`` count from the start of the run, the losses are class-weighted means."""

    stage: str
    step: int
    passes: float
    learning_rate: float
    train_loss: float
    validation_loss: float
    auroc: float
    auroc_visible: float
    seconds: float


@dataclass
class State:
    """Where a run stands: stage, step in it, weights, optimiser, the best so far in the stage, history, seconds spent."""

    stage: int = 0
    step: int = 0
    network: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    best_loss: float = float("inf")
    without_gain: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    passes: float = 0.0
    seconds: float = 0.0


def save(folder: Path, state: State) -> None:
    """Write the checkpoint and the history."""
    write_tensors(folder / CHECKPOINT, vars(state))
    if state.history:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(state.history), sink)
        write_atomically(folder / HISTORY, sink.getvalue().to_pybytes())


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write nested dictionaries of tensors and numbers atomically, readable with ``weights_only``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    torch.save(content, partial)
    partial.replace(path)


def load(folder: Path) -> State:
    """Read the checkpoint, or start anew where there is none.

    Raises
    ------
    ContentError
        The file is not a checkpoint.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return State()
    try:
        return State(**torch.load(path, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, TypeError, EOFError):
        raise ContentError(f"{path}: not a checkpoint of this version; remove it to train anew.") from None


def agree(folder: Path, plan: Plan) -> Plan:
    """Write the plan of a new run, or return that of the run that ``folder`` holds if it was started with the same settings.

    Raises
    ------
    UsageError
        The folder holds a run with other settings; the message names the first that differs.
    """
    path = folder / PLAN
    if not path.exists():
        write_atomically(path, (plan.model_dump_json(indent=2) + "\n").encode())
        return plan
    try:
        found = Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise ContentError(f"{path}: not the plan of a training run; choose another --out.") from None
    for name in ("member", "preset", "seed", "dataset_sha256", "n_train", "time_budget", "start_from"):
        if getattr(found, name) != getattr(plan, name):
            raise UsageError(f"{folder}: holds a training run with another {name}; choose another --out or remove it.")
    return found


def finish(folder: Path, network: nn.Sequential, record: FitRecord) -> None:
    """Write the trained member and what is to be said of it."""
    write_tensors(folder / MEMBER, network.state_dict())
    write_atomically(folder / FIT, (record.model_dump_json(indent=2) + "\n").encode())


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
        network.load_state_dict(torch.load(folder / MEMBER, weights_only=True))
    except (ValidationError, RuntimeError, pickle.UnpicklingError, EOFError):
        raise ContentError(f"{folder}: its member.pt or fit.json is damaged; train the member again.") from None
    return network.eval(), record


def history_row(row: HistoryRow) -> dict[str, Any]:
    """The row as a checkpoint and Parquet hold it."""
    return asdict(row)
