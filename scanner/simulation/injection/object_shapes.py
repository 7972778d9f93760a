"""Axis ratio and position angle of objects on their pixels, by adaptive moments (Bernstein & Jarvis 2002, section 3).

In: (N, n, n) images about the objects. Out: axis ratios and angles; NaN where the moments run away. Nothing is refused. The PSF
is not taken out: what is asked for is the shape of galaxies larger than it.
"""

from __future__ import annotations

import numpy as np

from scanner.records import Float32, Float64

_ITERATIONS = 12
_FIRST_SIGMA = 3.0
_LARGEST_SIGMA = 12.0


def shapes(images: Float32, dx: Float64, dy: Float64) -> tuple[Float64, Float64]:
    """Measure shapes with elliptical Gaussian weights that are fitted to each object.

    Parameters
    ----------
    images
        (N, n, n) sky-subtracted; NaN counts as nothing.
    dx, dy
        (N,) places of the objects from the middle, pixels.

    Returns
    -------
    tuple[Float64, Float64]
        ``q``, minor to major, and ``angle`` of the major axis from +x to +y, radians; (N,) each.
    """
    light = np.nan_to_num(images).astype(np.float64)
    axis = np.arange(images.shape[-1]) - 0.5 * (images.shape[-1] - 1)
    x = np.broadcast_to(axis[None, None, :] - dx[:, None, None], light.shape)
    y = np.broadcast_to(axis[None, :, None] - dy[:, None, None], light.shape)
    xx = np.full(len(light), _FIRST_SIGMA**2)
    yy, xy = xx.copy(), np.zeros(len(light))
    alive = np.ones(len(light), dtype=bool)
    for _ in range(_ITERATIONS):
        determinant = np.where(alive, xx * yy - xy * xy, 1.0)
        a, b, c = (value[:, None, None] for value in (yy / determinant, xx / determinant, xy / determinant))
        weighted = light * np.exp(-0.5 * np.minimum(a * x * x + b * y * y - 2.0 * c * x * y, 60.0))
        total = weighted.sum(axis=(1, 2))
        alive &= total > 0.0
        total = np.where(alive, total, 1.0)
        # A Gaussian seen through itself has half its variance.
        new = [2.0 * (weighted * product).sum(axis=(1, 2)) / total for product in (x * x, y * y, x * y)]
        alive &= (new[0] > 0.05) & (new[1] > 0.05) & (new[0] * new[1] > new[2] ** 2)
        alive &= np.maximum(new[0], new[1]) < _LARGEST_SIGMA**2
        xx, yy, xy = (np.where(alive, value, old) for value, old in zip(new, (xx, yy, xy), strict=True))
    half_trace, difference = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    q = np.sqrt(np.maximum(half_trace - difference, 0.0) / (half_trace + difference))
    angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    return np.where(alive, q, np.nan), np.where(alive, angle, np.nan)
