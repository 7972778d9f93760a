"""How much variance a unit of flux adds in a user's mosaic, from its RMS map: the inverse of an effective gain.

In: the image and RMS mosaics of a band and the places of bright objects. Out: the slope of RMS² against flux, or None where the
map does not show it. Refused: what :mod:`scanner.sky.fits_image` refuses.
"""

from __future__ import annotations

import numpy as np

from scanner.records import BandFiles, Float64
from scanner.sky.fits_image import open_image
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import BAD_RMS, Mosaic

_HALF, _SKY_HALF = 4, 30
_FEWEST_OBJECTS = 5
_MOST_OBJECTS = 200


def variance_slope(image: Mosaic, files: BandFiles, x: Float64, y: Float64, scratch: ScratchFolder) -> float | None:
    """Slope of RMS² against flux in the pixels of bright objects, above the sky around them.

    Parameters
    ----------
    image, files
        The mosaic and its files.
    x, y
        Places of bright objects in pixels of this mosaic, brightest first.
    scratch
        Of the tile.

    Returns
    -------
    float | None
        Variance per flux in mosaic units; the median over objects. None without an RMS map, with too few objects, or where it
        is not positive.
    """
    if files.rms is None:
        return None
    rms, _ = open_image(files.rms, scratch)
    slopes = []
    try:
        for column, row in zip(np.rint(x[:_MOST_OBJECTS]).astype(int), np.rint(y[:_MOST_OBJECTS]).astype(int), strict=True):
            left, right, bottom, top = column - _SKY_HALF, column + _SKY_HALF + 1, row - _SKY_HALF, row + _SKY_HALF + 1
            if left < 0 or bottom < 0 or right > image.shape[1] or top > image.shape[0]:
                continue
            flux = image.read(bottom, top, left, right).astype(np.float64)
            noise = np.asarray(rms.window(bottom, top, left, right), dtype=np.float64)
            good = np.isfinite(flux) & (noise > 0.0) & (noise < BAD_RMS)
            inner = np.zeros_like(good)
            inner[_SKY_HALF - _HALF : _SKY_HALF + _HALF + 1, _SKY_HALF - _HALF : _SKY_HALF + _HALF + 1] = True
            if not good[inner].all() or good.mean() < 0.5:
                continue
            # The sky is the faint half of the pixels around.
            faint = good & (flux <= np.median(flux[good]))
            above = flux[inner] - np.median(flux[faint])
            variance = noise[inner] ** 2 - np.median(noise[faint] ** 2)
            slopes.append(float((above * variance).sum() / (above * above).sum()))
    finally:
        rms.close()
    if len(slopes) < _FEWEST_OBJECTS or np.median(slopes) <= 0.0:
        return None
    return float(np.median(slopes))
