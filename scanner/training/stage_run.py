"""One member's run, stage by stage: steps, validations, checkpoints, and the clock.

In: a trainer, a plan, the state where the run stands. Out: the state at the end of the plan, with a checkpoint after every
validation, every minute, and when the run is interrupted. Raised: KeyboardInterrupt, once SIGTERM or SIGINT came and all is
saved.

The weights kept are those of the lowest validation loss of the stage. Without a time budget a run is a pure function of its
plan; with one, the number of steps follows the clock: after every validation the rest of the stage is fitted into what is
left of its time, and the schedule of the learning rate runs to its end all the same.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from scanner.errors import UsageError
from scanner.training import checkpoint
from scanner.training.checkpoint import Plan, State
from scanner.training.history import HistoryRow
from scanner.training.interruption import Interruption
from scanner.training.presets import Stage
from scanner.training.trainer import Trainer, learning_rate

#: Seconds between checkpoints within a stage.
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Reports:
    """Whom a run tells of its progress; all are called in its own thread.

    ``stepped``: after every step, with the share of the planned steps that are made and the number of objects of this one.
    ``saved``: once a checkpoint is on the disk. ``validated``: after that, with the whole history, after every validation.
    """

    stepped: Callable[[float, State, int], None] = lambda share, state, n_objects: None
    saved: Callable[[State], None] = lambda state: None
    validated: Callable[[tuple[HistoryRow, ...]], None] = lambda rows: None


SILENT = Reports()


def run_stages(trainer: Trainer, plan: Plan, stages: tuple[Stage, ...], folder: Path, state: State, reports: Reports) -> None:
    """Train from ``state`` to the end of the plan.

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
        Whom to tell.

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
        state.total = state.total or plan.steps[state.stage]
        self.counted_to = trainer.clock()

    def run(self) -> None:
        """Go to the end of the stage."""
        trainer, state = self.trainer, self.state
        trainer.network.train()
        saved = time.monotonic()
        while state.step < state.total and not self._out_of_patience():
            before = state.progress
            self._step()
            if state.step == state.total or _passed(before, state.progress, self.stage.validations):
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
        images, target = trainer.batch(self.feed, state.stage, self.stage, state.step)
        loss, n_correct = trainer.step(self.optimiser, images, target)
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


def _passed(before: float, after: float, validations: int) -> bool:
    """Whether the progress passed one of the evenly spread points at which to validate; the end is not one of them."""
    return math.floor(before * validations + 1e-9) < math.floor(after * validations + 1e-9) < validations
