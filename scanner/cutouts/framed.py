"""One cutout with all that is needed to use it elsewhere: pixels, WCS, unit and zero point of each band; and as a FITS file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import fit_wcs_from_points, proj_plane_pixel_scales

from scanner.cutouts.quality import cutouts_of
from scanner.cutouts.store import StoreAttributes
from scanner.errors import ContentError
from scanner.records import BANDS, NISP_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS, Band, CutoutBatch, Float32
from scanner.sky.alignment import NISP_MARGIN, STEP
from scanner.sphere import separation_deg

if TYPE_CHECKING:
    from scanner.sky.tile_images import TileImages

#: Circles up to this radius, and this far away, are cut out to the pixel.
_NEAR_DEG = 1.0
#: A card's value, or value and comment.
Card = str | int | float | tuple[str | int | float, str]


@dataclass(frozen=True)
class BandImage:
    """One band of a cutout.

    ``pixels`` (ny, nx) float32, NaN where there is none. ``wcs``: of these pixels. ``unit``: BUNIT, "" where unknown.
    ``zero_point``: AB magnitude of one unit, NaN where unknown.
    """

    band: Band
    pixels: Float32
    wcs: WCS
    unit: str
    zero_point: float

    def part(self, rows: slice, columns: slice) -> BandImage:
        """The image cut down to some rows and columns, each a slice with a start and a stop inside the image."""
        return replace(self, pixels=self.pixels[rows, columns], wcs=window_wcs(self.wcs, columns.start, rows.start))

    def around(self, ra: float, dec: float, radius_deg: float) -> tuple[slice, slice] | None:
        """Rows and columns of the smallest part that holds a circle on the sky; None where the circle lies outside.

        Parameters
        ----------
        ra, dec
            Centre in degrees (ICRS).
        radius_deg
            Radius in degrees.
        """
        height, width = self.pixels.shape
        middle = [float(value) for value in self.wcs.all_pix2world((width - 1) / 2, (height - 1) / 2, 0)]
        separation = float(separation_deg(np.array(ra), np.array(dec), *np.array(middle)))
        if max(separation, radius_deg) > _NEAR_DEG:
            # No circle on the image's own plane; beside so large a one, the image is a point.
            return (slice(0, height), slice(0, width)) if separation <= radius_deg else None
        x, y = (float(value) for value in self.wcs.all_world2pix(ra, dec, 0))
        radius = radius_deg / proj_plane_pixel_scales(self.wcs)
        found = []
        for centre, reach, size in ((y, radius[1], height), (x, radius[0], width)):
            start = max(int(np.floor(centre - reach + 0.5)), 0)
            stop = min(int(np.floor(centre + reach + 0.5)) + 1, size)
            if stop <= start:
                return None
            found.append(slice(start, stop))
        return found[0], found[1]


@dataclass(frozen=True)
class FramedCutout:
    """A batch of one, and its images in the order VIS, Y, J, H."""

    cutout: CutoutBatch
    images: tuple[BandImage, ...]


def of_tile(cutout: CutoutBatch, images: TileImages) -> FramedCutout:
    """Frame a batch of one with the opened tile that it was cut from: each band's own WCS."""
    x0, y0 = int(cutout.x0[0]), int(cutout.y0[0])
    return FramedCutout(
        cutout,
        tuple(
            BandImage(band, pixels, band_wcs(images, band, x0, y0), images.units[band], images.zero_points[band])
            for band, pixels in zip(BANDS, _pixels(cutout), strict=True)
        ),
    )


def of_store(cutout: CutoutBatch, attributes: StoreAttributes) -> FramedCutout:
    """Frame a batch of one with what its store knows.

    All bands lie on the WCS of the VIS mosaic, NISP three pixels by three: exactly so where a band was binned or resampled, and
    within :data:`~scanner.sky.alignment.EDGE_TOLERANCE` of a pixel where it was sliced from a mosaic of its own.

    Raises
    ------
    ContentError
        The store has no WCS, or one that cannot be understood.
    """
    x0, y0 = int(cutout.x0[0]), int(cutout.y0[0])
    vis = wcs_of_store(attributes)
    return FramedCutout(
        cutout,
        tuple(
            BandImage(
                band,
                pixels,
                window_wcs(vis, x0, y0) if band == "VIS" else window_wcs(vis, x0 + NISP_MARGIN, y0 + NISP_MARGIN, STEP),
                attributes.units.get(band, ""),
                np.nan if (zero_point := attributes.zero_points.get(band)) is None else zero_point,
            )
            for band, pixels in zip(BANDS, _pixels(cutout), strict=True)
        ),
    )


def wcs_of_store(attributes: StoreAttributes) -> WCS:
    """WCS of the VIS mosaic that a store's cutouts are from.

    Raises
    ------
    ContentError
        The store has none, or one that cannot be understood.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            vis = WCS(fits.Header.fromstring(attributes.wcs)).celestial
    except Exception as error:  # wcslib has its own exceptions for every way in which a header can be wrong
        raise ContentError(f"the cutouts of tile {attributes.tile_id}: their WCS cannot be understood ({error}).") from None
    if vis.naxis != 2:
        raise ContentError(f"the cutouts of tile {attributes.tile_id}: have no WCS; scan the tile again.")
    return vis


def _pixels(cutout: CutoutBatch) -> tuple[Float32, ...]:
    return (cutout.vis[0], *cutout.nisp[0])


def fits_bytes(images: Sequence[BandImage], header: Mapping[str, Card]) -> bytes:
    """Write images.

    Parameters
    ----------
    images
        One extension each, named after its band.
    header
        Cards of the primary header by keyword.
    """
    primary = fits.PrimaryHDU()
    for keyword, card in header.items():
        # A bundle can be named in any script; FITS knows ASCII alone.
        primary.header[keyword] = card.encode("ascii", "replace").decode() if isinstance(card, str) else card
    hdus = fits.HDUList([primary])
    for image in images:
        hdu = fits.ImageHDU(image.pixels, image.wcs.to_header(relax=True), name=image.band)
        if image.unit:
            hdu.header["BUNIT"] = image.unit
        if np.isfinite(image.zero_point):
            hdu.header["MAGZERO"] = image.zero_point
        hdus.append(hdu)
    stream = io.BytesIO()
    hdus.writeto(stream)
    return stream.getvalue()


def read_cutout(content: bytes, named: str) -> CutoutBatch:
    """A cutout of any origin from a FITS file as :func:`fits_bytes` writes it; sky and noise are measured as a scan does.

    Parameters
    ----------
    content
        The file, which may be anybody's.
    named
        What the message calls it.

    Raises
    ------
    ContentError
        It lacks a band, or one has another number of pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(io.BytesIO(content), memmap=False) as hdus:
                # By the header: pixels may be packed, and a small file hold more of them than there is memory.
                sides = {band: VIS_CUTOUT_PIXELS if band == "VIS" else NISP_CUTOUT_PIXELS for band in BANDS}
                if any(hdus[band].shape != (side, side) for band, side in sides.items()):
                    raise ValueError
                bands = [np.asarray(hdus[band].data, dtype=np.float32) for band in BANDS]
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, fits.VerifyError):
        raise ContentError(
            f"{named}: is no cutout; it needs the extensions VIS ({VIS_CUTOUT_PIXELS} x {VIS_CUTOUT_PIXELS} pixels) and "
            f"Y, J, H ({NISP_CUTOUT_PIXELS} x {NISP_CUTOUT_PIXELS})."
        ) from None
    return cutouts_of(bands[0], np.stack(bands[1:]))


def band_wcs(images: TileImages, band: Band, x0: int, y0: int) -> WCS:
    """WCS of one band's cutout whose first VIS pixel is (x0, y0).

    A sliced band has its own mosaic's; what was binned or resampled lies on the VIS mosaic's, three pixels by three.
    """
    if band == "VIS":
        return window_wcs(images.vis.wcs, x0, y0)
    geometry = images.alignment.bands[band]
    if geometry.case == "slice":
        column, row = geometry.first_pixel(np.array([x0]), np.array([y0]))
        return window_wcs(images.nisp[band].wcs, int(column[0]), int(row[0]))
    return window_wcs(images.vis.wcs, x0 + NISP_MARGIN, y0 + NISP_MARGIN, STEP)


def window_wcs(wcs: WCS, x0: int, y0: int, step: int = 1) -> WCS:
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
