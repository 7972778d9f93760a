"""Images that raise an output, or a kernel, by gradient ascent; objects that activate each kernel most (sections 5.2 to 5.5).

An ascent can be stopped at any moment and goes on as if it had not been.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.ensemble.preprocessing import resize
from scanner.errors import ContentError, UsageError
from scanner.records import NISP_CUTOUT_PIXELS, Float32, Int64
from scanner.training.checkpoint import read_tensors, write_tensors

#: ``plain`` adds the learning rate times the gradient, and takes a step back that led down: which rate is too large depends on
#: how steep a network is. ``adam`` is Adam with the decay of weights of the paper's code.
Rule = Literal["plain", "adam"]
WEIGHT_DECAY = 1e-6
#: A checkpoint is written when the last is this old, and at the end.
CHECKPOINT_SECONDS = 20.0
#: Noise images that an image made for a class is compared with.
NOISES = 100
#: Called with (steps done, steps in all).
Report = Callable[[int, int], None]


class Steps(TypedDict, total=False):
    """How an image is changed, where it is not as the method does by default.

    ``learning_rate``, ``steps``: how fast and how often. ``key``: what else the result depends on, such as the network; a
    checkpoint with another key is refused. ``checkpoint``: file that keeps the state; a finished one is read and nothing is
    computed. ``report``: called after every step.
    """

    learning_rate: float
    steps: int
    key: str
    checkpoint: Path | None
    report: Report


#: The paper's numbers.
CLASS_IMAGE: Steps = {"learning_rate": 0.1, "steps": 5000}
DEEP_DREAM: Steps = {"learning_rate": 0.001, "steps": 1000}


@dataclass(frozen=True)
class Ascent:
    """Where an ascent led.

    ``images`` (B, channels, side, side) float32. ``reached`` (steps + 1, B) float32: the output before every step, and after
    the last.
    """

    images: Float32
    reached: Float32


def class_image(network: nn.Sequential, target: int, side: int, *, seed: int = 0, **how: Unpack[Steps]) -> Ascent:
    """Raise the logit of a class, from uniform noise that all classes share: Deep Dream of nothing.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`.
    target
        :data:`scanner.networks.LENS` or :data:`~scanner.networks.NON_LENS`.
    side
        Of the image in pixels, :data:`scanner.records.MEMBER_PIXELS`.
    seed
        Of the noise.
    **how
        Instead of :data:`CLASS_IMAGE`; see :class:`Steps`.

    Returns
    -------
    Ascent
        One image.

    Raises
    ------
    UsageError, ContentError, OutputError
        See :func:`ascend`.
    """
    return deep_dream(network, noise_for(network, side, seed), target, **(CLASS_IMAGE | how))


def best_of_noise(network: nn.Sequential, side: int, n: int = NOISES) -> Float32:
    """The highest logit of each class among ``n`` noise images, (2,): what an image made for a class has to beat."""
    with torch.inference_mode():
        logits = torch.cat([network(noise_for(network, side, seed)) for seed in range(n)])
    return np.asarray(logits.max(dim=0).values.cpu().numpy(), dtype=np.float32)


def deep_dream(network: nn.Sequential, images: torch.Tensor, target: int, **how: Unpack[Steps]) -> Ascent:
    """Raise the logit of a class, from images of objects.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`.
    images
        (N, channels, side, side) as of :func:`scanner.explain.networks.network_input`.
    target
        :data:`scanner.networks.LENS` or :data:`~scanner.networks.NON_LENS`.
    **how
        Instead of :data:`DEEP_DREAM`; see :class:`Steps`.

    Returns
    -------
    Ascent
        N images, in 0..1 like those that they began as.

    Raises
    ------
    UsageError, ContentError, OutputError
        See :func:`ascend`.
    """
    settings = DEEP_DREAM | how
    settings["key"] = f"{settings.get('key', '')} class {target}"
    return ascend(images.clamp(0.0, 1.0), lambda dreamt: network(dreamt)[:, target], rule="plain", **settings)


def noise_for(network: nn.Sequential, side: int, seed: int) -> torch.Tensor:
    """The noise that an image for this network begins with, where the network is."""
    first = next(layer for layer in network if isinstance(layer, nn.Conv2d))
    return noise(side, first.in_channels, seed).to(first.weight.device)


def noise(side: int, channels: int, seed: int) -> torch.Tensor:
    """The paper's start (section 5.3): uniform noise of 66 pixels, the same in all channels, enlarged to ``side``.

    (1, channels, side, side) float32. The same seed gives the same noise for every class, kernel and member.
    """
    values = np.random.default_rng(seed).random((NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS))
    image = torch.from_numpy(resize(values, side)).to(torch.float32)
    return image.expand(1, channels, side, side).contiguous()


def ascend(
    start: torch.Tensor, objective: Callable[[torch.Tensor], torch.Tensor], *, rule: Rule, **how: Unpack[Steps]
) -> Ascent:
    """Change images so that an output rises; pixels stay between 0 and 1, beyond which a network was never shown anything.

    Parameters
    ----------
    start
        (B, channels, side, side), 0..1; each image rises by itself.
    objective
        What is raised: from images to (B,).
    rule
        How a step is made.
    **how
        See :class:`Steps`; learning rate and number of steps are needed.

    Raises
    ------
    UsageError
        The checkpoint is of another start, rule, key or number of steps.
    ContentError
        The file is no checkpoint.
    OutputError
        It cannot be written.
    """
    learning_rate, steps, checkpoint = how["learning_rate"], how["steps"], how.get("checkpoint")
    digest = hashlib.sha256(start.detach().cpu().numpy().tobytes())
    digest.update(f"{rule} {learning_rate!r} {steps} {how.get('key', '')}".encode())
    state = _read(checkpoint, digest.hexdigest(), start.device)
    if state is None:
        state = _State(start.detach().clone(), torch.empty(steps + 1, len(start)), 0, {})
    images = state.images.requires_grad_()
    way = _Plain(images, learning_rate) if rule == "plain" else _Adam(images, learning_rate)
    if state.optimiser:
        way.load_state_dict(state.optimiser)
    saved, first = time.monotonic(), state.step
    while state.step < steps:
        value = objective(images)
        (gradient,) = torch.autograd.grad(value.sum(), images)
        with torch.no_grad():
            state.reached[state.step] = way.rise(value, gradient)
        state.step += 1
        if "report" in how:
            how["report"](state.step, steps)
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS and state.step < steps:
            state.optimiser = way.state_dict()
            _write(checkpoint, digest.hexdigest(), state)
            saved = time.monotonic()
    with torch.no_grad():
        state.reached[steps] = way.end(objective(images))
    if checkpoint is not None and first < steps:
        state.optimiser = {}
        _write(checkpoint, digest.hexdigest(), state)
    return Ascent(images.detach().cpu().numpy(), state.reached.numpy())


class _Plain:
    """Ascent that never falls: of an image whose output fell, the last step is taken back and tried half as long."""

    def __init__(self, images: torch.Tensor, learning_rate: float) -> None:
        self.images, self.kept = images, images.detach().clone()
        self.gradient = torch.zeros_like(self.kept)
        self.rate = torch.full_like(self.kept[:, :1, :1, :1], learning_rate)
        self.value = torch.full_like(self.rate.flatten(), -torch.inf)

    def _risen(self, value: torch.Tensor) -> torch.Tensor:
        risen = value >= self.value
        self.kept[risen], self.value[risen] = self.images.detach()[risen], value[risen]
        self.rate[~risen] *= 0.5
        return risen

    def rise(self, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Change the images, of which output (B,) and gradient are given; the output of those that it began from."""
        risen = self._risen(value)
        self.gradient[risen] = gradient[risen]
        self.images.copy_((self.kept + self.rate * self.gradient).clamp(0.0, 1.0))
        return self.value

    def end(self, value: torch.Tensor) -> torch.Tensor:
        """Take a last step back that led down; the output of the images."""
        self._risen(value)
        self.images.copy_(self.kept)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """What it needs to go on."""
        return {"kept": self.kept, "gradient": self.gradient, "rate": self.rate, "value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state)


class _Adam(torch.optim.Adam):
    """As torch has it, for what rises."""

    def __init__(self, images: torch.Tensor, learning_rate: float) -> None:
        super().__init__([images], lr=learning_rate, weight_decay=WEIGHT_DECAY)
        self.images = images

    def rise(self, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """See :meth:`_Plain.rise`."""
        self.images.grad = -gradient
        self.step()
        self.images.clamp_(0.0, 1.0)
        return value

    def end(self, value: torch.Tensor) -> torch.Tensor:
        """The output of the images, as they are."""
        return value


@dataclass
class _State:
    images: torch.Tensor
    reached: torch.Tensor
    step: int
    optimiser: dict[str, Any]


def _write(path: Path, digest: str, state: _State) -> None:
    write_tensors(path, {"digest": digest, **vars(state), "images": state.images.detach()})


def _read(path: Path | None, digest: str, device: torch.device) -> _State | None:
    if path is None or not path.exists():
        return None
    try:
        found = read_tensors(path, device)
        written = found.pop("digest")
        state = _State(**found)
        state.reached = state.reached.cpu()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ContentError(f"{path}: damaged, or not a checkpoint of an image that is being made; remove it.") from None
    if written != digest:
        raise UsageError(f"{path}: an image that is being made with other settings; remove it, or choose another place.")
    return state


#: The paper states no numbers here, only that it is the technique of Deep Dream, whose they are. With Adam, as in the published
#: code, each step moves a pixel by up to the learning rate; plain gradients of a mean over a large map are tiny.
KERNEL_IMAGE: Steps = {"learning_rate": 0.001, "steps": 1000}


def kernel_activation(
    network: nn.Sequential, batches: Iterable[torch.Tensor], *, report: Callable[[int], None] = lambda n: None
) -> dict[str, Float32]:
    """Compute the kernel activation values of every image: means of the kernels' feature maps before the ReLU.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`.
    batches
        (n, channels, side, side) each, as of :func:`scanner.explain.networks.network_input`.
    report
        Called with the number of images after every batch.

    Returns
    -------
    dict
        By layer number: (N, kernels) float32.
    """
    last = list(convolutions(network))[-1]
    found: dict[str, list[Float32]] = {name: [] for name in convolutions(network)}
    with torch.inference_mode():
        for images in batches:
            current = images
            for name, layer in network.named_children():
                current = layer(current)
                if name in found:
                    found[name].append(current.mean(dim=(2, 3)).cpu().numpy())
                if name == last:
                    break
            report(len(images))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def strongest(activation: NDArray[Any], n: int) -> Int64:
    """The rows that activate each kernel most.

    Parameters
    ----------
    activation
        (N, kernels) of one layer.
    n
        How many; at most N.

    Returns
    -------
    numpy.ndarray
        (kernels, n) int64, the highest value first; of equals the first row.
    """
    return np.asarray(np.argsort(-activation, axis=0, kind="stable")[:n].T, dtype=np.int64)


def kernel_image(
    network: nn.Sequential,
    layer: str,
    kernels: Sequence[int],
    side: int,
    *,
    seed: int = 0,
    **how: Unpack[Steps],
) -> Ascent:
    """Raise the mean of a kernel's feature map before the ReLU, from noise that all kernels share.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`.
    layer
        Number of the convolution, as in Tables 3 and 4.
    kernels
        Which of it, from 0.
    side
        Of the images in pixels, :data:`scanner.records.MEMBER_PIXELS`.
    seed
        Of the noise.
    **how
        Instead of :data:`KERNEL_IMAGE`; see :class:`~scanner.explain.ascent.Steps`.

    Returns
    -------
    Ascent
        One image a kernel.

    Raises
    ------
    ValueError
        There is no such convolution or kernel.
    """
    known = convolutions(network)
    if layer not in known:
        raise ValueError(f"layer {layer} is no convolution; those are {', '.join(known)}")
    count = known[layer].out_channels
    if not all(0 <= kernel < count for kernel in kernels):
        raise ValueError(f"layer {layer} has kernels 0 to {count - 1}")
    until = network[: list(dict(network.named_children())).index(layer) + 1]
    which = torch.as_tensor(list(kernels), device=known[layer].weight.device)
    rows = torch.arange(len(which), device=which.device)
    settings = KERNEL_IMAGE | how
    settings["key"] = f"{settings.get('key', '')} layer {layer} kernels {','.join(map(str, kernels))}"
    return ascend(
        noise_for(network, side, seed).repeat(len(which), 1, 1, 1),
        lambda images: until(images)[rows, which].mean(dim=(1, 2)),
        rule="adam",
        **settings,
    )


def convolutions(network: nn.Sequential) -> dict[str, nn.Conv2d]:
    """The convolutions of a network by the layer number that the paper's figures give ("layer 17 kernel 1")."""
    return {name: layer for name, layer in network.named_children() if isinstance(layer, nn.Conv2d)}
