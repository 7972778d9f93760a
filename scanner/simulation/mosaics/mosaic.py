"""One simulated tile: objects of the sky onto the pixels of four bands, strip by strip.

In: a :class:`TileGeometry`, the objects that the tile sees and a seed. Out: per band an
image, an RMS and a FLAG mosaic in FITS, named as Euclid's MER names them. Memory is bounded by the strip, whatever the tile's
size. The objects are the same for every tile; PSF and noise are the tile's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from astropy.io import fits
from numpy.random import Generator

from scanner.records import BANDS, NISP_BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.strip_writer import StripWriter
from scanner.simulation.mosaics.tile_geometry import Grid, TileGeometry, rotation_to, to_fine_pixels
from scanner.simulation.telescope import noise, photometry
from scanner.simulation.telescope.psf import Psf, convolve, draw_psf, stack
from scanner.simulation.telescope.stars import SATURATION, add_bleeding, add_star

#: The FLAG bit and the RMS value of pixels without data.
BAD_FLAG = 1
BAD_RMS = 1.0e16
#: Pixels around a strip that are drawn and thrown away: the PSF's reach, and where the periodic convolution wraps.
_MARGIN = 33
#: A component reaches at most this far (the largest half-stamp, or a bright star's halo, plus its distance from its object).
_REACH_PIXELS = 330
_STRIP_PIXELS = 6_000_000
_BAD_PATCHES = 3
_BAD_PATCH_PIXELS = 24


@dataclass(frozen=True)
class TileFiles:
    """Paths of a tile's mosaics, by band."""

    image: dict[Band, Path]
    rms: dict[Band, Path]
    flag: dict[Band, Path]


def tile_generator(seed: int, number: int, purpose: str) -> Generator:
    """The random numbers of one tile for one purpose (its telescope, its noise in one band ...)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([zlib.crc32(purpose.encode()), seed, number])))


def file_names(folder: Path, tile: TileGeometry, seed: int) -> TileFiles:
    """Euclid-like names; the hexadecimal part comes from the seed, the time is a constant."""
    tail = f"TILE{tile.tile_id}-{hashlib.sha256(f'{seed}/{tile.tile_id}'.encode()).hexdigest()[:6].upper()}"
    tail += "_20260101T000000.000000Z_00.00.fits"
    label: dict[Band, str] = {band: band if band == "VIS" else f"NIR-{band}" for band in BANDS}
    return TileFiles(
        image={band: folder / f"EUC_MER_BGSUB-MOSAIC-{label[band]}_{tail}" for band in BANDS},
        rms={band: folder / f"EUC_MER_MOSAIC-{label[band]}-RMS_{tail}" for band in BANDS},
        flag={band: folder / f"EUC_MER_MOSAIC-{label[band]}-FLAG_{tail}" for band in BANDS},
    )


def catalogue_name(folder: Path, tile: TileGeometry, seed: int) -> Path:
    """Name of the tile's catalogue."""
    image = file_names(folder, tile, seed).image["VIS"].name
    return folder / image.replace("BGSUB-MOSAIC-VIS", "FINAL-CAT")


def draw_mosaics(
    tile: TileGeometry,
    objects: Sequence[SkyObject],
    files: TileFiles,
    seed: int,
    companions: bool,
) -> None:
    """Draw and write all mosaics of a tile.

    Parameters
    ----------
    tile, objects, files
        Where, what, and to which paths.
    seed
        The field's seed; noise and PSF come from it and the tile's number.
    companions
        Write RMS and FLAG mosaics too.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    telescope = tile_generator(seed, tile.number, "telescope")
    roll = float(telescope.uniform(0.0, 2.0 * np.pi))
    psfs = {band: draw_psf(telescope, band, roll, float(telescope.uniform(0.95, 1.05))) for band in BANDS}
    level = float(np.sqrt(telescope.uniform(0.9, 1.1)))
    for grid, bands in ((tile.vis, BANDS[:1]), (tile.nisp, NISP_BANDS)):
        view = _View(grid, bands, *_place(grid, tile, objects))
        with contextlib.ExitStack() as stack:
            writers = {band: _open(stack, tile, grid, band, files, companions) for band in bands}
            for first, last in view.strips():
                for band, image, sigma in _observe(view, first, last, psfs, roll, level, seed, tile):
                    bad = _bad_pixels(tile, seed, band, grid, first, last)
                    image[bad], sigma[bad] = 0.0, BAD_RMS
                    for writer, values in zip(writers[band], (image, sigma, bad * np.int32(BAD_FLAG)), strict=False):
                        writer.write(values)


@dataclass(frozen=True)
class _View:
    """The tile's objects on one grid: components in arcsec from the centre of sub-pixel (0, 0), and their rows."""

    grid: Grid
    bands: tuple[Band, ...]
    components: list[Component]
    rows: Float64

    def strips(self) -> Iterator[tuple[int, int]]:
        """Ranges of the mosaic's own rows."""
        ny, nx = self.grid.shape
        rows = max(1, _STRIP_PIXELS // (nx * self.grid.samples**2))
        for first in range(0, ny, rows):
            yield first, min(first + rows, ny)

    def near(self, first: float, last: float) -> list[Component]:
        """Components that can reach rows ``first`` to ``last`` (sub-pixels)."""
        low, high = np.searchsorted(self.rows, [first - _REACH_PIXELS, last + _REACH_PIXELS])
        return self.components[low:high]


def _place(grid: Grid, tile: TileGeometry, objects: Sequence[SkyObject]) -> tuple[list[Component], Float64]:
    turn = rotation_to(grid, tile.centre)
    columns, rows = to_fine_pixels(grid, [item.x for item in objects], [item.y for item in objects])
    ny, nx = (length * grid.samples for length in grid.shape)
    inside = (np.abs(columns - nx / 2) < nx / 2 + _REACH_PIXELS) & (np.abs(rows - ny / 2) < ny / 2 + _REACH_PIXELS)
    scale = VIS_PIXEL_SCALE_ARCSEC
    placed = [
        component.rotated(turn).moved(scale * columns[k], scale * rows[k])
        for k in np.flatnonzero(inside).tolist()
        for component in objects[k].light
    ]
    heights = np.array([component.y / scale for component in placed])
    order = np.argsort(heights, kind="stable")
    return [placed[k] for k in order], heights[order]


def _observe(
    view: _View,
    first: int,
    last: int,
    psfs: dict[Band, Psf],
    roll: float,
    level: float,
    seed: int,
    tile: TileGeometry,
) -> Iterator[tuple[Band, Float32, Float32]]:
    """Image and RMS of one strip, band after band."""
    samples = view.grid.samples
    fine_first, fine_rows, nx = first * samples, (last - first) * samples, view.grid.shape[1] * samples
    ny_canvas = scipy.fft.next_fast_len(fine_rows + 2 * _MARGIN, real=True)
    nx_canvas = scipy.fft.next_fast_len(nx + 2 * _MARGIN, real=True)
    scale = VIS_PIXEL_SCALE_ARCSEC
    raster = scene.Raster(nx_canvas, ny_canvas, -_MARGIN * scale, (fine_first - _MARGIN) * scale, scale)
    components = view.near(fine_first, fine_first + fine_rows)
    light = scene.render([components], raster, view.bands)[0]
    for channel, band in enumerate(view.bands):
        canvas = convolve(light[channel], psfs[band].transfer(ny_canvas, nx_canvas))
        for star in (component for component in components if component.kind is Kind.POINT):
            x, y = star.x / scale + _MARGIN, star.y / scale - fine_first + _MARGIN
            magnitude = photometry.magnitude(star.flux[0], "VIS")
            add_star(canvas[None], x, y, [star.flux[BANDS.index(band)]], stack([psfs[band]]), magnitude, roll)
            if band == "VIS":
                add_bleeding(canvas, x, y, star.flux[0], psfs[band], roll + 0.5 * np.pi)
        # One pixel more on each side: correlated noise needs its neighbours.
        wide = canvas[_MARGIN - 1 : _MARGIN + fine_rows + 1, _MARGIN - 1 : _MARGIN + nx + 1]
        inner = wide[1:-1, 1:-1]
        if band == "VIS":
            wide = np.minimum(wide, SATURATION[band])
            white = _white_rows(seed, tile.number, band, fine_first - 1, fine_first + fine_rows + 1, nx + 2)
            image = wide[1:-1, 1:-1] + noise.vis_noise(white, wide, level)
            sigma = noise.rms(wide[1:-1, 1:-1], band, level)
        elif samples == 1:
            image = np.minimum(inner, SATURATION[band] / 9.0)
            sigma = noise.rms(image, band, level)
            image = image + sigma * _resampled_white(seed, tile.number, band, fine_first, fine_first + fine_rows, nx)
        else:
            image = np.minimum(noise.bin3(inner), SATURATION[band])
            sigma = noise.native_rms(image, band, level)
            image = image + sigma * _white_rows(seed, tile.number, band, first, last, view.grid.shape[1])
        yield band, image.astype(np.float32, copy=False), sigma.astype(np.float32, copy=False)


def _white_rows(seed: int, number: int, name: str, first: int, last: int, nx: int) -> Float32:
    """Rows ``first`` to ``last`` of a field of unit white noise: each row has its own seed, so strips join without a seam."""
    rows = np.empty((last - first, nx), dtype=np.float32)
    for row, target in zip(range(first, last), rows, strict=True):
        # +8: rows just below the image are asked for too, and seeds cannot be negative.
        tile_generator(seed, number, f"noise {name} {row + 8}").standard_normal(out=target, dtype=np.float32)
    return rows


def _resampled_white(seed: int, number: int, band: Band, first: int, last: int, nx: int) -> Float32:
    """Unit native noise as MER's linear resampling leaves it on 0.1" pixels, per unit of the RMS map (RMS of 0.3" / 3)."""
    phase_y, phase_x = tile_generator(seed, number, f"phase {band}").uniform(0.0, 1.0, 2)
    low = int(np.floor((first - 1) / 3.0))
    high = int(np.ceil((last + 2) / 3.0)) + 3
    white = _white_rows(seed, number, band, low, high, nx // 3 + 5)
    rows = np.arange(first, last) / 3.0 + phase_y - low
    own = _white_rows(seed, number, f"{band} fine", first, last, nx)
    return noise.resampled(white, rows, np.arange(nx) / 3.0 + phase_x, own)


def _bad_pixels(tile: TileGeometry, seed: int, band: Band, grid: Grid, first: int, last: int) -> Any:
    """(rows, nx) bool: small patches without data."""
    rng = tile_generator(seed, tile.number, f"bad pixels {band}")
    ny, nx = grid.shape
    size = _BAD_PATCH_PIXELS // grid.samples
    bad = np.zeros((last - first, nx), dtype=bool)
    for _ in range(_BAD_PATCHES):
        row, column = int(rng.integers(0, ny)), int(rng.integers(0, nx))
        bad[max(0, row - first) : max(0, row + size - first), column : column + size] = True
    return bad


def _open(
    stack: contextlib.ExitStack, tile: TileGeometry, grid: Grid, band: Band, files: TileFiles, companions: bool
) -> list[StripWriter]:
    header = fits.Header()
    header["EQUINOX"] = 2000.0
    header["RADESYS"] = "ICRS"
    for axis, name in ((1, "RA---TAN"), (2, "DEC--TAN")):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = name, "deg"
        header[f"CRVAL{axis}"] = (grid.centre[axis - 1], "[deg]")
        header[f"CRPIX{axis}"] = grid.reference[axis - 1]
        for other in (1, 2):
            header[f"CD{axis}_{other}"] = grid.cd[axis - 1][other - 1]
    header["MAGZERO"] = (photometry.ZERO_POINT[band], "AB zero point")
    header["FILTER"] = band if band == "VIS" else f"NIR_{band}"
    header["TILEID"] = tile.tile_id
    header["ORIGIN"] = ("scanner", "simulated")
    image = header.copy()
    image["BUNIT"] = ("adu", "flux = 10^(0.4 (MAGZERO - mag))")
    writers = [stack.enter_context(StripWriter(files.image[band], grid.shape, np.float32, image))]
    if companions:
        writers.append(stack.enter_context(StripWriter(files.rms[band], grid.shape, np.float32, image)))
        writers.append(stack.enter_context(StripWriter(files.flag[band], grid.shape, np.int32, header)))
    return writers
