"""Generated kernel images: what a kernel responds to most (section 5.5, Figs. 14 and 15).

In: a network, a convolution, kernels of it. Out: for each the image that noise becomes when it is changed so that the mean of
the kernel's feature map before the ReLU rises. Refused: an unknown layer or kernel (ValueError), what
:mod:`scanner.explain.ascent` refuses.

The paper states no numbers here, only that it is the technique of Deep Dream; so those are the defaults, with Adam as in the
published code: each step moves a pixel by up to the learning rate, and 1,000 steps of 0.001 span the range from 0 to 1. Plain
gradients would not do, as those of a mean over a large map are tiny.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from scanner.explain.ascent import Ascent, Report, ascend
from scanner.explain.class_image import start
from scanner.explain.kernel_activation import convolutions

LEARNING_RATE, STEPS = 0.001, 1000


def kernel_image(
    network: nn.Sequential,
    layer: str,
    kernels: Sequence[int],
    side: int,
    *,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
    key: str = "",
    checkpoint: Path | None = None,
    report: Report = lambda done, total: None,
) -> Ascent:
    """Raise the activation of kernels of one convolution, from noise that all kernels share.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.restore`.
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
    begin = start(network, side, seed)
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
