"""Light about the centres of unlensed profiles, where it may be too steep for any even grid.

In: stamps of one kind. Out: means over the 2x2 pixels about each centre. They are divided into cells, those about the centre
again, and so on; the samples stay a few hundred, and the smallest cells are below a hundredth of a pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from scanner.records import Float64
from scanner.simulation.light.profiles import Profiles, surface_brightness
from scanner.simulation.light.sampling import AsArray
from scanner.simulation.light.stamps import Raster, Stamps

_CELLS = 5  # a side of a pixel, of 2x2 samples each
#: How often pixels and cells are divided; once is enough up to this Sérsic index if the radius is no less than a pixel, or if
#: the light is faint.
_LEVELS, _ROUND_INDEX = 3, 1.2
#: Softening length in units of the smallest cell: a sample that falls on a cusp would stand for its whole part of the cell, and
#: with a tenth of the cell the mean over all phases is right.
_SOFTENING = 0.1
_WITHIN = np.array([-0.5, 0.5]) / math.sqrt(3.0)  # Gauss' two-point rule


def cusp_means(stamps: Stamps, raster: Raster, shape: Profiles, elements: int, asarray: AsArray) -> Any:
    """Mean surface brightness (K, 2, 2) of the four pixels in the middle of each stamp.

    Parameters
    ----------
    stamps, shape
        Components of one kind.
    raster
        The pixels.
    elements
        How many samples to take at once, about.
    asarray
        Turns a numpy array into an array of the library and device to compute with.
    """
    # The corner that the four pixels share, as seen from the component.
    x = raster.x0 + (stamps.column + stamps.half - 0.5) * raster.scale - stamps.table.x
    y = raster.y0 + (stamps.row + stamps.half - 0.5) * raster.scale - stamps.table.y
    xp, step = array_namespace(shape.values), max(1, elements // (4 * _CELLS) ** 2)
    means = xp.zeros((len(x), 2, 2), dtype=xp.float32, device=device(shape.values))
    easy = (stamps.table.index <= _ROUND_INDEX) & ((stamps.table.radius >= raster.scale) | (stamps.tolerance > 2.0))
    for levels, some in ((1, easy), (_LEVELS, ~easy)):
        members = np.flatnonzero(some)
        for start in range(0, len(members), step):
            part = members[start : start + step]
            means[part] = _means(x[part], y[part], raster.scale, levels, shape.take(part), asarray)
    return means


def _means(x: Float64, y: Float64, size: float, levels: int, shape: Profiles, asarray: AsArray) -> Any:
    softening, blocks = _SOFTENING * size / _CELLS**_LEVELS, []
    for _ in range(levels):
        size /= _CELLS
        # How many cells the corner nearest to the centre is away.
        right, up = (np.clip(np.rint(-corner / size), 1 - _CELLS, _CELLS - 1) for corner in (x, y))
        blocks.append((_block(x, y, size, shape, softening, asarray), right.astype(np.int64), up.astype(np.int64)))
        x, y = x + right * size, y + up * size
    means, member = _binned(blocks[-1][0], _CELLS), np.arange(len(x))
    for block, right, up in reversed(blocks[:-1]):
        for dy in (0, 1):
            for dx in (0, 1):
                block[member, up + (_CELLS - 1 + dy), right + (_CELLS - 1 + dx)] = means[:, dy, dx]
        means = _binned(block, _CELLS)
    return means


def _block(x: Float64, y: Float64, size: float, shape: Profiles, softening: float, asarray: AsArray) -> Any:
    """Means (K, n, n) over the cells, of side ``size``, of 2x2 squares of _CELLS a side about ``(x, y)``."""
    middles = np.arange(2 * _CELLS) + 0.5 - _CELLS
    steps = (middles[:, None] + _WITHIN).ravel() * size
    dx, dy = asarray(x[:, None, None] + steps[None, None, :]), asarray(y[:, None, None] + steps[None, :, None])
    return _binned(surface_brightness(dx, dy, shape, softening), 2)


def _binned(values: Any, side: int) -> Any:
    """Means over side x side blocks of (K, n, n)."""
    # Slices added up are several times faster than a mean over short axes.
    rows = sum((values[:, k::side, :] for k in range(1, side)), values[:, ::side, :])
    return sum((rows[:, :, k::side] for k in range(1, side)), rows[:, :, ::side]) / side**2
