"""Means of surface brightness over pixels, at no more samples than the light asks for.

In: stamps of one kind and size. Out: the mean surface brightness of their pixels, as arrays of any array-API library.

A pixel is sampled in its middle, and its mean follows from the second differences to its neighbours; where these are large, it
is integrated by Gauss' rule; the pixels about the cusp of an unlensed profile are integrated on a grid refined towards it.
Components of one system share the rays through its deflectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import Float64
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline, trace
from scanner.simulation.light.components import Kind
from scanner.simulation.light.profiles import Profiles, profiles, surface_brightness
from scanner.simulation.light.stamps import Raster, Stamps

#: A pixel whose second differences exceed this share of the component's peak is integrated by Gauss' rule of 3x3 points ...
_CURVED = 0.02
#: ... and again with as many in each of 3x3, then 9x9 parts, while that changes its mean by more than these shares of the peak.
_LEVELS = ((1, 0.0015), (3, 0.005), (9, 0.0))
_ABSCISSAS, _WEIGHTS = np.polynomial.legendre.leggauss(3)
#: ... the same samples with weights of lower order tell how uneven the light is within a pixel.
_WEAKER_WEIGHTS = np.array([0.25, 0.5, 0.25])
#: Second differences of the rays, in pixels, beside the singular centre of a lens, where a small image may hide between them.
_TORN = 1.5
_CUSP_CELLS, _CUSP_LEVELS = 4, 3  #: a side of a pixel beside a cusp, of 2x2 samples each; so often those beside it are divided
#: Softening length in units of the cell: a sample that falls on a cusp would stand for its whole cell, and with a tenth of it
#: the mean over all phases is right.
_CUSP_SOFTENING = 0.1

AsArray = Callable[[Any], Any]


@dataclass(frozen=True)
class Window:
    """The (ny, nx) pixels that are drawn of each of some stamps of one kind and size: all, or the raster's if it is smaller.

    ``column``, ``row``: the first pixel drawn, (K,).
    """

    stamps: Stamps
    raster: Raster
    ny: int
    nx: int
    column: Any
    row: Any

    @classmethod
    def of(cls, stamps: Stamps, raster: Raster) -> Window:
        """The window of stamps of one size."""
        side = 2 * int(stamps.half[0])
        ny, nx = min(side, raster.ny), min(side, raster.nx)
        column = stamps.column if nx == side else np.zeros_like(stamps.column)
        row = stamps.row if ny == side else np.zeros_like(stamps.row)
        return cls(stamps, raster, ny, nx, column, row)


@dataclass(frozen=True)
class _Lensing:
    """Sightlines of U systems, which of them each of K components is seen through, and where it lies from the first lens."""

    sightline: Sightline
    system: Any
    x: Any
    y: Any


def pixel_means(window: Window, asarray: AsArray) -> Any:
    """Mean surface brightness (K, ny, nx) of the window's pixels, share of the components' flux per arcsec².

    Parameters
    ----------
    window
        What to draw.
    asarray
        Turns a numpy array into a float32 array of the library and device to compute with.
    """
    stamps, scale = window.stamps, window.raster.scale
    shape, lensing, (origin_x, origin_y) = profiles(stamps.table, asarray), *_lensing(stamps, asarray)
    # Places of each window's first pixel from its component or lens, in double precision before they become float32.
    x0 = asarray((window.raster.x0 + window.column * scale - origin_x)[:, None, None])
    y0 = asarray((window.raster.y0 + window.row * scale - origin_y)[:, None, None])
    x, y = asarray(np.arange(window.nx)[None, None, :] * scale), asarray(np.arange(window.ny)[None, :, None] * scale)
    torn, cusps = None, None
    if lensing is None:
        light = surface_brightness(x0 + x, y0 + y, shape, 0.0)
        if shape.kind is not Kind.ANNULUS:
            cusps = _cusps(window, shape, asarray)
    else:
        _, first = np.unique(stamps.system, return_index=True)
        beta_x, beta_y = trace(x0[first] + x, y0[first] + y, lensing.sightline)
        torn = (_second_differences(beta_x)[1] + _second_differences(beta_y)[1]) > _TORN * scale
        light = surface_brightness(beta_x[lensing.system] - lensing.x, beta_y[lensing.system] - lensing.y, shape, 0.0)
    return _integrated(light, torn, cusps, (x0, y0, scale), shape, lensing, asarray)


def _lensing(stamps: Stamps, asarray: AsArray) -> tuple[_Lensing | None, tuple[Float64, Float64]]:
    """The stamps' sightlines as one of arrays (U, 1, 1), and the origin (K,) of each stamp's frame: component or first lens."""
    table = stamps.table
    if stamps.system[0] < 0:
        return None, (table.x, table.y)
    numbers, system = np.unique(stamps.system, return_inverse=True)
    lines = [stamps.sightlines[number] for number in numbers]
    x, y = (np.array([getattr(line.lenses[0], axis) for line in lines], dtype=np.float64) for axis in "xy")
    lines = [line.moved(-dx, -dy) for line, dx, dy in zip(lines, x, y, strict=True)]

    def column(values: Any) -> Any:
        return asarray(np.array(values, dtype=np.float64)[:, None, None])

    lenses = tuple(
        Lens(**{name: column([getattr(line.lenses[plane], name) for line in lines]) for name in vars(lines[0].lenses[0])})
        for plane in range(len(lines[0].lenses))
    )
    sightline = Sightline(lenses, tuple(column(values) for values in zip(*(line.couplings for line in lines), strict=True)))
    x, y = x[system], y[system]
    return _Lensing(sightline, system, column(table.x - x), column(table.y - y)), (x, y)


def _second_differences(values: Any) -> tuple[Any, Any]:
    """Along both image axes: their sum, and the sum of their amounts; zero on the edges."""
    xp = array_namespace(values)
    bend, amount, twice = xp.zeros_like(values), xp.zeros_like(values), 2.0 * values
    across = values[:, :, 2:] + values[:, :, :-2] - twice[:, :, 1:-1]
    along = values[:, 2:, :] + values[:, :-2, :] - twice[:, 1:-1, :]
    bend[:, :, 1:-1] = across
    bend[:, 1:-1, :] += along
    amount[:, :, 1:-1] = xp.abs(across)
    amount[:, 1:-1, :] += xp.abs(along)
    return bend, amount


def _integrated(
    light: Any,
    torn: Any,
    cusps: tuple[Any, Any] | None,
    frame: tuple[Any, Any, float],
    shape: Profiles,
    lensing: _Lensing | None,
    asarray: AsArray,
) -> Any:
    """Means over pixels from samples in their middles.

    ``torn``: (U, ny, nx) where a system's rays part, so that light may hide between them. ``cusps``: pixels whose means are known,
    as flat indices and values. ``frame``: places of the first pixels, and the scale.
    """
    xp = array_namespace(light)
    ny, nx = light.shape[1:]
    if cusps is not None:
        xp.reshape(light, (-1,))[cusps[0]] = cusps[1]
    bend, curvature = _second_differences(light)
    limit = _CURVED * xp.max(light, axis=(1, 2), keepdims=True)
    where, means = _widened(curvature > limit), xp.reshape(light + bend / 24.0, (-1,))
    if lensing is not None:
        torn = torn[lensing.system]
        where |= torn
        torn = xp.reshape(torn, (-1,))
    where = xp.reshape(where, (-1,))
    if cusps is not None:
        means[cusps[0]], where[cusps[0]] = cusps[1], False
    flat = xp.nonzero(where)[0]
    for parts, tolerance in _LEVELS:
        if not len(flat):
            break
        stamp, pixel = flat // (ny * nx), flat % (ny * nx)
        finer, spread = _gauss(stamp, pixel // nx, pixel % nx, parts, frame, shape, lensing, asarray)
        change = xp.abs(finer - means[flat]) + spread
        means[flat] = finer
        unsure = change > (tolerance / _CURVED) * limit[stamp, 0, 0]
        if lensing is not None and parts == 1:
            unsure |= torn[flat]
        flat = flat[unsure]
    return xp.reshape(means, (-1, ny, nx))


def _gauss(
    stamp: Any,
    row: Any,
    column: Any,
    parts: int,
    frame: tuple[Any, Any, float],
    shape: Profiles,
    lensing: _Lensing | None,
    asarray: AsArray,
) -> tuple[Any, Any]:
    """Mean surface brightness (P,) of single pixels by Gauss' rule of 3x3 points in each of parts x parts, and how sure it is."""
    x0, y0, scale = frame
    xp = array_namespace(x0)
    within = ((np.arange(parts)[:, None] + 0.5 + 0.5 * _ABSCISSAS) / parts - 0.5).ravel() * scale
    weights, weaker = (np.tile(w / parts, parts) for w in (0.5 * _WEIGHTS, _WEAKER_WEIGHTS))
    x = x0[stamp] + (xp.astype(column, xp.float32) * scale)[:, None, None] + asarray(within[None, None, :])
    y = y0[stamp] + (xp.astype(row, xp.float32) * scale)[:, None, None] + asarray(within[None, :, None])
    if lensing is not None:
        through = lensing.system[stamp]
        beta_x, beta_y = trace(x, y, lensing.sightline.take(through))
        x, y = beta_x - lensing.x[stamp], beta_y - lensing.y[stamp]
    values = surface_brightness(x, y, shape.take(stamp), 0.0)
    finer, coarser = (xp.sum(values * asarray(w[:, None] * w[None, :]), axis=(1, 2)) for w in (weights, weaker))
    return finer, xp.abs(finer - coarser)


def _cusps(window: Window, shape: Profiles, asarray: AsArray) -> tuple[Any, Any] | None:
    """Means over the 2x2 pixels about the centres of unlensed components: flat indices (P,) into the window, and values."""
    stamps, scale, cells = window.stamps, window.raster.scale, _CUSP_CELLS
    column, row = stamps.column + stamps.half - 1, stamps.row + stamps.half - 1
    left, low = column - window.column, row - window.row
    inside = np.flatnonzero((left >= 0) & (left + 1 < window.nx) & (low >= 0) & (low + 1 < window.ny))
    if not len(inside):
        return None
    # The corner that the four pixels share, as seen from the component; then that of the four cells nearest to it.
    x, y = (
        start + (first[inside] + 0.5) * scale - centre[inside]
        for start, first, centre in ((window.raster.x0, column, stamps.table.x), (window.raster.y0, row, stamps.table.y))
    )
    some, blocks, size, softening = shape.take(inside), [], scale, _CUSP_SOFTENING * scale / cells**_CUSP_LEVELS
    for _ in range(_CUSP_LEVELS):
        size /= cells
        steps_x, steps_y = (np.clip(np.rint(-corner / size), 1 - cells, cells - 1) for corner in (x, y))
        blocks.append(
            (_block(x, y, size, some, softening, asarray), steps_x.astype(np.int64) + cells, steps_y.astype(np.int64) + cells)
        )
        x, y = x + steps_x * size, y + steps_y * size
    means, member = None, np.arange(len(inside))
    for block, cell_x, cell_y in reversed(blocks):
        for dy in (0, 1) if means is not None else ():
            for dx in (0, 1):
                block[member, cell_y - 1 + dy, cell_x - 1 + dx] = means[:, dy, dx]
        means = _binned(block, cells)
    xp, first = array_namespace(means), (inside * window.ny + low[inside]) * window.nx + left[inside]
    flat = first[:, None] + np.array([0, 1, window.nx, window.nx + 1])
    return flat.ravel(), xp.reshape(means, (-1,))


def _block(x: Float64, y: Float64, size: float, shape: Profiles, softening: float, asarray: AsArray) -> Any:
    """Means (K, n, n) over the cells, of side ``size``, of 2x2 squares of _CUSP_CELLS a side about ``(x, y)``."""
    middles = np.arange(2 * _CUSP_CELLS) + 0.5 - _CUSP_CELLS
    steps = (middles[:, None] + np.array([-0.5, 0.5]) / math.sqrt(3.0)).ravel() * size  # Gauss' two-point rule
    dx, dy = asarray(x[:, None, None] + steps[None, None, :]), asarray(y[:, None, None] + steps[None, :, None])
    return _binned(surface_brightness(dx, dy, shape, softening), 2)


def _binned(values: Any, side: int) -> Any:
    """Means over side x side blocks of (K, n, n)."""
    xp, n = array_namespace(values), values.shape[1] // side
    return xp.mean(xp.reshape(values, (len(values), n, side, n, side)), axis=(2, 4))


def _widened(where: Any) -> Any:
    """(K, n, n) bool, a pixel larger all around."""
    xp = array_namespace(where)
    wide = xp.asarray(where, copy=True)
    wide[:, 1:, :] |= where[:, :-1, :]
    wide[:, :-1, :] |= where[:, 1:, :]
    out = xp.asarray(wide, copy=True)
    out[:, :, 1:] |= wide[:, :, :-1]
    out[:, :, :-1] |= wide[:, :, 1:]
    return out
