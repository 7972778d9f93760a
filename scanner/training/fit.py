"""Trains one member stage by stage, or goes on where a run was stopped, bit for bit where there is no time budget."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from scanner.errors import UsageError
from scanner.records import MemberName
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord, HistoryRow, Kept, Plan, State, best_row
from scanner.training.data import Labels, ScaledImages, Split
from scanner.training.presets import RESIDUAL, Beginning, Precision, Preset, Stage, TrainedName
from scanner.training.residual import ResidualTrainer
from scanner.training.trainer import Trainer, Validation, fastest_precision, keep_freed_memory, learning_rate, usable_device
from scanner.training.twin import Twin, fold, mean_of, renormalise, transplant, unfold

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds between checkpoints within a stage.
SAVE_SECONDS = 60.0
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
        """Which of the preset's stages apply."""
        return "bundle" if self.network is not None else "copy"


@dataclass(frozen=True)
class FitRequest:
    """What to train, and how.

    ``dataset_sha256``: fingerprint of the data. ``time_budget``: seconds the run should take; the preset's passes are cut to
    fit, never extended. None: all of them. ``start``: None for He-initialised weights. ``threads``: of torch. ``clock``: what
    counts the budget; the process's own time makes runs comparable on a machine that has other work too.
    """

    member: TrainedName
    preset: Preset
    seed: int
    dataset_sha256: str
    time_budget: float | None = None
    start: Start | None = None
    threads: int = 1
    device: str = "cpu"
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Reports:
    """What a run calls as it makes progress, in its own thread.

    ``stepped``: after every step, with the share of the planned steps that are made and the number of objects of this one.
    ``saved``: once a checkpoint is on the disk. ``validated``: after that, with the whole history, after every validation.
    """

    stepped: Callable[[float, State, int], None] = lambda share, state, n_objects: None
    saved: Callable[[State], None] = lambda state: None
    validated: Callable[[tuple[HistoryRow, ...]], None] = lambda rows: None


SILENT = Reports()


def fit(
    images: ScaledImages,
    labels: Labels,
    split: Split,
    request: FitRequest,
    folder: Path,
    reports: Reports = SILENT,
) -> tuple[nn.Module, FitRecord]:
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
        Called as the run makes progress.

    Returns
    -------
    torch.nn.Module, FitRecord
        The member as :func:`scanner.networks.build` has it, or the residual network, in evaluation mode, and the record of the
        run.

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
    precision = wanted_precision(preset, device) if begun is None else begun.precision
    settings = preset, request.seed, device, request.clock, precision
    if member == RESIDUAL:
        trainer: Trainer = ResidualTrainer(images, labels, split, "OU-200", *settings)
    else:
        trainer = Trainer(images, labels, split, member, *settings)
    if not trainer.can_validate:
        raise UsageError(
            f"{len(labels)} objects are too few to train on: the validation rows ({preset.shares.validation:.0%}) need visible "
            "lenses and non-lenses; draw more."
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
    best = best_row(state.rows)
    kept: Kept = "trained"
    found = best.validation_loss, best.auroc, best.auroc_visible
    if start is not None and start.network is not None and preset.share_of_bundle and isinstance(folded, nn.Sequential):
        folded, of_kept, kept = best_of_both(trainer, stages[-1], start.network, folded)
        found = of_kept.loss, of_kept.auroc, of_kept.auroc_visible
    record = FitRecord(
        plan=plan,
        passes=state.passes,
        seconds=state.seconds,
        threads=request.threads,
        device=request.device,
        history=state.rows,
        kept=kept,
        validation_loss=found[0],
        validation_auroc=found[1],
        validation_auroc_visible=found[2],
    )
    return folded, checkpoint.finish(folder, folded, record)


def wanted_precision(preset: Preset, device: torch.device) -> Precision:
    """What convolutions are computed in: what the preset says, or what is fastest on the device."""
    return "float32" if preset.precision == "float32" else fastest_precision(device)


def best_of_both(
    trainer: Trainer, stage: Stage, begun: nn.Sequential, ended: nn.Sequential
) -> tuple[nn.Sequential, Validation, Kept]:
    """A bundle's network, what it was trained to, or the mean of their weights, whichever loses least once it is calibrated.

    After a few passes the mean is the best one; after many there is a ridge between the two. A network that was at its end
    stays as it was. On another sky all log-odds of the bundle's network are shifted: the calibration will mend that, and a
    network that has learnt nothing but the shift tells lenses from others no better.

    Parameters
    ----------
    trainer, stage
        What validates, on the images of that stage; the trainer's network is replaced.
    begun, ended
        The bundle's network, and the trained one.

    Returns
    -------
    torch.nn.Sequential, Validation, Kept
        The best of the three, ``ended`` where all are alike; its figures; which one it is.
    """
    candidates: dict[Kept, nn.Sequential] = {
        "trained": ended,
        "mean": mean_of(begun, ended, trainer.preset.share_of_bundle),
        "bundle": begun,
    }
    found, feed = {}, trainer.feed(stage)
    for name, network in candidates.items():
        trainer.network = copy.deepcopy(network).to(trainer.device)
        found[name] = trainer.validate(feed)
    best = min(found, key=lambda name: found[name].calibrated_loss)
    return candidates[best], found[best], best


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


def run_stages(trainer: Trainer, plan: Plan, stages: tuple[Stage, ...], folder: Path, state: State, reports: Reports) -> None:
    """Train from ``state`` to the end of the plan, with a checkpoint after every validation and every minute.

    The weights kept are those of the lowest validation loss of the stage. Without a time budget a run is a pure function of its
    plan. With one, the number of steps follows the clock: after every validation the rest of the stage is fitted into what is
    left of its time, and the schedule of the learning rate runs to its end all the same.

    Parameters
    ----------
    trainer
        Its network ends with the weights kept.
    plan, stages
        What is to be done.
    folder
        Of the checkpoints.
    state
        Where the run stands; changed in place.
    reports
        Called as the run makes progress.

    Raises
    ------
    KeyboardInterrupt
        SIGTERM or SIGINT came; the run has been saved.
    """
    # A head that an earlier stage wrote out is in the state as it is now.
    for stage in stages[: state.stage]:
        trainer.begin(stage)
    with Interruption() as interruption:
        while state.stage < len(stages):
            _StageRun(trainer, plan, stages[state.stage], folder, state, reports, interruption).run()
    trainer.network.load_state_dict(state.network)


#: Validations that a stage has however much a time budget shortens it.
FEW_VALIDATIONS = 10


class _StageRun:
    """What is left of the stage that ``state`` stands in."""

    def __init__(
        self,
        trainer: Trainer,
        plan: Plan,
        stage: Stage,
        folder: Path,
        state: State,
        reports: Reports,
        interruption: Interruption,
    ) -> None:
        self.trainer, self.plan, self.folder, self.state = trainer, plan, folder, state
        self.stage, self.reports, self.interruption = stage, reports, interruption
        # A stage begins with the weights of the one before it, in the form that they had there.
        if state.network and state.step == 0:
            trainer.network.load_state_dict(state.network)
        self.optimiser, self.feed = trainer.begin(self.stage), trainer.feed(self.stage)
        if state.step > 0:
            trainer.network.load_state_dict(state.network)
            self.optimiser.load_state_dict(state.optimiser)
        planned = plan.steps[state.stage]
        self.validations = _validations(stage, planned / trainer.steps(stage))
        state.total = state.total or planned
        self.counted_to = trainer.clock()

    def run(self) -> None:
        """Go to the end of the stage."""
        trainer, state = self.trainer, self.state
        trainer.network.train()
        saved = time.monotonic()
        while state.step < state.total and not self._out_of_patience():
            before = state.progress
            self._step()
            if state.step == state.total or _passed(before, state.progress, self.validations):
                self._validate()
                saved = time.monotonic()
            elif self.interruption.asked or time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            if self.interruption.asked:
                raise KeyboardInterrupt
        trainer.network.load_state_dict(state.best)
        state.stage += 1
        state.step, state.total, state.progress, state.stage_seconds = 0, 0, 0.0, 0.0
        state.best, state.best_loss, state.without_gain = {}, math.inf, 0
        state.network, state.optimiser = copy.deepcopy(trainer.network.state_dict()), {}
        self._write()

    def _out_of_patience(self) -> bool:
        patience = self.trainer.preset.patience
        return patience is not None and self.state.without_gain >= patience

    def _step(self) -> None:
        trainer, state = self.trainer, self.state
        increment = (1.0 - state.progress) / (state.total - state.step)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.stage, state.progress + 0.5 * increment)
        # Dropout draws from torch's own generator.
        torch.manual_seed(int(np.random.SeedSequence((trainer.seed, state.stage, state.step, 3)).generate_state(1)[0]))
        images, target, weight = trainer.batch(self.feed, state.stage, self.stage, state.step)
        loss, n_correct = trainer.step(self.optimiser, images, target, weight)
        state.step += 1
        state.progress += increment
        state.loss_sum, state.n_correct = state.loss_sum + loss, state.n_correct + n_correct
        state.n_steps, state.n_seen = state.n_steps + 1, state.n_seen + len(target)
        state.passes += trainer.passes(self.stage, 1)
        self.reports.stepped(self._share(), state, len(target))

    def _share(self) -> float:
        """Share of the plan that is done; with a time budget, steps that were planned and will not be made count as made."""
        steps, stage = self.plan.steps, self.state.stage
        return min(1.0, (sum(steps[:stage]) + self.state.progress * steps[stage]) / sum(steps))

    def _write(self) -> None:
        checkpoint.save(self.folder, self.state)
        self.reports.saved(self.state)

    def _save(self) -> None:
        now = self.trainer.clock()
        self.state.seconds += now - self.counted_to
        self.state.stage_seconds += now - self.counted_to
        self.counted_to = now
        self.state.network, self.state.optimiser = self.trainer.network.state_dict(), self.optimiser.state_dict()
        self._write()

    def _validate(self) -> None:
        trainer, state = self.trainer, self.state
        found = trainer.validate(self.feed)
        if not math.isfinite(found.loss):
            raise UsageError(
                f"{self.folder}: the training diverged, its loss is no number after {state.passes:.2f} passes; train with "
                "another preset or seed into another folder."
            )
        state.without_gain += 1
        if found.loss < state.best_loss or not state.best:
            state.best_loss, state.without_gain = found.loss, 0
            state.best = copy.deepcopy(trainer.network.state_dict())
        row = HistoryRow(
            stage=self.stage.name,
            step=state.step,
            epoch=state.passes,
            seconds=state.seconds + trainer.clock() - self.counted_to,
            learning_rate=self.optimiser.param_groups[0]["lr"],
            train_loss=state.loss_sum / state.n_steps,
            train_accuracy=state.n_correct / state.n_seen,
            validation_loss=found.loss,
            validation_accuracy=found.accuracy,
            auroc=found.auroc,
            auroc_visible=found.auroc_visible,
        )
        state.history.append(row.model_dump())
        state.loss_sum, state.n_correct, state.n_steps, state.n_seen = 0.0, 0, 0, 0
        self._save()
        if self.plan.seconds is not None and state.step < state.total:
            self._replan(self.plan.seconds)
        self.reports.validated(state.rows)

    def _replan(self, seconds: tuple[float, ...]) -> None:
        """Set the number of steps by the time that is left for this stage, within the passes of the preset."""
        state = self.state
        left = sum(seconds[: state.stage + 1]) - state.seconds
        affordable = max(1, int(left / (state.stage_seconds / state.step)))
        most = max(1, self.trainer.steps(self.stage) - state.step)
        state.total = state.step + min(affordable, most)


def _validations(stage: Stage, share: float) -> int:
    """Validations of a stage of which a time budget leaves a share: one a pass would take more time than few passes do."""
    return max(round(stage.validations * share), min(stage.validations, FEW_VALIDATIONS))


def _passed(before: float, after: float, validations: int) -> bool:
    """Whether the progress passed one of the evenly spread points at which to validate; the end is not one of them."""
    return math.floor(before * validations + 1e-9) < math.floor(after * validations + 1e-9) < validations


class Interruption:
    """Takes SIGTERM and Ctrl-C as a request: the step is finished and the run saved; ``asked``: whether one came.

    Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
