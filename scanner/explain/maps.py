"""Maps of what an output rests on: occlusion (section 5.1), guided Grad-CAM (5.6, by captum); and how faithful a map is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from scanner.explain.networks import Output, lens_output, of_logits, sky_level
from scanner.interval import Interval, resampled_interval
from scanner.networks import LENS
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Float32, Float64

with warnings.catch_warnings():
    # tqdm, which captum imports, misses the widgets of notebooks; captum's bars are never shown.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from captum.attr import GuidedGradCam

#: Side of the square and distance between its places, by side of the image: a pixel for the 66-pixel members; for those of 200
#: pixels four, as fewer leave "redundant information from the resampled NISP images unmasked".
SQUARE_PIXELS = {NISP_CUTOUT_PIXELS: 1, VIS_CUTOUT_PIXELS: 4}
#: Squares computed at a time: 40 MB.
_SQUARES_AT_ONCE = 512


def occlusion(
    network: nn.Sequential,
    images: torch.Tensor,
    *,
    square: int | None = None,
    step: int | None = None,
    fill: float | torch.Tensor = 0.0,
    output: Output = "log_odds",
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Cover every part of each image in turn: the lens output with a square covered minus the output without.

    Negative (blue in Figs. 11 to 13): the covered pixels spoke for a lens. Positive (red): they spoke against. The paper covers
    with 0, in every channel. That is the darkest pixel of a min-max scaled image, and three sigma below the sky of an asinh
    scaled one: a hole. ``fill=sky_level(images)`` covers with blank sky instead. The paper's output is the probability. It has
    the sign of the change of the log-odds, but where it is within 1e-7 of 1 float32 shows no change at all; the log-odds always
    do.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`.
    images
        (N, channels, side, side) as the network sees them.
    square, step
        Side of the square that covers, and distance between its places, in pixels; None: the paper's (:data:`SQUARE_PIXELS`),
        and the square's side.
    fill
        What covers: one value, or one a channel, (N, channels).
    output
        What is compared; see :data:`scanner.explain.networks.Output`.
    report
        Called with the number of squares after every batch of them.

    Returns
    -------
    numpy.ndarray
        (N, m, m) float32, m = (side - square) / step + 1: output with the square covered minus output of the image as it is.
        66 x 66 for OU-66, 50 x 50 for OU-200.

    Raises
    ------
    ValueError
        The squares do not reach the edge of the image, or the paper has no square for this side.
    """
    n_pixels = images.shape[-1]
    if square is None:
        if n_pixels not in SQUARE_PIXELS:
            raise ValueError(f"the paper has no square for images of {n_pixels} pixels; give one")
        square = SQUARE_PIXELS[n_pixels]
    step = square if step is None else step
    if not 0 < square <= n_pixels or step < 1 or (n_pixels - square) % step:
        raise ValueError(f"squares of {square} pixels every {step} do not end at the edge of {n_pixels} pixels")
    places = torch.arange(0, n_pixels - square + 1, step)
    top, left = (axis.flatten() for axis in torch.meshgrid(places, places, indexing="ij"))
    fills = torch.as_tensor(fill, dtype=images.dtype).expand(len(images), images.shape[1])
    found = np.empty((len(images), len(top)), dtype=np.float32)
    with torch.inference_mode():
        for row, (image, paint) in enumerate(zip(images, fills, strict=True)):
            uncovered = lens_output(network, image[None], output)
            maps = feature_maps(network, image)
            for start in range(0, len(top), _SQUARES_AT_ONCE):
                these = slice(start, start + _SQUARES_AT_ONCE)
                logits = logits_of_squares(network, maps, top[these], left[these], square, paint)
                found[row, these] = (of_logits(logits, output) - uncovered).numpy()
                report(len(logits))
    return found.reshape(len(images), len(places), len(places))


def feature_maps(network: nn.Sequential, image: torch.Tensor) -> list[torch.Tensor]:
    """What enters every layer for one image (channels, side, side), without the batch axis of length 1."""
    maps, current = [], image[None]
    for layer in network:
        maps.append(current[0])
        current = layer(current)
    return maps


def logits_of_squares(
    network: nn.Sequential, maps: list[torch.Tensor], top: torch.Tensor, left: torch.Tensor, side: int, fill: torch.Tensor
) -> torch.Tensor:
    """The two logits for each of ``B`` squares that are painted over, one at a time.

    A square of m pixels changes m + k - 1 outputs of a convolution of k pixels along each axis, and only those are computed;
    the rest is taken from the image as it is. The numbers are those of whole passes up to the rounding of float32. Maps of
    OU-66 need a tenth, of OU-200 a hundredth of the multiplications that whole passes do.

    Parameters
    ----------
    network
        In evaluation mode.
    maps
        Of :func:`feature_maps`, for the image that is painted on.
    top, left
        (B,) int64: upper left pixel of the squares, which lie inside the image.
    side
        Pixels along a side of the squares.
    fill
        (channels,) what they are painted with.

    Returns
    -------
    torch.Tensor
        (B, 2).

    Raises
    ------
    ValueError
        The network has a layer that this arithmetic does not know.
    """
    painted = fill[None, :, None, None].expand(len(top), -1, side, side)
    windows = Windows(painted, top, left)
    rows: torch.Tensor | None = None
    for layer, before in zip(network, maps, strict=True):
        if rows is not None:
            rows = layer(rows)
        elif isinstance(layer, nn.Flatten):
            whole = torch.zeros_like(windows.top)
            rows = _pasted(before, windows, whole, whole, before.shape[-1]).flatten(1)
        else:
            windows = _passed(layer, before, windows)
    if rows is None:
        raise ValueError("the network has no dense layers")
    return rows


@dataclass(frozen=True)
class Windows:
    """The changed part of a feature map for ``B`` squares.

    ``values`` (B, channels, w, w); ``top`` and ``left`` (B,) int64: where the window lies in the map.
    """

    values: torch.Tensor
    top: torch.Tensor
    left: torch.Tensor

    @property
    def side(self) -> int:
        """Pixels along a side of the windows."""
        return self.values.shape[-1]


def _passed(layer: nn.Module, before: torch.Tensor, windows: Windows) -> Windows:
    """Windows after one layer, of those before it."""
    if isinstance(layer, nn.Dropout):
        return windows
    if isinstance(layer, nn.ReLU):
        return Windows(torch.relu(windows.values), windows.top, windows.left)
    if isinstance(layer, nn.Conv2d) and (layer.stride, layer.padding, layer.dilation) == ((1, 1), (0, 0), (1, 1)):
        reach = layer.kernel_size[0] - 1
        n_after = before.shape[-1] - reach
        side = min(windows.side + reach, n_after)
        top, left = ((start - reach).clamp(0, n_after - side) for start in (windows.top, windows.left))
        patch = _pasted(before, windows, top, left, side + reach)
        return Windows(functional.conv2d(patch, layer.weight, layer.bias), top, left)
    if isinstance(layer, nn.MaxPool2d) and (layer.kernel_size, layer.stride) == (2, 2):
        n_after = before.shape[-1] // 2
        # A window that begins at an odd pixel touches one pooled pixel more.
        side = min(windows.side // 2 + 1, n_after)
        top, left = ((start // 2).clamp(0, n_after - side) for start in (windows.top, windows.left))
        patch = _pasted(before, windows, 2 * top, 2 * left, 2 * side)
        return Windows(functional.max_pool2d(patch, 2), top, left)
    raise ValueError(f"{layer}: not a layer of Tables 3 and 4")


def _pasted(before: torch.Tensor, windows: Windows, top: torch.Tensor, left: torch.Tensor, side: int) -> torch.Tensor:
    """Patches (B, channels, side, side) of the feature map (channels, n, n) from ``top, left``, the windows pasted in.

    What of a window lies beyond the end of its patch (the last row of a map of odd side, which is not pooled) is dropped.
    """
    patches = before.unfold(1, side, 1).unfold(2, side, 1)[:, top, left].transpose(0, 1).contiguous()
    offsets, group = torch.unique(torch.stack([windows.top - top, windows.left - left], dim=1), dim=0, return_inverse=True)
    for number, (row, column) in enumerate(offsets.tolist()):
        rows = min(windows.side, side - row)
        columns = min(windows.side, side - column)
        these = torch.nonzero(group == number)[:, 0]
        patches[these, :, row : row + rows, column : column + columns] = windows.values[these, :, :rows, :columns]
    return patches


#: "when the pixel value in that position in the Guided Grad-CAM image is greater than or equal to 0.05".
SHOWN_FROM = 0.05


def last_feature_maps(network: nn.Sequential) -> nn.Module:
    """The layer whose feature maps Grad-CAM weighs: the ReLU after the last convolution (layer 20 of OU-200, 27 of OU-66).

    "All the feature maps in the last convolutional layer with ReLU applied": before the ReLU, kernels that do not respond count
    with their negative values, and the map is often empty.

    Raises
    ------
    ValueError
        The network has no convolution that a ReLU follows.
    """
    for layer, following in reversed(list(pairwise(network))):
        if isinstance(layer, nn.Conv2d) and isinstance(following, nn.ReLU):
            return following
    raise ValueError("the network has no convolution that a ReLU follows")


def guided_grad_cam(network: nn.Sequential, images: torch.Tensor, *, target: int = LENS) -> Float32:
    """Which pixels of each channel speak for a class: guided back-propagation times Grad-CAM.

    Grad-CAM is enlarged to the image by bilinear interpolation, as the paper enlarges smoothly; captum's default is in blocks.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.networks.restore`; its ReLUs are hooked while this runs, so one thread at a time.
    images
        (N, channels, side, side) as the network sees them.
    target
        Class, by number of the logit.

    Returns
    -------
    numpy.ndarray
        (N, channels, side, side) float32, in units of the logit over a unit of the image.

    Raises
    ------
    ValueError
        The network has no convolution that a ReLU follows.
    """
    method = GuidedGradCam(network, last_feature_maps(network))
    with warnings.catch_warnings():
        # That hooks are set, and taken away again, is what was asked for.
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU", category=UserWarning)
        found = method.attribute(images.detach().clone().requires_grad_(), target=target, interpolate_mode="bilinear")
    return np.asarray(found.detach().numpy(), dtype=np.float32)


def strength(attribution: Float32) -> Float32:
    """What speaks for the class in any channel, in units of the image's largest value.

    The paper does not say in what unit its limit of 0.05 is. A gradient has the unit of the logit, which differs between
    bundles.

    Parameters
    ----------
    attribution
        (N, channels, side, side) of :func:`guided_grad_cam`.

    Returns
    -------
    numpy.ndarray
        (N, side, side) float32, 0..1; all 0 where no pixel speaks for the class.
    """
    positive = np.maximum(attribution, 0.0).max(axis=1)
    largest = positive.max(axis=(1, 2), keepdims=True)
    return np.asarray(positive / np.where(largest > 0.0, largest, 1.0), dtype=np.float32)


def shown(attribution: Float32, limit: float = SHOWN_FROM) -> NDArray[np.bool_]:
    """The pixels that Fig. 17 shows, (N, side, side) bool: those of :func:`strength` ``limit`` or more."""
    return np.asarray(strength(attribution) >= limit)


STEPS = 20
RANDOM_ORDERS = 5
RESAMPLES = 2000
#: Images that go through the network at a time.
_IMAGES_AT_ONCE = 32


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
    output: Output = "probability",
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
    output
        What is followed.

    Raises
    ------
    ValueError
        The map does not tile the image.
    """
    generator = np.random.default_rng(0)
    found, chance = [], []
    for image, map_ in zip(images, importance, strict=True):
        found.append(curves(network, image[None], map_[None], output=output))
        orders = generator.random((RANDOM_ORDERS, *map_.shape))
        repeated = image[None].expand(RANDOM_ORDERS, *image.shape)
        chance.append(_mean(curves(network, repeated, orders, output=output)))
    of_map, of_chance = _stacked(found), _stacked(chance)
    deletion_gain, insertion_gain = gains(of_map, of_chance)
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
        parts = [lens_output(network, part, output).cpu().numpy() for part in torch.split(images, _IMAGES_AT_ONCE)]
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
