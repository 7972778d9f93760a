"""What is measured of a survey before anything is painted into it: its objects, PSF, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from scanner.cutouts.extract import cut
from scanner.errors import TileError
from scanner.records import (
    BANDS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    BandFiles,
    CutoutBatch,
    Float32,
    Float64,
    ImageRef,
    Targets,
)
from scanner.simulation.telescope.psf import Psf, mean_psf
from scanner.sky.fits_image import open_image
from scanner.sky.local_files import ScratchFolder
from scanner.sky.mosaic import BAD_RMS, Mosaic
from scanner.sky.tile_images import TileImages

_ITERATIONS = 12
_FIRST_SIGMA = 3.0
_LARGEST_SIGMA = 12.0


def shapes(images: Float32, dx: Float64, dy: Float64) -> tuple[Float64, Float64]:
    """Measure shapes with elliptical Gaussian weights that are fitted to each object.

    Parameters
    ----------
    images
        (N, n, n) sky-subtracted; NaN counts as nothing.
    dx, dy
        (N,) places of the objects from the middle, pixels.

    Returns
    -------
    tuple[Float64, Float64]
        ``q``, minor to major, and ``angle`` of the major axis from +x to +y, radians; (N,) each.
    """
    light = np.nan_to_num(images).astype(np.float64)
    axis = np.arange(images.shape[-1]) - 0.5 * (images.shape[-1] - 1)
    x = np.broadcast_to(axis[None, None, :] - dx[:, None, None], light.shape)
    y = np.broadcast_to(axis[None, :, None] - dy[:, None, None], light.shape)
    xx = np.full(len(light), _FIRST_SIGMA**2)
    yy, xy = xx.copy(), np.zeros(len(light))
    alive = np.ones(len(light), dtype=bool)
    for _ in range(_ITERATIONS):
        determinant = np.where(alive, xx * yy - xy * xy, 1.0)
        a, b, c = (value[:, None, None] for value in (yy / determinant, xx / determinant, xy / determinant))
        weighted = light * np.exp(-0.5 * np.minimum(a * x * x + b * y * y - 2.0 * c * x * y, 60.0))
        total = weighted.sum(axis=(1, 2))
        alive &= total > 0.0
        total = np.where(alive, total, 1.0)
        # A Gaussian seen through itself has half its variance.
        new = [2.0 * (weighted * product).sum(axis=(1, 2)) / total for product in (x * x, y * y, x * y)]
        alive &= (new[0] > 0.05) & (new[1] > 0.05) & (new[0] * new[1] > new[2] ** 2)
        alive &= np.maximum(new[0], new[1]) < _LARGEST_SIGMA**2
        xx, yy, xy = (np.where(alive, value, old) for value, old in zip(new, (xx, yy, xy), strict=True))
    half_trace, difference = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    q = np.sqrt(np.maximum(half_trace - difference, 0.0) / (half_trace + difference))
    angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    return np.where(alive, q, np.nan), np.where(alive, angle, np.nan)


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


#: Share of bad pixels in any band beyond which a cutout is of no use.
MAX_BAD_FRACTION = 0.25
_STAR_MAGNITUDES = (18.0, 21.5)
_APERTURE_ARCSEC, _TOTAL_ARCSEC = 1.0, 2.0
_BATCH = 64
#: Central pixels that are looked at, and of them those that must all be good.
_VIS_STAMP, _NISP_STAMP, _CORE = 48, 16, 30


@dataclass(frozen=True)
class MeasuredObjects:
    """What was measured of N objects.

    ``good``: enough good pixels in every band, all of the central ones. ``magnitude``: VIS, catalogued or else within 2".
    ``colour``: VIS - H within 1". ``q``, ``angle``: shape in VIS. ``concentration`` (4, N): by band.
    """

    targets: Targets
    good: NDArray[np.bool_]
    magnitude: Float64
    colour: Float64
    q: Float64
    angle: Float64
    concentration: Float64


def measure_objects(images: TileImages, targets: Targets) -> MeasuredObjects:
    """Measure all targets, batch by batch."""
    zero = images.zero_points
    there = [k for k, band in enumerate(BANDS) if band not in images.absent]
    parts = [_measure(batch, zero, there) for batch in cut(images, targets, _BATCH)]
    if not parts:
        nothing = np.empty(0)
        return MeasuredObjects(targets, nothing.astype(bool), nothing, nothing, nothing, nothing, np.empty((len(BANDS), 0)))
    joined = Targets(*(np.concatenate([vars(part.targets)[name] for part in parts]) for name in vars(targets)))
    columns = [np.concatenate([vars(part)[name] for part in parts], axis=-1) for name in vars(parts[0]) if name != "targets"]
    return MeasuredObjects(joined, *columns)


def _measure(batch: CutoutBatch, zero_points: dict[Band, float], there: list[int]) -> MeasuredObjects:
    """Measure a batch; ``there``: numbers of the bands that the tile has."""
    dx, dy = batch.offset.astype(np.float64).T
    stamps: dict[Band, tuple[Float32, float, Float64, Float64]] = {}
    for k, band in enumerate(BANDS):
        scale, size = (VIS_PIXEL_SCALE_ARCSEC, _VIS_STAMP) if band == "VIS" else (NISP_PIXEL_SCALE_ARCSEC, _NISP_STAMP)
        image = batch.vis if band == "VIS" else batch.nisp[:, k - 1]
        first = (image.shape[-1] - size) // 2
        share = VIS_PIXEL_SCALE_ARCSEC / scale
        middle = image[:, first : first + size, first : first + size] - batch.sky[:, k, None, None]
        stamps[band] = middle, scale, dx * share, dy * share
    first = (_VIS_STAMP - _CORE) // 2
    core = stamps["VIS"][0][:, first : first + _CORE, first : first + _CORE]
    good = (batch.bad_fraction[:, there].max(axis=1) <= MAX_BAD_FRACTION) & np.isfinite(core).all(axis=(1, 2))
    good &= np.isfinite(batch.nisp[:, [k - 1 for k in there if k], 28:38, 28:38]).all(axis=(1, 2, 3))
    vis, h = (_aperture_magnitude(*stamps[band], _APERTURE_ARCSEC, zero_points[band]) for band in ("VIS", "H"))
    catalogued = batch.targets.magnitude.astype(np.float64)
    total = _aperture_magnitude(*stamps["VIS"], _TOTAL_ARCSEC, zero_points["VIS"])
    q, angle = shapes(stamps["VIS"][0], dx, dy)
    concentration = np.stack([concentrations(image, scale, band, *place) for band, (image, scale, *place) in stamps.items()])
    return MeasuredObjects(
        batch.targets, good, np.where(np.isfinite(catalogued), catalogued, total), vis - h, q, angle, concentration
    )


def _aperture_magnitude(
    image: Float32, scale: float, dx: Float64, dy: Float64, radius_arcsec: float, zero_point: float
) -> Float64:
    flux = aperture_sums(image, radius_arcsec / scale, dx, dy)
    return np.where(flux > 0.0, zero_point - 2.5 * np.log10(np.where(flux > 0.0, flux, 1.0)), np.nan)


def stars_among(objects: MeasuredObjects) -> NDArray[np.bool_]:
    """Which objects are stars that are neither saturated nor faint, (N,) bool."""
    bright, faint = _STAR_MAGNITUDES
    stars = objects.good & (objects.magnitude > bright) & (objects.magnitude < faint)
    stars[stars] = stellar(objects.concentration[0][stars])
    return np.asarray(stars, dtype=bool)


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
