"""Kernels: what activates each, of a labelled set (section 5.2) and of all images (section 5.5, Figs 14 and 15)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.explain.ascent import Ascent, Report, ascend, noise_for
from scanner.records import Float32, Int64


def convolutions(network: nn.Sequential) -> dict[str, nn.Conv2d]:
    """The convolutions of a network by the layer number that the paper's figures give ("layer 17 kernel 1")."""
    return {name: layer for name, layer in network.named_children() if isinstance(layer, nn.Conv2d)}


def kernel_activation(
    network: nn.Sequential, batches: Iterable[torch.Tensor], *, report: Callable[[int], None] = lambda n: None
) -> dict[str, Float32]:
    """Compute the kernel activation values of every image.

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


KERNEL_LEARNING_RATE, KERNEL_STEPS = 0.001, 1000


def kernel_image(
    network: nn.Sequential,
    layer: str,
    kernels: Sequence[int],
    side: int,
    *,
    seed: int = 0,
    learning_rate: float = KERNEL_LEARNING_RATE,
    steps: int = KERNEL_STEPS,
    key: str = "",
    checkpoint: Path | None = None,
    report: Report = lambda done, total: None,
) -> Ascent:
    """Raise the activation of kernels of one convolution, from noise that all kernels share.

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
    learning_rate, steps
        See the module.
    key, checkpoint, report
        See :func:`~scanner.explain.ascent.ascend`.

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
    begin = noise_for(network, side, seed)
    return ascend(
        begin.repeat(len(which), 1, 1, 1),
        lambda images: until(images)[rows, which].mean(dim=(1, 2)),
        rule="adam",
        learning_rate=learning_rate,
        steps=steps,
        key=f"{key} layer {layer} kernels {','.join(map(str, kernels))}",
        checkpoint=checkpoint,
        report=report,
    )
