"""Occlusion maps: how the lens output changes when a part of the image is covered (section 5.1; Zeiler & Fergus 2014).

In: a network and what it sees. Out: one map an image: the output with a square covered minus the output without. Negative
(blue in Figs. 11 to 13): the covered pixels spoke for a lens. Positive (red): they spoke against. Refused: a square that does
not tile the image (ValueError).

The paper covers with 0, in every channel. That is the darkest pixel of a min-max scaled image and lies three sigma below the
sky of an asinh scaled one: a hole. ``fill=sky_level(images)`` covers with blank sky instead. The paper's output is the
probability. It has the sign of the change of the log-odds, but where it is within 1e-7 of 1 float32 shows no change at all; the
log-odds always do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from scanner.explain.networks import Output, lens_output, of_logits
from scanner.explain.windows import feature_maps, logits_of_squares
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
    """Cover every part of each image in turn.

    Parameters
    ----------
    network
        Of :func:`scanner.explain.restore`.
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
