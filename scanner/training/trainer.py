"""One member in training: where torch computes, how exactly and with which memory; what is fed, one step, one validation."""

from __future__ import annotations

import copy
import ctypes
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import nn

from scanner.ensemble.preprocessing import MINMAX_FLOOR, ORIENTATIONS, resize_matrix
from scanner.errors import UsageError
from scanner.evaluation.metrics import auroc
from scanner.networks import LENS, NON_LENS, build
from scanner.records import (
    BANDS,
    MEMBER_BANDS,
    MEMBER_PIXELS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    Float32,
    Float64,
    Int64,
    MemberName,
)
from scanner.training.data import SHAPES, Labels, ScaledImages, Split
from scanner.training.presets import Precision, Preset, Stage
from scanner.training.twin import LAYOUTS, Twin

#: What torch calls the instructions of a CPU that multiply bfloat16, in tiles and in vectors.
MULTIPLIES_BFLOAT16 = ("amx_bf16", "avx512_bf16")


def usable_device(name: str) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``, once something was computed on it.

    Raises
    ------
    UsageError
        There is no such device: to train on the CPU unasked would take far longer than it was meant to.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--device {name}: torch cannot compute there ({reason}); name another, or run where there is a GPU and its driver."
        ) from None
    return device


def fastest_precision(device: torch.device) -> Precision:
    """Return ``bfloat16`` where it is multiplied in hardware (GPUs, CPUs with AMX or AVX-512 BF16): twice as fast."""
    if device.type == "cpu" and not any(torch.cpu.get_capabilities().get(name) for name in MULTIPLIES_BFLOAT16):
        return "float32"
    return "bfloat16"


#: ``mallopt`` parameters of glibc's malloc.h: trim threshold, top padding, mmap threshold; bytes.
SETTINGS = ((-1, 2**31 - 1), (-2, 2**28), (-3, 2**30))


def keep_freed_memory() -> bool:
    """Raise glibc's mmap and trim thresholds for this process, so that it keeps freed memory; True if that was possible.

    A training step's feature maps are large, alike every time, and costly to map anew: with it, 26 images a second instead of
    14 on one core (OU-VIS, 200 pixels).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in SETTINGS)


#: Share of a cycle in which the learning rate rises.
WARM_UP = 0.15
#: Steps timed, after one untimed, to plan for a time budget.
PROBE_STEPS = 2
VALIDATION_BATCH = 128


class Trainer:
    """The network of one member, what it is fed, and its loss; :func:`scanner.training.fit.fit` drives it.

    The loss is the paper's categorical cross-entropy, weighted so that both classes count alike, and by the weights of the
    labels. Every batch is a pure function
    of (seed, stage, step), so that a resumed run sees what an uninterrupted one does.

    Raises
    ------
    UsageError
        The training rows are of one class.
    """

    def __init__(
        self,
        images: ScaledImages,
        labels: Labels,
        split: Split,
        member: MemberName,
        preset: Preset,
        seed: int,
        device: torch.device | None = None,
        clock: Callable[[], float] = time.monotonic,
        precision: Precision = "float32",
    ) -> None:
        self.clock = clock
        self.precision: Precision = precision
        self.images, self.labels = images, labels
        self.member: MemberName = member
        self.preset, self.seed = preset, seed
        self.device = device or torch.device("cpu")
        # NaN: a person saw the arcs of this lens, which are not measured.
        bright_enough = ~(labels.is_lens & (labels.arc_snr < preset.min_arc_snr))
        # Who sees one band learns nothing where it is missing; who sees several learns to do without.
        without = np.all(labels.missing[:, [BANDS.index(band) for band in MEMBER_BANDS[member]]], axis=1)
        seen: NDArray[np.bool_] = np.asarray(~without, dtype=np.bool_)
        self.rows = split.train[(bright_enough & seen & (labels.weight > 0))[split.train]]
        validation = split.validation[seen[split.validation]]
        self.validation = validation[:: max(1, -(-len(validation) // preset.validation_rows))]
        self.counted = (bright_enough & (labels.weight > 0))[self.validation]
        if len(np.unique(labels.is_lens[self.rows])) < 2:
            raise UsageError(
                f"{len(labels)} objects are too few to train on: among the rows to train on ({preset.shares.train:.0%}) must "
                f"be non-lenses, and lenses whose arcs have a signal-to-noise ratio of {preset.min_arc_snr:g}; draw more."
            )
        self.target = torch.from_numpy(np.where(labels.is_lens, LENS, NON_LENS))
        self.row_weight = torch.from_numpy(labels.weight)
        self.weights = class_weights(labels.is_lens[self.rows], labels.weight[self.rows]).to(self.device)
        self.network = self._network()
        self._order: tuple[tuple[int, ...], Int64] | None = None

    def _network(self) -> nn.Module:
        network: nn.Module
        if self.preset.twin:
            network = Twin(
                self.member,
                seed=self.seed,
                dropout=self.preset.dropout,
                tied=self.preset.tied,
                batch_norm=self.preset.batch_norm,
            )
        else:
            network = build(self.member, seed=self.seed, dropout=self.preset.dropout)
        return network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def can_validate(self) -> bool:
        """Whether the validation rows hold non-lenses and lenses whose arcs can be seen."""
        is_lens = self.labels.is_lens[self.validation]
        return bool((~is_lens).any() and self.labels.visible[self.validation].any())

    def passes(self, stage: Stage, steps: int) -> float:
        """Passes over the training rows that ``steps`` steps make."""
        return steps * stage.batch / len(self.rows)

    def steps(self, stage: Stage, share: float = 1.0) -> int:
        """Steps of a stage, shortened to ``share``."""
        return max(1, round(share * stage.passes * len(self.rows) / stage.batch))

    def begin(self, stage: Stage) -> torch.optim.Optimizer:
        """Expand and freeze what the stage wants and make its optimiser; normalisation and biases are not decayed."""
        if isinstance(self.network, Twin):
            if stage.expanded:
                self.network.expand()
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
        return Feed(self.images, self.member, LAYOUTS[side].crop_pixels if stage.cropped else side, self.device)

    def shifts(self, feed: Feed, rows: Int64) -> Int64:
        """Shifts (n, 2) that centre a crop on its object, whatever its class; a full image has no room to move."""
        scale = VIS_PIXEL_SCALE_ARCSEC if feed.side == VIS_CUTOUT_PIXELS else NISP_PIXEL_SCALE_ARCSEC
        return np.asarray(np.rint(self.labels.position[rows] / scale), dtype=np.int64)

    def batch(self, feed: Feed, number: int, stage: Stage, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images, labels and the labels' weights of one step."""
        size = min(stage.batch, len(self.rows))
        per_pass = len(self.rows) // size
        key = (self.seed, number, step // per_pass)
        if self._order is None or self._order[0] != key:
            self._order = key, np.random.default_rng(key).permutation(len(self.rows))
        start = step % per_pass * size
        rows = np.sort(self.rows[self._order[1][start : start + size]])
        jitter = np.random.default_rng((self.seed, number, step, 1)).integers(-stage.jitter, stage.jitter + 1, (len(rows), 2))
        images = feed.read(rows, self.shifts(feed, rows) + jitter)
        if self.preset.augment:
            images = turn(images, draw_orientations(len(rows), (self.seed, number, step, 2)))
        chosen = torch.from_numpy(rows)
        target, weight = (values[chosen].to(self.device) for values in (self.target, self.row_weight))
        return images.contiguous(memory_format=torch.channels_last), target, weight

    def step(
        self, optimiser: torch.optim.Optimizer, images: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
    ) -> tuple[float, int]:
        """One step of the optimiser; the loss before it, and how many were right."""
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            outputs: torch.Tensor = self.network(images)
        logits = outputs.float()
        loss = weighted_loss(logits, target, self.weights, weight)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if isinstance(self.network, Twin):
            self.network.constrain()
        return float(loss.detach()), int((logits.detach().argmax(dim=1) == target).sum())

    def log_odds(self, feed: Feed, rows: Int64) -> Float32:
        """Lens log-odds of ``rows``, (n,) float32, in evaluation mode and, as in the exported graph, in float32."""
        self.network.eval()
        answers = []
        with torch.inference_mode():
            for start in range(0, len(rows), VALIDATION_BATCH):
                part = rows[start : start + VALIDATION_BATCH]
                images = feed.read(part, self.shifts(feed, part))
                logits = self.network(images.contiguous(memory_format=torch.channels_last))
                answers.append((logits[:, LENS] - logits[:, NON_LENS]).cpu().numpy())
        self.network.train()
        return np.concatenate(answers)

    def validate(self, feed: Feed) -> Validation:
        """How good the network is by the validation rows."""
        log_odds = self.log_odds(feed, self.validation)
        is_lens = self.labels.is_lens[self.validation]
        visible = ~is_lens | self.labels.visible[self.validation]
        counted = torch.from_numpy(log_odds[self.counted]).double()
        logits = torch.zeros(len(counted), 2, dtype=torch.float64)
        logits[:, LENS] = counted
        target = self.target[torch.from_numpy(self.validation[self.counted])]
        weight = self.row_weight[torch.from_numpy(self.validation[self.counted])].double()
        loss = weighted_loss(logits, target, self.weights.double().cpu(), weight)
        accuracy = float(((log_odds > 0) == is_lens)[self.counted].mean())
        return Validation(
            loss=float(loss),
            accuracy=accuracy,
            auroc=auroc(log_odds, is_lens),
            auroc_visible=auroc(log_odds[visible], is_lens[visible]),
            calibrated_loss=calibrated_loss(log_odds[self.counted], is_lens[self.counted]),
        )

    def seconds_needed(self, stages: tuple[Stage, ...]) -> list[float]:
        """Seconds that all passes of every stage would take, from a few timed steps; the network is left as it was."""
        trained = copy.deepcopy(self.network)
        needed = []
        for number, stage in enumerate(stages):
            optimiser, feed = self.begin(stage), self.feed(stage)
            self.network.train()
            started = 0.0
            for step in range(1 + PROBE_STEPS):
                if step == 1:
                    started = self.clock()
                self.step(optimiser, *self.batch(feed, number, stage, step))
            needed.append((self.clock() - started) / PROBE_STEPS * self.steps(stage))
        self.network = trained
        return needed


@dataclass(frozen=True)
class Validation:
    """How good a network is: ``loss`` and ``accuracy`` at 0.5 over the validation rows that training would use.

    ``auroc``: over all validation rows. ``auroc_visible``: without lenses whose arcs cannot be seen. ``calibrated_loss``: see
    :func:`calibrated_loss`.
    """

    loss: float
    accuracy: float
    auroc: float
    auroc_visible: float
    calibrated_loss: float


def calibrated_loss(log_odds: Float32, is_lens: NDArray[np.bool_]) -> float:
    """Cross-entropy of log-odds (n,) after the scale and the shift that are best for it, both classes counting alike.

    Infinite where a log-odds is not finite.
    """
    if not np.isfinite(log_odds).all():
        return math.inf
    sign, weight = np.where(is_lens, -1.0, 1.0), np.where(is_lens, 0.5 / is_lens.mean(), 0.5 / (~is_lens).mean())
    values = (log_odds - log_odds.mean()) / max(float(log_odds.std()), 1e-6)

    def loss(line: Float64) -> float:
        return float(np.mean(weight * np.logaddexp(0.0, sign * (line[0] * values + line[1]))) + 1e-6 * line @ line)

    return float(minimize(loss, (1.0, 0.0)).fun)


def learning_rate(stage: Stage, progress: float) -> float:
    """Rate at ``progress`` (0 to 1): constant, or linear up for :data:`WARM_UP` and down to 0 by a cosine."""
    if stage.schedule == "constant":
        return stage.learning_rate
    return warmed_up(stage.learning_rate, progress, WARM_UP)


def warmed_up(highest: float, progress: float, warm_up: float) -> float:
    """Rate at ``progress`` (0 to 1): linear up to ``highest`` for ``warm_up``, and down to 0 by a cosine."""
    if progress < warm_up:
        return highest * progress / warm_up
    return highest * 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def weighted_loss(logits: torch.Tensor, target: torch.Tensor, classes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of (n, 2) logits; a row counts by the weight of its class times its own."""
    counts = classes[target] * weight
    return (counts * nn.functional.cross_entropy(logits, target, reduction="none")).sum() / counts.sum()


def class_weights(is_lens: NDArray[np.bool_], weight: Float32) -> torch.Tensor:
    """Weights of (non-lens, lens) with which both classes count alike and the mean weight of a row is 1 (section 3.2).

    ``weight``: (n,) of the rows' labels.
    """
    n, lenses = float(weight.sum(dtype=np.float64)), float(weight[is_lens].sum(dtype=np.float64))
    weights = torch.empty(2)
    weights[NON_LENS], weights[LENS] = n / (2 * (n - lenses)), n / (2 * lenses)
    return weights


class Feed:
    """Reads windows of one member's input, full images or central crops.

    Parameters
    ----------
    images
        The scaled images; moved to ``device`` as a whole if they are not there (115 kB an object).
    member
        Whose bands, order and size.
    pixels
        Side of the window in the member's pixels: its full side, or a central crop.
    device
        Where windows are cut and turned.
    """

    def __init__(self, images: ScaledImages, member: MemberName, pixels: int, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.preprocessing = images.preprocessing
        arrays = {name: getattr(images, name) for name in SHAPES}
        self.images: dict[str, torch.Tensor] = {
            name: (array if isinstance(array, torch.Tensor) else torch.from_numpy(array)).to(self.device)
            for name, array in arrays.items()
        }
        self.member: MemberName = member
        self.side = MEMBER_PIXELS[member]
        self.pixels = pixels
        stride = LAYOUTS[self.side].crop_stride
        #: First row and column of the window, at a whole multiple of the twin's pooling.
        self.start = (self.side - pixels) // 2 // stride * stride
        matrix = resize_matrix(NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS).astype(np.float32)
        self.enlarge = torch.from_numpy(matrix).to(self.device)

    def read(self, rows: Int64, shifts: Int64 | None = None) -> torch.Tensor:
        """Windows of ``rows``.

        Parameters
        ----------
        rows
            (n,) row numbers.
        shifts
            (n, 2) pixels (y, x) by which each window is moved off the centre, as far as the image reaches; None: not at all.

        Returns
        -------
        torch.Tensor
            (n, channels, pixels, pixels) float32.
        """
        moved = np.zeros((len(rows), 2), dtype=np.int64) if shifts is None else shifts
        starts = np.clip(self.start + moved, 0, self.side - self.pixels)
        lines = torch.from_numpy(starts[:, :, None] + np.arange(self.pixels)).to(self.device)
        chosen = torch.from_numpy(rows).to(self.device)
        return torch.stack([self._band(band, chosen, lines) for band in MEMBER_BANDS[self.member]], dim=1)

    def _band(self, band: Band, rows: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
        if band == "VIS":
            return self._windows(self.images["vis" if self.side == VIS_CUTOUT_PIXELS else "vis66"], rows, lines)
        source = self.images["nisp"][:, NISP_BANDS.index(band)]
        if self.side == NISP_CUTOUT_PIXELS:
            return self._windows(source, rows, lines)
        enlarged = self.enlarge[lines[:, 0]] @ source[rows].float() @ self.enlarge[lines[:, 1]].transpose(1, 2)
        if self.preprocessing == "minmax":
            # The paper scaled after resizing; a second min-max of min-max scaled pixels is that of the pixels themselves.
            low, high = enlarged.amin(dim=(1, 2), keepdim=True), enlarged.amax(dim=(1, 2), keepdim=True)
            return (enlarged - low) / (high - low).clamp(min=MINMAX_FLOOR)
        return enlarged

    def _windows(self, source: torch.Tensor, rows: torch.Tensor, lines: torch.Tensor) -> torch.Tensor:
        if self.pixels == self.side:
            return source[rows].float()
        return source[rows[:, None, None], lines[:, 0, :, None], lines[:, 1, None, :]].float()


def draw_orientations(n: int, seed: tuple[int, ...]) -> Int64:
    """Draw ``n`` orientations, (n,) int64 in 0..7, uniform, whatever the labels are.

    Real PSFs are not round. A network that saw one class turned and the other not would learn the PSF's angle (section 3.2).
    """
    return np.random.default_rng(seed).integers(0, ORIENTATIONS, n)


def turn(images: torch.Tensor, orientations: Int64) -> torch.Tensor:
    """Turn image ``i`` of (n, ..., p, p) as :func:`scanner.ensemble.preprocessing.turn` does; a new tensor."""
    turned = torch.empty_like(images)
    for orientation in range(ORIENTATIONS):
        chosen = torch.from_numpy(np.flatnonzero(orientations == orientation)).to(images.device)
        part = images[chosen]
        if orientation >= 4:
            part = part.flip(-1)
        turned[chosen] = torch.rot90(part, orientation % 4, dims=(-2, -1))
    return turned
