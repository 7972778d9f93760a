"""Images of any telescope as the cutouts that the networks know: 20" of VIS at 0.1", 19.8" of NISP at 0.3".

In: FITS images, one a band, with a celestial WCS or a stated pixel scale. Out: a :class:`~scanner.records.CutoutBatch` of one.
Refused, as :class:`~scanner.errors.TileError`: files that are no images, an image without WCS and without a stated scale.

What the image does not cover is NaN; it counts as bad, and is filled with noise of the band's own σ before a network sees it,
never with zeros: an edge of zeros costs a lens half of its score.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from scanner.cutouts import quality
from scanner.errors import TileError
from scanner.records import (
    BANDS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    ImageRef,
    Targets,
)
from scanner.sky.fits_image import open_image
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import celestial_wcs

#: New pixels smaller than this share of the old ones are interpolated; on squares they would show steps.
ENLARGING = 0.8
#: Points along the side of a new pixel that measure which area it shares with old ones.
LATTICE = 8


@dataclass(frozen=True)
class Plate:
    """One image and where the object is in it.

    ``pixels`` (ny, nx) float64, NaN where masked. ``centre``: (x, y) of the object, zero-based. ``matrix`` (2, 2): pixels
    (x, y) per arcsec to the right and up in the cutout.
    """

    pixels: Float64
    centre: tuple[float, float]
    matrix: Float64


def read_plate(image: ImageRef, scale_arcsec: float | None, position: tuple[float, float] | None) -> Plate:
    """Read one image.

    Parameters
    ----------
    image
        File and extension.
    scale_arcsec
        Pixel scale where the header has no WCS; it overrules one that is there.
    position
        RA and Dec of the object in degrees; None: it is in the image's middle.

    Raises
    ------
    TileError
        Not an image, no WCS although one is needed, the object not on it.
    """
    with closing(ScratchFolder(None)) as scratch:
        opened, header = open_image(image, scratch)
        height, width = opened.shape
        pixels = np.array(opened.window(0, height, 0, width), dtype=np.float64)
        opened.close()
    pixels[~np.isfinite(pixels)] = np.nan
    middle = ((width - 1) / 2, (height - 1) / 2)
    if scale_arcsec is not None and position is None:
        return Plate(pixels, middle, np.eye(2) / scale_arcsec)
    if "CTYPE1" not in header:
        needed = "state" if position is None else "leave out ra and dec, have the object in the middle, and state"
        raise TileError(f"{image}: has no WCS; {needed} scale=ARCSEC.")
    wcs = celestial_wcs(header, str(image))
    ra, dec = position if position is not None else wcs.all_pix2world([middle], 0)[0]
    step = 1.0 / 3600
    # East is left and north up in the cutout; over 20" the sky is flat.
    sky = [(ra, dec), (ra - step / math.cos(math.radians(dec)), dec), (ra, dec + step)]
    here, right, up = wcs.all_world2pix(sky, 0)
    if not (0 <= here[0] <= width - 1 and 0 <= here[1] <= height - 1):
        raise TileError(f"{image}: the object at {ra:.5f}, {dec:+.5f} is not on the image.")
    return Plate(pixels, (float(here[0]), float(here[1])), np.stack([right - here, up - here], axis=1))


def resample(plate: Plate, n_pixels: int, scale_arcsec: float) -> Float32:
    """Resample an image about its object to ``n_pixels`` of ``scale_arcsec``, (n, n) float32; flux is conserved.

    Where the new pixels are not much smaller than the image's, each is the mean of a lattice of points in the squares of the
    old ones: the area that they share, exact where the grids fit. Smaller ones are interpolated linearly. NaN where a pixel
    touches one that is masked or not there.
    """
    density = math.sqrt(abs(np.linalg.det(plate.matrix)))
    ratio = scale_arcsec * density
    enlarging = ratio < ENLARGING
    per_side = 1 if enlarging else max(LATTICE, 2 * math.ceil(ratio))
    fine = (np.arange(n_pixels * per_side) + 0.5) / per_side - 0.5 * n_pixels
    right, up = np.meshgrid(fine * scale_arcsec, fine * scale_arcsec)
    x = plate.centre[0] + plate.matrix[0, 0] * right + plate.matrix[0, 1] * up
    y = plate.centre[1] + plate.matrix[1, 0] * right + plate.matrix[1, 1] * up
    # Half a pixel beyond the outermost centres still belongs to the image.
    height, width = plate.pixels.shape
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    if enlarging:
        places = [np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        values = map_coordinates(plate.pixels, places, order=1, mode="nearest")
        values[~inside] = np.nan
    else:
        values = np.full(x.shape, np.nan)
        columns, rows = np.floor(x[inside] + 0.5).astype(np.intp), np.floor(y[inside] + 0.5).astype(np.intp)
        values[inside] = plate.pixels[rows, columns]
    means = values.reshape(n_pixels, per_side, n_pixels, per_side).mean(axis=(1, 3))
    return np.asarray(means * ratio**2, dtype=np.float32)


def duplicate(given: set[Band]) -> dict[Band, Band]:
    """Which given band stands for each of VIS, Y, J, H: itself, else the nearest in wavelength, of equals the bluer (Table 2).

    Raises
    ------
    ValueError
        No band is given.
    """
    if not given:
        raise ValueError("no band is given")
    order = {band: number for number, band in enumerate(BANDS)}
    return {band: min(given, key=lambda other: (abs(order[other] - order[band]), order[other])) for band in BANDS}


def stamp(plates: dict[Band, Plate], number: int = 1) -> CutoutBatch:
    """Make the cutout of one object.

    Parameters
    ----------
    plates
        By band; bands that are missing are duplicated from the nearest.
    number
        Its ``target_id``, which seeds the noise that fills what is not covered.
    """
    source = duplicate(set(plates))
    vis = resample(plates[source["VIS"]], VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC)[None]
    nisp = np.stack(
        [resample(plates[source[band]], NISP_CUTOUT_PIXELS, NISP_PIXEL_SCALE_ARCSEC) for band in BANDS if band != "VIS"]
    )[None]
    measured = quality.measure(vis, nisp)
    nothing: NDArray[np.float64] = np.full(1, np.nan)
    return CutoutBatch(
        targets=Targets(np.array([number], np.int64), nothing, nothing, nothing, nothing, nothing.astype(np.float32)),
        vis=vis,
        nisp=nisp,
        x0=np.zeros(1, dtype=np.int64),
        y0=np.zeros(1, dtype=np.int64),
        offset=np.zeros((1, 2), dtype=np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky,
        sigma=measured.sigma,
        flags=np.zeros(1, dtype=np.uint32),
    )
