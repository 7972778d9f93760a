"""Synthetic tiles on disk for the benchmarks: noise and galaxies on four bands, in each of the three NISP geometries.

Written strip by strip, so that a tile of any size costs little memory. The noise of one strip is rolled and used again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from scanner.records import BANDS, BandFiles, ImageRef, Targets, Tile

#: ``warp`` has 0.3" pixels and ``warp-fine`` 0.1" pixels, both rotated.
Geometry = Literal["bin", "slice", "warp", "warp-fine"]
STRIP_ROWS = 512
STAMP = 41


def sky(scale: float, size: int, angle: float = 0.0, shift: float = 0.0) -> WCS:
    """Tangent plane around (150, 2) with square pixels of ``scale`` arcseconds, rotated by ``angle`` degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [size / 2 + 0.5 + shift, size / 2 + 0.5 - shift]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.pc = [[cos, -sin], [sin, cos]]
    return wcs


def nisp_geometry(geometry: Geometry, size: int) -> tuple[WCS, int, float]:
    """WCS, side and pixel scale of the NISP bands of a VIS tile of ``size`` pixels (a multiple of six)."""
    if geometry == "bin":
        return sky(0.1, size), size, 0.1
    if geometry == "slice":
        return sky(0.3, size // 3), size // 3, 0.3
    if geometry == "warp":
        return sky(0.3, size // 3, angle=1.5, shift=0.37), size // 3, 0.3
    return sky(0.1, size, angle=1.5, shift=0.37), size, 0.1


def write_tile(
    folder: Path, size: int, geometry: Geometry, n_objects: int, seed: int = 0, companions: bool = False
) -> tuple[Tile, Targets]:
    """Write four mosaics, and RMS and FLAG beside each if asked for; return the tile with one target on each galaxy."""
    random = np.random.default_rng(seed)
    x, y = random.uniform(110, size - 110, (2, n_objects))
    vis_wcs = sky(0.1, size)
    ra, dec = vis_wcs.all_pix2world(x, y, 0)
    peaks = 10 ** random.uniform(0.5, 2.5, n_objects)
    widths = random.uniform(0.15, 0.8, n_objects)
    bands = {}
    for band in BANDS:
        wcs, side, scale = (vis_wcs, size, 0.1) if band == "VIS" else nisp_geometry(geometry, size)
        path = folder / f"{band}.fits"
        band_x, band_y = wcs.all_world2pix(ra, dec, 0)
        _write(path, wcs, side, band_x, band_y, peaks, widths / scale, random)
        rms, flag = _write_companions(folder, band, side) if companions else (None, None)
        bands[band] = BandFiles(image=ImageRef(path=str(path)), rms=rms, flag=flag)
    ids = np.arange(n_objects, dtype=np.int64)
    return Tile(tile_id="1", bands=bands), Targets(ids, ra, dec, x, y, np.full(n_objects, np.nan, np.float32))


def _write_companions(folder: Path, band: str, side: int) -> tuple[ImageRef, ImageRef]:
    """A constant RMS, and a FLAG without a flag as a sparse file."""
    paths = []
    for name, bitpix in (("RMS", 16), ("FLAG", 32)):
        header = fits.Header([("SIMPLE", True), ("BITPIX", bitpix), ("NAXIS", 2), ("NAXIS1", side), ("NAXIS2", side)])
        path = folder / f"{band}_{name}.fits"
        with path.open("wb") as file:
            start = file.write(header.tostring().encode("ascii"))
            row = np.ones(side, ">i2").tobytes()
            for _ in range(side if name == "RMS" else 0):
                file.write(row)
            file.truncate(start + -(-abs(bitpix) // 8 * side * side // 2880) * 2880)
        paths.append(ImageRef(path=str(path)))
    return paths[0], paths[1]


def _write(
    path: Path,
    wcs: WCS,
    side: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    peaks: NDArray[np.float64],
    widths: NDArray[np.float64],
    random: np.random.Generator,
) -> None:
    header = fits.PrimaryHDU(header=wcs.to_header()).header
    header["BITPIX"], header["NAXIS"] = -32, 2
    header.insert("NAXIS", ("NAXIS1", side), after=True)
    header.insert("NAXIS1", ("NAXIS2", side), after=True)
    header["MAGZERO"], header["BUNIT"] = 24.6, "adu"
    noise = random.standard_normal((STRIP_ROWS + STAMP, side), dtype=np.float32)
    half, order = STAMP // 2, np.argsort(y)
    at = np.arange(STAMP) - half
    with path.open("wb") as file:
        file.write(header.tostring().encode("ascii"))
        for top in range(0, side, STRIP_ROWS):
            strip = np.roll(noise, int(random.integers(side)), axis=1).copy()
            near = order[np.searchsorted(y[order], top - half) : np.searchsorted(y[order], top + STRIP_ROWS + half)]
            for source in near:
                column, row = int(x[source]), int(y[source])
                rows = np.clip(row - top + at, -1, STRIP_ROWS)
                keep = (rows >= 0) & (rows < STRIP_ROWS)
                columns = np.clip(column + at, 0, side - 1)
                radius = np.hypot((at - x[source] + column)[np.newaxis], (at - y[source] + row)[keep, np.newaxis])
                strip[np.ix_(rows[keep], columns)] += (peaks[source] * np.exp(-radius / widths[source])).astype(np.float32)
            file.write(strip[: min(STRIP_ROWS, side - top)].astype(">f4").tobytes())
        file.write(b"\0" * (-(4 * side * side) % 2880))
