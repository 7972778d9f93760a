"""How faithful a map is: whether the output follows when what the map calls important is taken away, or given back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.explain.networks import Output, lens_output, sky_level
from scanner.interval import Interval, resampled_interval
from scanner.records import Float32, Float64

STEPS = 20
RANDOM_ORDERS = 5
RESAMPLES = 2000
#: Images that go through the network at a time.
BATCH = 32


@dataclass(frozen=True)
class Curves:
    """Lens output of ``N`` images along the way, (N, steps + 1) float32.

    ``fraction`` (steps + 1,) float64: share of the cells that are covered (deletion) or uncovered (insertion).
    """

    fraction: Float64
    deletion: Float32
    insertion: Float32

    @property
    def deletion_area(self) -> Float64:
        """Area under each deletion curve, (N,): small is faithful."""
        return np.asarray(np.trapezoid(self.deletion, self.fraction, axis=1), dtype=np.float64)

    @property
    def insertion_area(self) -> Float64:
        """Area under each insertion curve, (N,): large is faithful."""
        return np.asarray(np.trapezoid(self.insertion, self.fraction, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Faithfulness:
    """Curves of a map and of random orders, and the mean difference of their areas with its 95% interval.

    Positive gains: the map is more faithful than chance. Areas are differences of the output, over a share from 0 to 1.
    """

    curves: Curves
    random: Curves
    deletion_gain: Interval
    insertion_gain: Interval


def faithfulness(
    network: nn.Module,
    images: torch.Tensor,
    importance: NDArray[Any],
    *,
    steps: int = STEPS,
    random_orders: int = RANDOM_ORDERS,
    output: Output = "probability",
    seed: int = 0,
    report: Callable[[int], None] = lambda n: None,
) -> Faithfulness:
    """Compare a map with random orders of the same cells.

    Deletion (Petsiuk et al. 2018) covers the cells of an image with blank sky, the most important first; a faithful map makes
    the lens output fall fast, so the area under the curve is small. Insertion begins with blank sky and uncovers; the area is
    large. Two maps can only be compared in cells of one size, as scattered single pixels destroy an image faster than patches
    do, wherever they lie.

    Parameters
    ----------
    network, images
        (N, channels, side, side) as of :func:`scanner.explain.networks.network_input`.
    importance
        (N, m, m), m a divisor of the side: what speaks for a lens, the more the higher (minus an occlusion map).
    steps
        Of each curve.
    random_orders
        For each image; their curves are averaged.
    output
        What is followed.
    seed
        Of the orders and of the resamples.
    report
        Called with the number of images, after each.

    Raises
    ------
    ValueError
        The map does not tile the image.
    """
    generator = np.random.default_rng(seed)
    found, chance = [], []
    for image, map_ in zip(images, importance, strict=True):
        found.append(curves(network, image[None], map_[None], steps=steps, output=output))
        orders = generator.random((random_orders, *map_.shape))
        repeated = image[None].expand(random_orders, *image.shape)
        chance.append(_mean(curves(network, repeated, orders, steps=steps, output=output)))
        report(1)
    of_map, of_chance = _stacked(found), _stacked(chance)
    deletion_gain, insertion_gain = gains(of_map, of_chance, seed=seed)
    return Faithfulness(of_map, of_chance, deletion_gain, insertion_gain)


def curves(
    network: nn.Module, images: torch.Tensor, importance: NDArray[Any], *, steps: int = STEPS, output: Output = "probability"
) -> Curves:
    """Follow the lens output while cells are covered, and uncovered, the most important first.

    Parameters
    ----------
    network, images, importance, steps, output
        See :func:`faithfulness`. Cells of equal importance go in the order of rows.

    Raises
    ------
    ValueError
        The map does not tile the image.
    """
    side, cells = images.shape[-1], importance.shape[-1]
    if importance.shape != (len(images), cells, cells) or side % cells:
        raise ValueError(f"importance of shape {importance.shape} does not tile {len(images)} images of {side} pixels")
    counts = np.rint(np.linspace(0, cells**2, steps + 1)).astype(np.int64)
    deletion, insertion = (np.empty((len(images), steps + 1), dtype=np.float32) for _ in range(2))
    for row, (image, map_, level) in enumerate(zip(images, importance, sky_level(images), strict=True)):
        rank = np.empty(cells**2, dtype=np.int64)
        rank[np.argsort(-map_.ravel(), kind="stable")] = np.arange(cells**2)
        first = (rank[None] < counts[:, None]).reshape(-1, cells, cells)
        mask = torch.from_numpy(first.repeat(side // cells, axis=1).repeat(side // cells, axis=2))[:, None].to(image.device)
        sky = level[:, None, None].expand_as(image)
        deletion[row] = _outputs(network, torch.where(mask, sky, image), output)
        insertion[row] = _outputs(network, torch.where(mask, image, sky), output)
    return Curves(counts / cells**2, deletion, insertion)


def in_cells(importance: NDArray[Any], cells: int) -> Float32:
    """Mean of maps (N, n, n) over coarser cells, (N, cells, cells); ``cells`` divides n."""
    n = importance.shape[-1] // cells
    return np.asarray(importance.reshape(len(importance), cells, n, cells, n).mean(axis=(2, 4)), dtype=np.float32)


def gains(of: Curves, against: Curves, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Interval, Interval]:
    """By how much the first curves are more faithful, for the same images: deletion and insertion, with 95% intervals."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(of.deletion), (resamples, len(of.deletion)))
    return (
        _interval(against.deletion_area - of.deletion_area, rows),
        _interval(of.insertion_area - against.insertion_area, rows),
    )


def _interval(gain: Float64, rows: NDArray[np.int64]) -> Interval:
    return resampled_interval(float(gain.mean()), gain[rows].mean(axis=1))


def _outputs(network: nn.Module, images: torch.Tensor, output: Output) -> Float32:
    with torch.inference_mode():
        parts = [lens_output(network, part, output).cpu().numpy() for part in torch.split(images, BATCH)]
    return np.asarray(np.concatenate(parts), dtype=np.float32)


def _stacked(parts: list[Curves]) -> Curves:
    return Curves(
        parts[0].fraction,
        np.concatenate([part.deletion for part in parts]),
        np.concatenate([part.insertion for part in parts]),
    )


def _mean(of_one_image: Curves) -> Curves:
    deletion, insertion = (values.mean(axis=0, keepdims=True) for values in (of_one_image.deletion, of_one_image.insertion))
    return Curves(of_one_image.fraction, deletion, insertion)
