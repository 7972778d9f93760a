"""The telescope of one tile: PSFs, noise, gaps between detectors, what background subtraction left, artefacts.

In: a field's seed and a tile. Out: :class:`TileTelescope`, all of whose maps are functions of the position in arcsec from the
tile's first sub-pixel, so that strips of a tile, of any height, agree. Artefacts come from square cells with random numbers of
their own: none but those near a strip is ever held.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from scanner.records import BANDS, Band, Float32, Float64
from scanner.simulation.telescope.artefacts import ONE_SIGMA, Artefact, draw_artefacts
from scanner.simulation.telescope.noise import VIS_TAILS
from scanner.simulation.telescope.psf import Psf, draw_psf

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
    """The telescope of tile ``number``; the same whoever asks."""
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
