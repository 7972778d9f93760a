"""The eight orientations of a cutout: quarter turns, mirrored or not.

In: square images. Out: the same pixels in another order. Refused: nothing.
"""

from __future__ import annotations

import numpy as np

from scanner.records import Float32, Int64

ORIENTATIONS = 8


def turn(images: Float32, orientation: int) -> Float32:
    """Square images (..., y, x) after ``orientation % 4`` quarter turns, from orientation 4 on mirrored first."""
    if orientation >= 4:
        images = images[..., ::-1]
    return np.rot90(images, orientation % 4, axes=(-2, -1))


def augment(images: Float32, orientations: Int64) -> Float32:
    """Turn image ``i`` of (n, ..., p, p) by ``orientations[i]``; a new array."""
    turned = np.empty_like(images)
    for orientation in range(ORIENTATIONS):
        chosen = orientations == orientation
        turned[chosen] = turn(images[chosen], orientation)
    return turned
