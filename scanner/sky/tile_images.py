"""The opened mosaics of one tile, and how the NISP bands lie on VIS; a band that has to be resampled is resampled once."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from scanner.config import CutoutsConfig
from scanner.errors import TileError
from scanner.records import BANDS, NISP_BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band, Tile
from scanner.sky.alignment import Alignment, align
from scanner.sky.fits_image import FitsImage
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import AbsentBand, Mosaic, area_deg2, open_mosaic
from scanner.sky.regrid import WarpedBand, WarpedWindows, covering_grid, fits_grid, on_grid, warp


class TileImages:
    """The opened mosaics of one tile; a context manager. Made by :func:`open_tile`.

    Attributes
    ----------
    vis
        The VIS mosaic.
    nisp
        The mosaics of Y, J and H; those that the tile does not have are ``absent``.
    alignment
        How they lie on VIS.
    vis_resampled
        Pixel scale of the VIS mosaic in arcsec, where it did not fit the grid and was resampled; else None.
    sky_area_deg2
        Area of the VIS tile on the sky times the share of its pixels that are good (from a sample of its rows).
    """

    def __init__(self, mosaics: dict[Band, Mosaic], scratch: ScratchFolder, vis_resampled: float | None = None) -> None:
        self.vis_resampled = vis_resampled
        self.vis = mosaics["VIS"]
        self.nisp = {band: mosaics[band] for band in NISP_BANDS}
        self._scratch = scratch
        self._warped: dict[Band, WarpedBand | WarpedWindows] = {}
        self.alignment: Alignment = align(self.vis, self.nisp)
        good = {band: mosaic.good_fraction() for band, mosaic in mosaics.items()}
        self.sky_area_deg2 = area_deg2(self.vis.wcs, self.vis.shape) * good["VIS"]

    @property
    def absent(self) -> tuple[Band, ...]:
        """NISP bands that the tile does not have."""
        return tuple(band for band, mosaic in self.nisp.items() if isinstance(mosaic, AbsentBand))

    @property
    def zero_points(self) -> dict[Band, float]:
        """AB magnitude of one unit per band; NaN where the header has no MAGZERO."""
        return {"VIS": self.vis.zero_point, **{band: mosaic.zero_point for band, mosaic in self.nisp.items()}}

    @property
    def units(self) -> dict[Band, str]:
        """BUNIT per band; "" where the header has none."""
        return {"VIS": self.vis.unit, **{band: mosaic.unit for band, mosaic in self.nisp.items()}}

    def noise(self, band: Band) -> float:
        """Noise of a pixel of a cutout as the band's RMS map has it, in the band's unit; NaN where there is none."""
        mosaic = self.vis if band == "VIS" else self.nisp[band]
        scale = VIS_PIXEL_SCALE_ARCSEC if band == "VIS" else NISP_PIXEL_SCALE_ARCSEC
        # A cutout's pixel is the sum of so many of the mosaic's, whose noise adds up in quadrature.
        return mosaic.median_rms() * scale / mosaic.pixel_scale_arcsec

    def repainted(self, paint: Callable[[Mosaic, FitsImage], FitsImage]) -> TileImages:
        """The same tile with other pixels, which ``paint`` makes of each mosaic's; to be used while this one is open.

        It resamples a band of the case ``warp`` where it is looked at, window by window.
        """
        twin = copy(self)
        twin.vis = self.vis.repainted(partial(paint, self.vis))
        twin.nisp = {band: mosaic.repainted(partial(paint, mosaic)) for band, mosaic in self.nisp.items()}
        twin._warped = {
            band: WarpedWindows(twin.nisp[band], self.vis.wcs, covering_grid(geometry, self.vis.shape))
            for band, geometry in self.alignment.bands.items()
            if geometry.case == "warp"
        }
        return twin

    def source(self, band: Band) -> Mosaic | WarpedBand | WarpedWindows:
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
    """Open the mosaics of a tile and decide their alignment. Only VIS is resampled, where its own pixels do not fit.

    Parameters
    ----------
    tile
        Without VIS it cannot be used; a NISP band that it does not have is an :class:`~scanner.sky.mosaic.AbsentBand`.
    config
        ``flag_mask`` and ``require_all_bands`` are used.
    scratch
        Folder for decompressed and resampled mosaics, which the caller removes. None: a folder of the tile's own, which
        is removed when it is closed.

    Raises
    ------
    TileError
        A mosaic cannot be opened, holds nothing, or does not lie on the others.
    OutputError
        The scratch folder is full.
    """
    missing = [band for band in (BANDS if config.require_all_bands else ("VIS",)) if band not in tile.bands]
    if missing:
        needed = "all of VIS, Y, J and H are required" if config.require_all_bands else "VIS is needed"
        raise TileError(f"tile {tile.tile_id}: names no {' and no '.join(missing)} mosaic; {needed}.")
    folder = ScratchFolder(scratch)
    mosaics: dict[Band, Mosaic] = {}
    resampled: float | None = None
    try:
        for band in BANDS:
            if band in tile.bands:
                mosaics[band] = open_mosaic(tile.bands[band], band=band, flag_mask=config.flag_mask, scratch=folder)
                if band == "VIS" and not fits_grid(mosaics["VIS"]):
                    given = mosaics["VIS"]
                    mosaics["VIS"] = on_grid(given, tile.bands["VIS"], folder)
                    given.close()
                    resampled = given.pixel_scale_arcsec
            else:
                mosaics[band] = AbsentBand(band, mosaics["VIS"])
        return TileImages(mosaics, folder, resampled)
    except BaseException:
        for mosaic in mosaics.values():
            mosaic.close()
        folder.close()
        raise
