"""The atlas of one network: class images, kernel images, and the objects that activate the kernels most.

In: a network, what is asked for, a labelled set where there is one. Out: arrays. Refused: what
:mod:`scanner.explain.ascent` refuses of the checkpoints that it keeps.

Of a convolution the kernels are shown whose activation tells lenses from non-lenses best (AUROC furthest from 0.5), the best
first; without a labelled set the first ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.evaluation.metrics import auroc
from scanner.explain.ascent import Ascent, Report
from scanner.explain.class_image import best_of_noise, class_image
from scanner.explain.kernel_activation import convolutions, kernel_activation, strongest
from scanner.explain.kernel_image import kernel_image
from scanner.explain.networks import CLASSES
from scanner.records import MEMBER_PIXELS, Float32, Float64, Int64, MemberName
from scanner.report.explanations import AtlasRequest, ClassName

#: Kernels whose images are made together; each takes up to 40 MB in an image of 200 pixels.
KERNELS_AT_A_TIME = 8


@dataclass(frozen=True)
class Seen:
    """What a network sees of a labelled set.

    ``batches`` gives images (n, channels, side, side), anew at each call. ``is_lens`` (N,) bool. ``rows`` (N,) int64, of the
    set.
    """

    batches: Callable[[], Iterator[torch.Tensor]]
    is_lens: NDArray[np.bool_]
    rows: Int64


@dataclass(frozen=True)
class Layer:
    """One convolution.

    ``kernels`` (K,) int64: those that are shown; ``images`` and ``reached``: see :class:`~scanner.explain.ascent.Ascent`.
    ``activation`` (N, all kernels) float32 of the set's rows, ``auroc`` (all kernels,) float64, ``strongest`` (K, examples)
    int64, rows of the set; None without a set.
    """

    n_kernels: int
    kernels: Int64
    images: Float32
    reached: Float32
    activation: Float32 | None
    auroc: Float64 | None
    strongest: Int64 | None


@dataclass(frozen=True)
class MemberAtlas:
    """Everything of one network; ``layers`` by layer number."""

    member: MemberName
    classes: dict[ClassName, Ascent]
    best_of_noise: dict[ClassName, float]
    layers: dict[str, Layer]


#: Called with what is being made, and with how many steps of how many are done.
AtlasReport = Callable[[str, int, int], None]


def member_atlas(
    member: MemberName,
    network: nn.Sequential,
    request: AtlasRequest,
    *,
    seen: Seen | None,
    key: str,
    checkpoints: Path,
    report: AtlasReport = lambda what, done, total: None,
) -> MemberAtlas:
    """Make the atlas of one network, or go on with it.

    Parameters
    ----------
    member, network
        See :func:`scanner.explain.restore`.
    request
        What is asked for.
    seen
        The labelled set.
    key
        Tells networks apart: the bundle's fingerprint.
    checkpoints
        Folder that keeps what is made.
    report
        Called after every step.

    Raises
    ------
    UsageError, ContentError, OutputError
        See :func:`scanner.explain.ascent.ascend`.
    """
    side = MEMBER_PIXELS[member]

    def telling(what: str) -> Report:
        return lambda done, total: report(f"{member} {what}", done, total)

    classes = {
        name: class_image(
            network,
            target,
            side,
            seed=request.seed,
            learning_rate=request.class_learning_rate,
            steps=request.class_steps,
            key=f"{key} {member}",
            checkpoint=checkpoints / f"{member}-{name}.pt",
            report=telling(f"{name} image"),
        )
        for name, target in CLASSES.items()
    }
    noise = best_of_noise(network, side, request.noises)
    activation = _activation(network, seen, telling("activation by the set"))
    layers = {}
    for name, layer in convolutions(network).items():
        values = activation.get(name)
        scores = None if seen is None or values is None else _aurocs(values, seen.is_lens)
        shown = _chosen(layer.out_channels, request.kernels, scores)
        parts = [
            kernel_image(
                network,
                name,
                part.tolist(),
                side,
                seed=request.seed,
                learning_rate=request.kernel_learning_rate,
                steps=request.kernel_steps,
                key=f"{key} {member}",
                checkpoint=checkpoints / f"{member}-layer-{name}-{number}.pt",
                report=telling(f"layer {name}, kernels {', '.join(map(str, part))}"),
            )
            for number, part in enumerate(np.split(shown, range(KERNELS_AT_A_TIME, len(shown), KERNELS_AT_A_TIME)))
        ]
        layers[name] = Layer(
            n_kernels=layer.out_channels,
            kernels=shown,
            images=np.concatenate([part.images for part in parts]),
            reached=np.concatenate([part.reached for part in parts], axis=1),
            activation=values,
            auroc=scores,
            strongest=None if seen is None or values is None else seen.rows[strongest(values[:, shown], request.examples)],
        )
    return MemberAtlas(member, classes, {name: float(noise[target]) for name, target in CLASSES.items()}, layers)


def _activation(network: nn.Sequential, seen: Seen | None, report: Report) -> dict[str, Float32]:
    if seen is None:
        return {}
    done = 0

    def count(n: int) -> None:
        nonlocal done
        done += n
        report(done, len(seen.rows))

    return kernel_activation(network, seen.batches(), report=count)


def _aurocs(activation: Float32, is_lens: NDArray[np.bool_]) -> Float64:
    return np.array([auroc(values, is_lens) for values in activation.T])


def _chosen(n_kernels: int, most: int | None, scores: Float64 | None) -> Int64:
    order = np.arange(n_kernels) if scores is None else np.argsort(-np.abs(scores - 0.5), kind="stable")
    return np.asarray(order[:most], dtype=np.int64)
