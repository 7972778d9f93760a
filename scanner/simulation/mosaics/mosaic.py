"""One simulated tile: objects of the sky onto the pixels of four bands, strip by strip.

In: a :class:`TileGeometry`, the objects that the tile sees and a seed. Out: per band an
image, an RMS and a FLAG mosaic in FITS, named as Euclid's MER names them. Memory is bounded by the strip, whatever the tile's
size. The objects are the same for every tile; PSF, noise and artefacts are the tile's own.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from scanner.records import BANDS, NISP_BANDS, VIS_PIXEL_SCALE_ARCSEC, Band
from scanner.simulation.light.components import Component
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.strip_observation import observe_strip
from scanner.simulation.mosaics.strip_writer import StripWriter
from scanner.simulation.mosaics.tile_geometry import Grid, TileGeometry, rotation_to, to_fine_pixels, to_plane
from scanner.simulation.mosaics.tile_telescope import TileTelescope, draw_telescope
from scanner.simulation.telescope import photometry

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
    header["MAGZERO"] = (photometry.ZERO_POINT[band], "AB zero point")
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
