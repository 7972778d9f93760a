"""The point spread functions of a user's tile: an image of each where there is one, else ours at the width of its stars.

In: an image of a PSF on 0.1" pixels, or cutouts of objects among which there may be stars. Out: a
:class:`~scanner.simulation.telescope.psf.Psf` fitted to the image, or the factor on the widths of our own. Refused
(:class:`~scanner.errors.TileError`): an image that is no PSF.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from scanner.errors import TileError
from scanner.records import Band, Float32, Float64, ImageRef
from scanner.simulation.telescope.psf import Psf, mean_psf
from scanner.sky.fits_image import open_image
from scanner.sky.local_files import ScratchFolder

_LARGEST_SIDE = 201
#: Share of a PSF's light that the Gaussians may miss, sum of absolute residuals: rings and spikes of real ones are 5 to 10%.
_LARGEST_MISS = 0.25
#: Radii in arcsec whose fluxes are compared: the share of a star's light within the first of that within the second.
APERTURES_ARCSEC: dict[Band, tuple[float, float]] = {"VIS": (0.15, 0.7), "Y": (0.36, 1.2), "J": (0.36, 1.2), "H": (0.36, 1.2)}
_WIDTHS = np.linspace(0.6, 1.8, 25)
#: Stars are the most concentrated objects: from the 90th percentile's concentration less this share upwards.
_STELLAR_SPREAD = 0.04
_FEWEST_STARS = 5


def read_psf(reference: ImageRef, band: Band, scratch: ScratchFolder) -> Psf:
    """Read an image of a PSF on 0.1" pixels, whatever the pixels of its band, and fit our Gaussians to it.

    Returns
    -------
    Psf
        With the image's centroid at its origin.

    Raises
    ------
    TileError
        The file cannot be read, holds something else than one star, or our Gaussians cannot follow it.
    """
    image, _ = open_image(reference, scratch)
    try:
        pixels = np.asarray(image.window(0, image.shape[0], 0, image.shape[1]), dtype=np.float64)
    finally:
        image.close()
    total = float(pixels.sum())
    if max(pixels.shape) > _LARGEST_SIDE or not np.isfinite(pixels).all() or total <= 0.0:
        raise TileError(f'{reference}: is no point-spread function (one star on 0.1" pixels, at most {_LARGEST_SIDE} a side).')
    psf, miss = fitted(pixels / total, band)
    if miss > _LARGEST_MISS:
        raise TileError(f"{reference}: is no point-spread function: five Gaussians miss {miss:.0%} of its light.")
    return psf


def fitted(kernel: Float64, band: Band) -> tuple[Psf, float]:
    """Fit the five Gaussians of a :class:`Psf` to an image that sums to one; also the share of its light that they miss."""
    rows, columns = (np.arange(size, dtype=np.float64) for size in kernel.shape)
    y0, x0 = float(kernel.sum(axis=1) @ rows), float(kernel.sum(axis=0) @ columns)
    dx, dy = (columns - x0)[None, :], (rows - y0)[:, None]
    first = mean_psf(band)

    def psf_of(p: Float64) -> Psf:
        weight = np.exp(p[:5]) / np.exp(p[:5]).sum()
        major, minor, angle = (values[[0, 1, 1, 1, 2]] for values in (np.exp(p[5:8]), np.exp(p[8:11]), p[11:14]))
        x, y = np.zeros((2, 5))
        for values, lobes in ((x, p[14:17]), (y, p[17:20])):
            values[1:4] = lobes - (weight[1:4] @ lobes) / weight[1:4].sum()
        return Psf(weight, major, minor, angle, x, y)

    def miss(p: Float64) -> Float64:
        return np.asarray((psf_of(p).values(dx, dy) - kernel).ravel(), dtype=np.float64)

    shapes = [0, 1, 4]
    start = np.concatenate(
        [
            np.log(first.weight),
            np.log(first.sigma_major[shapes]),
            np.log(first.sigma_minor[shapes]) - 0.05,
            np.zeros(3),
            first.dx[1:4],
            first.dy[1:4],
        ]
    )
    # Single precision in the model: finite differences must be wide.
    found = least_squares(miss, start, diff_step=1e-3, max_nfev=200, x_scale="jac")
    return psf_of(found.x), float(np.abs(miss(found.x)).sum())


def concentrations(images: Float32, scale_arcsec: float, band: Band, dx: Float64, dy: Float64) -> Float64:
    """Share of the light near the objects' centres, (N,): NaN where there is no light.

    Parameters
    ----------
    images
        (N, n, n) sky-subtracted; NaN where bad.
    scale_arcsec
        Side of a pixel.
    band
        Whose radii to compare.
    dx, dy
        (N,) places of the objects from the middle of their images, pixels.
    """
    inner, outer = (aperture_sums(images, radius / scale_arcsec, dx, dy) for radius in APERTURES_ARCSEC[band])
    return np.where(outer > 0.0, inner / np.where(outer > 0.0, outer, 1.0), np.nan)


def aperture_sums(images: Float32, radius: float, dx: Float64, dy: Float64) -> Float64:
    """Sums of (N, n, n) images within ``radius`` pixels of ``(dx, dy)``, with a soft edge; NaN counts as nothing."""
    axis = np.arange(images.shape[-1]) - 0.5 * (images.shape[-1] - 1)
    distance = np.hypot(axis[None, None, :] - dx[:, None, None], axis[None, :, None] - dy[:, None, None])
    inside = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    return np.asarray(np.einsum("kij,kij->k", np.nan_to_num(images), inside), dtype=np.float64)


def stellar(concentration: Float64) -> NDArray[np.bool_]:
    """Which of bright objects are the most concentrated ones, (N,) bool: the stars, if there are any."""
    known = np.isfinite(concentration)
    if known.sum() < _FEWEST_STARS:
        return np.zeros(len(concentration), dtype=bool)
    top = float(np.quantile(concentration[known], 0.9))
    return np.asarray(known & (np.abs(concentration / top - 1.0) < _STELLAR_SPREAD))


def measured_width(concentration: Float64, scale_arcsec: float, band: Band) -> float | None:
    """Factor on the widths of our average PSF that gives stars this concentration; None where there are too few stars."""
    if len(concentration) < _FEWEST_STARS:
        return None
    middle = float(np.median(concentration))
    model = np.array([stellar_concentration(band, float(width), scale_arcsec) for width in _WIDTHS])
    return float(np.interp(-middle, -model, _WIDTHS))


def stellar_concentration(band: Band, width: float, scale_arcsec: float) -> float:
    """Concentration of our average PSF with its widths times ``width``: the mean over nine places within a pixel."""
    psf, fine = mean_psf(band), 3 if scale_arcsec > 0.2 else 1
    side = 33 * fine
    axis = np.arange(side) - 0.5 * (side - 1)
    phases = np.array([-1 / 3, 0.0, 1 / 3])
    dx, dy = (values.ravel() for values in np.meshgrid(phases, phases))
    # A wider PSF is our own on smaller pixels, but for the pixel's own share of the width.
    light = psf.values((axis - fine * dx[:, None, None]) / width, (axis[:, None] - fine * dy[:, None, None]) / width)
    stack = light.reshape(len(dx), 33, fine, 33, fine).sum(axis=(2, 4))
    return float(concentrations(stack, scale_arcsec, band, dx, dy).mean())
