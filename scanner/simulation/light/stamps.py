"""Where each component is drawn: a square of pixels that reaches to where its light sinks far below the noise.

In: scenes and a raster. Out: :class:`Stamps`, and groups of them that can be drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanner.records import BANDS, Band, Float64
from scanner.simulation.lensing.sightline import Sightline
from scanner.simulation.light.components import Component, Kind, Table, extent_radii, tabulate

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
