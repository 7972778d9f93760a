"""Cuts what a network sees of each target of a tile: VIS and NISP pixels around one common centre, batch by batch.

In: a tile and its targets. Out: :class:`~scanner.records.CutoutBatch`, in row order (y, then x), so that the files are read
once from top to bottom and memory does not depend on their size. Refused, as :class:`TileError`: mosaics that cannot be opened,
that hold nothing, or that do not lie on one another (see :mod:`scanner.sky.mosaic` and :mod:`scanner.sky.alignment`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from scanner.config import CutoutsConfig
from scanner.cutouts import footprint, quality
from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    Band,
    CutoutBatch,
    Flag,
    Float32,
    Int64,
    Targets,
    Tile,
)
from scanner.sky.alignment import STEP, Alignment, align
from scanner.sky.mosaic import Mosaic, open_mosaic
from scanner.sky.scratch import ScratchFolder
from scanner.sky.warp import WarpedBand, covering_grid, warp

_BINNED_PIXELS = STEP * NISP_CUTOUT_PIXELS


class TileImages:
    """The opened mosaics of one tile; a context manager. Made by :func:`open_tile`.

    Attributes
    ----------
    vis
        The VIS mosaic.
    nisp
        The mosaics of Y, J and H.
    alignment
        How they lie on VIS.
    sky_area_deg2
        Area of the VIS tile on the sky times the share of its pixels that are good (from a sample of its rows).
    """

    def __init__(self, mosaics: dict[Band, Mosaic], scratch: ScratchFolder) -> None:
        self.vis = mosaics["VIS"]
        self.nisp = {band: mosaics[band] for band in NISP_BANDS}
        self._scratch = scratch
        self._warped: dict[Band, WarpedBand] = {}
        self.alignment: Alignment = align(self.vis, self.nisp)
        good = {band: mosaic.good_fraction() for band, mosaic in mosaics.items()}
        self.sky_area_deg2 = footprint.area_deg2(self.vis.wcs, self.vis.shape) * good["VIS"]

    @property
    def zero_points(self) -> dict[Band, float]:
        """AB magnitude of one unit per band; NaN where the header has no MAGZERO."""
        return {"VIS": self.vis.zero_point, **{band: mosaic.zero_point for band, mosaic in self.nisp.items()}}

    @property
    def units(self) -> dict[Band, str]:
        """BUNIT per band; "" where the header has none."""
        return {"VIS": self.vis.unit, **{band: mosaic.unit for band, mosaic in self.nisp.items()}}

    def source(self, band: Band) -> Mosaic | WarpedBand:
        """The pixels that a NISP band is cut from; a band of the case ``warp`` is resampled when it is first asked for.

        Raises
        ------
        TileError
            A compressed mosaic is damaged.
        OutputError
            The scratch folder is full.
        """
        geometry = self.alignment.bands[band]
        if geometry.case != "warp":
            return self.nisp[band]
        if band not in self._warped:
            grid = covering_grid(geometry, self.vis.shape)
            self._warped[band] = warp(self.nisp[band], self.vis.wcs, grid, self._scratch)
        return self._warped[band]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all files."""
        for mosaic in (self.vis, *self.nisp.values()):
            mosaic.close()
        for band in self._warped.values():
            band.close()
        self._scratch.close()


def open_tile(tile: Tile, config: CutoutsConfig, scratch: Path | None = None) -> TileImages:
    """Open the mosaics of a tile and decide their alignment. Nothing is resampled yet.

    Parameters
    ----------
    tile
        Must name all four bands.
    config
        ``flag_mask`` is used.
    scratch
        Folder for decompressed and resampled mosaics. Decompressed ones are left there for the next one to use. None: a
        folder of the tile's own, which is removed when it is closed.

    Raises
    ------
    TileError
        See the module.
    OutputError
        The scratch folder is full.
    """
    folder = ScratchFolder(scratch)
    mosaics: dict[Band, Mosaic] = {}
    try:
        for band in BANDS:
            mosaics[band] = open_mosaic(tile.bands[band], band=band, flag_mask=config.flag_mask, scratch=folder)
        return TileImages(mosaics, folder)
    except BaseException:
        for mosaic in mosaics.values():
            mosaic.close()
        folder.close()
        raise


def cut(images: TileImages, targets: Targets, batch_size: int) -> Iterator[CutoutBatch]:
    """Cut all targets.

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
    for first in range(0, len(targets), batch_size):
        yield _cut_batch(images, targets.take(np.arange(first, min(first + batch_size, len(targets)))))


def _cut_batch(images: TileImages, targets: Targets) -> CutoutBatch:
    alignment = images.alignment
    x0, y0, offset = alignment.place(targets.x, targets.y)
    vis = np.empty((len(targets), VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS), dtype=np.float32)
    nisp = np.empty((len(targets), len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), dtype=np.float32)
    _slices(images.vis, x0, y0, vis)
    for index, band in enumerate(NISP_BANDS):
        geometry = alignment.bands[band]
        columns, rows = geometry.first_pixel(x0, y0)
        cutting = _binned if geometry.case == "bin" else _slices
        cutting(images.source(band), columns, rows, nisp[:, index])
    measured = quality.measure(vis, nisp)
    outside = np.stack(
        [
            footprint.pixels_outside(images.vis.shape, x0, y0),
            *(
                footprint.nisp_pixels_outside(images.vis, images.nisp[band], alignment.bands[band], x0, y0)
                for band in NISP_BANDS
            ),
        ],
        axis=1,
    )
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
        flags=_flags(measured, outside, quality.saturated(vis, nisp, measured)),
    )


def _slices(source: Mosaic | WarpedBand, columns: Int64, rows: Int64, out: Float32) -> None:
    for target, column, row in zip(out, columns.tolist(), rows.tolist(), strict=True):
        source.read_into(target, row, column)


def _binned(source: Mosaic | WarpedBand, columns: Int64, rows: Int64, out: Float32) -> None:
    """3×3 sums; NaN where one of the nine pixels is."""
    window = np.empty((_BINNED_PIXELS, _BINNED_PIXELS), dtype=np.float32)
    thirds = window.reshape(NISP_CUTOUT_PIXELS, STEP, _BINNED_PIXELS)
    strips = np.empty((NISP_CUTOUT_PIXELS, _BINNED_PIXELS), dtype=np.float32)
    columns_of_three = strips.reshape(NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS, STEP)
    for target, column, row in zip(out, columns.tolist(), rows.tolist(), strict=True):
        source.read_into(window, row, column)
        # Adding whole rows first, then columns, is ten times faster than one sum over both axes.
        np.add(thirds[:, 0], thirds[:, 1], out=strips)
        np.add(strips, thirds[:, 2], out=strips)
        np.add(columns_of_three[..., 0], columns_of_three[..., 1], out=target)
        np.add(target, columns_of_three[..., 2], out=target)


def _flags(measured: quality.Quality, outside: Int64, saturated: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Flags (N,) from the pixels outside each band's mosaic (N, 4); what is bad beyond those is masked."""
    sizes = np.array([VIS_CUTOUT_PIXELS**2] + [NISP_CUTOUT_PIXELS**2] * len(NISP_BANDS))
    bad = np.rint(measured.bad_fraction * sizes).astype(np.int64)
    flags = np.zeros(len(outside), dtype=np.uint32)
    flags[(outside > 0).any(axis=1)] |= np.uint32(Flag.OUTSIDE_MOSAIC)
    flags[(bad > outside).any(axis=1)] |= np.uint32(Flag.MASKED_PIXELS)
    flags[saturated] |= np.uint32(Flag.SATURATED)
    return flags
