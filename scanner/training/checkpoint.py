"""What a training run leaves on disk: plan, checkpoint, history and the trained member, and the copy of them on a mirror."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn

from scanner.atomic_file import file_sha256, write_atomically, writing_to
from scanner.config import StorageConfig
from scanner.errors import ContentError, InputMissingError, OutputError, UsageError
from scanner.networks import build
from scanner.records import MemberName, Record, SealedRecord
from scanner.storage import open_store
from scanner.storage.contract import Store, held_in_turn, join
from scanner.training.presets import Beginning, Precision, Preset, TrainedName

HISTORY, ACCURACY_PLOT, LOSS_PLOT = "history.parquet", "accuracy.png", "loss.png"
#: All are replaced atomically; tensors are read with ``weights_only``, arrays without pickle.
PLAN, CHECKPOINT, MEMBER, FIT = "plan.json", "checkpoint.pt", "member.npz", "fit.json"
#: Whose weights a member ends with: those of the best validation, those of the bundle that it began as, or their mean.
Kept = Literal["trained", "mean", "bundle"]
KEPT_IN_WORDS: Mapping[Kept, str] = {"trained": "as trained", "mean": "mean with the bundle's", "bundle": "the bundle's"}
RUN, STATE = "run", "state.json"
#: In the order in which they are put into a member's folder: a plan without a checkpoint is of no consequence, nor is a member
#: without ``fit.json``.
FILES = ("plan.json", "checkpoint.pt", "history.parquet", "accuracy.png", "loss.png", "member.npz", "fit.json")
logger = logging.getLogger(__name__)


class HistoryRow(Record):
    """One validation. Losses are class-weighted means, training ones since the last row and in training mode."""

    stage: str = Field(description="stage of the preset")
    step: int = Field(description="steps of the optimiser in this stage")
    epoch: float = Field(description="passes over the training rows, from the start of the run")
    seconds: float = Field(description="time spent, from the start of the run, in s")
    learning_rate: float = Field(description="of the last step")
    train_loss: float = Field(description="mean cross-entropy of the training batches since the last row")
    train_accuracy: float = Field(description="share of them classified correctly at 0.5")
    validation_loss: float = Field(description="mean cross-entropy of the validation rows")
    validation_accuracy: float = Field(description="share of them classified correctly at 0.5")
    auroc: float = Field(description="of all validation rows, lenses with faint arcs included")
    auroc_visible: float = Field(description="of the validation rows without lenses whose arcs cannot be seen")

    def described(self) -> str:
        """One line for people."""
        return (
            f"{self.stage} {self.epoch:6.2f} passes  loss {self.train_loss:.4f}  validation {self.validation_loss:.4f}  "
            f"AUROC {self.auroc:.3f}, visible {self.auroc_visible:.3f}  {self.seconds:.0f} s"
        )


class Plan(SealedRecord):
    """Everything that decides the weights of a run, apart from the hardware.

    ``begins_as``: the member or the bundle (by fingerprint) that a copy or a continued member begins as. ``seen_before``:
    fingerprints of the sets that such a bundle was trained on. ``steps``: of each stage, as planned. ``seconds``: what each
    stage may take where there is a time budget; the steps are then corrected while it runs, so that it ends in time.
    ``precision``: what convolutions are computed in, also where a run goes on elsewhere.
    """

    member: TrainedName
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


class FitRecord(SealedRecord):
    """The record of a finished run; the figures of the validation rows are of the weights that were ``kept``.

    ``member_sha256``: of the file of the weights.
    """

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
    member_sha256: str = ""

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
    write_tensors(folder / CHECKPOINT, vars(state))


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
        return State(**read_tensors(path, device or torch.device("cpu")))
    except (ValueError, TypeError):
        raise ContentError(f"{path}: damaged, or not a checkpoint of this version; remove it to train anew.") from None


def write_tensors(path: Path, values: Mapping[str, Any]) -> None:
    """Write tensors and plain values as ``torch.save`` does, after a line with the SHA-256 of the rest."""
    stream = io.BytesIO()
    torch.save(dict(values), stream)
    write_atomically(path, hashlib.sha256(stream.getvalue()).hexdigest().encode() + b"\n" + stream.getvalue())


def read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what :func:`write_tensors` wrote; nothing in it is run.

    Raises
    ------
    ValueError
        It is not that, or damaged.
    """
    digest, _, content = path.read_bytes().partition(b"\n")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 is not the one that it begins with")
    try:
        return dict(torch.load(io.BytesIO(content), map_location=device, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(str(error)) from None


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

    A time budget is divided among the members of a call: a member that an earlier call finished is taken up whatever it had.

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
        if name == "time_budget" and (folder / FIT).exists():
            continue
        if getattr(found, name) != getattr(plan, name):
            raise UsageError(f"{folder}: holds a training run with another {name}; choose another --out or remove it.")
    return found


def finish(folder: Path, network: nn.Module, record: FitRecord) -> FitRecord:
    """Write the trained member and its record; returns the record with the SHA-256 of the member."""
    stream = io.BytesIO()
    arrays = {name: value.numpy() for name, value in network.state_dict().items()}
    np.savez(stream, allow_pickle=False, **arrays)
    write_atomically(folder / MEMBER, stream.getvalue())
    record = record.model_copy(update={"member_sha256": hashlib.sha256(stream.getvalue()).hexdigest()})
    write_atomically(folder / FIT, record.to_bytes())
    return record


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], FitRecord]:
    """Read the weights of a finished member, by name.

    Raises
    ------
    InputMissingError
        The folder holds no finished run.
    ContentError
        Its files are not what :func:`finish` wrote.
    """
    if not (folder / FIT).exists() or not (folder / MEMBER).exists():
        raise InputMissingError(f"{folder}: no finished training run; run 'scanner train member' with this --out first.")
    record = FitRecord.from_bytes((folder / FIT).read_bytes(), folder / FIT, "train the member again")
    content = (folder / MEMBER).read_bytes()
    if hashlib.sha256(content).hexdigest() != record.member_sha256:
        raise ContentError(f"{folder / MEMBER}: damaged (its SHA-256 is not the one in {FIT}); train the member again.")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}, record
    except (ValueError, OSError, EOFError):
        raise ContentError(f"{folder / MEMBER}: not the weights of {record.plan.member}; train the member again.") from None


def read_member(folder: Path) -> tuple[nn.Sequential, FitRecord]:
    """Read a finished member of the seven.

    Raises
    ------
    InputMissingError
        The folder holds no finished run.
    ContentError
        Its files are not what :func:`finish` wrote.
    """
    weights, record = read_weights(folder)
    try:
        network = build(cast(MemberName, record.plan.member), seed=0)
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError):
        raise ContentError(f"{folder / MEMBER}: not the weights of {record.plan.member}; train the member again.") from None
    return network.eval(), record


def write_history(folder: Path, rows: Sequence[HistoryRow]) -> None:
    """Write ``history.parquet``, all rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema(
        pa.field(name, types[field.annotation], nullable=False, metadata={"description": field.description or ""})
        for name, field in HistoryRow.model_fields.items()
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row.model_dump() for row in rows], schema=schema), sink)
    write_atomically(folder / HISTORY, sink.getvalue().to_pybytes())


def best_row(rows: Sequence[HistoryRow]) -> HistoryRow:
    """The row of the lowest validation loss of the last stage, whose weights a run ends with."""
    return min((row for row in rows if row.stage == rows[-1].stage), key=lambda row: row.validation_loss)


def plot_history(folder: Path, rows: Sequence[HistoryRow], title: str) -> None:
    """Draw ``accuracy.png`` and ``loss.png`` against the passes over the training rows.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    best = best_row(rows)
    for file_name, quantity in ((ACCURACY_PLOT, "accuracy"), (LOSS_PLOT, "loss")):
        figure = Figure(figsize=(6.0, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        for part, colour in (("train", "#d55e00"), ("validation", "#0072b2")):
            values = [getattr(row, f"{part}_{quantity}") for row in rows]
            axes.plot([row.epoch for row in rows], values, color=colour, marker=".", label=part.replace("train", "training"))
            axes.plot(best.epoch, getattr(best, f"{part}_{quantity}"), "o", color=colour, markersize=8)
        for before, after in pairwise(rows):
            if before.stage != after.stage:
                axes.axvline(before.epoch, color="#a9b4c0", linewidth=0.8, linestyle=":")
        axes.set(title=f"{title}: {quantity}", xlabel="passes over the training set", ylabel=quantity)
        axes.legend(frameon=False)
        try:
            figure.savefig(folder / file_name, dpi=120, metadata={"Software": None})
        except OSError as error:
            raise OutputError.of(folder / file_name, error) from None


class Standing(Record):
    """How far a run is: ``step`` steps into stage number ``stage``, or ``finished`` with all files written."""

    stage: int = Field(0, ge=0)
    step: int = Field(0, ge=0)
    finished: bool = False

    def beyond(self, other: Standing) -> bool:
        """Whether it is further than another one of the same run."""
        return (self.finished, self.stage, self.step) > (other.finished, other.stage, other.step)


class MirrorRecord(SealedRecord):
    """``state.json``: what the mirror holds of a member's run; ``place``: where below the record its files lie."""

    member: TrainedName
    standing: Standing
    place: str
    sha256: dict[str, str]


class Mirror:
    """One member's run on the mirror: a second place from which it goes on where a machine, or a disk, was lost.

    ``MEMBER/run`` is replaced whole by every :meth:`push`, ``state.json`` last. Scaled images are not mirrored: they are made
    anew of the data.

    Parameters
    ----------
    location
        Of the mirror, which holds the runs of all members.
    member
        Whose run.
    storage
        How object stores are reached.
    """

    def __init__(self, location: str, member: TrainedName, storage: StorageConfig) -> None:
        self.member: TrainedName = member
        self._store: Store = open_store(join(location, member), storage)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other jobs from writing to it; what killed ones left half-written is removed."""
        with held_in_turn(self._store):
            self._store.sweep("", STATE)
            yield

    def pull(self, folder: Path, local: Standing) -> bool:
        """Bring a member's folder to the state of the mirror, if that is further than ``local``.

        Returns
        -------
        bool
            Whether files were brought.

        Raises
        ------
        UsageError
            Folder and mirror hold different runs.
        ContentError
            What the mirror holds is damaged.
        """
        record = self._record()
        if record is None:
            return False
        plan = folder / PLAN
        if plan.exists() and file_sha256(plan) != record.sha256.get(PLAN):
            raise UsageError(
                f"{folder}: holds another training run than its mirror {self._store.root}; choose another --out or --mirror, "
                "or remove one of the two."
            )
        if not record.standing.beyond(local):
            return False
        with writing_to(folder), tempfile.TemporaryDirectory(prefix="scanner-mirror-") as scratch:
            fetched = Path(scratch) / RUN
            self._fetch(record, fetched)
            for name in FILES:
                if name in record.sha256:
                    write_atomically(folder / name, (fetched / name).read_bytes())
        logger.info("%s: goes on from the mirror, stage %d, step %d", self.member, record.standing.stage, record.standing.step)
        return True

    def push(self, folder: Path, standing: Standing) -> None:
        """Put the run's files in the place of those of an earlier state.

        Raises
        ------
        ScannerError
            The mirror cannot be written; it holds the earlier state still.
        """
        names = [name for name in FILES if (folder / name).exists()]
        with self._store.staged(RUN, STATE) as staging:
            for name in names:
                shutil.copyfile(folder / name, staging.path / name)
            sha256 = {name: file_sha256(staging.path / name) for name in names}
            record = MirrorRecord(member=self.member, standing=standing, place=staging.place, sha256=sha256)
            (staging.path / STATE).write_bytes(record.to_bytes())

    def _record(self) -> MirrorRecord | None:
        key = f"{RUN}/{STATE}"
        try:
            record = MirrorRecord.from_bytes(self._store.read(key), key, "train anew")
        except FileNotFoundError:
            return None
        except ContentError:
            raise self._damaged(key) from None
        if record.member != self.member:
            raise self._damaged(key)
        return record

    def _fetch(self, record: MirrorRecord, target: Path) -> None:
        key = "/".join(filter(None, (RUN, record.place)))
        try:
            self._store.fetch(key, target)
        except FileNotFoundError:
            raise self._damaged(key) from None
        for name, expected in record.sha256.items():
            if name not in FILES or not (target / name).is_file() or file_sha256(target / name) != expected:
                raise self._damaged(f"{key}/{name}")

    def _damaged(self, key: str) -> ContentError:
        return ContentError(
            f"{self._store.where(key)}: missing, altered or not of a training run; "
            f"remove {self._store.where(RUN)} to train anew."
        )
