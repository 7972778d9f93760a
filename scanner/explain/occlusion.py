"""Occlusion maps: how the lens output changes when a part of the image is covered (section 5.1; Zeiler & Fergus 2014)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from scanner.explain.networks import Output, lens_output, of_logits
from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Float32

#: Side of the square and distance between its places, by side of the image: a pixel for the 66-pixel members; for those of 200
#: pixels four, as fewer leave "redundant information from the resampled NISP images unmasked".
SQUARE_PIXELS = {NISP_CUTOUT_PIXELS: 1, VIS_CUTOUT_PIXELS: 4}
#: Squares computed at a time: 40 MB.
BATCH = 512


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
            for start in range(0, len(top), BATCH):
                these = slice(start, start + BATCH)
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
