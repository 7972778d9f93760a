"""Kernel activation values over a dataset, and the images that activate each kernel most (section 5.2).

In: a network, what it sees of a dataset. Out: for every convolution the mean of each kernel's feature map before the ReLU, for
every image; the rows with the highest. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
        Of :func:`scanner.explain.restore`.
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
