"""Cutout files of one Gaussian source each, in the layouts that people have."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

#: Flux of the source in each band.
FLUX = {"VIS": 1000.0, "Y": 2000.0, "J": 3000.0, "H": 4000.0}
WIDTH_ARCSEC = {"VIS": 0.2, "Y": 0.4, "J": 0.4, "H": 0.4}


def plane(ra, dec, n, scale, source=None, band="VIS"):
    """Pixels and WCS of a stamp about a position, with a source (default: there), integrated over the pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, dec]
    wcs.wcs.crpix, wcs.wcs.cdelt = [(n + 1) / 2] * 2, [-scale / 3600, scale / 3600]
    x, y = wcs.all_world2pix([source or (ra, dec)], 0)[0]
    width = np.sqrt(2) * WIDTH_ARCSEC[band] / scale
    profiles = [np.diff(0.5 * erf((np.arange(n + 1) - 0.5 - centre) / width)) for centre in (y, x)]
    return (FLUX[band] * np.outer(*profiles)).astype(np.float32), wcs


def write_vis(path, ra, dec, n=101, source=None, **cards):
    """One VIS image, as a stamp of EUCLID-SAGE."""
    pixels, wcs = plane(ra, dec, n, 0.1, source)
    header = wcs.to_header()
    header.update(cards)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header).writeto(path)


def write_slde(path, ra, dec, n=300, nisp_scale=0.1, source=None):
    """Extensions of four bands with PSF and RMS beside them, the WCS in the primary header only."""
    hdus = [fits.PrimaryHDU(header=plane(ra, dec, n, 0.1)[1].to_header())]
    for band, name in (("VIS", "VIS"), ("Y", "NIR_Y"), ("J", "NIR_J"), ("H", "NIR_H")):
        scale = 0.1 if band == "VIS" else nisp_scale
        pixels, wcs = plane(ra, dec, round(n * 0.1 / scale), scale, source, band)
        header = None if scale == 0.1 else wcs.to_header()
        hdus += [
            fits.ImageHDU(pixels, header, name=f"{name}_FLUX"),
            fits.ImageHDU(np.ones((5, 5), np.float32), name=f"{name}_PSF"),
            fits.ImageHDU(np.ones(pixels.shape, np.float32), header, name=f"{name}_RMS"),
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path)


def centroid(image):
    """(x, y) of an image's light, from its middle, in pixels, and its sum."""
    found = np.nan_to_num(image.astype(np.float64))
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - (np.array(image.shape) - 1)[:, None, None] / 2
    return (found * x).sum() / found.sum(), (found * y).sum() / found.sum(), found.sum()
