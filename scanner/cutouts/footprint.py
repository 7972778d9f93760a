"""Where cutouts end beyond a mosaic, and how much sky a mosaic covers.

In: shapes, WCS and cutout positions. Out: numbers of cutout pixels that lie outside, per object; areas and outlines. Refused:
nothing.
"""

from __future__ import annotations

import math

import numpy as np
from astropy.wcs import WCS

from scanner.records import NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Float64, Int64
from scanner.sky.alignment import NISP_MARGIN, STEP, BandGeometry, map_pixels
from scanner.sky.mosaic import Mosaic

#: A warped pixel needs the four input pixels around it, and neighbouring cutouts share no more than rounding.
_WARP_MARGIN = 1.0


def pixels_outside(shape: tuple[int, int], x0: Int64, y0: Int64, size: int = VIS_CUTOUT_PIXELS, step: int = 1) -> Int64:
    """Count the cutout pixels that are not wholly inside a mosaic.

    Parameters
    ----------
    shape
        (ny, nx) of the mosaic.
    x0, y0
        (N,) first mosaic pixel of each cutout.
    size, step
        The cutout has ``size``² pixels of ``step``² mosaic pixels each.

    Returns
    -------
    Int64
        Shape (N,).
    """
    inside = np.ones(len(x0), dtype=np.int64)
    for first, limit in ((x0, shape[1]), (y0, shape[0])):
        begin = np.maximum(-(first // step), 0)
        end = np.minimum((limit - first) // step, size)
        inside *= np.maximum(end - begin, 0)
    return size**2 - inside


def nisp_pixels_outside(vis: Mosaic, band: Mosaic, geometry: BandGeometry, x0: Int64, y0: Int64) -> Int64:
    """Count the NISP cutout pixels outside a band's mosaic; in the case ``warp`` as if the mosaic ended along straight lines.

    Parameters
    ----------
    vis, band, geometry
        The two mosaics and how one lies on the other.
    x0, y0
        (N,) first VIS pixel of each cutout.

    Returns
    -------
    Int64
        Shape (N,). In the case ``warp`` all bad pixels of a cutout that reaches outside count as outside.
    """
    if geometry.case == "bin":
        return pixels_outside(band.shape, *geometry.first_pixel(x0, y0), NISP_CUTOUT_PIXELS, STEP)
    if geometry.case == "slice":
        return pixels_outside(band.shape, *geometry.first_pixel(x0, y0), NISP_CUTOUT_PIXELS)
    outside = pixels_outside(vis.shape, x0, y0)
    edges = np.array([0, STEP * NISP_CUTOUT_PIXELS]) + NISP_MARGIN - 0.5
    x, y = (first[:, np.newaxis] + corner.ravel() for first, corner in zip((x0, y0), np.meshgrid(edges, edges), strict=True))
    band_x, band_y = map_pixels(vis.wcs, band.wcs, x.ravel(), y.ravel())
    inside = np.ones(x.size, dtype=np.bool_)
    for position, limit in ((band_x, band.shape[1]), (band_y, band.shape[0])):
        inside &= (position >= _WARP_MARGIN) & (position <= limit - 1 - _WARP_MARGIN)
    reaches_out = ~inside.reshape(x.shape).all(axis=1) | (outside > 0)
    return np.where(reaches_out, NISP_CUTOUT_PIXELS**2, 0)


def area_deg2(wcs: WCS, shape: tuple[int, int]) -> float:
    """Area of a mosaic on the sky: the spherical quadrilateral of its outer corners, as two triangles.

    The solid angle of a triangle is that of Van Oosterom & Strackee (1983).

    Returns
    -------
    float
        Square degrees.
    """
    longitude, latitude = np.deg2rad(_corners(wcs, shape))
    corners = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1)
    area = 0.0
    for i, j in ((1, 2), (2, 3)):
        a, b, c = corners[0], corners[i], corners[j]
        area += 2 * math.atan2(abs(float(np.dot(a, np.cross(b, c)))), float(1 + a @ b + b @ c + c @ a))
    return area * (180 / math.pi) ** 2


def outline(wcs: WCS, shape: tuple[int, int]) -> str:
    """A mosaic's outer corners as an ``s_region`` of the IVOA's ObsCore: ``POLYGON ICRS ra dec ra dec …``.

    Degrees to 1e-8 (0.04 mas), so that the last bits of a projection leave the text as it is.
    """
    corners = zip(*_corners(wcs, shape), strict=True)
    # A right ascension that rounds to 360 is 0.
    return "POLYGON ICRS " + " ".join(f"{round(ra, 8) % 360.0:.8f} {dec:.8f}" for ra, dec in corners)


def _corners(wcs: WCS, shape: tuple[int, int]) -> tuple[Float64, Float64]:
    """Right ascension and declination of the outer corners, in order along the edge, each (4,)."""
    ny, nx = shape
    longitude, latitude = wcs.all_pix2world([-0.5, nx - 0.5, nx - 0.5, -0.5], [-0.5, -0.5, ny - 0.5, ny - 0.5], 0)
    return longitude, latitude
