"""Sky level and noise of a mosaic as smooth maps, measured once in cells so that they do not depend on how it is later read.

In: a mosaic, read one row of cells at a time. Out: a :class:`BackgroundMap`. A mosaic without a single good cell gives
level and noise NaN. Nothing is refused.

The method is SExtractor's (Bertin & Arnouts 1996, section 4): clip each cell's histogram at three sigma until it stands
still; level = 2.5 median - 1.5 mean, or the median where the cell is crowded (mean and median differ by more than 0.3
sigma); median filter over 3×3 cells; interpolate between the centres of the cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from scanner.records import Float32, Float64
from scanner.sky.mosaic import Mosaic

#: Side of a cell, 25.6": larger than the galaxies whose light must not count as sky.
CELL_PIXELS = 256
#: Every other pixel of every other row is enough: the level of a cell is known to 0.01 sigma.
_SAMPLING = 2
_CLIP_SIGMA = 3.0
_MOST_CLIPPINGS = 12
_CROWDED = 0.3
_SMALLEST_GOOD_FRACTION = 0.1


@dataclass(frozen=True)
class BackgroundMap:
    """Level and noise (standard deviation) per cell, (ny, nx) float64 each, and the cells' centres ``y``, ``x`` in pixels."""

    level: Float64
    noise: Float64
    y: Float64
    x: Float64

    def at(self, y0: int, y1: int, width: int) -> tuple[Float32, Float32]:
        """Level and noise of the rows ``y0`` to ``y1`` of a mosaic ``width`` pixels wide, (y1 - y0, width) float32 each."""
        rows, columns = np.arange(y0, y1, dtype=np.float64), np.arange(width, dtype=np.float64)
        return _interpolate(self.level, self.y, self.x, rows, columns), _interpolate(self.noise, self.y, self.x, rows, columns)


def measure(image: Mosaic) -> BackgroundMap:
    """Measure the background of a mosaic."""
    ny, nx = image.shape
    y_edges, x_edges = _edges(ny), _edges(nx)
    level, noise = np.full((2, len(y_edges) - 1, len(x_edges) - 1), np.nan)
    for i, (y0, y1) in enumerate(pairwise(y_edges)):
        strip = image.read(y0, y1, 0, nx)
        for j, (x0, x1) in enumerate(pairwise(x_edges)):
            level[i, j], noise[i, j] = cell_statistics(strip[::_SAMPLING, x0:x1:_SAMPLING])
    return BackgroundMap(level=_smooth(level), noise=_smooth(noise), y=_centres(y_edges), x=_centres(x_edges))


def cell_statistics(pixels: Float32) -> tuple[float, float]:
    """Sky level and noise of one cell, NaN where too few pixels are good.

    Parameters
    ----------
    pixels
        Any shape; NaN where bad.
    """
    values = np.sort(pixels[np.isfinite(pixels)])
    if len(values) <= _SMALLEST_GOOD_FRACTION * pixels.size:
        return np.nan, np.nan
    low, high = 0, len(values)
    for _ in range(_MOST_CLIPPINGS):
        median, sigma = float(values[(low + high) // 2]), float(values[low:high].std(dtype=np.float64))
        bounds = np.array([median - _CLIP_SIGMA * sigma, median + _CLIP_SIGMA * sigma], dtype=values.dtype)
        clipped = int(np.searchsorted(values, bounds[0], "left")), int(np.searchsorted(values, bounds[1], "right"))
        if clipped == (low, high):
            break
        low, high = clipped
    kept = values[low:high]
    median, mean, sigma = float(np.median(kept)), float(kept.mean(dtype=np.float64)), float(kept.std(dtype=np.float64))
    level = 2.5 * median - 1.5 * mean if abs(mean - median) < _CROWDED * sigma else median
    return level, sigma


def _edges(length: int) -> list[int]:
    n = max(1, round(length / CELL_PIXELS))
    return [round(i * length / n) for i in range(n + 1)]


def _centres(edges: list[int]) -> Float64:
    return np.array([(low + high - 1) / 2 for low, high in pairwise(edges)])


def _smooth(cells: Float64) -> Float64:
    """Fill empty cells from the nearest good one and take the median of each cell and its neighbours."""
    empty = np.isnan(cells)
    if empty.all():
        return cells
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return np.asarray(ndimage.median_filter(cells[tuple(nearest)], size=3, mode="nearest"), dtype=np.float64)


def _interpolate(cells: Float64, y: Float64, x: Float64, rows: Float64, columns: Float64) -> Float32:
    """Bilinear, constant beyond the outermost centres."""
    low_y, weight_y = _weights(y, rows)
    low_x, weight_x = _weights(x, columns)
    by_row = (cells[low_y] * (1 - weight_y)[:, None] + cells[np.minimum(low_y + 1, len(y) - 1)] * weight_y[:, None]).astype(
        np.float32
    )
    left, right = (by_row.take(nodes, axis=1) for nodes in (low_x, np.minimum(low_x + 1, len(x) - 1)))
    right -= left
    right *= weight_x.astype(np.float32)
    left += right
    return left


def _weights(nodes: Float64, at: Float64) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Float64]:
    """Node below each position, and the weight of the node above."""
    position = np.interp(at, nodes, np.arange(len(nodes), dtype=np.float64))
    low = np.minimum(position.astype(np.intp), max(len(nodes) - 2, 0))
    return low, position - low
