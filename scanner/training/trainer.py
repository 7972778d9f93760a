"""One member's run, step by step.

In: scaled images, truth, split, preset, seed; a plan and a state. Out: the state at the end of the plan, with a checkpoint
after every validation. Refused: nothing; :func:`scanner.training.fit.fit` is the way in.

The loss is the paper's categorical cross-entropy, weighted so that both classes count alike; the weights kept are those of the
lowest validation loss of the stage. Every batch is a pure function of (seed, stage, step).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.cutouts.orientation import augment
from scanner.evaluation.labelled_data import Truth
from scanner.evaluation.metrics import auroc
from scanner.networks import LENS, NON_LENS, build
from scanner.records import (
    MEMBER_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Float32,
    Int64,
    MemberName,
)
from scanner.training import checkpoint
from scanner.training.batches import Feed, draw_orientations
from scanner.training.checkpoint import HistoryRow, Plan, State
from scanner.training.network import CROP_PIXELS, Twin
from scanner.training.presets import Preset, Stage
from scanner.training.scaled import ScaledImages
from scanner.training.split import Split

#: Share of a cycle in which the learning rate rises.
WARM_UP = 0.15
#: Steps timed, after as many untimed, to plan for a time budget.
PROBE_STEPS = 4
VALIDATION_BATCH = 128
Report = Callable[[HistoryRow], None]


def learning_rate(stage: Stage, step: int, steps: int) -> float:
    """Rate of step ``step`` of ``steps``: constant, or linear up for :data:`WARM_UP` and down to 0 by a cosine."""
    if stage.schedule == "constant":
        return stage.learning_rate
    progress = (step + 0.5) / steps
    if progress < WARM_UP:
        return stage.learning_rate * progress / WARM_UP
    return stage.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (progress - WARM_UP) / (1.0 - WARM_UP)))


def class_weights(is_lens: NDArray[np.bool_]) -> torch.Tensor:
    """Weights of (non-lens, lens) with which both classes count alike and the mean weight of a row is 1 (section 3.2)."""
    n, lenses = len(is_lens), int(is_lens.sum())
    weights = torch.empty(2)
    weights[NON_LENS], weights[LENS] = n / (2 * (n - lenses)), n / (2 * lenses)
    return weights


class Trainer:
    """One member's run; see the module's docstring."""

    def __init__(self, images: ScaledImages, truth: Truth, split: Split, member: MemberName, preset: Preset, seed: int) -> None:
        self.images, self.truth, self.split = images, truth, split
        self.member: MemberName = member
        self.preset, self.seed = preset, seed
        bright_enough = ~truth.is_lens | (truth.arc_snr >= preset.min_arc_snr)
        self.rows = split.train[bright_enough[split.train]]
        self.counted = bright_enough[split.validation]
        self.labels = torch.from_numpy(np.where(truth.is_lens, LENS, NON_LENS))
        self.weights = class_weights(truth.is_lens[self.rows])
        self.network: nn.Module = Twin(member, seed=seed) if preset.twin else build(member, seed=seed)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def passes(self, stage: Stage, steps: int) -> float:
        """Passes over the training rows that ``steps`` steps make."""
        return steps * stage.batch / len(self.rows)

    def steps(self, stage: Stage, share: float = 1.0) -> int:
        """Steps of a stage, shortened to ``share``."""
        return max(1, round(share * stage.passes * len(self.rows) / stage.batch))

    def begin(self, stage: Stage) -> torch.optim.Optimizer:
        """Freeze what the stage freezes and make its optimiser; normalisation and biases are not decayed."""
        if isinstance(self.network, Twin):
            self.network.freeze(stage.frozen)
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.preset.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=stage.learning_rate)

    def feed(self, stage: Stage) -> Feed:
        """The images of a stage."""
        side = MEMBER_PIXELS[self.member]
        return Feed(self.images, self.member, CROP_PIXELS[side] if stage.cropped else side)

    def shifts(self, feed: Feed, rows: Int64) -> Int64:
        """Shifts (n, 2) that centre a crop on its object, whatever its class; a full image has no room to move."""
        scale = VIS_PIXEL_SCALE_ARCSEC if feed.side == VIS_CUTOUT_PIXELS else NISP_PIXEL_SCALE_ARCSEC
        return np.asarray(np.rint(self.truth.position[rows] / scale), dtype=np.int64)

    def batch(self, feed: Feed, number: int, stage: Stage, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels of one step."""
        size = min(stage.batch, len(self.rows))
        per_pass = len(self.rows) // size
        order = np.random.default_rng((self.seed, number, step // per_pass)).permutation(len(self.rows))
        start = step % per_pass * size
        rows = np.sort(self.rows[order[start : start + size]])
        jitter = np.random.default_rng((self.seed, number, step, 1)).integers(-stage.jitter, stage.jitter + 1, (len(rows), 2))
        images = feed.read(rows, self.shifts(feed, rows) + jitter)
        if self.preset.augment:
            images = augment(images, draw_orientations(len(rows), (self.seed, number, step, 2)))
        return torch.from_numpy(images).contiguous(memory_format=torch.channels_last), self.labels[rows]

    def step(self, optimiser: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
        """One step of the optimiser; the loss before it."""
        optimiser.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.network(images), labels, self.weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if isinstance(self.network, Twin):
            self.network.constrain()
        return float(loss.detach())

    def validate(self, feed: Feed) -> tuple[float, float, float]:
        """Validation loss over the rows that the training would use, AUROC over all and over visible lenses."""
        log_odds = self.log_odds(feed, self.split.validation)
        is_lens = self.truth.is_lens[self.split.validation]
        visible = ~is_lens | self.truth.visible[self.split.validation]
        counted = torch.from_numpy(log_odds[self.counted]).double()
        logits = torch.zeros(len(counted), 2, dtype=torch.float64)
        logits[:, LENS] = counted
        labels = self.labels[self.split.validation[self.counted]]
        loss = nn.functional.cross_entropy(logits, labels, self.weights.double())
        return float(loss), auroc(log_odds, is_lens), auroc(log_odds[visible], is_lens[visible])

    def log_odds(self, feed: Feed, rows: Int64) -> Float32:
        """Lens log-odds of ``rows``, (n,) float32, in evaluation mode."""
        self.network.eval()
        answers = []
        with torch.inference_mode():
            for start in range(0, len(rows), VALIDATION_BATCH):
                part = rows[start : start + VALIDATION_BATCH]
                images = torch.from_numpy(feed.read(part, self.shifts(feed, part)))
                logits = self.network(images.contiguous(memory_format=torch.channels_last))
                answers.append((logits[:, LENS] - logits[:, NON_LENS]).numpy())
        self.network.train()
        return np.concatenate(answers)

    def share_of_budget(self, seconds: float) -> float:
        """Share of the preset's passes that fits in ``seconds``, at most 1, from a few timed steps of every stage."""
        trained = copy.deepcopy(self.network.state_dict())
        needed = 0.0
        for number, stage in enumerate(self.preset.stages(self.member)):
            optimiser, feed = self.begin(stage), self.feed(stage)
            self.network.train()
            for step in range(2 * PROBE_STEPS):
                if step == PROBE_STEPS:
                    started = time.monotonic()
                self.step(optimiser, *self.batch(feed, number, stage, step))
            needed += (time.monotonic() - started) / PROBE_STEPS * self.steps(stage)
        self.network.load_state_dict(trained)
        return min(1.0, seconds / needed)

    def run(self, plan: Plan, folder: Path, state: State, report: Report) -> None:
        """Train from ``state`` to the end of the plan; ``state`` and the network are changed."""
        if state.network:
            self.network.load_state_dict(state.network)
        stages = self.preset.stages(self.member)
        while state.stage < len(stages):
            self._run_stage(stages[state.stage], plan.steps[state.stage], folder, state, report)
            self.network.load_state_dict(state.best)
            state.stage += 1
            state.step, state.best_loss, state.without_gain = 0, math.inf, 0
            state.network, state.optimiser = copy.deepcopy(self.network.state_dict()), {}
            checkpoint.save(folder, state)

    def _run_stage(self, stage: Stage, steps: int, folder: Path, state: State, report: Report) -> None:
        optimiser, feed = self.begin(stage), self.feed(stage)
        if state.optimiser:
            optimiser.load_state_dict(state.optimiser)
        self.network.train()
        losses: list[float] = []
        earlier, started = state.seconds, time.monotonic()
        for end in validation_steps(steps, stage.validations):
            while state.step < end:
                rate = learning_rate(stage, state.step, steps)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                torch.manual_seed(int(np.random.SeedSequence((self.seed, state.stage, state.step, 3)).generate_state(1)[0]))
                losses.append(self.step(optimiser, *self.batch(feed, state.stage, stage, state.step)))
                state.step += 1
            if not losses:
                continue
            loss, auroc_all, auroc_visible = self.validate(feed)
            state.passes += self.passes(stage, len(losses))
            state.seconds = earlier + time.monotonic() - started
            row = HistoryRow(
                stage=stage.name,
                step=state.step,
                passes=state.passes,
                learning_rate=rate,
                train_loss=float(np.mean(losses)),
                validation_loss=loss,
                auroc=auroc_all,
                auroc_visible=auroc_visible,
                seconds=state.seconds,
            )
            losses = []
            state.history.append(checkpoint.history_row(row))
            state.without_gain += 1
            if loss < state.best_loss:
                state.best_loss, state.without_gain = loss, 0
                state.best = copy.deepcopy(self.network.state_dict())
            state.network, state.optimiser = self.network.state_dict(), optimiser.state_dict()
            checkpoint.save(folder, state)
            report(row)
            if self.preset.patience is not None and state.without_gain >= self.preset.patience:
                return


def validation_steps(steps: int, validations: int) -> Iterator[int]:
    """Steps after which to validate: evenly spread, the last at the end."""
    last = 0
    for number in range(1, validations + 1):
        end = round(steps * number / validations)
        if end > last:
            yield end
            last = end
