"""Deep Dream: an object, changed a little until it looks more like a class to a network (section 5.4, rows 3 to 6 of Fig. 16).

In: a network, what it sees of objects, a class. Out: the images that they become. Refused: what :mod:`scanner.explain.ascent`
refuses.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from scanner.explain.ascent import Ascent, Report, ascend

LEARNING_RATE, STEPS = 0.001, 1000


def deep_dream(
    network: nn.Sequential,
    images: torch.Tensor,
    target: int,
    *,
    learning_rate: float = LEARNING_RATE,
    steps: int = STEPS,
    key: str = "",
    checkpoint: Path | None = None,
    report: Report = lambda done, total: None,
) -> Ascent:
    """Raise the logit of a class, from images of objects.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.restore`.
    images
        (N, channels, side, side) as of :func:`scanner.explain.networks.network_input`.
    target
        :data:`scanner.networks.LENS` or :data:`~scanner.networks.NON_LENS`.
    learning_rate, steps
        The paper's by default.
    key, checkpoint, report
        See :func:`~scanner.explain.ascent.ascend`.

    Returns
    -------
    Ascent
        N images, in 0..1 like those that they began as.
    """
    return ascend(
        images.clamp(0.0, 1.0),
        lambda dreamt: network(dreamt)[:, target],
        rule="plain",
        learning_rate=learning_rate,
        steps=steps,
        key=f"{key} class {target}",
        checkpoint=checkpoint,
        report=report,
    )
