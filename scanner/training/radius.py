"""Trains the network that sees Einstein radii (:mod:`scanner.modelling.radius_network`); writes it with manifest and card."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from scanner.atomic_file import write_atomically
from scanner.ensemble.preprocessing import ORIENTATIONS
from scanner.errors import ContentError, OutputError, UsageError
from scanner.modelling.radius_network import (
    BINS,
    CARD,
    HIGHEST_ARCSEC,
    LOWEST_ARCSEC,
    MANIFEST,
    NEAR,
    NETWORK,
    RadiusFigures,
    RadiusManifest,
    RadiusPosterior,
)
from scanner.records import Float64, Int64
from scanner.training.checkpoint import read_tensors, read_weights, write_tensors
from scanner.training.data import ScaledImages, TrainingData, scale_data
from scanner.training.export import OnnxGraph
from scanner.training.fit import SAVE_SECONDS, Interruption
from scanner.training.presets import RADIUS_PASSES
from scanner.training.residual import PIXELS, CentralFeed, ResidualNetwork, added_network, serialised
from scanner.training.trainer import draw_orientations, fastest_precision, keep_freed_memory, turn, warmed_up

BATCH, LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 64, 1e-3, 0.02, 0.03
#: A lens teaches the bins about its own radius: a Gaussian of this width in ln θ_E.
SOFTNESS = 0.04
#: Half of the lenses are shown larger or smaller by up to this in ln θ_E, with the radius that they then have.
ZOOM = 0.15
#: Pixels a side that are read: what the smallest zoom shows of them is ``PIXELS``.
WINDOW = 2 * math.ceil(0.5 * PIXELS * math.exp(ZOOM))
#: The weights that are written are a running mean over about so many steps.
MEAN_STEPS = 500
#: Steps whose mean loss is told.
LOSS_STEPS = 50
#: Fewer lenses than this teach nothing.
FEWEST = 50
CHECKPOINT = "checkpoint.pt"
EDGES: Float64 = np.linspace(math.log(LOWEST_ARCSEC), math.log(HIGHEST_ARCSEC), BINS + 1)


@dataclass
class _State:
    """Everything that a checkpoint holds; ``key``: of what is trained on, and how."""

    key: str
    step: int = 0
    seconds: float = 0.0
    network: dict[str, Any] = field(default_factory=dict)
    mean: dict[str, Any] = field(default_factory=dict)
    optimiser: dict[str, Any] = field(default_factory=dict)


def radii_of(data: TrainingData) -> Float64:
    """Einstein radii (N,), arcsec, of the lenses that count: visible, of one deflector, in range; NaN for all other rows."""
    found = []
    for dataset in data.datasets:
        theta_e = dataset.column("theta_e_arcsec")
        if theta_e is None:
            found.append(np.full(len(dataset), np.nan))
            continue
        inside = (theta_e > LOWEST_ARCSEC * (1.0 + NEAR)) & (theta_e < HIGHEST_ARCSEC * (1.0 - NEAR))
        found.append(np.where(dataset.visible_single_lenses & inside, theta_e, np.nan))
    return np.concatenate(found)


def train_radius(
    data: TrainingData,
    out: Path,
    *,
    begin: Path | None = None,
    passes: float = RADIUS_PASSES,
    seed: int = 1,
    name: str = "einstein-radius",
    version: str = "1",
    licence: str | None = None,
    workers: int = 1,
    on_progress: Callable[[float, str], None] = lambda share, note: None,
) -> RadiusManifest:
    """Train the network, or go on where it was stopped, and write it.

    Every batch is a function of the seed and its number, so a run that was stopped gives the same weights.

    Parameters
    ----------
    data
        What to train on; the rows of its split that do not train judge.
    out
        Folder that gets manifest, network and card; beside them the scaled images and the checkpoint while it trains.
    begin
        A finished run of ``scanner train member residual``: all but the last layer begins as that network, which knows what an
        arc is; None: random weights.
    passes, seed
        How often each lens is shown; of the weights and of all draws.
    name, version, licence
        For the manifest.
    workers
        Processes that scale images.
    on_progress
        Called after each step with the share that is done, and the loss of the last steps as text.

    Raises
    ------
    ContentError
        There are too few visible lenses with a known Einstein radius, or the checkpoint is damaged or of another run.
    OutputError
        The folder cannot be written.
    KeyboardInterrupt
        It was told to stop; the checkpoint is written.
    """
    theta_e = radii_of(data)
    rows = data.split.train[np.isfinite(theta_e[data.split.train])]
    judges = np.sort(np.concatenate([data.split.validation, data.split.calibration]))
    judges = judges[np.isfinite(theta_e[judges])]
    if len(rows) < FEWEST or not len(judges):
        raise ContentError(
            f"{data.paths[0]}: {len(rows)} visible lenses with a known Einstein radius to train on, and {len(judges)} to judge "
            f"by, are too few; {FEWEST} are needed: draw more, as 'scanner simulate dataset --preset train-wide' does."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.of(out, error) from None
    images = scale_data(data, out / "scaled-asinh_mad", "asinh_mad", workers)
    run = _Run(images, theta_e, rows, passes, seed)
    first = ResidualNetwork(seed, BINS)
    begins_as = None if begin is None else _begin_as(first, begin)
    key = hashlib.sha256(f"{data.fingerprint} {begins_as} {passes} {seed}".encode()).hexdigest()
    network, minutes = run.trained(first, out / CHECKPOINT, key, on_progress)
    figures = tuple(
        figures_of(preset, posteriors(network, images, part), theta_e[part]) for preset, part in _by_preset(data, judges)
    )
    content = to_onnx(network)
    manifest = RadiusManifest(
        name=name,
        version=version,
        licence=licence,
        trained_on=data.seen,
        lenses=len(rows),
        begins_as=begins_as,
        passes=passes,
        minutes=round(minutes, 1),
        seed=seed,
        figures=figures,
        network_sha256=hashlib.sha256(content).hexdigest(),
    )
    try:
        write_atomically(out / NETWORK, content)
        write_atomically(out / CARD, card(manifest, data).encode())
        write_atomically(out / MANIFEST, manifest.to_bytes())
    except OSError as error:
        raise OutputError.of(out, error) from None
    return manifest


class _Run:
    """The lenses, the targets, and the loop."""

    def __init__(self, images: ScaledImages, theta_e: Float64, rows: Int64, passes: float, seed: int) -> None:
        self.rows, self.seed = rows, seed
        self.feed = CentralFeed(images, torch.device("cpu"), WINDOW)
        self.batch = min(BATCH, len(rows))
        self.total = max(1, round(passes * len(rows) / self.batch))
        self.log_theta_e: Float64 = np.log(theta_e[rows])
        self.reduced = fastest_precision(torch.device("cpu")) == "bfloat16"

    def trained(
        self, network: ResidualNetwork, path: Path, key: str, on_progress: Callable[[float, str], None]
    ) -> tuple[ResidualNetwork, float]:
        """Train a network; return the running mean of its weights, and minutes."""
        keep_freed_memory()
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        mean = copy.deepcopy(network)
        optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        state = _read(path, key)
        if state.step:
            network.load_state_dict(state.network)
            mean.load_state_dict(state.mean)
            optimiser.load_state_dict(state.optimiser)
        began, saved = time.monotonic() - state.seconds, time.monotonic()
        losses: deque[float] = deque(maxlen=LOSS_STEPS)

        def save() -> None:
            state.seconds = time.monotonic() - began
            state.network, state.mean, state.optimiser = network.state_dict(), mean.state_dict(), optimiser.state_dict()
            write_tensors(path, vars(state))

        with Interruption() as stop, torch.random.fork_rng(devices=[]):
            for rows in self._batches(state.step):
                losses.append(self._step(network, mean, optimiser, state.step, rows))
                state.step += 1
                if stop.asked or time.monotonic() - saved > SAVE_SECONDS or state.step == self.total:
                    save()
                    saved = time.monotonic()
                on_progress(state.step / self.total, f"loss {np.mean(losses):.3f}")
                if stop.asked:
                    raise KeyboardInterrupt
        return mean.eval(), state.seconds / 60.0

    def _batches(self, first: int) -> Iterator[Int64]:
        """Places among the rows, of each step from ``first`` on."""
        per_pass = len(self.rows) // self.batch
        for step in range(first, self.total):
            order = np.random.default_rng((self.seed, step // per_pass)).permutation(len(self.rows))
            at = step % per_pass * self.batch
            yield np.sort(order[at : at + self.batch])

    def _draw_zooms(self, chosen: Int64, seed: tuple[int, ...]) -> Float64:
        """How much larger each lens is shown, ln, (n,); half of them as they are, none beyond the bins."""
        random = np.random.default_rng(seed)
        zoom = random.uniform(-ZOOM, ZOOM, len(chosen)) * random.integers(0, 2, len(chosen))
        inside = np.array([EDGES[0] + NEAR, EDGES[-1] - NEAR]) - self.log_theta_e[chosen, None]
        return np.clip(zoom, np.minimum(inside[:, 0], 0.0), np.maximum(inside[:, 1], 0.0))

    def _step(
        self, network: ResidualNetwork, mean: ResidualNetwork, optimiser: torch.optim.Optimizer, step: int, chosen: Int64
    ) -> float:
        for group in optimiser.param_groups:
            group["lr"] = warmed_up(LEARNING_RATE, step / self.total, WARM_UP)
        torch.manual_seed(self.seed * 2**32 + step)
        network.train()
        zoom = self._draw_zooms(chosen, (self.seed, step, 3))
        images = zoomed(self.feed.read(self.rows[chosen]), zoom)
        images = turn(images, draw_orientations(len(chosen), (self.seed, step, 2)))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.reduced):
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), targets(self.log_theta_e[chosen] + zoom))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        weight = 1.0 - min(1.0 - 1.0 / MEAN_STEPS, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for old, new in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
                if old.dtype.is_floating_point:
                    old.lerp_(new, weight)
        return float(loss.detach())


def targets(log_theta_e: Float64) -> torch.Tensor:
    """What the network shall say of lenses: (n, bins) float32, a Gaussian of :data:`SOFTNESS` around ln θ_E (n,)."""
    middle = 0.5 * (EDGES[1:] + EDGES[:-1])
    near = np.exp(-0.5 * ((middle - log_theta_e[:, None]) / SOFTNESS) ** 2)
    return torch.from_numpy((near / near.sum(axis=1, keepdims=True)).astype(np.float32))


def zoomed(images: torch.Tensor, zoom: Float64) -> torch.Tensor:
    """The middle of images (n, c, w, w), each exp(``zoom``) times as large: (n, c, ``PIXELS``, ``PIXELS``).

    Of those with a zoom of 0 the pixels stay as they are; the others are interpolated, which smooths their noise a little.
    """
    margin = (images.shape[-1] - PIXELS) // 2
    shown = images[..., margin : margin + PIXELS, margin : margin + PIXELS].contiguous()
    changed = np.flatnonzero(zoom)
    if len(changed):
        # Coordinates run from -1 to 1 over the window; an output pixel is exp(-zoom) input pixels wide.
        scale = torch.from_numpy((PIXELS / images.shape[-1] * np.exp(-zoom[changed])).astype(np.float32))
        affine = torch.zeros(len(changed), 2, 3)
        affine[:, 0, 0] = affine[:, 1, 1] = scale
        size = (len(changed), images.shape[1], PIXELS, PIXELS)
        grid = nn.functional.affine_grid(affine, list(size), align_corners=False)
        which = torch.from_numpy(changed)
        shown[which] = nn.functional.grid_sample(images[which], grid, mode="bicubic", align_corners=False)
    return shown


def _begin_as(network: ResidualNetwork, run: Path) -> str:
    """Take over all but the last layer of a finished residual network; return the SHA-256 of its file."""
    weights, record = read_weights(run)
    own = network.state_dict()
    try:
        network.load_state_dict({name: own[name] if name.startswith("output.") else weights[name] for name in own})
    except (KeyError, RuntimeError):
        raise UsageError(
            f"{run}: is a run of {record.plan.member}, not of residual; give one of 'train member residual'."
        ) from None
    return record.member_sha256


def _read(path: Path, key: str) -> _State:
    if not path.exists():
        return _State(key)
    try:
        state = _State(**read_tensors(path, torch.device("cpu")))
    except (ValueError, TypeError):
        raise ContentError(f"{path}: damaged, or not a checkpoint of this version; remove it to train anew.") from None
    if state.key != key:
        raise ContentError(
            f"{path}: is of a training on other sets, or with other settings; choose another --out or remove it."
        )
    return state


def posteriors(network: ResidualNetwork, images: ScaledImages, rows: Int64) -> Float64:
    """Histograms (n, bins) of rows, each the mean of its eight orientations, as :class:`RadiusNetwork` gives them."""
    feed, found = CentralFeed(images, torch.device("cpu")), []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            seen = feed.read(rows[start : start + BATCH])
            turns = (turn(seen, np.full(len(seen), orientation)) for orientation in range(ORIENTATIONS))
            found.append(np.mean([torch.softmax(network(one), dim=1).numpy() for one in turns], axis=0, dtype=np.float64))
    return np.concatenate(found)


def figures_of(preset: str, histograms: Float64, theta_e: Float64) -> RadiusFigures:
    """What histograms (n, bins) are worth for true radii (n,), arcsec."""
    each = [RadiusPosterior(EDGES, one) for one in histograms]
    off = np.abs(np.array([one.quantile(0.5) for one in each]) / theta_e - 1.0)
    inside: NDArray[np.bool_] = np.array(
        [one.quantile(0.16) <= true <= one.quantile(0.84) for one, true in zip(each, theta_e, strict=True)]
    )
    return RadiusFigures(
        set=preset,
        n=len(each),
        median_error=float(np.median(off)),
        within_10_percent=float((off <= NEAR).mean()),
        off_by_20_percent=float((off > 2.0 * NEAR).mean()),
        inside_68=float(inside.mean()),
    )


def _by_preset(data: TrainingData, rows: Int64) -> Iterator[tuple[str, Int64]]:
    """The rows of the sets of each preset."""
    presets = np.concatenate([np.full(len(dataset), dataset.preset or "labelled") for dataset in data.datasets])
    for preset in sorted(set(presets[rows])):
        yield str(preset), rows[presets[rows] == preset]


def to_onnx(network: ResidualNetwork) -> bytes:
    """The network as :class:`~scanner.modelling.radius_network.RadiusNetwork` reads it: a histogram (N, bins).

    Weights are kept as 8-bit integers with a scale for each output, a quarter of the size, and computed with in float32.
    """
    graph = OnnxGraph()
    graph.node("Softmax", [added_network(graph, network)], "probability", axis=1)
    unpacked = []
    for name, constant in list(graph.constants.items()):
        values = numpy_helper.to_array(constant)
        if values.dtype == np.float32 and values.ndim > 1:
            del graph.constants[name]
            scale = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True) / 127.0
            scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
            integers = f"{name}.integers"
            graph.constants[integers] = numpy_helper.from_array(np.rint(values / scale).astype(np.int8), integers)
            whole = helper.make_node("Cast", [integers], [f"{name}.whole"], name=f"{name}.whole", to=TensorProto.FLOAT)
            scaled = [f"{name}.whole", graph.constant(f"{name}.scale", scale)]
            unpacked += [whole, helper.make_node("Mul", scaled, [name], name=name)]
    graph.nodes[:0] = unpacked
    return serialised(graph, "scanner-einstein-radius", "probability", BINS)


def card(manifest: RadiusManifest, data: TrainingData) -> str:
    """The card, Markdown."""
    lines = [
        f"# {manifest.name} {manifest.version}",
        "",
        "A network that sees the Einstein radius of a lens: a histogram over ln θ_E, from the middle 12.8″ of VIS, Y, J and H. "
        "`scanner model` begins its fits where it points, prefers of several lenses one that it believes, and certifies none "
        "that it does not. It knows nothing of whether an object *is* a lens.",
        "",
        f"Licence of the weights: {manifest.licence or 'none given'}.",
        "",
        "## How good it is",
        "",
        "Visible lenses of simulated sets, one deflector, none of which it was trained on; simulations are not the sky.",
        "",
        "| preset | lenses | median error | within 10 % | off by more than 20 % | true radius in the middle 68 % |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one.set} | {one.n:,} | {one.median_error:.1%} | {one.within_10_percent:.2f} | {one.off_by_20_percent:.2f} "
            f"| {one.inside_68:.2f} |"
            for one in manifest.figures
        ),
        "",
        "## How it was trained",
        "",
        f"{manifest.passes:g} passes over {manifest.lenses:,} visible lenses in {manifest.minutes:g} minutes, seed "
        f"{manifest.seed}; Einstein radii from {manifest.lowest_arcsec:g}″ to {manifest.highest_arcsec:g}″ in {manifest.bins} "
        f"bins; AdamW, batches of {BATCH}, a cosine from {LEARNING_RATE:g}, all eight orientations, half of the lenses zoomed "
        f"by up to {ZOOM:.0%}. It began as "
        + ("random weights." if manifest.begins_as is None else f"the residual network {manifest.begins_as[:12]}."),
        "",
        "```json",
        data.description,
        "```",
        "",
    ]
    return "\n".join(lines)
