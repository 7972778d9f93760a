"""Cuts VIS and NISP pixels around one common centre for each target of a tile, batch by batch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from scanner.cutouts import quality
from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    CutoutBatch,
    Flag,
    Float32,
    Int64,
    Targets,
)
from scanner.sky.alignment import NISP_MARGIN, STEP, nisp_pixels_outside, pixels_outside
from scanner.sky.mosaic import Mosaic
from scanner.sky.regrid import WarpedBand, WarpedWindows
from scanner.sky.tile_images import TileImages

#: Objects of a batch: some 14 MB.
BATCH_SIZE = 64
_BINNED_PIXELS = STEP * NISP_CUTOUT_PIXELS


def cut(
    images: TileImages,
    targets: Targets,
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
    spent: Callable[[float], None] = lambda core_seconds: None,
) -> Iterator[CutoutBatch]:
    """Cut all targets.

    Cutouts come in row order (y, then x), so that the files are read once from top to bottom and memory does not depend on
    their size.

    A mosaic that is smaller than a cutout leaves NaN around it, which :func:`quality.fill_bad_pixels` fills with noise. Objects
    at least 3" from its edges are flagged PADDED, and their quality is that of the pixels that are there.

    VIS is copied. NISP is the 3×3 sum of the central 198 pixels (``bin``) or a slice (``slice``, and ``warp`` after
    resampling). Nothing is interpolated but in the case ``warp``.

    Parameters
    ----------
    images
        Of the tile.
    targets
        In any order; those outside the mosaic give cutouts that are all NaN.
    batch_size
        Objects per batch; the last one may be smaller.
    threads
        Batches that are cut at a time, ahead of the one that is asked for.
    spent
        Called with the processor time of each batch that another thread has cut.

    Yields
    ------
    CutoutBatch
        Targets in the order of ``y``, then ``x``, then ``target_id``.

    Raises
    ------
    TileError
        A compressed mosaic is damaged.
    OutputError
        The scratch folder is full.
    """
    targets = targets.take(np.lexsort((targets.target_id, targets.x, targets.y)))
    rows = np.arange(len(targets))
    parts = (targets.take(rows[first : first + batch_size]) for first in range(0, len(targets), batch_size))
    if threads == 1 or len(targets) <= batch_size:
        for part in parts:
            yield _cut_batch(images, part)
        return
    for band in images.nisp:
        images.source(band)  # One thread resamples it, not all of them.

    def cut_one(part: Targets) -> CutoutBatch:
        began = time.thread_time()
        batch = _cut_batch(images, part)
        spent(time.thread_time() - began)
        return batch

    with ThreadPoolExecutor(threads, thread_name_prefix="cut") as pool:
        ahead: deque[Future[CutoutBatch]] = deque()
        try:
            for part in parts:
                ahead.append(pool.submit(cut_one, part))
                if len(ahead) == threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def cut_pixels(images: TileImages, x0: Int64, y0: Int64) -> tuple[Float32, Float32]:
    """Cut at known places, as recorded with every object: any cutout can be made again from its tile, ``x0`` and ``y0``.

    Parameters
    ----------
    images
        Of the tile.
    x0, y0
        (N,) first VIS pixels; corners of the alignment's lattice.

    Returns
    -------
    tuple[Float32, Float32]
        ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66).

    Raises
    ------
    TileError
        A compressed mosaic is damaged.
    OutputError
        The scratch folder is full.
    """
    vis = np.empty((len(x0), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((len(x0), len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    _slices(images.vis, x0, y0, vis)
    for index, band in enumerate(NISP_BANDS):
        geometry = images.alignment.bands[band]
        columns, rows = geometry.first_pixel(x0, y0)
        if geometry.case == "bin":
            _binned(images.nisp[band], columns, rows, nisp[:, index])
        else:
            _slices(images.source(band), columns, rows, nisp[:, index])
    return vis, nisp


def _cut_batch(images: TileImages, targets: Targets) -> CutoutBatch:
    alignment = images.alignment
    x0, y0, offset = alignment.place(targets.x, targets.y)
    vis, nisp = cut_pixels(images, x0, y0)
    measured = quality.measure(vis, nisp)
    outside = np.stack(
        [
            pixels_outside(images.vis.shape, x0, y0),
            *(nisp_pixels_outside(images.vis, images.nisp[band], alignment.bands[band], x0, y0) for band in NISP_BANDS),
        ],
        axis=1,
    )
    flags = _flags(measured, outside, quality.saturated(vis, nisp, measured))
    for row in np.flatnonzero(_is_padded(images.vis.shape, x0, y0)).tolist():
        flags[row] |= np.uint32(Flag.PADDED)
        _measure_padded(images, (vis[row], *nisp[row]), int(x0[row]), int(y0[row]), measured, row)
    return CutoutBatch(
        targets=targets,
        vis=vis,
        nisp=nisp,
        x0=x0,
        y0=y0,
        offset=offset,
        bad_fraction=measured.bad_fraction,
        sky=measured.sky,
        sigma=measured.sigma,
        flags=flags,
    )


def _is_padded(shape: tuple[int, int], x0: Int64, y0: Int64) -> NDArray[np.bool_]:
    """Which cutouts (N,) are of a stamp: a mosaic that no cutout fits in, but that holds all within 3" of the centre."""
    padded = np.full(len(x0), min(shape) < VIS_CUTOUT_PIXELS)
    reach = round(quality.CENTRAL_RADIUS_ARCSEC / VIS_PIXEL_SCALE_ARCSEC)
    for first, limit in ((x0, shape[1]), (y0, shape[0])):
        middle = first + VIS_CUTOUT_PIXELS // 2
        padded &= (middle - reach >= 0) & (middle + reach <= limit)
    return padded


def _measure_padded(
    images: TileImages, pixels: tuple[Float32, ...], x0: int, y0: int, measured: quality.Quality, row: int
) -> None:
    """Measure what lies in the stamp: what is bad there, and the noise of its sky, each band's (ny, nx) ``pixels``.

    Light in the edge widens its distribution; and the RMS is that of large areas, above the scatter of pixels that resampling
    has correlated (by half in Euclid's mosaics). Both err upwards, so the smaller is the noise.
    """
    for band, (name, image) in enumerate(zip(BANDS, pixels, strict=True)):
        step, margin = (1, 0) if name == "VIS" else (STEP, NISP_MARGIN)
        rows, columns = (
            slice(max(-((first + margin) // step), 0), max((limit - first - margin) // step, 0))
            for first, limit in zip((y0, x0), images.vis.shape, strict=True)
        )
        inside = image[rows, columns]
        measured.bad_fraction[row, band] = 1.0 - np.isfinite(inside).mean() if inside.size else 1.0
        sky, sigma = quality.darkest_edge(image)
        if math.isfinite(sigma):
            measured.sky[row, band] = sky
            measured.sigma[row, band] = np.fmin(sigma, images.noise(name))


def _slices(source: Mosaic | WarpedBand | WarpedWindows, columns: Int64, rows: Int64, out: Float32) -> None:
    for target, column, row in zip(out, columns.tolist(), rows.tolist(), strict=True):
        source.read_into(target, row, column)


def _binned(source: Mosaic, columns: Int64, rows: Int64, out: Float32) -> None:
    """3×3 sums; NaN where one of the nine pixels is."""
    window = np.empty((_BINNED_PIXELS, _BINNED_PIXELS), dtype=np.float32)
    strips = np.empty((NISP_CUTOUT_PIXELS, _BINNED_PIXELS), dtype=np.float32)
    columns_of_three = strips.reshape(NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS, STEP)
    # Infinities of both signs may meet in a sum; the result is masked all the same.
    with np.errstate(over="ignore", invalid="ignore"):
        for target, column, row in zip(out, columns.tolist(), rows.tolist(), strict=True):
            pixels = source.view(row, row + _BINNED_PIXELS, column, column + _BINNED_PIXELS)
            if pixels is None:
                source.read_into(window, row, column)
                pixels = window
            # Adding whole rows first, then columns, is ten times faster than one sum over both axes.
            np.add(pixels[0::STEP], pixels[1::STEP], out=strips)
            np.add(strips, pixels[2::STEP], out=strips)
            np.add(columns_of_three[..., 0], columns_of_three[..., 1], out=target)
            np.add(target, columns_of_three[..., 2], out=target)
            if not math.isfinite(np.einsum("ij->", target)):
                target[~np.isfinite(target)] = np.nan


def _flags(measured: quality.Quality, outside: Int64, saturated: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Flags (N,) from the pixels outside each band's mosaic (N, 4); what is bad beyond those is masked.

    A few hot pixels are in every cutout: only a share that could hide an arc is worth a flag.
    """
    sizes = np.array([VIS_CUTOUT_PIXELS**2] + [NISP_CUTOUT_PIXELS**2] * len(NISP_BANDS))
    bad = np.rint(measured.bad_fraction * sizes).astype(np.int64)
    flags = np.zeros(len(outside), dtype=np.uint32)
    flags[(outside > 0).any(axis=1)] |= np.uint32(Flag.OUTSIDE_MOSAIC)
    flags[quality.is_masked(bad - outside, sizes)] |= np.uint32(Flag.MASKED_PIXELS)
    flags[saturated] |= np.uint32(Flag.SATURATED)
    return flags
