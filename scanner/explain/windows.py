"""Outputs of a network for many images that differ from one in a small square each.

In: a network of the layers of Tables 3 and 4, one image, squares that are painted over one at a time. Out: the two logits for
each. Refused: other layers (ValueError).

A square of m pixels changes m + k - 1 outputs of a convolution of k pixels along each axis, and those are all that is computed:
the rest is taken from the image as it is. The numbers are those of whole passes up to the rounding of float32. Maps of OU-66
need a tenth, of OU-200 a hundredth of the multiplications that whole passes do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


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
    """The two logits for each of ``B`` painted squares.

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
