"""Where simulated tiles lie on the sky, and on which pixels their bands are sampled.

In: number, size and overlap of the tiles. Out: one :class:`TileGeometry` a tile. Tiles stand in a row along right ascension.
Even tiles are MER-style, all bands on one 0.1" grid; odd tiles have NISP on its native 0.3" pixels, slightly rotated and
offset, and large enough to cover VIS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from astropy.wcs import WCS

from scanner.records import NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Float64

FIELD_CENTRE_DEG = (52.9, -28.0)
NATIVE_ROTATION_DEG = 1.7
_NATIVE_OFFSET_PIXELS = (0.37, -0.21)
_FIRST_TILE_NUMBER = 900_000_001


@dataclass(frozen=True)
class Grid:
    """A mosaic's pixels, gnomonic: sky position ``centre`` (degrees) lies on the FITS pixel ``reference``.

    ``scale``: pixel side, arcsec. ``rotation_deg``: by which the sky's west direction is turned on the pixels, from +x to +y.
    ``shape``: (ny, nx).
    """

    centre: tuple[float, float]
    reference: tuple[float, float]
    scale: float
    rotation_deg: float
    shape: tuple[int, int]

    @property
    def samples(self) -> int:
        """How many 0.1" sub-pixels make a pixel's side: 1 or 3."""
        return round(self.scale / VIS_PIXEL_SCALE_ARCSEC)

    @property
    def cd(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The CD matrix, degrees per pixel."""
        step, turn = self.scale / 3600.0, math.radians(self.rotation_deg)
        return (-step * math.cos(turn), -step * math.sin(turn)), (-step * math.sin(turn), step * math.cos(turn))

    @cached_property
    def wcs(self) -> WCS:
        """The same as astropy's WCS."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cd = list(self.centre), list(self.reference), [list(row) for row in self.cd]
        wcs.wcs.set()
        return wcs


@dataclass(frozen=True)
class TileGeometry:
    """One tile. ``centre``: its middle in the field's plane, arcsec. ``native``: NISP is not resampled to 0.1"."""

    tile_id: str
    number: int
    centre: tuple[float, float]
    vis: Grid
    nisp: Grid
    native: bool


#: The field's tangent plane: "pixels" of 1 arcsec, x to the west, y to the north, (0, 0) at the field's centre.
PLANE = Grid(FIELD_CENTRE_DEG, (1.0, 1.0), 1.0, 0.0, (0, 0))


def lay_out(n_tiles: int, size: int, overlap: float, seed: int = 0) -> list[TileGeometry]:
    """Geometry of ``n_tiles`` tiles of ``size`` VIS pixels a side whose neighbours share ``overlap`` of a side."""
    step = size * VIS_PIXEL_SCALE_ARCSEC * (1.0 - overlap)
    tiles = []
    for number in range(n_tiles):
        x, y = -(number - 0.5 * (n_tiles - 1)) * step, 0.0
        ra, dec = (float(value) for value in PLANE.wcs.wcs_pix2world(x, y, 0))
        middle = 0.5 * (size + 1)
        vis = Grid((ra, dec), (middle, middle), VIS_PIXEL_SCALE_ARCSEC, 0.0, (size, size))
        native = number % 2 == 1
        tile_number = _FIRST_TILE_NUMBER + 1000 * (seed % 90_000) + number
        tiles.append(TileGeometry(str(tile_number), number, (x, y), vis, _native((ra, dec), size) if native else vis, native))
    return tiles


def _native(centre: tuple[float, float], size: int) -> Grid:
    turn = math.radians(NATIVE_ROTATION_DEG)
    side = size * VIS_PIXEL_SCALE_ARCSEC * (math.cos(turn) + math.sin(turn)) / NISP_PIXEL_SCALE_ARCSEC
    pixels = math.ceil(side) + 4
    middle = 0.5 * (pixels + 1)
    reference = (middle + _NATIVE_OFFSET_PIXELS[0], middle + _NATIVE_OFFSET_PIXELS[1])
    return Grid(centre, reference, NISP_PIXEL_SCALE_ARCSEC, NATIVE_ROTATION_DEG, (pixels, pixels))


def to_fine_pixels(grid: Grid, x: Any, y: Any) -> tuple[Float64, Float64]:
    """Plane positions (arcsec) as zero-based coordinates of the grid's 0.1" sub-pixels."""
    ra, dec = PLANE.wcs.wcs_pix2world(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), 0)
    column, row = grid.wcs.wcs_world2pix(ra, dec, 0)
    shift = 0.5 * (grid.samples - 1)
    return column * grid.samples + shift, row * grid.samples + shift


def to_plane(grid: Grid, column: Any, row: Any) -> tuple[Float64, Float64]:
    """Zero-based coordinates of the grid's 0.1" sub-pixels as plane positions (arcsec): undoes :func:`to_fine_pixels`."""
    shift, samples = 0.5 * (grid.samples - 1), grid.samples
    ra, dec = grid.wcs.wcs_pix2world((np.asarray(column) - shift) / samples, (np.asarray(row) - shift) / samples, 0)
    x, y = PLANE.wcs.wcs_world2pix(ra, dec, 0)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def rotation_to(grid: Grid, centre: tuple[float, float]) -> float:
    """Angle by which the plane's directions turn on the grid near ``centre``, radians."""
    x, y = centre
    columns, rows = to_fine_pixels(grid, [x, x + 1.0], [y, y])
    return math.atan2(rows[1] - rows[0], columns[1] - columns[0])
