"""The celestial WCS of an image header.

In: a FITS header. Out: an astropy WCS of two axes, RA and Dec. Refused, as :class:`TileError` naming the file: no such WCS, or
one that cannot be understood.
"""

from __future__ import annotations

import warnings

from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from scanner.errors import TileError


def celestial_wcs(header: fits.Header, name: str) -> WCS:
    """Read the WCS; ``name`` is the file, for messages.

    Raises
    ------
    TileError
        See the module.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wcs = WCS(header).celestial
            usable = wcs.naxis == 2 and wcs.wcs.lngtyp == "RA" and bool((proj_plane_pixel_scales(wcs) > 0).all())
        except Exception as error:  # wcslib has its own exceptions for every way in which a header can be wrong
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise TileError(f"{name}: its WCS cannot be understood ({reason}).") from None
    if not usable:
        raise TileError(f"{name}: has no celestial WCS (CTYPE RA/DEC, CRVAL, CRPIX, CD).")
    return wcs
