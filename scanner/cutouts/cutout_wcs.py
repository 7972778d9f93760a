"""Where the pixels of a cutout lie on the sky.

In: the opened mosaics of a tile, a band, the cutout's first VIS pixel. Out: the WCS of the band's cutout. Nothing is refused: a
cutout may reach outside its mosaics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import fit_wcs_from_points

from scanner.records import NISP_CUTOUT_PIXELS, Band
from scanner.sky.alignment import NISP_MARGIN, STEP

if TYPE_CHECKING:
    from scanner.cutouts.tile_images import TileImages


def band_wcs(images: TileImages, band: Band, x0: int, y0: int) -> WCS:
    """WCS of one band's cutout whose first VIS pixel is (x0, y0).

    A sliced band has its own mosaic's; what was binned or resampled lies on the VIS mosaic's, three pixels by three.
    """
    if band == "VIS":
        return window(images.vis.wcs, x0, y0)
    geometry = images.alignment.bands[band]
    if geometry.case == "slice":
        column, row = geometry.first_pixel(np.array([x0]), np.array([y0]))
        return window(images.nisp[band].wcs, int(column[0]), int(row[0]))
    return window(images.vis.wcs, x0 + NISP_MARGIN, y0 + NISP_MARGIN, STEP)


def window(wcs: WCS, x0: int, y0: int, step: int = 1) -> WCS:
    """WCS of a window whose first pixel is (x0, y0), with ``step`` × ``step`` pixels taken as one."""
    if step > 1 and wcs.has_distortion:
        return _fitted(wcs, x0, y0, step)
    moved = wcs.deepcopy()
    first = np.array([x0, y0], dtype=np.float64)
    # FITS counts from 1, and the outer edges of the pixels are what both grids have in common.
    moved.wcs.crpix = (wcs.wcs.crpix - 0.5 - first) / step + 0.5
    if wcs.sip is not None:
        moved.sip = Sip(wcs.sip.a, wcs.sip.b, wcs.sip.ap, wcs.sip.bp, wcs.sip.crpix - first)
    if wcs.wcs.has_cd():
        moved.wcs.cd = wcs.wcs.cd * step
    else:
        moved.wcs.cdelt = wcs.wcs.cdelt * step
    moved.wcs.set()
    return moved


def _fitted(wcs: WCS, x0: int, y0: int, step: int) -> WCS:
    """A tangent plane at the middle of the window: over 20 arc seconds a telescope's distortion is a linear map."""
    x, y = (axis.ravel() for axis in np.meshgrid(*[np.linspace(0, NISP_CUTOUT_PIXELS - 1, 5)] * 2))
    sky: SkyCoord = wcs.pixel_to_world(x0 + step * (x + 0.5) - 0.5, y0 + step * (y + 0.5) - 0.5)
    return fit_wcs_from_points((x, y), sky, proj_point=sky[len(x) // 2], projection="TAN")
