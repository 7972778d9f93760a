"""Class-generated images: what a network takes for the best of lenses and of non-lenses (section 5.3, rows 1 and 2 of Fig. 16).

In: a network, a class. Out: the image that noise becomes when it is changed so that the logit of the class rises. Refused: what
:mod:`scanner.explain.ascent` refuses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from scanner.explain.ascent import Ascent, Report, noise
from scanner.explain.deep_dream import deep_dream
from scanner.records import Float32

LEARNING_RATE, STEPS = 0.1, 5000
#: Noise images that an image made for a class is compared with.
NOISES = 100


def class_image(
    network: nn.Sequential,
    target: int,
    side: int,
    *,
    seed: int = 0,
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
    key: str = "",
    checkpoint: Path | None = None,
    report: Report = lambda done, total: None,
) -> Ascent:
    """Raise the logit of a class, from uniform noise that all classes share: Deep Dream of nothing.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.restore`.
    target
        :data:`scanner.networks.LENS` or :data:`~scanner.networks.NON_LENS`.
    side
        Of the image in pixels, :data:`scanner.records.MEMBER_PIXELS`.
    seed
        Of the noise.
    learning_rate, steps
        The paper's by default.
    key, checkpoint, report
        See :func:`~scanner.explain.ascent.ascend`.

    Returns
    -------
    Ascent
        One image.
    """
    begin = start(network, side, seed)
    return deep_dream(
        network, begin, target, learning_rate=learning_rate, steps=steps, key=key, checkpoint=checkpoint, report=report
    )


def start(network: nn.Sequential, side: int, seed: int) -> torch.Tensor:
    """The noise that an image for this network begins with, where the network is."""
    first = next(layer for layer in network if isinstance(layer, nn.Conv2d))
    return noise(side, first.in_channels, seed).to(first.weight.device)


def best_of_noise(network: nn.Sequential, side: int, n: int = NOISES) -> Float32:
    """The highest logit of each class among ``n`` noise images, (2,): what an image made for a class has to beat."""
    with torch.inference_mode():
        logits = torch.cat([network(start(network, side, seed)) for seed in range(n)])
    return np.asarray(logits.max(dim=0).values.cpu().numpy(), dtype=np.float32)
