"""Images of one cutout as a FITS file.

In: images of :mod:`scanner.cutouts.framed` and header cards. Out: the bytes of a FITS file: an extension for each band, in the
mosaics' own units with its WCS, NaN where there is no pixel. The same cutout gives the same bytes. Refused: nothing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from astropy.io import fits

from scanner.cutouts.framed import BandImage

#: A card's value, or value and comment.
Card = str | int | float | tuple[str | int | float, str]


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
        # Whoever makes a bundle names it, in any script; FITS knows ASCII alone.
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
