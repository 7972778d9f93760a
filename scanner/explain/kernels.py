"""Kernels: the objects of a set that activate each most (section 5.2), and the images made to (section 5.5, Figs 14 and 15)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.explain.ascent import Ascent, Steps, ascend, noise_for
from scanner.records import Float32, Int64

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
