"""Mosaics drawn strip by strip, so that memory does not grow with the tile."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import scipy.fft
from astropy.io import fits
from numpy.typing import NDArray

from scanner.records import BANDS, NISP_BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32, Float64
from scanner.simulation.light import scene
from scanner.simulation.light.components import Component, Kind
from scanner.simulation.mosaics.field import (
    REACH_ARCSEC,
    Grid,
    Marks,
    SkyObject,
    TileGeometry,
    TileTelescope,
    draw_telescope,
    rotation_to,
    tile_generator,
    to_fine_pixels,
    to_plane,
)
from scanner.simulation.telescope import noise
from scanner.simulation.telescope.artefacts import ONE_SIGMA, SATURATION, ArtefactKind, add_bleeding, add_star, artefact_light
from scanner.simulation.telescope.psf import convolve, stack

_BLOCK = 2880
_BITPIX = {np.dtype(np.float32): -32, np.dtype(np.int32): 32}


class StripWriter:
    """Context manager that writes an (ny, nx) image of ``dtype`` (float32 or int32) to ``path``.

    ``cards``: header cards beyond the structural ones. Raises OSError where the file cannot be written and ValueError where
    the rows do not add up to ``shape``.
    """

    def __init__(self, path: Path, shape: tuple[int, int], dtype: Any, cards: fits.Header) -> None:
        self._path, self._shape, self._dtype = path, shape, np.dtype(dtype)
        self._rows = 0
        header = fits.Header()
        header["SIMPLE"] = (True, "conforms to FITS standard")
        header["BITPIX"] = _BITPIX[self._dtype]
        header["NAXIS"] = 2
        header["NAXIS1"], header["NAXIS2"] = shape[1], shape[0]
        header.extend(cards, unique=True)
        self._part = path.with_name(path.name + ".part")
        self._file = self._part.open("wb")
        self._file.write(header.tostring().encode("ascii"))

    def write(self, strip: NDArray[Any]) -> None:
        """Append rows (n, nx)."""
        if strip.ndim != 2 or strip.shape[1] != self._shape[1]:
            raise ValueError(f"{self._path}: strip of shape {strip.shape} in an image of shape {self._shape}")
        self._rows += len(strip)
        self._file.write(np.ascontiguousarray(strip, dtype=self._dtype.newbyteorder(">")).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        complete = self._rows == self._shape[0]
        if kind is None and complete:
            self._file.write(b"\0" * (-self._file.tell() % _BLOCK))
        self._file.close()
        if kind is None and complete:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
        if kind is None and not complete:
            raise ValueError(f"{self._path}: {self._rows} of {self._shape[0]} rows written")


NO_DATA = 1  #: no exposure left: the pixel's value is 0 and its RMS 1e16
SATURATED = 2  #: VIS full well or NISP ramp exceeded in a star or a galaxy's core, bleeding trails included
COSMIC_RAY = 4  #: at least one exposure lost to a particle's track: fewer exposures, larger RMS
BAD_PIXEL = 8  #: a dead, hot or noisy pixel of the detector in at least one exposure
BAD_COLUMN = 16  #: a detector column or row that is a little off
GHOST = 32  #: an out-of-focus image of a bright star, brighter than the sky's noise
PERSISTENCE = 64  #: the after-image of a star in NISP, brighter than the sky's noise
TRAIL = 128  #: a satellite's trail, brighter than the sky's noise
STRAY_LIGHT = 256  #: a patch of stray light, brighter than the sky's noise
FEWER_EXPOSURES = 512  #: beyond the edge of a detector in at least one exposure: larger RMS

NO_DATA_RMS = 1.0e16

#: Bits of artefacts that stay in the image; what is not named here has escaped the flags.
OF_ARTEFACT: dict[ArtefactKind, int] = {
    ArtefactKind.GHOST: GHOST,
    ArtefactKind.GRADIENT: STRAY_LIGHT,
    ArtefactKind.BAD_COLUMN: BAD_COLUMN,
    ArtefactKind.PERSISTENCE: PERSISTENCE,
    ArtefactKind.TRAIL: TRAIL,
}


#: Pixels around a strip that are drawn and thrown away: the PSF's reach, and where the periodic convolution wraps.
_MARGIN = 33
_SCALE = VIS_PIXEL_SCALE_ARCSEC
_EXPOSURES = 4


@dataclass(frozen=True)
class Observed:
    """A strip of one band, (rows, nx) each: float32, float32, int32."""

    band: Band
    image: Float32
    rms: Float32
    flag: NDArray[np.int32]


def observe_strip(
    components: Sequence[Component], grid: Grid, bands: Sequence[Band], rows: tuple[int, int], telescope: TileTelescope
) -> Iterator[Observed]:
    """Draw rows ``rows[0]`` to ``rows[1]`` of a mosaic.

    Parameters
    ----------
    components
        In arcsec from the centre of the grid's sub-pixel (0, 0); all that can reach the strip.
    grid, bands
        The mosaic's pixels, and which bands lie on them.
    rows
        First row and the one after the last.
    telescope
        Of the tile.
    """
    (first, last), samples = rows, grid.samples
    fine_first, fine_rows, nx = first * samples, (last - first) * samples, grid.shape[1] * samples
    ny_canvas = scipy.fft.next_fast_len(fine_rows + 2 * _MARGIN, real=True)
    nx_canvas = scipy.fft.next_fast_len(nx + 2 * _MARGIN, real=True)
    raster = scene.Raster(nx_canvas, ny_canvas, -_MARGIN * _SCALE, (fine_first - _MARGIN) * _SCALE, _SCALE)
    light = scene.render([components], raster, bands)[0]
    stars = [component for component in components if component.kind is Kind.POINT]
    for channel, band in enumerate(bands):
        psf = stack([telescope.psfs[band]])
        canvas = convolve(light[channel], psf.transfer(ny_canvas, nx_canvas)[0])
        for star in stars:
            x, y = star.x / _SCALE + _MARGIN, star.y / _SCALE - fine_first + _MARGIN
            magnitude = noise.magnitude(star.flux[0], "VIS")
            add_star(canvas[None], x, y, [star.flux[BANDS.index(band)]], psf, magnitude, telescope.roll)
            if band == "VIS":
                add_bleeding(canvas, x, y, star.flux[0], telescope.psfs[band], telescope.roll + 0.5 * math.pi)
        flag = np.zeros((last - first, grid.shape[1]), dtype=np.int32)
        _add_artefacts(canvas, flag, band, fine_first, samples, telescope)
        yield _detected(canvas, flag, band, grid, rows, telescope)


def _add_artefacts(
    canvas: Float32, flag: NDArray[np.int32], band: Band, fine_first: int, samples: int, telescope: TileTelescope
) -> None:
    channel = BANDS.index(band)
    ny, nx = (length * samples for length in flag.shape)
    across, up = (0.0, nx * _SCALE), (fine_first * _SCALE, (fine_first + ny) * _SCALE)
    for artefact in telescope.artefacts(band, across, up, REACH_ARCSEC):
        x, y = artefact.x / _SCALE + _MARGIN, artefact.y / _SCALE - fine_first + _MARGIN
        found = artefact_light((canvas.shape[0], canvas.shape[1]), x, y, artefact, channel)
        if found is None:
            continue
        rows, columns, light = found
        canvas[rows, columns] += light
        if artefact.kind in OF_ARTEFACT:
            y_hit, x_hit = np.nonzero(np.abs(light) > ONE_SIGMA[channel])
            y_hit, x_hit = (y_hit + rows.start - _MARGIN) // samples, (x_hit + columns.start - _MARGIN) // samples
            inside = (y_hit >= 0) & (y_hit < flag.shape[0]) & (x_hit >= 0) & (x_hit < flag.shape[1])
            flag[y_hit[inside], x_hit[inside]] |= OF_ARTEFACT[artefact.kind]


def _detected(
    canvas: Float32, flag: NDArray[np.int32], band: Band, grid: Grid, rows: tuple[int, int], telescope: TileTelescope
) -> Observed:
    """Background, saturation, noise and lost pixels."""
    (first, last), samples = rows, grid.samples
    fine_rows, nx = (last - first) * samples, grid.shape[1]
    # VIS: one pixel more on each side, since correlated noise needs its neighbours.
    wide = 1 if band == "VIS" else 0
    low = _MARGIN - wide
    image = canvas[low : _MARGIN + fine_rows + wide, low : _MARGIN + nx * samples + wide]
    if samples > 1:
        image = noise.bin3(image)
    x, y = _centres(-wide, nx + wide, samples), _centres(first - wide, last + wide, samples)
    image = image + np.float32(samples**2) * telescope.background(band, x, y)
    limit = np.float32(SATURATION[band] / (9.0 if band != "VIS" and samples == 1 else 1.0))
    exposures = telescope.depth(band, x, y)
    inside = slice(wide, wide + last - first), slice(wide, wide + nx)
    flag[exposures[inside] < _EXPOSURES] |= FEWER_EXPOSURES
    flag[image[inside] >= limit] |= SATURATED
    image = np.minimum(image, limit)
    for marks in telescope.marks(band, (x[0], x[-1]), (y[0], y[-1])):
        _lose(exposures, marks, x, y)
    marked = exposures[inside] < telescope.depth(band, x[inside[1]], y[inside[0]])
    flag[marked] |= COSMIC_RAY if band == "VIS" else BAD_PIXEL
    level = np.float32(telescope.level) * np.sqrt(_EXPOSURES / np.maximum(exposures, 1.0))
    fine_first, number, seed = first * samples, telescope.number, telescope.seed
    if band == "VIS":
        white = _white_rows(seed, number, band, fine_first - 1, fine_first + fine_rows + 1, nx + 2)
        pixels = image[inside] + noise.vis_noise(white, image, level, telescope.tails)
        rms = noise.rms(image, band, level)[inside]
    elif samples == 1:
        rms = noise.rms(image, band, level)
        pixels = image + rms * _resampled_white(telescope, band, fine_first, fine_first + fine_rows, nx)
    else:
        rms = noise.native_rms(image, band, level)
        pixels = image + rms * _white_rows(seed, number, band, first, last, nx)
    lost = exposures[inside] < 1.0
    flag[lost] |= NO_DATA
    return Observed(band, np.where(lost, np.float32(0.0), pixels), np.where(lost, np.float32(NO_DATA_RMS), rms), flag)


def _centres(first: int, last: int, samples: int) -> Float64:
    """Centres of pixels ``first`` to ``last``, arcsec from the centre of sub-pixel 0."""
    return np.asarray(_SCALE * (samples * np.arange(first, last) + 0.5 * (samples - 1)), dtype=np.float64)


def _lose(exposures: Float32, marks: Marks, x: Float64, y: Float64) -> None:
    """Take the exposures away that marks have lost."""
    step = x[1] - x[0]
    reach = 0.5 * marks.length + marks.half_width
    left, right = (np.round((marks.x + side * reach - x[0]) / step).astype(np.int64) for side in (-1, 1))
    bottom, top = (np.round((marks.y + side * reach - y[0]) / step).astype(np.int64) for side in (-1, 1))
    near = np.flatnonzero((right >= 0) & (left < len(x)) & (top >= 0) & (bottom < len(y)))
    for k in near.tolist():
        columns, rows = slice(max(0, left[k]), right[k] + 1), slice(max(0, bottom[k]), top[k] + 1)
        dx, dy = x[columns][None, :] - marks.x[k], y[rows][:, None] - marks.y[k]
        c, s = math.cos(marks.angle[k]), math.sin(marks.angle[k])
        beyond = np.maximum(np.abs(c * dx + s * dy) - 0.5 * marks.length[k], 0.0)
        hit = np.hypot(beyond, c * dy - s * dx) <= marks.half_width[k]
        part = exposures[rows, columns]
        part[hit] = np.maximum(part[hit] - (_EXPOSURES - marks.exposures[k]), 0.0)


def _white_rows(seed: int, number: int, name: str, first: int, last: int, nx: int) -> Float32:
    """Rows ``first`` to ``last`` of a field of unit white noise: each row has its own seed, so strips join without a seam."""
    rows = np.empty((last - first, nx), dtype=np.float32)
    for row, target in zip(range(first, last), rows, strict=True):
        # +8: rows just below the image are asked for too, and seeds cannot be negative.
        tile_generator(seed, number, f"noise {name} {row + 8}").standard_normal(out=target, dtype=np.float32)
    return rows


def _resampled_white(telescope: TileTelescope, band: Band, first: int, last: int, nx: int) -> Any:
    """Unit native noise as MER's linear resampling leaves it on 0.1" pixels, per unit of the RMS map (RMS of 0.3" / 3)."""
    phase_y, phase_x = telescope.phases[band]
    low, high = math.floor((first - 1) / 3.0), math.ceil((last + 2) / 3.0) + 3
    white = _white_rows(telescope.seed, telescope.number, band, low, high, nx // 3 + 5)
    own = _white_rows(telescope.seed, telescope.number, f"{band} fine", first, last, nx)
    return noise.resampled(white, np.arange(first, last) / 3.0 + phase_y - low, np.arange(nx) / 3.0 + phase_x, own)


#: The sky's objects in a rectangle of the plane, x0 to x1 and y0 to y1 (arcsec), and perhaps some around it.
Sky = Callable[[float, float, float, float], Iterable[SkyObject]]

#: A component reaches at most this far: the largest half-stamp, or a bright star's halo or trail.
_REACH_PIXELS = 330
#: Objects this far from a strip still shed light into it: the reach, and how far an object's components lie from its place.
_SURROUNDINGS_ARCSEC = 70.0
_STRIP_PIXELS = 4_000_000


@dataclass(frozen=True)
class TileFiles:
    """Paths of a tile's mosaics, by band."""

    image: dict[Band, Path]
    rms: dict[Band, Path]
    flag: dict[Band, Path]


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
    sky: Sky,
    files: TileFiles,
    seed: int,
    companions: bool,
) -> None:
    """Draw and write all mosaics of a tile.

    Parameters
    ----------
    tile, sky, files
        Where, what, and to which paths. The sky is asked for what lies around one strip at a time.
    seed
        The field's seed; noise and PSF come from it and the tile's number.
    companions
        Write RMS and FLAG mosaics too.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    telescope = draw_telescope(seed, tile.number)
    for grid, bands in ((tile.vis, BANDS[:1]), (tile.nisp, NISP_BANDS)):
        with contextlib.ExitStack() as stack:
            writers = {band: _open(stack, tile, grid, band, files, companions, telescope) for band in bands}
            for rows in _strips(grid):
                components = _components_near(grid, rows, tile, sky)
                for strip in observe_strip(components, grid, bands, rows, telescope):
                    for writer, values in zip(writers[strip.band], (strip.image, strip.rms, strip.flag), strict=False):
                        writer.write(values)


def _strips(grid: Grid) -> Iterator[tuple[int, int]]:
    """Ranges of the mosaic's own rows."""
    ny, nx = grid.shape
    rows = max(1, _STRIP_PIXELS // (nx * grid.samples**2))
    for first in range(0, ny, rows):
        yield first, min(first + rows, ny)


def _components_near(grid: Grid, rows: tuple[int, int], tile: TileGeometry, sky: Sky) -> list[Component]:
    """Components that can reach a strip, in arcsec from the centre of the grid's sub-pixel (0, 0), bottom first."""
    first, last, nx = rows[0] * grid.samples, rows[1] * grid.samples, grid.shape[1] * grid.samples
    x, y = to_plane(grid, [0, nx, 0, nx], [first, first, last, last])
    around = _SURROUNDINGS_ARCSEC
    objects = list(sky(x.min() - around, x.max() + around, y.min() - around, y.max() + around))
    turn, scale = rotation_to(grid, tile.centre), VIS_PIXEL_SCALE_ARCSEC
    places = zip(*to_fine_pixels(grid, [item.x for item in objects], [item.y for item in objects]), strict=True)
    placed = [
        component.rotated(turn).moved(scale * column, scale * row)
        for item, (column, row) in zip(objects, places, strict=True)
        for component in item.light
    ]
    near = [
        component
        for component in placed
        if first - _REACH_PIXELS < component.y / scale < last + _REACH_PIXELS
        and -_REACH_PIXELS < component.x / scale < nx + _REACH_PIXELS
    ]
    return sorted(near, key=lambda component: component.y)


def _open(
    stack: contextlib.ExitStack,
    tile: TileGeometry,
    grid: Grid,
    band: Band,
    files: TileFiles,
    companions: bool,
    telescope: TileTelescope,
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
    header["MAGZERO"] = (noise.ZERO_POINT[band], "AB zero point")
    header["FILTER"] = band if band == "VIS" else f"NIR_{band}"
    header["TILEID"] = tile.tile_id
    header["ORIGIN"] = ("scanner", "simulated")
    header["ROLL"] = (telescope.roll, "[rad] of PSF and detector rows, from +x to +y")
    header["SKYNOISE"] = (telescope.level, "factor on the noise of the sky")
    if band == "VIS":
        header["TAILS"] = (telescope.tails, "cubic term of the unit noise")
    peak = float(telescope.psfs[band].values(0.0, 0.0))
    fwhm = VIS_PIXEL_SCALE_ARCSEC * math.sqrt(4.0 * math.log(2.0) / (math.pi * peak))
    header["PSFFWHM"] = (fwhm, "[arcsec] of the Gaussian with the same peak")
    image = header.copy()
    image["BUNIT"] = ("adu", "flux = 10^(0.4 (MAGZERO - mag))")
    writers = [stack.enter_context(StripWriter(files.image[band], grid.shape, np.float32, image))]
    if companions:
        writers.append(stack.enter_context(StripWriter(files.rms[band], grid.shape, np.float32, image)))
        writers.append(stack.enter_context(StripWriter(files.flag[band], grid.shape, np.int32, header)))
    return writers
