"""A cutout as the bytes that a client gets.

In: a framed cutout, what is wanted of it, header cards. Out: :class:`Rendered`, a FITS file (NaN where there is no pixel, a WCS
for every band) or a picture. The same request gives the same bytes. None where no pixel is left: the circle lies outside, or no
band lets the wavelengths through. Refused: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scanner.cutouts.framed import BandImage, Card, FramedCutout, fits_bytes
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_PIXEL_SCALE_ARCSEC, Band
from scanner.report import colour, self_contained
from scanner.report.colour import UInt8
from scanner.service.cutouts.request import MEDIA_TYPES, WHOLE_ARCSEC, CutoutRequest

#: Of WebP, as on the contact sheet; what is drawn larger than pixel by pixel shows what the compression does.
_QUALITY, _LARGE_PIXELS_QUALITY = self_contained.QUALITIES[:1], self_contained.NISP_QUALITIES
#: A gallery asks for dozens at a time.
_METHOD = 4


@dataclass(frozen=True)
class Rendered:
    """An answer: its bytes and their media type."""

    content: bytes
    media_type: str


def render(framed: FramedCutout, wanted: CutoutRequest, header: Mapping[str, Card]) -> Rendered | None:
    """Write or draw one cutout.

    Parameters
    ----------
    framed
        The cutout.
    wanted
        What is wanted of it.
    header
        Cards of a FITS file's primary header.
    """
    if wanted.format == "fits":
        content = _fits(framed, wanted, header)
    else:
        image = _picture(framed, wanted)
        if image is None:
            return None
        if wanted.invert:
            image = 255 - image
        content = self_contained.png(image) if wanted.format == "png" else _webp(image, wanted)
    return None if content is None else Rendered(content, MEDIA_TYPES[wanted.format])


def _fits(framed: FramedCutout, wanted: CutoutRequest, header: Mapping[str, Card]) -> bytes | None:
    images = [
        image.part(*part)
        for image in framed.images
        if image.band in wanted.fits_bands and (part := _part(image, wanted)) is not None
    ]
    return fits_bytes(images, header) if images else None


def _picture(framed: FramedCutout, wanted: CutoutRequest) -> UInt8 | None:
    if wanted.bands == ():
        return None
    cutout, stretch = framed.cutout, wanted.stretch
    vis, nisp, sky, sigma = cutout.vis[0], cutout.nisp[0], cutout.sky[0], cutout.sigma[0]
    if wanted.picture == "all":
        return _all(framed, wanted)
    if wanted.picture == "VIS":
        drawn = colour.vis_image(vis, sky, sigma, stretch)
    elif wanted.picture == "colour":
        drawn = colour.colour_image(vis, nisp, sky, sigma, stretch, wanted.saturation)
    elif wanted.picture == "nisp":
        drawn = colour.nisp_image(nisp, sky, sigma, stretch, wanted.saturation)
    else:
        number = BANDS.index(wanted.picture)
        drawn = colour.nisp_band_image(nisp[number - 1], float(sky[number]), float(sigma[number]), stretch)
    # VIS has the pixels of the colour picture, Y those of all of NISP.
    grid: Band = "VIS" if wanted.picture in ("VIS", "colour") else "Y"
    part = _part(framed.images[BANDS.index(grid)], wanted)
    return None if part is None else colour.enlarged(drawn[part], wanted.zoom)


def _all(framed: FramedCutout, wanted: CutoutRequest) -> UInt8 | None:
    """The three panels, each cut down to the same part of the VIS pixels."""
    part = _part(framed.images[0], wanted)
    if part is None:
        return None
    drawn = colour.side_by_side(framed.cutout, 1, wanted.stretch, wanted.saturation)
    side = drawn.shape[0]
    each = [drawn[part[0], panel * side + part[1].start : panel * side + part[1].stop] for panel in range(3)]
    return colour.enlarged(np.concatenate(each, axis=1), wanted.zoom)


def _part(image: BandImage, wanted: CutoutRequest) -> tuple[slice, slice] | None:
    """Rows and columns of an image that are wanted: the inner field, and of it what holds the circle."""
    scale = VIS_PIXEL_SCALE_ARCSEC if image.band == "VIS" else NISP_PIXEL_SCALE_ARCSEC
    height, width = image.pixels.shape
    # Whole pixels on both sides, so that the centre stays.
    margin = 0 if wanted.size_arcsec >= WHOLE_ARCSEC else max(0, (height - max(2, round(wanted.size_arcsec / scale))) // 2)
    rows, columns = slice(margin, height - margin), slice(margin, width - margin)
    if wanted.circle is None:
        return rows, columns
    circle = image.around(wanted.circle.ra, wanted.circle.dec, wanted.circle.radius)
    if circle is None:
        return None
    both = tuple(
        slice(max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip((rows, columns), circle, strict=True)
    )
    return (both[0], both[1]) if all(one.stop > one.start for one in both) else None


def _webp(image: UInt8, wanted: CutoutRequest) -> bytes:
    is_large = wanted.zoom > 1 or wanted.picture not in ("VIS", "colour")
    return self_contained.webp(image, _LARGE_PIXELS_QUALITY if is_large else _QUALITY, _METHOD)
