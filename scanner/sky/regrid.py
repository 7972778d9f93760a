"""Resampling: by splines onto VIS pixels or three by three of them; any image onto the grid that is scanned; a matching PSF."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, BandFiles, Float32, Float64, ImageRef, ResamplingMethod
from scanner.sky.alignment import SCALE_TOLERANCE, STEP, BandGeometry, map_pixels, refuse_scale
from scanner.sky.fits_image import LARGEST_PIXELS, MappedImage
from scanner.sky.local_files import ScratchFolder, scratch_error
from scanner.sky.mosaic import Mosaic, celestial_frame, open_mosaic

SPLINE_ORDER = 5
#: From this many samples per output pixel and axis on, the PSF is so wide in input pixels that a cubic spline is as good.
_FINE_SAMPLES = 3
FINE_SPLINE_ORDER = 3
#: The recursive prefilter forgets by 0.43 a pixel: this many leave 1e-8.
_SPLINE_MARGIN = 22
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
    first_x, last_x = max(int(x.min()), 0) - _SPLINE_MARGIN, min(int(x.max()) + 1, mosaic.shape[1]) + _SPLINE_MARGIN
    first_y, last_y = max(int(y.min()), 0) - _SPLINE_MARGIN, min(int(y.max()) + 1, mosaic.shape[0]) + _SPLINE_MARGIN
    if last_x - first_x <= 2 * _SPLINE_MARGIN or last_y - first_y <= 2 * _SPLINE_MARGIN:
        return out
    pixels = mosaic.read(first_y, last_y, first_x, last_x)
    x, y = x - first_x, y - first_y
    good = np.isfinite(pixels)
    if not good.any():
        return out
    if not good.all():
        pixels = _fill(pixels, good)
    order = SPLINE_ORDER if samples < _FINE_SAMPLES else FINE_SPLINE_ORDER
    coefficients = scipy.ndimage.spline_filter(pixels, order, output=np.float32, mode="mirror")
    values = np.empty(x.shape, dtype=np.float32)
    scipy.ndimage.map_coordinates(coefficients, (y, x), output=values, order=order, mode="mirror", prefilter=False)
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
    row, column = scipy.ndimage.distance_transform_edt(~good, return_distances=False, return_indices=True)
    return np.asarray(pixels[row, column])


def _all_four_good(good: NDArray[np.bool_], x: Float64, y: Float64) -> NDArray[np.bool_]:
    """Whether the four pixels around each position are inside and good."""
    cells = good[:-1, :-1] & good[:-1, 1:] & good[1:, :-1] & good[1:, 1:]
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    inside = (column >= 0) & (column < cells.shape[1]) & (row >= 0) & (row < cells.shape[0])
    return np.asarray(inside & cells[np.clip(row, 0, cells.shape[0] - 1), np.clip(column, 0, cells.shape[1] - 1)])


#: Output pixels that are made at a time; bounds the memory together with the images that overlap there.
BLOCK_PIXELS = 1024
#: Input pixels around a block that resampling looks at.
_KERNEL_MARGIN = 24
#: Where a PSF's transfer function is smaller than this it is taken for noise, and not divided by.
_FLOOR = 1e-3


def fits_grid(vis: Mosaic) -> bool:
    """Whether cutouts can be taken from a VIS mosaic as it is: 0.1" pixels, positions in ICRS."""
    return vis.in_icrs and all(abs(one / VIS_PIXEL_SCALE_ARCSEC - 1) <= SCALE_TOLERANCE for one in vis.pixel_scales_arcsec)


def on_grid(vis: Mosaic, files: BandFiles, scratch: ScratchFolder) -> Mosaic:
    """A VIS mosaic with 0.1" pixels in ICRS: resampled into the scratch folder in the image's own orientation.

    Flux is conserved, as :func:`~scanner.sky.regrid.warp` does it. Bad pixels stay bad; the noise of an area stays what the RMS
    map says.

    Raises
    ------
    TileError
        The pixels are not 0.01" to 1" wide, or too many, or a compressed mosaic is damaged.
    OutputError
        The scratch folder is full.
    """
    refuse_scale(vis)
    wcs, shape = own_grid(vis)
    if math.prod(shape) > LARGEST_PIXELS:
        raise TileError(
            f'{vis.name}: would have {shape[1]:,} × {shape[0]:,} pixels of 0.1"; make tiles with "scanner prepare".'
        )
    stem = f"on-grid-{hashlib.sha256(vis.name.encode()).hexdigest()[:16]}"
    names = {"image": f"{stem}.fits"} | ({} if files.rms is None else {"rms": f"{stem}-rms.fits"})
    outputs = {role: ImageFile(scratch.path / name, shape, np.dtype(">f4")) for role, name in names.items()}
    try:
        for top, left, size in blocks(shape):
            found = resampled(ImageToResample(vis), wcs, 1, top, left, size, "spline")
            outputs["image"].put(top, left, found.pixels)
            if found.rms is not None and "rms" in outputs:
                outputs["rms"].put(top, left, found.rms)
        header = wcs.to_header(relax=True)
        if math.isfinite(vis.zero_point):
            header["MAGZERO"] = vis.zero_point
        header["BUNIT"] = vis.unit
        for output in outputs.values():
            output.finish(header)
    except OSError as error:
        raise scratch_error(scratch.path, error) from None
    images = {role: ImageRef(str(scratch.path / name), origin=vis.name) for role, name in names.items()}
    return open_mosaic(BandFiles(image=images["image"], rms=images.get("rms")), band=vis.band, scratch=scratch)


def own_grid(image: Mosaic) -> tuple[WCS, tuple[int, int]]:
    """A tangent plane at the middle of an image, in its orientation, of 0.1" pixels that cover it: WCS and shape."""
    ny, nx = image.shape
    wcs = plane_at(*middle_of(image))
    # Directions of the image's axes about its middle, on the plane, distortion included.
    x, y = 0.5 * (nx - 1) + np.array([0.0, 1.0, 0.0]), 0.5 * (ny - 1) + np.array([0.0, 0.0, 1.0])
    here, right, up = np.stack(map_pixels(image.wcs, wcs, x, y), axis=1) * np.array([-1.0, 1.0])
    along = (right - here) / np.linalg.norm(right - here)
    across = np.array([-along[1], along[0]])
    across *= np.sign(across @ (up - here)) or 1.0
    wcs.wcs.cdelt = [VIS_PIXEL_SCALE_ARCSEC / 3600.0] * 2
    wcs.wcs.pc = np.stack([along, across], axis=1)
    wcs.wcs.set()
    low, high = extent(image, wcs)
    wcs.wcs.crpix = [1.0 - low[0], 1.0 - low[1]]
    wcs.wcs.set()
    return wcs, (int(high[1] - low[1]) + 1, int(high[0] - low[0]) + 1)


def plane_at(ra: float, dec: float) -> WCS:
    """A tangent plane at a position in degrees (ICRS), which is its first pixel: 0.1" pixels, north up, east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit, wcs.wcs.radesys = ["RA---TAN", "DEC--TAN"], ["deg", "deg"], "ICRS"
    wcs.wcs.crval, wcs.wcs.crpix = [ra, dec], [1.0, 1.0]
    wcs.wcs.cdelt = [-VIS_PIXEL_SCALE_ARCSEC / 3600.0, VIS_PIXEL_SCALE_ARCSEC / 3600.0]
    wcs.wcs.set()
    return wcs


def middle_of(image: Mosaic) -> tuple[float, float]:
    """Right ascension and declination (ICRS, degrees) of the middle of an image."""
    ny, nx = image.shape
    place = image.wcs.all_pix2world([[0.5 * (nx - 1), 0.5 * (ny - 1)]], 0)[0]
    sky = SkyCoord(*place, unit="deg", frame=celestial_frame(image.wcs)).icrs
    return float(sky.ra.deg), float(sky.dec.deg)


def extent(image: Mosaic, wcs: WCS) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last pixels (x, y) of a grid that an image touches, from points along its edges."""
    ny, nx = image.shape
    along = np.linspace(0.0, 1.0, 33)
    sides = [(along, 0 * along), (along, 0 * along + 1), (0 * along, along), (0 * along + 1, along)]
    u, v = (np.concatenate([side[axis] for side in sides]) for axis in range(2))
    x, y = map_pixels(image.wcs, wcs, u * nx - 0.5, v * ny - 0.5)
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        raise TileError(f"{image.name}: lies on the other side of the sky than the other images; prepare them apart.")
    low = np.floor([x[good].min() + 0.5, y[good].min() + 0.5]).astype(np.int64)
    high = np.ceil([x[good].max() - 0.5, y[good].max() - 0.5]).astype(np.int64)
    return low, high


@dataclass(frozen=True)
class ImageToResample:
    """An opened image: what its values are multiplied by, the level below them, and the kernel that changes its PSF."""

    mosaic: Mosaic
    gain: float = 1.0
    level: float = 0.0
    kernel: Float32 | None = None


@dataclass(frozen=True)
class ResampledBlock:
    """Resampled pixels, NaN where bad, and their RMS; None where the image has no RMS map."""

    pixels: Float32
    rms: Float32 | None


def resampled(
    one: ImageToResample, wcs: WCS, step: int, top: int, left: int, size: tuple[int, int], method: ResamplingMethod
) -> ResampledBlock:
    """Resample one image onto a block of output pixels of ``step``² pixels of ``wcs``."""
    source: Any = one.mosaic if one.kernel is None else _Window(one.mosaic, one.kernel)
    if method == "spline":
        pixels = resample(source, wcs, WarpGrid(0, 0, (0, 0), step), top, left, size)
    else:
        pixels = _reprojected(source, wcs, step, top, left, size, method)
    area = (step * VIS_PIXEL_SCALE_ARCSEC / one.mosaic.pixel_scale_arcsec) ** 2
    pixels = (pixels - np.float32(one.level * area)) * np.float32(one.gain)
    rms = _resampled_rms(one.mosaic, wcs, step, top, left, size)
    # The variance of an area stays what it is, however many pixels it is divided into.
    return ResampledBlock(pixels, None if rms is None else rms * np.float32(one.gain * math.sqrt(area)))


@dataclass
class _Window:
    """A window of an image, with the interface that resampling needs: its pixels, and its WCS moved along."""

    mosaic: Mosaic
    kernel: Float32 | None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.wcs, self.shape = self.mosaic.name, self.mosaic.wcs, self.mosaic.shape
        self.pixel_scale_arcsec = self.mosaic.pixel_scale_arcsec

    def read(self, y0: int, y1: int, x0: int, x1: int) -> Float32:
        """As :meth:`Mosaic.read`, convolved with the kernel; NaN where a twentieth of the kernel's weight is on bad pixels."""
        if self.kernel is None:
            return self.mosaic.read(y0, y1, x0, x1)
        # It brings all of scipy.stats, a second of processor time of every process of a scan; few scans smooth.
        from scipy.signal import oaconvolve

        reach = self.kernel.shape[0] // 2
        pixels = self.mosaic.read(y0 - reach, y1 + reach, x0 - reach, x1 + reach)
        good = np.isfinite(pixels)
        smooth = oaconvolve(np.where(good, pixels, np.float32(0.0)), self.kernel, mode="valid")
        if not good.all():
            weight = np.abs(self.kernel) / np.abs(self.kernel).sum()
            smooth[oaconvolve((~good).astype(np.float32), weight, mode="valid") > 0.05] = np.nan
        return np.asarray(smooth, dtype=np.float32)


def _reprojected(
    source: Any, wcs: WCS, step: int, top: int, left: int, size: tuple[int, int], method: ResamplingMethod
) -> Float32:
    """As :func:`~scanner.sky.regrid.resample`, by reproject."""
    from reproject import reproject_adaptive, reproject_exact, reproject_interp

    nothing = np.full(size, np.nan, dtype=np.float32)
    window = window_around(source, *lattice_positions(source, wcs, step, top, left, size))
    if window is None:
        return nothing
    y0, y1, x0, x1 = window
    pixels = source.read(y0, y1, x0, x1)
    if not np.isfinite(pixels).any():
        return nothing
    here = source.wcs[y0:y1, x0:x1]
    target = wcs.deepcopy()
    target.wcs.crpix = (wcs.wcs.crpix - 0.5) / step + 0.5 - np.array([left, top])
    target.wcs.cdelt = wcs.wcs.cdelt * step
    target.wcs.set()
    area = (step * VIS_PIXEL_SCALE_ARCSEC / source.pixel_scale_arcsec) ** 2
    settings: dict[str, Any] = {"shape_out": size, "return_footprint": False}
    if method == "adaptive":
        # It conserves flux by itself.
        found = reproject_adaptive(
            (pixels, here), target, conserve_flux=True, kernel="gaussian", bad_value_mode="strict", **settings
        )
    elif method == "interp":
        found = area * reproject_interp((pixels, here), target, order="bilinear", **settings)
    else:
        found = area * reproject_exact((pixels, here), target, **settings)
    return np.asarray(found, dtype=np.float32)


def _resampled_rms(mosaic: Mosaic, wcs: WCS, step: int, top: int, left: int, size: tuple[int, int]) -> Float32 | None:
    """RMS of the nearest input pixels; None where the image has no map."""
    if not mosaic.has_rms:
        return None
    nodes = lattice_positions(mosaic, wcs, step, top, left, size)
    y, x = (np.linspace(0, len(side) - 1, n) for side, n in zip((nodes[0], nodes[0].T), size, strict=True))
    lattice = np.stack(np.meshgrid(y, x, indexing="ij"))
    at_x, at_y = (scipy.ndimage.map_coordinates(np.nan_to_num(one, nan=-1e9), lattice, order=1) for one in nodes)
    rms = np.full(size, np.nan, dtype=np.float32)
    window = window_around(mosaic, *nodes)
    if window is None:
        return rms
    y0, y1, x0, x1 = window
    values = mosaic.read_rms(y0, y1, x0, x1)
    row, column = np.rint(at_y).astype(np.int64) - y0, np.rint(at_x).astype(np.int64) - x0
    inside = (row >= 0) & (row < y1 - y0) & (column >= 0) & (column < x1 - x0)
    rms[inside] = values[row[inside], column[inside]]
    return rms


def lattice_positions(
    mosaic: Mosaic, wcs: WCS, step: int, top: int, left: int, size: tuple[int, int]
) -> tuple[Float64, Float64]:
    """Where the middles of a lattice of output pixels, 17 × 17 at most with the corners of the block, lie in the image."""
    y, x = np.meshgrid(*(np.linspace(0, n - 1, min(n, 17)) for n in size), indexing="ij")
    return map_pixels(wcs, mosaic.wcs, step * (left + x + 0.5) - 0.5, step * (top + y + 0.5) - 0.5)


def window_around(mosaic: Mosaic, x: Float64, y: Float64) -> tuple[int, int, int, int] | None:
    """Rows and columns of an image around positions; None where these lie outside."""
    good = np.isfinite(x) & np.isfinite(y)
    if not good.any():
        return None
    y0, y1 = max(int(y[good].min()) - _KERNEL_MARGIN, 0), min(int(y[good].max()) + _KERNEL_MARGIN + 1, mosaic.shape[0])
    x0, x1 = max(int(x[good].min()) - _KERNEL_MARGIN, 0), min(int(x[good].max()) + _KERNEL_MARGIN + 1, mosaic.shape[1])
    return (y0, y1, x0, x1) if y1 > y0 and x1 > x0 else None


def blocks(shape: tuple[int, int]) -> Iterator[tuple[int, int, tuple[int, int]]]:
    """First row, first column and shape of the parts of an image that are made one after the other."""
    for top in range(0, shape[0], BLOCK_PIXELS):
        for left in range(0, shape[1], BLOCK_PIXELS):
            yield top, left, (min(BLOCK_PIXELS, shape[0] - top), min(BLOCK_PIXELS, shape[1] - left))


class ImageFile:
    """An image that is written block by block: raw pixels first, its header when they are there."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path, self._raw = path, path.with_name(f"{path.name}.raw")
        self.pixels = np.memmap(self._raw, dtype, "w+", shape=shape)

    def put(self, top: int, left: int, block: NDArray[Any]) -> None:
        """Write a block whose first pixel is (left, top)."""
        self.pixels[top : top + block.shape[0], left : left + block.shape[1]] = block

    def finish(self, header: fits.Header) -> None:
        """Make the FITS file."""
        hdu = fits.PrimaryHDU(header=header)
        hdu.header["BITPIX"] = -32 if self.pixels.dtype.kind == "f" else 8
        hdu.header["NAXIS"] = 2
        hdu.header.insert("NAXIS", ("NAXIS1", self.pixels.shape[1]), after=True)
        hdu.header.insert("NAXIS1", ("NAXIS2", self.pixels.shape[0]), after=True)
        with self.path.open("wb") as file:
            file.write(hdu.header.tostring().encode("ascii"))
            for first in range(0, self.pixels.shape[0], BLOCK_PIXELS):
                file.write(self.pixels[first : first + BLOCK_PIXELS].tobytes())
            file.write(b"\0" * (-file.tell() % 2880))
        del self.pixels
        self._raw.unlink()


def gaussian(fwhm_pixels: float) -> Float64:
    """A round Gaussian PSF that sums to one, on an odd number of pixels."""
    sigma = fwhm_pixels / math.sqrt(8.0 * math.log(2.0))
    axis = np.arange(-math.ceil(6.0 * sigma) - 1, math.ceil(6.0 * sigma) + 2, dtype=np.float64)
    profile = np.exp(-0.5 * (axis / sigma) ** 2)
    image = profile[:, None] * profile
    return np.asarray(image / image.sum())


def centred(psf: Float64) -> Float64:
    """The PSF with its centroid in the middle pixel of an odd number of pixels; an image matched with it keeps its place."""
    side = max(psf.shape) // 2 * 2 + 1
    padded = np.zeros((side, side))
    padded[: psf.shape[0], : psf.shape[1]] = psf
    axis = np.arange(side) - side // 2
    # The centroid of the core: far wings are noise.
    inner = padded * (padded > 0.02 * padded.max())
    shift = [-float(inner.sum(axis=1 - k) @ axis / inner.sum()) for k in range(2)]
    return np.asarray(scipy.fft.ifft2(scipy.ndimage.fourier_shift(scipy.fft.fft2(padded), shift)).real)


def matching_kernel(psf: Float64, wanted: Float64) -> tuple[Float64, float]:
    """The kernel that makes one PSF of another: the ratio of their transfer functions (Boucaud et al. 2016).

    Parameters
    ----------
    psf, wanted
        On the same pixels, square, an odd number along a side each, summing to one.

    Returns
    -------
    tuple
        The kernel, (n, n) with n odd, and the most that it raises any spatial frequency by.
    """
    side = max(psf.shape[0], wanted.shape[0])
    target, source = (scipy.fft.rfft2(np.fft.ifftshift(np.pad(one, (side - len(one)) // 2))) for one in (wanted, psf))
    ratio = target * source.conj() / (np.abs(source) ** 2 + _FLOOR**2)
    # At no frequency at all, the light must stay what it is.
    ratio /= ratio[0, 0].real
    kernel = np.fft.fftshift(scipy.fft.irfft2(ratio, s=(side, side)))
    return kernel, float(np.abs(ratio).max())
