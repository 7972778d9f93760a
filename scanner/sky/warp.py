"""Resampling of an image onto a grid of VIS pixels, or of three by three of them, by splines, block by block."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Float32, Float64
from scanner.sky.alignment import STEP, BandGeometry, map_pixels
from scanner.sky.fits_image import MappedImage
from scanner.sky.local_files import ScratchFolder, scratch_error
from scanner.sky.mosaic import Mosaic

SPLINE_ORDER = 5
#: From this many samples per output pixel and axis on, the PSF is so wide in input pixels that a cubic spline is as good.
_FINE_SAMPLES = 3
FINE_SPLINE_ORDER = 3
#: The recursive prefilter forgets by 0.43 a pixel: this many leave 1e-8.
_MARGIN = 22
#: Samples of an output pixel are never further apart than input pixels, or by this part of one at most.
_SPARE = 0.1
#: Output pixels that are computed at a time, and the spacing of the exact WCS transforms between which it interpolates.
_BLOCK, _SMALLEST_BLOCK = 512, 32
_NODE_SPACING = 32


@dataclass(frozen=True)
class WarpGrid:
    """Output pixels: pixel (column j, row i) covers VIS columns from ``origin_x + step j``, ``step`` of them, and so in y."""

    origin_x: int
    origin_y: int
    shape: tuple[int, int]
    step: int = STEP


def covering_grid(geometry: BandGeometry, vis_shape: tuple[int, int]) -> WarpGrid:
    """The grid of a warped band: every whole output pixel that touches the VIS mosaic."""
    rows = -(-(vis_shape[0] - geometry.origin_y) // STEP)
    columns = -(-(vis_shape[1] - geometry.origin_x) // STEP)
    return WarpGrid(geometry.origin_x, geometry.origin_y, (rows, columns))


class WarpedBand:
    """A resampled band in a scratch file that vanishes with it."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int]) -> None:
        self.shape = shape
        self._image = MappedImage(file, 0, shape, np.float32)

    def read_into(self, out: Float32, y0: int, x0: int) -> None:
        """Fill an array with the window whose first pixel is (x0, y0); NaN outside."""
        _read_inside(self.shape, self._image.window, out, y0, x0)

    def close(self) -> None:
        """Let go of the file."""
        self._image.close()


class WarpedWindows:
    """A band that is resampled where it is looked at: the pixels of :func:`warp`, to the rounding of float32."""

    def __init__(self, mosaic: Mosaic, vis_wcs: WCS, grid: WarpGrid) -> None:
        self._mosaic, self._vis_wcs, self._grid = mosaic, vis_wcs, grid

    def read_into(self, out: Float32, y0: int, x0: int) -> None:
        """Fill an array with the window whose first pixel is (x0, y0); NaN outside."""

        def window(top: int, bottom: int, left: int, right: int) -> Float32:
            return resample(self._mosaic, self._vis_wcs, self._grid, top, left, (bottom - top, right - left))

        _read_inside(self._grid.shape, window, out, y0, x0)

    def close(self) -> None:
        """Do nothing: there are no files."""


def _read_inside(
    shape: tuple[int, int], window: Callable[[int, int, int, int], NDArray[Any]], out: Float32, y0: int, x0: int
) -> None:
    """Fill an array from what lies inside an image; NaN elsewhere."""
    top, bottom = max(y0, 0), min(y0 + out.shape[0], shape[0])
    left, right = max(x0, 0), min(x0 + out.shape[1], shape[1])
    if (bottom - top, right - left) != out.shape:
        out.fill(np.nan)
    if bottom > top and right > left:
        out[top - y0 : bottom - y0, left - x0 : right - x0] = window(top, bottom, left, right)


def warp(mosaic: Mosaic, vis_wcs: WCS, grid: WarpGrid, scratch: ScratchFolder) -> WarpedBand:
    """Resample a band, conserving flux.

    Flux is conserved; a pixel is NaN where one of the four input pixels around it is.

    The kernel was chosen by measurement on a NISP-like PSF (FWHM 0.48", 0.3" pixels) at rotations of 0° to 45°: a quintic
    B-spline keeps the flux to 4e-4, the centroid to 3e-4 pixels and the width of the PSF; bilinear loses up to 4 % of the flux,
    widens the PSF by 15 % and is 35 % off at its peak; a cubic spline loses up to 0.4 % of the flux; Lanczos-3 is five times
    slower; and ``reproject``'s bilinear, cubic and adaptive (Hann) kernels, which share these errors or, in the last case, move
    the centroid by 0.15 pixels, run at 3.8, 3.4 and 1.4 Mpix/s against 8 here (``benchmarks/centroids.py --kernels``).

    Bands with pixels smaller than 0.3" are sampled at several points of each output pixel, so many that they are no further
    apart than the input pixels. Values are multiplied by the ratio of the pixel areas.

    Raises
    ------
    TileError
        A compressed mosaic is damaged.
    OutputError
        The scratch folder is full.
    """
    try:
        with tempfile.TemporaryFile(dir=scratch.path) as file:
            for rows in _block_rows(mosaic, vis_wcs, grid):
                file.write(rows.tobytes())
            file.flush()
            return WarpedBand(file, grid.shape)
    except OSError as error:
        raise scratch_error(scratch.path, error) from None


def _block_rows(mosaic: Mosaic, vis_wcs: WCS, grid: WarpGrid) -> Iterator[Float32]:
    rows, columns = grid.shape
    for top in range(0, rows, _BLOCK):
        strip = np.empty((min(_BLOCK, rows - top), columns), dtype=np.float32)
        for left in range(0, columns, _BLOCK):
            block = strip[:, left : left + _BLOCK]
            block[...] = resample(mosaic, vis_wcs, grid, top, left, (block.shape[0], block.shape[1]))
        yield strip


@np.errstate(over="ignore", invalid="ignore")
def resample(mosaic: Mosaic, vis_wcs: WCS, grid: WarpGrid, top: int, left: int, shape: tuple[int, int]) -> Float32:
    """Resample a block of output pixels, see :func:`warp`: rows ``top … top + shape[0] - 1``, and columns likewise."""
    samples = max(1, math.ceil(grid.step * VIS_PIXEL_SCALE_ARCSEC / mosaic.pixel_scale_arcsec - _SPARE))
    out = np.full(shape, np.nan, dtype=np.float32)
    side = max(_SMALLEST_BLOCK, _BLOCK * _FINE_SAMPLES // samples)
    if samples > _FINE_SAMPLES and max(shape) > side:
        # So many samples of a whole block would not fit in memory.
        for first in range(0, shape[0], side):
            for other in range(0, shape[1], side):
                part = out[first : first + side, other : other + side]
                size = (part.shape[0], part.shape[1])
                part[...] = resample(mosaic, vis_wcs, grid, top + first, left + other, size)
        return out
    x, y, area = sample_positions(mosaic.wcs, vis_wcs, grid, top, left, shape, samples)
    usable = np.isfinite(x) & np.isfinite(y)
    if not usable.all():
        x, y = np.where(usable, x, -1e6), np.where(usable, y, -1e6)
    first_x, last_x = max(int(x.min()), 0) - _MARGIN, min(int(x.max()) + 1, mosaic.shape[1]) + _MARGIN
    first_y, last_y = max(int(y.min()), 0) - _MARGIN, min(int(y.max()) + 1, mosaic.shape[0]) + _MARGIN
    if last_x - first_x <= 2 * _MARGIN or last_y - first_y <= 2 * _MARGIN:
        return out
    pixels = mosaic.read(first_y, last_y, first_x, last_x)
    x, y = x - first_x, y - first_y
    good = np.isfinite(pixels)
    if not good.any():
        return out
    if not good.all():
        pixels = _fill(pixels, good)
    order = SPLINE_ORDER if samples < _FINE_SAMPLES else FINE_SPLINE_ORDER
    coefficients = ndimage.spline_filter(pixels, order, output=np.float32, mode="mirror")
    values = np.empty(x.shape, dtype=np.float32)
    ndimage.map_coordinates(coefficients, (y, x), output=values, order=order, mode="mirror", prefilter=False)
    if not (good.all() and usable.all()):
        values[~_all_four_good(good, x, y)] = np.nan
    values *= area
    return np.asarray(values.reshape(shape[0], samples, shape[1], samples).sum(axis=(1, 3)), dtype=np.float32)


def sample_positions(
    band_wcs: WCS, vis_wcs: WCS, grid: WarpGrid, top: int, left: int, shape: tuple[int, int], samples: int
) -> tuple[Float64, Float64, Float32]:
    """Where the samples of a block of output pixels lie in the band, interpolated between exact transforms.

    Parameters
    ----------
    band_wcs, vis_wcs
        Of the input band and of VIS.
    grid, top, left, shape
        Output pixels: rows ``top … top + shape[0] - 1`` and columns likewise.
    samples
        Samples per output pixel along each axis.

    Returns
    -------
    tuple[Float64, Float64, Float32]
        ``x, y`` in band pixels and the area of a sample in band pixels, each (shape[0] * samples, shape[1] * samples).
    """
    axes = []
    for size, first, origin in ((shape[0], top, grid.origin_y), (shape[1], left, grid.origin_x)):
        nodes = np.linspace(0, size, max(2, -(-size // _NODE_SPACING) + 1))
        points = (np.arange(size * samples) + 0.5) / samples
        axes.append((origin - 0.5 + grid.step * (first + nodes), nodes, _interpolation_matrix(nodes, points)))
    (vis_y, nodes_y, weights_y), (vis_x, nodes_x, weights_x) = axes
    x_nodes, y_nodes = map_pixels(vis_wcs, band_wcs, *np.meshgrid(vis_x, vis_y))
    (x_dy, x_dx), (y_dy, y_dx) = np.gradient(x_nodes, nodes_y, nodes_x), np.gradient(y_nodes, nodes_y, nodes_x)
    area = np.abs(x_dx * y_dy - x_dy * y_dx) / samples**2
    x, y, area = (weights_y @ field @ weights_x.T for field in (x_nodes, y_nodes, area))
    return x, y, area.astype(np.float32)


def _interpolation_matrix(nodes: Float64, points: Float64) -> Float64:
    """Weights (points, nodes) of linear interpolation between ascending, evenly spaced nodes."""
    position = (points - nodes[0]) / (nodes[1] - nodes[0])
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(position[:, np.newaxis] - np.arange(len(nodes)))))


def _fill(pixels: Float32, good: NDArray[np.bool_]) -> Float32:
    """Fill holes and what lies beyond the edges with the nearest good pixel, so that the spline does not ring."""
    row, column = ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
    return np.asarray(pixels[row, column])


def _all_four_good(good: NDArray[np.bool_], x: Float64, y: Float64) -> NDArray[np.bool_]:
    """Whether the four pixels around each position are inside and good."""
    cells = good[:-1, :-1] & good[:-1, 1:] & good[1:, :-1] & good[1:, 1:]
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    inside = (column >= 0) & (column < cells.shape[1]) & (row >= 0) & (row < cells.shape[0])
    return np.asarray(inside & cells[np.clip(row, 0, cells.shape[0] - 1), np.clip(column, 0, cells.shape[1] - 1)])
