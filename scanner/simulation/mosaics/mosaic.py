"""One simulated tile: objects of the sky onto the pixels of four bands, strip by strip.

In: a :class:`TileGeometry`, the objects that the tile sees and a seed. Out: per band an
image, an RMS and a FLAG mosaic in FITS, named as Euclid's MER names them. Memory is bounded by the strip, whatever the tile's
size. The objects are the same for every tile; PSF, noise and artefacts are the tile's own.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from scanner.records import BANDS, NISP_BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float64
from scanner.simulation.light.components import Component
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.strip_observation import observe_strip
from scanner.simulation.mosaics.strip_writer import StripWriter
from scanner.simulation.mosaics.tile_geometry import Grid, TileGeometry, rotation_to, to_fine_pixels
from scanner.simulation.mosaics.tile_telescope import draw_telescope
from scanner.simulation.telescope import photometry

#: A component reaches at most this far (the largest half-stamp, or a bright star's halo or trail), and an object's components
#: lie at most as far from its place.
_REACH_PIXELS = 330
_STRIP_PIXELS = 6_000_000


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
    telescope = draw_telescope(seed, tile.number)
    for grid, bands in ((tile.vis, BANDS[:1]), (tile.nisp, NISP_BANDS)):
        view = _View(grid, *_place(grid, tile, objects))
        with contextlib.ExitStack() as stack:
            writers = {band: _open(stack, tile, grid, band, files, companions) for band in bands}
            for first, last in view.strips():
                for strip in observe_strip(view.near(first, last), grid, bands, (first, last), telescope):
                    for writer, values in zip(writers[strip.band], (strip.image, strip.rms, strip.flag), strict=False):
                        writer.write(values)


@dataclass(frozen=True)
class _View:
    """The tile's objects on one grid: components in arcsec from the centre of sub-pixel (0, 0), and their rows."""

    grid: Grid
    components: list[Component]
    rows: Float64

    def strips(self) -> Iterator[tuple[int, int]]:
        """Ranges of the mosaic's own rows."""
        ny, nx = self.grid.shape
        rows = max(1, _STRIP_PIXELS // (nx * self.grid.samples**2))
        for first in range(0, ny, rows):
            yield first, min(first + rows, ny)

    def near(self, first: int, last: int) -> list[Component]:
        """Components that can reach the mosaic's rows ``first`` to ``last``."""
        samples = self.grid.samples
        low, high = np.searchsorted(self.rows, [first * samples - _REACH_PIXELS, last * samples + _REACH_PIXELS])
        return self.components[low:high]


def _place(grid: Grid, tile: TileGeometry, objects: Sequence[SkyObject]) -> tuple[list[Component], Float64]:
    turn = rotation_to(grid, tile.centre)
    columns, rows = to_fine_pixels(grid, [item.x for item in objects], [item.y for item in objects])
    ny, nx = (length * grid.samples for length in grid.shape)
    inside = (np.abs(columns - nx / 2) < nx / 2 + 2 * _REACH_PIXELS) & (np.abs(rows - ny / 2) < ny / 2 + 2 * _REACH_PIXELS)
    scale = VIS_PIXEL_SCALE_ARCSEC
    placed = [
        component.rotated(turn).moved(scale * columns[k], scale * rows[k])
        for k in np.flatnonzero(inside).tolist()
        for component in objects[k].light
    ]
    heights = np.array([component.y / scale for component in placed])
    order = np.argsort(heights, kind="stable")
    return [placed[k] for k in order], heights[order]


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
