"""Where a tile lies, and what telescope sees it."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.random import Generator

from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64
from scanner.simulation.telescope.artefacts import ONE_SIGMA, Artefact, draw_artefacts
from scanner.simulation.telescope.noise import VIS_TAILS
from scanner.simulation.telescope.psf import Psf, draw_psf

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


CELL_ARCSEC = 60.0
#: No artefact reaches further from its place, arcsec.
REACH_ARCSEC = 95.0
#: Gaps between detectors, as four dithered exposures leave them: one exposure is missing there.
_GAP_ARCSEC, _GAP_SPACING_ARCSEC = 12.0, {"VIS": 140.0, "NISP": 210.0}
_EXPOSURES = 4
#: Left-over background: waves of this length, and their amplitude in σ of the sky in a cutout's pixel.
_WAVE_ARCSEC = (40.0, 160.0)
_WAVE_SIGMA: dict[Band, float] = {"VIS": 0.04, "Y": 0.15, "J": 0.15, "H": 0.15}
_MEAN_SIGMA: dict[Band, float] = {"VIS": -0.07, "Y": 0.0, "J": 0.0, "H": 0.0}
#: Marks per square arcsec that lose exposures: tracks in VIS, clumps of bad pixels in each NISP band.
_TRACK_DENSITY, _CLUMP_DENSITY = 40.0 / 24.0**2, 3.0 / 24.0**2
#: Share of the marks that leave no exposure at all.
_LOST: dict[Band, float] = {"VIS": 0.001, "Y": 0.4, "J": 0.4, "H": 0.4}


@dataclass(frozen=True)
class Marks:
    """Pixels of one band in which exposures are lost, M lines with round ends: arrays (M,) in arcsec and radians.

    ``exposures``: how many of four are left; 0 where none is.
    """

    x: Float64
    y: Float64
    length: Float64
    half_width: Float64
    angle: Float64
    exposures: Float64


@dataclass(frozen=True)
class TileTelescope:
    """State of the telescope over one tile; ``camera``: VIS or NISP, whose pixels the artefacts are drawn on.

    ``roll``: of PSFs and detectors, radians, on the pixels. ``level``: factor on the sky's noise. ``tails``: of VIS noise.
    ``phases``: y, x of resampled NISP pixels, by band.
    """

    seed: int
    number: int
    psfs: dict[Band, Psf]
    roll: float
    level: float
    tails: float
    phases: dict[Band, tuple[float, float]]

    def depth(self, band: Band, x: Float64, y: Float64) -> Float32:
        """Exposures that cover the positions: (len(y), len(x)), 2 to 4."""
        camera = _camera(band)
        c, s = math.cos(self.roll), math.sin(self.roll)
        left = np.full((len(y), len(x)), _EXPOSURES, dtype=np.float32)
        spacing = _GAP_SPACING_ARCSEC[camera]
        first, second = tile_generator(self.seed, self.number, f"gaps {camera}").uniform(0.0, spacing, 2)
        for along_x, along_y, phase in ((c, s, first), (-s, c, second)):
            left -= (along_x * x[None, :] + along_y * y[:, None] + phase) % spacing < _GAP_ARCSEC
        return left

    def background(self, band: Band, x: Float64, y: Float64) -> Float32:
        """What background subtraction left, image units per 0.1" pixel, (len(y), len(x))."""
        rng = tile_generator(self.seed, self.number, f"background {band}")
        (kx, ky), phases = 2.0 * math.pi / rng.uniform(*_WAVE_ARCSEC, 2), rng.uniform(0.0, 2.0 * math.pi, 2)
        # The mean square of the product of two sines is a quarter.
        wave = 2.0 * _WAVE_SIGMA[band] * np.sin(ky * y + phases[0])[:, None] * np.sin(kx * x + phases[1])[None, :]
        return np.asarray((_MEAN_SIGMA[band] + wave) * ONE_SIGMA[BANDS.index(band)], dtype=np.float32)

    def artefacts(self, band: Band, x: tuple[float, float], y: tuple[float, float], reach: float) -> Iterator[Artefact]:
        """Artefacts left in the images of a band's camera within ``reach`` of a rectangle, arcsec; some lie outside."""
        for column, row in _cells(x, y, reach):
            yield from _artefacts(self.seed, self.number, _camera(band), self.roll, column, row)

    def marks(self, band: Band, x: tuple[float, float], y: tuple[float, float]) -> Iterator[Marks]:
        """Pixels of a band with lost exposures that reach into a rectangle, cell by cell; some lie outside."""
        for column, row in _cells(x, y, 6.0):
            yield _marks(self.seed, self.number, band, column, row)


def draw_telescope(seed: int, number: int) -> TileTelescope:
    """The telescope of tile ``number``; the same for every caller."""
    rng = tile_generator(seed, number, "telescope")
    roll, width = float(rng.uniform(0.0, 2.0 * math.pi)), float(rng.uniform(0.98, 1.02))
    return TileTelescope(
        seed=seed,
        number=number,
        psfs={band: draw_psf(rng, band, roll, width) for band in BANDS},
        roll=roll,
        level=math.sqrt(rng.uniform(0.9, 1.1)),
        tails=float(rng.uniform(*VIS_TAILS)),
        phases={band: (float(rng.uniform()), float(rng.uniform())) for band in BANDS},
    )


def tile_generator(seed: int, number: int, purpose: str) -> Generator:
    """The random numbers of one tile for one purpose (its telescope, its noise in one band ...)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(purpose.encode()), seed, number])))


def _camera(band: Band) -> str:
    return "VIS" if band == "VIS" else "NISP"


def _cells(x: tuple[float, float], y: tuple[float, float], reach: float) -> Iterator[tuple[int, int]]:
    columns, rows = (
        range(math.floor((low - reach) / CELL_ARCSEC), math.floor((high + reach) / CELL_ARCSEC) + 1) for low, high in (x, y)
    )
    for row in rows:
        for column in columns:
            yield column, row


@lru_cache(maxsize=1024)
def _artefacts(seed: int, number: int, camera: str, roll: float, column: int, row: int) -> tuple[Artefact, ...]:
    """Of one cell, placed in the tile; those of the camera's bands."""
    rng = tile_generator(seed, number, f"artefacts {camera} {column} {row}")
    middle_x, middle_y = (column + 0.5) * CELL_ARCSEC, (row + 0.5) * CELL_ARCSEC
    kept = (0,) if camera == "VIS" else (1, 2, 3)
    return tuple(
        replace(item, x=item.x + middle_x, y=item.y + middle_y, channels=channels)
        for item in draw_artefacts(rng, roll, CELL_ARCSEC**2)
        if (channels := tuple(channel for channel in item.channels if channel in kept))
    )


@lru_cache(maxsize=256)
def _marks(seed: int, number: int, band: Band, column: int, row: int) -> Marks:
    rng = tile_generator(seed, number, f"marks {band} {column} {row}")
    vis = band == "VIS"
    count = int(rng.poisson((_TRACK_DENSITY if vis else _CLUMP_DENSITY) * CELL_ARCSEC**2))
    x, y = CELL_ARCSEC * (np.array([[column], [row]]) + rng.uniform(0.0, 1.0, (2, count)))
    lengths = 10.0 ** rng.uniform(*((-0.7, 0.6) if vis else (-1.5, -0.5)), count)
    widths = rng.uniform(*((0.05, 0.1) if vis else (0.12, 0.3)), count)
    lost = np.where(rng.random(count) < _LOST[band], 4.0, rng.choice([1.0, 1.0, 1.0, 2.0], count))
    return Marks(x, y, lengths, widths, rng.uniform(0.0, math.pi, count), _EXPOSURES - lost)
