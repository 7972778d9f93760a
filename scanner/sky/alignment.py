"""How each NISP band lies on the VIS pixels, decided from the WCS, and the lattice of cutout centres that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.records import (
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    Float32,
    Float64,
    Int64,
)
from scanner.sky.mosaic import Mosaic, celestial_frame

Case = Literal["bin", "slice", "warp"]
#: VIS pixels along a NISP pixel.
STEP = 3
#: The 66 NISP pixels span 198 VIS pixels: one less on each side than the 200.
NISP_MARGIN = 1
SCALE_TOLERANCE = 0.01
#: Coarser pixels than this hold nothing of a lens; finer ones are of no survey, and a pixel of ours would have thousands.
LARGEST_SCALE_ARCSEC, SMALLEST_SCALE_ARCSEC = 1.0, 0.01
#: Largest distance between the pixel edges of two grids that count as one, in pixels of the band.
EDGE_TOLERANCE = 0.1
_POINTS = 17


@dataclass(frozen=True)
class BandGeometry:
    """How one NISP band lies on VIS.

    ``bin``: VIS pixel (x, y) is band pixel (x - origin_x, y - origin_y). ``slice`` and ``warp``: the left (lower) edge of band
    pixel j is the left edge of VIS pixel ``origin + 3 j``; in the case ``warp``, the band is the resampled one.
    """

    case: Case
    origin_x: int
    origin_y: int

    def first_pixel(self, x0: Int64, y0: Int64) -> tuple[Int64, Int64]:
        """First column and row, in the band's own (or warped) pixels, of cutouts whose first VIS pixel is (x0, y0)."""
        column, row = x0 + NISP_MARGIN - self.origin_x, y0 + NISP_MARGIN - self.origin_y
        return (column, row) if self.case == "bin" else (column // STEP, row // STEP)


@dataclass(frozen=True)
class Alignment:
    """The geometry of a tile.

    ``bands``: of each NISP band. ``step``: cutouts may be centred on every VIS pixel corner (1), or on every third along each
    axis (3), namely the lower left corners of VIS pixels (``phase_x + 3 i``, ``phase_y + 3 j``).
    """

    bands: dict[Band, BandGeometry]
    step: int
    phase_x: int
    phase_y: int

    @property
    def case(self) -> str:
        """The cases of the bands Y, J, H: one word if they are the same, as in "bin", else as in "bin/slice/slice"."""
        cases = [self.bands[band].case for band in NISP_BANDS]
        return cases[0] if len(set(cases)) == 1 else "/".join(cases)

    def place(self, x: Float64, y: Float64) -> tuple[Int64, Int64, Float32]:
        """Find the cutouts of targets: their centre is the corner of the lattice nearest the target.

        Parameters
        ----------
        x, y
            (N,) positions in VIS pixels.

        Returns
        -------
        tuple[Int64, Int64, Float32]
            ``x0`` and ``y0`` (N,), the first VIS pixel, and the offset (N, 2), target minus centre in VIS pixels.
        """
        x0, y0 = self._first(x, self.phase_x), self._first(y, self.phase_y)
        centre = 0.5 * (VIS_CUTOUT_PIXELS - 1)
        offset = np.stack([x - (x0 + centre), y - (y0 + centre)], axis=1).astype(np.float32)
        return x0, y0, offset

    def _first(self, position: Float64, phase: int) -> Int64:
        # The lower edge of pixel c is at c - 0.5.
        corner = phase + self.step * np.floor((position + 0.5 - phase) / self.step + 0.5)
        return np.asarray(corner, dtype=np.int64) - VIS_CUTOUT_PIXELS // 2


def align(vis: Mosaic, nisp: Mapping[Band, Mosaic]) -> Alignment:
    """Decide the case of each band and the lattice that they share.

    The mapping from VIS to NISP is computed on a grid of points over the VIS tile, its corners, edges and centre among them;
    file names play no part. There are three cases:

    - ``bin``: the same 0.1" pixels, shifted by whole pixels. NISP cutouts are 3×3 sums, and a cutout can be centred on any
      corner of a VIS pixel.
    - ``slice``: 0.3" pixels whose edges coincide with VIS pixel edges within 0.1 NISP pixel everywhere. NISP cutouts are
      slices, so the common centre has to be a NISP pixel corner: at most 1.5 VIS pixels from the target along each axis.
    - ``warp``: anything else up to 1". The band is resampled once onto a 0.3" grid locked to the VIS pixel edges, and then
      sliced from that.

    The lattice is that of the first sliced band; a band sliced on another lattice is warped.

    Raises
    ------
    TileError
        VIS pixels are not 0.1" wide (:func:`scanner.sky.regrid.on_grid` makes them so), a band's are not 0.01" to 1", or it
        does not overlap VIS.
    """
    for scale in vis.pixel_scales_arcsec:
        if abs(scale / VIS_PIXEL_SCALE_ARCSEC - 1) > SCALE_TOLERANCE:
            raise TileError(f'{vis.name}: the VIS pixels are {scale:.4g}" wide; they must be 0.1".')
    geometries = {band: _geometry(vis, nisp[band]) for band in NISP_BANDS}
    sliced = [geometry for geometry in geometries.values() if geometry.case == "slice"]
    phase_x, phase_y = (sliced[0].origin_x % STEP, sliced[0].origin_y % STEP) if sliced else (0, 0)
    for band, geometry in geometries.items():
        mixed = (geometry.origin_x % STEP, geometry.origin_y % STEP) != (phase_x, phase_y)
        if geometry.case == "warp" or (geometry.case == "slice" and mixed):
            geometries[band] = BandGeometry("warp", *(phase - STEP if phase else 0 for phase in (phase_x, phase_y)))
    step = 1 if all(geometry.case == "bin" for geometry in geometries.values()) else STEP
    return Alignment(geometries, step, phase_x, phase_y)


@np.errstate(over="ignore", invalid="ignore")
def map_pixels(
    source: WCS, target: WCS, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel positions of one WCS in the pixels of another, of any frames and shape; NaN or far away where there is none."""
    longitude, latitude = source.all_pix2world(x, y, 0)
    frame, wanted = celestial_frame(source), celestial_frame(target)
    if not frame.is_equivalent_frame(wanted):
        moved = SkyCoord(longitude, latitude, unit="deg", frame=frame).transform_to(wanted).spherical
        longitude, latitude = moved.lon.deg, moved.lat.deg
    mapped = target.all_world2pix(longitude, latitude, 0, quiet=True)
    return np.asarray(mapped[0]), np.asarray(mapped[1])


def refuse_scale(mosaic: Mosaic) -> None:
    """Refuse a mosaic whose pixels are none of a survey's.

    Raises
    ------
    TileError
        They are less than 0.01" or more than 1" wide.
    """
    for scale in mosaic.pixel_scales_arcsec:
        if not SMALLEST_SCALE_ARCSEC <= scale <= LARGEST_SCALE_ARCSEC:
            raise TileError(f'{mosaic.name}: the {mosaic.band} pixels are {scale:.4g}" wide; they must be 0.01" to 1".')


def _geometry(vis: Mosaic, nisp: Mosaic) -> BandGeometry:
    refuse_scale(nisp)
    x, y = _grid(vis.shape)
    band_x, band_y = map_pixels(vis.wcs, nisp.wcs, x, y)
    if not (_inside(band_x, band_y, nisp.shape) or _inside(*map_pixels(nisp.wcs, vis.wcs, *_grid(nisp.shape)), vis.shape)):
        raise TileError(f"{nisp.name}: the {nisp.band} mosaic does not overlap the VIS mosaic {vis.name} on the sky.")
    for case, scale, step in (("bin", VIS_PIXEL_SCALE_ARCSEC, 1), ("slice", NISP_PIXEL_SCALE_ARCSEC, STEP)):
        if abs(nisp.pixel_scale_arcsec / scale - 1) <= SCALE_TOLERANCE:
            origins = [
                _common_origin(vis_axis + 0.5 - step * (band_axis + 0.5), EDGE_TOLERANCE * step)
                for vis_axis, band_axis in ((x, band_x), (y, band_y))
            ]
            if origins[0] is not None and origins[1] is not None:
                return BandGeometry("bin" if case == "bin" else "slice", origins[0], origins[1])
    return BandGeometry("warp", 0, 0)


def _common_origin(origins: NDArray[np.float64], tolerance: float) -> int | None:
    """The whole number that all of these are, or None."""
    if not np.isfinite(origins).all():
        return None
    origin = round(float(np.median(origins)))
    return origin if float(np.abs(origins - origin).max()) <= tolerance else None


def _grid(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points over a mosaic, from outer edge to outer edge."""
    y, x = np.meshgrid(*(np.linspace(-0.5, size - 0.5, _POINTS) for size in shape), indexing="ij")
    return x.ravel(), y.ravel()


def _inside(x: NDArray[np.float64], y: NDArray[np.float64], shape: tuple[int, int]) -> bool:
    return bool(((x > -0.5) & (x < shape[1] - 0.5) & (y > -0.5) & (y < shape[0] - 0.5)).any())


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
