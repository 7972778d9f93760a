"""Means of surface brightness over pixels, at no more samples than the light asks for.

In: stamps. Out: :class:`Window`, the mean surface brightness of their pixels, as arrays of any array-API library.

A pixel is sampled in its middle, and its mean follows from the second differences to its neighbours. Where these are large, and
beside the centre of a lens, it is integrated by Gauss' rule, on finer and finer parts as long as that changes anything. The
pixels about the cusp of an unlensed profile come from :mod:`~scanner.simulation.light.cusps`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.simulation.light.components import Kind
from scanner.simulation.light.cusps import cusp_means
from scanner.simulation.light.sampling import AsArray, Light
from scanner.simulation.light.stamps import Raster, Stamps

#: A pixel whose second differences, or a neighbour's, exceed this share of the component's peak is integrated by Gauss' rule of
#: 3x3 points ...
_CURVED = 0.02
#: ... and again with as many in each of 3x3, 9x9, 27x27 parts, while that changes its mean by more than these shares of it.
_LEVELS = ((1, 0.001), (3, 0.001), (9, 0.003), (27, math.inf))
_ABSCISSAS, _WEIGHTS = np.polynomial.legendre.leggauss(3)
#: The same samples with weights of lower order tell how uneven the light is within a pixel.
_WEAKER_WEIGHTS = np.array([0.25, 0.5, 0.25])
#: Beside the singular centre of a lens a small image may hide between the rays: where their second differences, in pixels,
#: exceed the first, pixels are integrated in any case; beyond the second, by more than 3x3 points.
_PARTING, _TORN = 0.7, 2.0


@dataclass(frozen=True)
class Window:
    """The pixels of K stamps of one size: all of them, or the raster's where it is smaller.

    ``column``, ``row``: the first pixel, (K,). ``light``: mean surface brightness, (K, ny, nx), share of flux per arcsec².
    """

    stamps: Stamps
    column: Any
    row: Any
    light: Any


@dataclass(frozen=True)
class _Uneven:
    """P pixels of a window that deserve more than one sample: where in it, whose, and whether rays part there."""

    flat: Any
    component: Any
    row: Any
    column: Any
    torn: Any


def pixel_means(stamps: Stamps, raster: Raster, elements: int, asarray: AsArray) -> list[Window]:
    """Mean surface brightness of stamps of one kind behind one number of planes.

    Parameters
    ----------
    stamps
        In the order of :meth:`~scanner.simulation.light.stamps.Stamps.alike`.
    raster
        The pixels.
    elements
        How many samples to take at once, about.
    asarray
        Turns a numpy array into an array of the library and device to compute with, floats into float32.
    """
    light, cusps = Light.of(stamps, raster, asarray), None
    if light.sightline is None and light.shape.kind is not Kind.ANNULUS:
        cusps = cusp_means(stamps, raster, light.shape, elements, asarray)
    columns, rows, widths, heights = stamps.clipped(raster)
    windows, uneven, peaks = [], [], []
    for run in stamps.sizes():
        nx, ny = int(widths[run.start]), int(heights[run.start])
        step = max(1, elements // (nx * ny))
        for start in range(run.start, run.stop, step):
            part = slice(start, min(start + step, run.stop))
            window = Window(stamps.take(part), columns[part], rows[part], None)
            means, where, peak = _from_middles(window, part, (ny, nx), light, cusps, raster, asarray)
            windows.append(Window(window.stamps, window.column, window.row, means))
            uneven.append(where)
            peaks.append(peak)
    _integrate(windows, uneven, array_namespace(peaks[0]).concat(peaks), light, raster.scale, elements, asarray)
    return windows


def _from_middles(
    window: Window, part: slice, size: tuple[int, int], light: Light, cusps: Any, raster: Raster, asarray: AsArray
) -> tuple[Any, _Uneven, Any]:
    """Means (K, ny, nx) from samples in the middles of pixels, where these are not enough, and peaks (K,) times tolerances."""
    ny, nx = size
    x, y = asarray(np.arange(nx)[None, None, :] * raster.scale), asarray(np.arange(ny)[None, :, None] * raster.scale)
    values, rays, member = light.on_grid(part, x, y)
    xp = array_namespace(values)
    flat_values, known = xp.reshape(values, (-1,)), None
    if cusps is None:
        peak = xp.max(values, axis=(1, 2))
    else:
        # Whatever of the stamp is drawn, and so however the sky is cut into strips, the pixels come out the same.
        known, inside = _middle_pixels(window, size)
        means_there, peak = cusps[part], xp.max(cusps[part], axis=(1, 2))
        means_there = xp.reshape(means_there, (-1,))[inside]
        flat_values[known] = means_there
    peak *= asarray(window.stamps.tolerance)
    limit = peak[:, None, None]
    bend, curvature = _second_differences(values)
    means, where, torn = values, xp.zeros_like(values, dtype=xp.bool), xp.zeros_like(values, dtype=xp.bool)
    where[:, 1:-1, 1:-1] = curvature > _CURVED * limit
    means[:, 1:-1, 1:-1] += bend / 24.0
    where = _widened(where)
    if rays is not None:
        parting = _second_differences(rays[0])[1] + _second_differences(rays[1])[1]
        where[:, 1:-1, 1:-1] |= (parting > _PARTING * raster.scale)[member]
        torn[:, 1:-1, 1:-1] = (parting > _TORN * raster.scale)[member]
    means, where, torn = (xp.reshape(pixels, (-1,)) for pixels in (means, where, torn))
    if known is not None:
        means[known], where[known] = means_there, False
    flat = xp.nonzero(where)[0]
    component, pixel = flat // (ny * nx), flat % (ny * nx)
    uneven = _Uneven(flat, component + part.start, pixel // nx, pixel % nx, torn[flat])
    return xp.reshape(means, (-1, ny, nx)), uneven, peak


def _middle_pixels(window: Window, size: tuple[int, int]) -> tuple[Any, Any]:
    """The 2x2 pixels in the middle of each stamp as flat indices into the window, and which of the (K, 2, 2) lie in it."""
    ny, nx = size
    stamps, pair = window.stamps, np.arange(2)
    rows = (stamps.row + stamps.half - 1 - window.row)[:, None, None] + pair[None, :, None]
    columns = (stamps.column + stamps.half - 1 - window.column)[:, None, None] + pair[None, None, :]
    inside = ((rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)).ravel()
    flat = (np.arange(len(rows))[:, None, None] * ny + rows) * nx + columns
    return flat.ravel()[inside], np.flatnonzero(inside)


def _integrate(
    windows: list[Window], uneven: list[_Uneven], peak: Any, light: Light, scale: float, elements: int, asarray: AsArray
) -> None:
    """Integrate uneven pixels by Gauss' rule, in place."""
    xp = array_namespace(peak)
    component, row, column, torn = (
        xp.concat([getattr(part, name) for part in uneven]) for name in ("component", "row", "column", "torn")
    )
    mean = xp.concat([xp.reshape(window.light, (-1,))[part.flat] for window, part in zip(windows, uneven, strict=True)])
    x, y = (xp.astype(place, xp.float32)[:, None, None] * scale for place in (column, row))
    active = xp.arange(len(mean))
    for parts, tolerance in _LEVELS:
        within = ((np.arange(parts)[:, None] + 0.5 + 0.5 * _ABSCISSAS) / parts - 0.5).ravel() * scale
        dx, dy = asarray(within[None, None, :]), asarray(within[None, :, None])
        weights, weaker = (np.tile(w / parts, parts) for w in (0.5 * _WEIGHTS, _WEAKER_WEIGHTS))
        weights, weaker = (asarray(np.outer(w, w)) for w in (weights, weaker))
        left, step = [], max(1, elements // (3 * parts) ** 2)
        for start in range(0, len(active), step):
            some = active[start : start + step]
            values = light.at(component[some], x[some] + dx, y[some] + dy)
            # No matrix product: its rounding depends on how many pixels there are.
            finer, coarser = (xp.einsum("pij,ij->p", values, w) for w in (weights, weaker))
            change = xp.abs(finer - mean[some]) + 2.0 * xp.abs(finer - coarser)
            mean[some] = finer
            unsure = change > tolerance * peak[component[some]]
            left.append(some[unsure | torn[some]] if parts == 1 else some[unsure])
        if not left:
            break
        active = xp.concat(left)
    start = 0
    for window, part in zip(windows, uneven, strict=True):
        xp.reshape(window.light, (-1,))[part.flat] = mean[start : start + len(part.flat)]
        start += len(part.flat)


def _second_differences(values: Any) -> tuple[Any, Any]:
    """Along both image axes, but for the pixels on the edges: (K, ny - 2, nx - 2), their sum and the sum of their amounts."""
    twice = 2.0 * values[:, 1:-1, 1:-1]
    across = values[:, 1:-1, 2:] + values[:, 1:-1, :-2]
    across -= twice
    along = values[:, 2:, 1:-1] + values[:, :-2, 1:-1]
    along -= twice
    return across + along, abs(across) + abs(along)


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
