"""From components to noiseless pixels, before the telescope: brightness integrated over pixels, for cutouts and for mosaics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from scanner.records import BANDS, Band, Float64
from scanner.simulation.lensing import Lens, Sightline, trace
from scanner.simulation.light.components import (
    Component,
    Kind,
    Profiles,
    Table,
    extent_radii,
    profiles,
    surface_brightness,
    tabulate,
)

#: Surface brightness at which stamps end, image units per 0.01 arcsec²: about 4% of the sky σ of one VIS or NISP 0.1" pixel.
FAINT_LEVEL: dict[Band, float] = {"VIS": 1.0e-4, "Y": 0.02, "J": 0.02, "H": 0.02}
#: Unlensed components whose flux is less than this many of those levels (VIS 24.6) may have larger errors, up to so many times:
#: these stay far below the noise.
_FAINT, _LOOSEST = 10_000.0, 10.0
_HALF_SIZES = np.array([6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256])


@dataclass(frozen=True)
class Raster:
    """A pixel grid in the plane of the scene.

    ``x0, y0``: position of the centre of pixel (0, 0), arcsec. ``scale``: pixel side, arcsec.
    """

    nx: int
    ny: int
    x0: float
    y0: float
    scale: float


def centred_raster(pixels: int, scale: float) -> Raster:
    """A square raster whose middle is the origin: a pixel corner for even ``pixels``."""
    start = -0.5 * (pixels - 1) * scale
    return Raster(pixels, pixels, start, start, scale)


@dataclass(frozen=True)
class Stamps:
    """S stamps as columns (S,).

    ``table``: the components. ``image``: whose stamp it is. ``column``, ``row``: the first pixel, which may lie outside the
    raster. ``half``: half the side, pixels. ``system``: which of ``sightlines`` the light is seen through; -1 for none.
    ``tolerance``: factor on the errors, in units of its peak, that a component may have.
    """

    table: Table
    image: Any
    column: Any
    row: Any
    half: Any
    system: Any
    tolerance: Any
    sightlines: tuple[Sightline, ...]

    def take(self, index: Any) -> Stamps:
        """Some of the stamps."""
        image, column, row, half, system, tolerance = (
            values[index] for values in (self.image, self.column, self.row, self.half, self.system, self.tolerance)
        )
        return Stamps(self.table.take(index), image, column, row, half, system, tolerance, self.sightlines)

    def clipped(self, raster: Raster) -> tuple[Any, Any, Any, Any]:
        """First column and row, width and height of what is drawn: all of a stamp, or the raster where it is smaller.

        Stamps behind a sightline are drawn as a whole: how finely depends on the brightest of their pixels.
        """
        side, unlensed = 2 * self.half, self.system < 0
        wide, high = unlensed & (side > raster.nx), unlensed & (side > raster.ny)
        first = np.where(wide, 0, self.column), np.where(high, 0, self.row)
        return *first, np.where(wide, raster.nx, side), np.where(high, raster.ny, side)

    def alike(self) -> Iterator[Stamps]:
        """Stamps of one kind behind one number of planes, ordered by size and then by system."""
        planes = np.array([0, *(len(line.lenses) for line in self.sightlines)])[self.system + 1]
        kind = self.table.kind.astype(np.int64)
        order = np.lexsort((self.system, self.half, kind, planes))
        for members in _runs(order, np.stack([planes, kind])):
            yield self.take(members)

    def sizes(self) -> Iterator[slice]:
        """Runs of stamps of one size."""
        for members in _runs(np.arange(len(self.half)), self.half[None]):
            yield slice(int(members[0]), int(members[-1]) + 1)


def _runs(order: Any, keys: Any) -> list[Any]:
    """``order`` cut wherever one of the keys (n, S) changes."""
    changes = np.flatnonzero(np.any(np.diff(keys[:, order], axis=1) != 0, axis=0)) + 1
    return [run for run in np.split(order, changes) if len(run)]


def place(scenes: Sequence[Sequence[Component]], raster: Raster, bands: Sequence[Band]) -> Stamps:
    """Stamps of all components but points, and but those that lie off the raster or shine in none of ``bands``."""
    drawn = [
        (image, component) for image, scene in enumerate(scenes) for component in scene if component.kind is not Kind.POINT
    ]
    table = tabulate([component for _, component in drawn])
    numbers: dict[tuple[int, Sightline], int] = {}
    system = np.array(
        [
            -1 if component.seen_through is None else numbers.setdefault((image, component.seen_through), len(numbers))
            for image, component in drawn
        ],
        dtype=np.int64,
    )
    sightlines = tuple(line for _, line in numbers)
    faintest = np.array([FAINT_LEVEL[band] for band in bands])
    ratio = np.max(np.abs(table.flux[:, [BANDS.index(band) for band in bands]]) / faintest, axis=1)
    with np.errstate(divide="ignore"):
        reach = np.where(ratio > 0.0, extent_radii(table, 100.0 / ratio), 0.0)
    x, y, reach = _seen(table, reach, system, sightlines)
    half = _HALF_SIZES[np.minimum(np.searchsorted(_HALF_SIZES, reach / raster.scale + 1.0), len(_HALF_SIZES) - 1)]
    # The stamp's middle is the pixel corner nearest to the centre.
    column, row = (
        np.floor((centre - start) / raster.scale + 1.0).astype(np.int64) - half
        for centre, start in ((x, raster.x0), (y, raster.y0))
    )
    there = (ratio > 0.0) & (column < raster.nx) & (row < raster.ny) & (column + 2 * half > 0) & (row + 2 * half > 0)
    tolerance = np.where(system < 0, np.clip(_FAINT / np.maximum(ratio, 1e-30), 1.0, _LOOSEST), 1.0)
    image = np.array([image for image, _ in drawn], dtype=np.int64)
    stamps = Stamps(table, image, column, row, half, system, tolerance, sightlines)
    return stamps.take(np.flatnonzero(there))


def _seen(table: Table, reach: Float64, system: Any, sightlines: Sequence[Sightline]) -> tuple[Float64, Float64, Float64]:
    """Centres and reaches in the image plane; all components of a system get the same, so that they can share their rays."""
    if not sightlines:
        return table.x, table.y, reach
    first = [line.lenses[0] for line in sightlines]
    lens_x, lens_y = (np.array([getattr(lens, axis) for lens in first]) for axis in "xy")
    bent = np.array([sum(lens.theta_e / math.sqrt(lens.q) for lens in line.lenses) for line in sightlines])
    lensed = system >= 0
    of = system[lensed]
    # An image lies at most θ_E (stretched by ellipticity and shear) further out than its source, as seen from the lens.
    furthest = np.zeros(len(sightlines))
    np.maximum.at(furthest, of, np.hypot(table.x[lensed] - lens_x[of], table.y[lensed] - lens_y[of]) + reach[lensed])
    x, y, reach = table.x.copy(), table.y.copy(), reach.copy()
    x[lensed], y[lensed], reach[lensed] = lens_x[of], lens_y[of], (1.25 * bent + 1.1 * furthest)[of]
    return x, y, reach


#: Turns a numpy array into one of the library and device to compute with, floats into float32.
AsArray = Callable[[Any], Any]


@dataclass(frozen=True)
class Light:
    """K components of one kind as arrays (K, 1, 1), and what is in front of them.

    ``x, y``: the first pixels as seen from the components or, behind a sightline, from its first lens. ``sightline``: of U
    systems, (U, 1, 1), or None. ``system`` (K,): which of them each component is behind, and ``numbers`` the same in numpy;
    ``source_x, source_y``: its place from the first lens.
    """

    shape: Profiles
    x: Any
    y: Any
    sightline: Sightline | None
    system: Any
    numbers: Any
    source_x: Any
    source_y: Any

    @classmethod
    def of(cls, stamps: Stamps, raster: Raster, asarray: AsArray) -> Light:
        """The light of stamps."""
        table = stamps.table

        def column(values: Any) -> Any:
            return asarray(np.asarray(values, dtype=np.float64)[:, None, None])

        origin_x, origin_y, sightline, numbers = table.x, table.y, None, np.zeros(len(table.x), dtype=np.int64)
        if stamps.system[0] >= 0:
            present, numbers = np.unique(stamps.system, return_inverse=True)
            lines = [stamps.sightlines[number] for number in present]
            places = np.array([(line.lenses[0].x, line.lenses[0].y) for line in lines], dtype=np.float64)
            sightline = _gathered([line.moved(-x, -y) for line, (x, y) in zip(lines, places, strict=True)], column)
            origin_x, origin_y = places[numbers].T
        # In double precision before it becomes float32.
        first_column, first_row, _, _ = stamps.clipped(raster)
        x, y = raster.x0 + first_column * raster.scale, raster.y0 + first_row * raster.scale
        return cls(
            profiles(table, asarray),
            column(x - origin_x),
            column(y - origin_y),
            sightline,
            asarray(numbers),
            numbers,
            column(table.x - origin_x),
            column(table.y - origin_y),
        )

    def at(self, which: Any, x: Any, y: Any) -> Any:
        """Surface brightness of the components ``which`` (P,) at places of their own, (P, n, 1) or (P, 1, n)."""
        x, y = self.x[which] + x, self.y[which] + y
        if self.sightline is not None:
            beta_x, beta_y = trace(x, y, self.sightline.take(self.system[which]))
            x, y = beta_x - self.source_x[which], beta_y - self.source_y[which]
        return surface_brightness(x, y, self.shape.take(which), 0.0)

    def on_grid(self, run: slice, x: Any, y: Any) -> tuple[Any, tuple[Any, Any] | None, Any]:
        """Surface brightness of a run of components at the same places, (1, 1, nx) and (1, ny, 1), of each.

        Returns
        -------
        tuple
            (K, ny, nx); the rays (U, ny, nx) of their systems, which the components of a system share, or None; and which of
            them each component is behind.
        """
        shape = self.shape.take(run)
        if self.sightline is None:
            return surface_brightness(self.x[run] + x, self.y[run] + y, shape, 0.0), None, None
        systems, leader, member = np.unique(self.numbers[run], return_index=True, return_inverse=True)
        leader += run.start
        rays = trace(self.x[leader] + x, self.y[leader] + y, self.sightline.take(systems))
        dx, dy = rays[0][member] - self.source_x[run], rays[1][member] - self.source_y[run]
        return surface_brightness(dx, dy, shape, 0.0), rays, member


def _gathered(lines: list[Sightline], column: Callable[[Any], Any]) -> Sightline:
    """Sightlines of one number of planes as one of arrays."""
    lenses = tuple(
        Lens(**{name: column([getattr(line.lenses[plane], name) for line in lines]) for name in vars(lines[0].lenses[0])})
        for plane in range(len(lines[0].lenses))
    )
    return Sightline(lenses, tuple(column(values) for values in zip(*(line.couplings for line in lines), strict=True)))


_CELLS = 5  # a side of a pixel, of 2x2 samples each
#: How often pixels and cells are divided; once is enough up to this Sérsic index if the radius is no less than a pixel, or if
#: the light is faint.
_CUSP_LEVELS, _ROUND_INDEX = 3, 1.2
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
    for levels, some in ((1, easy), (_CUSP_LEVELS, ~easy)):
        members = np.flatnonzero(some)
        for start in range(0, len(members), step):
            part = members[start : start + step]
            means[part] = _means(x[part], y[part], raster.scale, levels, shape.take(part), asarray)
    return means


def _means(x: Float64, y: Float64, size: float, levels: int, shape: Profiles, asarray: AsArray) -> Any:
    softening, blocks = _SOFTENING * size / _CELLS**_CUSP_LEVELS, []
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


#: A pixel whose second differences, or a neighbour's, exceed this share of the component's peak is integrated by Gauss' rule of
#: 3x3 points ...
_CURVED = 0.02
#: ... and again with as many in each of 3x3, 9x9, 27x27 parts, while that changes its mean by more than these shares of it.
_FINENESS = ((1, 0.001), (3, 0.001), (9, 0.003), (27, math.inf))
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
        In the order of :meth:`~scanner.simulation.light.scene.Stamps.alike`.
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
    for parts, tolerance in _FINENESS:
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


#: Pixels drawn at once: temporaries that stay within a core's cache, or enough to keep an accelerator busy.
_ELEMENTS, _ELEMENTS_ACCELERATOR = 1 << 16, 1 << 24


def render(scenes: Sequence[Sequence[Component]], raster: Raster, bands: Sequence[Band] = BANDS, like: Any = None) -> Any:
    """Draw the scenes' galaxies, without telescope or noise.

    Parameters
    ----------
    scenes
        One sequence of components an image; components of kind ``POINT`` are skipped.
    raster
        Pixel grid, the same for all images.
    bands
        Which of the components' fluxes to draw.
    like
        An array of the library and device to compute with; numpy by default.

    Returns
    -------
    array
        (N, bands, ny, nx) float32, flux per pixel.
    """
    like = np.zeros(1) if like is None else like
    xp, where = array_namespace(like), device(like)
    out = xp.zeros((len(scenes), len(bands), raster.ny, raster.nx), dtype=xp.float32, device=where)

    def asarray(values: Any) -> Any:
        values = np.asarray(values)
        return xp.asarray(values.astype(np.float32) if values.dtype.kind == "f" else values, device=where)

    channels = [BANDS.index(band) for band in bands]
    elements = _ELEMENTS if str(where).startswith("cpu") else _ELEMENTS_ACCELERATOR
    drawn = [
        window for stamps in place(scenes, raster, bands).alike() for window in pixel_means(stamps, raster, elements, asarray)
    ]
    (_add_slices if is_numpy_array(like) else _add_scattered)(out, drawn, channels, raster.scale**2)
    return out


def _add_slices(out: Any, drawn: Sequence[Window], channels: Sequence[int], area: float) -> None:
    """Add the stamps' pixels times their flux to all bands of their images, clipped at the raster's edges."""
    places: list[tuple[Any, ...]] = []
    ny, nx = out.shape[-2:]
    for window in drawn:
        stamps = window.stamps
        left, right = np.maximum(stamps.column, 0), np.minimum(stamps.column + 2 * stamps.half, nx)
        low, high = np.maximum(stamps.row, 0), np.minimum(stamps.row + 2 * stamps.half, ny)
        corners = (low, high, left, right, low - window.row, high - window.row, left - window.column, right - window.column)
        weights = (area * stamps.table.flux[:, channels]).astype(np.float32)[:, :, None, None]
        places += zip(stamps.image.tolist(), window.light, weights, *(values.tolist() for values in corners), strict=True)
    # Image by image: one fits into the cache, all of them do not.
    places.sort(key=itemgetter(0))
    for image, light, weight, y0, y1, x0, x1, from_y, to_y, from_x, to_x in places:
        out[image, :, y0:y1, x0:x1] += weight * light[from_y:to_y, from_x:to_x]


def _add_scattered(out: Any, drawn: Sequence[Window], channels: Sequence[int], area: float) -> None:
    """As :func:`_add_slices` for torch: one addition a window and band, on an accelerator in no fixed order."""
    xp, where = array_namespace(out), device(out)
    bands, ny, nx = out.shape[-3:]

    def there(values: Any) -> Any:
        return xp.asarray(values, device=where)

    for window in drawn:
        stamps, light = window.stamps, window.light
        inside, places = [], []
        for first, start, count, limit in (
            (window.row, stamps.row, light.shape[1], ny),
            (window.column, stamps.column, light.shape[2], nx),
        ):
            place = first[:, None] + np.arange(count)
            low, high = np.maximum(start, 0), np.minimum(start + 2 * stamps.half, limit)
            inside.append(there(((place >= low[:, None]) & (place < high[:, None])).astype(np.float32)))
            places.append(np.clip(place, 0, limit - 1))
        rows, columns = there(stamps.image[:, None] * (bands * ny * nx) + places[0] * nx), there(places[1])
        target = xp.reshape(rows[:, :, None] + columns[:, None, :], (-1,))
        light = light * inside[0][:, :, None] * inside[1][:, None, :]
        weights = there((area * stamps.table.flux[:, channels]).astype(np.float32))
        for band in range(bands):
            xp.reshape(out, (-1,)).index_add_(
                0, target + band * ny * nx, xp.reshape(weights[:, band, None, None] * light, (-1,))
            )
