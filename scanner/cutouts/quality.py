"""How good the pixels of a cutout are: bad fraction, sky level, noise, bright neighbours; bad pixels are filled with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanner.errors import UsageError
from scanner.records import (
    BANDS,
    NISP_BANDS,
    NISP_CUTOUT_PIXELS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    CutoutBatch,
    Flag,
    Float32,
    Targets,
)

#: Ratio of the standard deviation to the median absolute deviation, and to the mean absolute deviation, of a Gaussian.
SIGMA_PER_MAD = 1.4826
SIGMA_PER_MEAN_DEVIATION = 1.2533
#: sigma is never below this share of the sky level (close to what float32 resolves there), nor below the absolute floor.
RELATIVE_SIGMA_FLOOR = 1e-6
ABSOLUTE_SIGMA_FLOOR = 1e-30
#: SATURATED: a pixel further than this from the centre …
CENTRAL_RADIUS_ARCSEC = 3.0
#: … that stands this many sigma above the sky …
SATURATED_SIGMA = 2000.0
#: … and this many times higher than anything nearer the centre.
SATURATED_FACTOR = 10.0
#: A cutout is flagged as masked where more than this share of a band is.
MASKED_SHARE = 0.01
#: Width of a stamp's edge where its sky is measured, in units of the stamp's side.
EDGE_SHARE = 0.1


@dataclass(frozen=True)
class Quality:
    """Per object and band, in the order VIS, Y, J, H; each (N, 4) float32.

    ``bad_fraction``: share of pixels that are not finite. ``sky``: median, and ``sigma``: 1.4826 x MAD, of the good pixels.
    """

    bad_fraction: Float32
    sky: Float32
    sigma: Float32


def is_masked(masked: NDArray[Any], sizes: NDArray[Any] | float = 1.0) -> NDArray[np.bool_]:
    """Whether so much of a cutout is masked that it is flagged, (N,) bool.

    Parameters
    ----------
    masked
        (N, 4) masked pixels, or shares of them, by band.
    sizes
        (4,) pixels of each band's cutout; 1 where shares are given.
    """
    return np.asarray((masked > MASKED_SHARE * sizes).any(axis=1), dtype=np.bool_)


@np.errstate(over="ignore", invalid="ignore")
def measure(vis: Float32, nisp: Float32) -> Quality:
    """Measure sky and noise of every object and band.

    VIS is measured on the sub-lattice ``[1::3, 1::3]`` of its pixels, which holds as many of them as a NISP cutout and is
    nine times faster than all; NISP on every pixel. Where more than half of the good pixels are equal (no noise was added)
    the MAD is zero, and sigma is 1.2533 x the mean absolute deviation instead. It is at least ``1e-6 |sky|`` and ``1e-30``.

    Parameters
    ----------
    vis
        (N, 200, 200) float32.
    nisp
        (N, 3, 66, 66) float32.

    Returns
    -------
    Quality
        Arrays of shape (N, 4).
    """
    n = len(vis)
    bad = np.zeros((n, len(BANDS)), dtype=np.float32)
    sky = np.zeros((n, len(BANDS)), dtype=np.float32)
    sigma = np.ones((n, len(BANDS)), dtype=np.float32)
    all_vis, all_nisp = vis.reshape(n, -1), nisp.reshape(n * nisp.shape[1], -1)
    lattice = np.ascontiguousarray(vis[:, 1::3, 1::3]).reshape(n, -1)
    sky[:, 0], sigma[:, 0], bad[:, 0] = _band_statistics(lattice, all_vis)
    nisp_statistics = _band_statistics(all_nisp, all_nisp)
    for target, values in zip((sky, sigma, bad), nisp_statistics, strict=True):
        target[:, 1:] = values.reshape(n, -1)
    return Quality(bad, sky, sigma)


def _band_statistics(sample: Float32, pixels: Float32) -> tuple[Float32, Float32, Float32]:
    """Sky, sigma and bad fraction of each row of ``pixels`` (R, P), the first two from its ``sample`` (R, S)."""
    rows = len(pixels)
    sky, sigma, bad = np.zeros(rows, np.float32), np.ones(rows, np.float32), np.zeros(rows, np.float32)
    # A row's sum is finite exactly when no pixel is NaN, short of overflow, which only sends it down the careful path.
    clean = np.isfinite(np.einsum("ij->i", pixels))
    if clean.any():
        values = sample if clean.all() else sample[clean]
        sky[clean], sigma[clean] = _median_and_sigma(values)
    for row in np.flatnonzero(~clean):
        good = np.isfinite(pixels[row])
        bad[row] = 1.0 - np.count_nonzero(good) / good.size
        values = sample[row][np.isfinite(sample[row])]
        if not len(values):
            values = pixels[row][good]
        if len(values):
            row_sky, row_sigma = _median_and_sigma(values[np.newaxis])
            sky[row], sigma[row] = row_sky[0], row_sigma[0]
    return sky, sigma, bad


def _median_and_sigma(values: Float32) -> tuple[Float32, Float32]:
    """Median and robust sigma of each row of finite ``values`` (R, S)."""
    bits = np.ascontiguousarray(values).view(np.int32)
    # Partitioning integers is a third faster than floats: flip the magnitude bits of negatives and the order is the same.
    keys = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    middle = np.stack(_central(keys))
    low, high = (middle ^ ((middle >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)
    sky = np.asarray(0.5 * low + 0.5 * high, dtype=np.float32)
    deviation = np.abs(values - sky[:, np.newaxis])
    inner, outer = (key.view(np.float32) for key in _central(deviation.view(np.int32).copy()))
    sigma = SIGMA_PER_MAD * (0.5 * inner + 0.5 * outer)
    flat = sigma == 0.0
    if flat.any():
        sigma[flat] = SIGMA_PER_MEAN_DEVIATION * deviation[flat].mean(axis=1)
    floor = np.maximum(RELATIVE_SIGMA_FLOOR * np.abs(sky), ABSOLUTE_SIGMA_FLOOR)
    return sky, np.maximum(sigma, floor).astype(np.float32)


def darkest_edge(image: Float32) -> tuple[float, float]:
    """Sky and sigma of an image that an object may fill: median, and 1.4826 x MAD, of the darkest of its four edges.

    Of simulated objects in stamps of 10", the whole stamp's MAD is 1.1 to 1.3 times that of a cutout in the median, and up to
    3.5 times; of 6", 1.5 to 2.6 times. That of the darkest edge is 0.85 to 0.95 times (``benchmarks/other_surveys.py``).

    Parameters
    ----------
    image
        (ny, nx) float32; NaN where bad, and outside the smallest rectangle that holds the good pixels.

    Returns
    -------
    tuple[float, float]
        NaN, where no pixel is good.
    """
    good = np.isfinite(image)
    rows, columns = np.flatnonzero(good.any(axis=1)), np.flatnonzero(good.any(axis=0))
    if not len(rows):
        return np.nan, np.nan
    stamp = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(EDGE_SHARE * size)) for size in stamp.shape)
    edges = (stamp[:height], stamp[-height:], stamp[:, :width], stamp[:, -width:])
    measured = [_median_and_sigma(edge[np.isfinite(edge)][np.newaxis]) for edge in edges if np.isfinite(edge).any()]
    return min((float(sky[0]), float(sigma[0])) for sky, sigma in measured)


def _central(keys: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Lower and upper median of each row of ``keys`` (R, S), which is reordered."""
    middle = keys.shape[1] // 2
    keys.partition(middle, axis=-1)
    high = np.ascontiguousarray(keys[:, middle])
    return (high if keys.shape[1] % 2 else keys[:, :middle].max(axis=1)), high


@np.errstate(over="ignore", invalid="ignore")
def saturated(vis: Float32, nisp: Float32, quality: Quality) -> NDArray[np.bool_]:
    """Tell where a bright source off centre dominates the scaling of a cutout: the SATURATED flag.

    True where, in any band, a pixel more than 3" from the centre stands more than 2000 sigma above the sky and ten times
    higher than any pixel within 3". The largest Einstein rings of single galaxies fit in that radius, so a lens cannot flag
    itself. Masked pixels do not count: a masked star has the flag MASKED_PIXELS.

    Parameters
    ----------
    vis, nisp
        (N, 200, 200) and (N, 3, 66, 66) float32.
    quality
        Of the same objects, from :func:`measure`.

    Returns
    -------
    NDArray[np.bool_]
        Shape (N,).
    """
    flags = np.zeros(len(vis), dtype=np.bool_)
    planes = [vis, *(nisp[:, band] for band in range(nisp.shape[1]))]
    scales = [VIS_PIXEL_SCALE_ARCSEC] + [NISP_PIXEL_SCALE_ARCSEC] * nisp.shape[1]
    for band, (images, scale) in enumerate(zip(planes, scales, strict=True)):
        sky, sigma = quality.sky[:, band], quality.sigma[:, band]
        peak = np.fmax.reduce(images, axis=(1, 2))
        suspects = np.flatnonzero(peak - sky > SATURATED_SIGMA * sigma)
        inner = _central_disc(images.shape[1], CENTRAL_RADIUS_ARCSEC / scale)
        for row in suspects:
            image = images[row] - sky[row]
            outer_peak = np.fmax.reduce(image[~inner])
            inner_peak = np.fmax(np.fmax.reduce(image[inner]), 0.0)
            flags[row] |= bool(outer_peak > max(SATURATED_SIGMA * sigma[row], SATURATED_FACTOR * inner_peak))
    return flags


def _central_disc(size: int, radius: float) -> NDArray[np.bool_]:
    distance = np.arange(size) - 0.5 * (size - 1)
    return np.asarray(distance[:, np.newaxis] ** 2 + distance**2 <= radius**2)


def fill_bad_pixels(batch: CutoutBatch) -> tuple[Float32, Float32]:
    """Replace NaN by Gaussian noise with the band's own sky and sigma, so that a network sees blank sky.

    The noise of an object depends on its ``target_id`` alone, never on its neighbours in the batch, so the same cutout gives
    the same scores however the work is divided. Arrays without a bad pixel are returned as they are, not copied.

    Parameters
    ----------
    batch
        Any number of cutouts.

    Returns
    -------
    tuple[Float32, Float32]
        ``vis`` (N, 200, 200) and ``nisp`` (N, 3, 66, 66) float32, finite everywhere.
    """
    vis, nisp = batch.vis, batch.nisp
    padded = (batch.flags & np.uint32(Flag.PADDED)) > 0
    bad = np.flatnonzero((batch.bad_fraction > 0).any(axis=1) | padded)
    if not len(bad):
        return vis, nisp
    vis, nisp = vis.copy(), nisp.copy()
    for row in bad:
        random = np.random.Generator(np.random.PCG64(int(batch.targets.target_id[row]) & 0xFFFFFFFFFFFFFFFF))
        for band, image in enumerate((vis[row], *nisp[row])):
            holes = ~np.isfinite(image)
            noise = random.standard_normal(np.count_nonzero(holes), dtype=np.float32)
            image[holes] = batch.sky[row, band] + batch.sigma[row, band] * noise
    return vis, nisp


def cutouts_of(vis: ArrayLike, nisp: ArrayLike, sky: ArrayLike | None = None, sigma: ArrayLike | None = None) -> CutoutBatch:
    """Images of any origin as cutouts: sky, sigma and flags are measured as a scan does.

    Parameters
    ----------
    vis, nisp
        (200, 200) or (N, 200, 200), and (3, 66, 66) or (N, 3, 66, 66): VIS, and Y, J, H; bad pixels are NaN.
    sky, sigma
        (4,) or (N, 4) in VIS, Y, J, H; measured by default.

    Raises
    ------
    UsageError
        An array has another shape.
    """
    images = _array("vis", vis, (VIS_CUTOUT_PIXELS, VIS_CUTOUT_PIXELS))
    n = len(images)
    bands = _array("nisp", nisp, (len(NISP_BANDS), NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS), n)
    measured = measure(images, bands)
    flags = np.zeros(n, dtype=np.uint32)
    flags[is_masked(measured.bad_fraction)] |= np.uint32(Flag.MASKED_PIXELS)
    flags[saturated(images, bands, measured)] |= np.uint32(Flag.SATURATED)
    nowhere, number = np.full(n, np.nan), np.arange(n, dtype=np.int64)
    return CutoutBatch(
        targets=Targets(number, nowhere, nowhere, nowhere, nowhere, nowhere.astype(np.float32)),
        vis=images,
        nisp=bands,
        x0=np.zeros(n, dtype=np.int64),
        y0=np.zeros(n, dtype=np.int64),
        offset=np.zeros((n, 2), dtype=np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky if sky is None else _array("sky", sky, (len(BANDS),), n),
        sigma=measured.sigma if sigma is None else _array("sigma", sigma, (len(BANDS),), n),
        flags=flags,
    )


def _array(name: str, values: ArrayLike, shape: tuple[int, ...], n: int | None = None) -> Float32:
    """Values as float32 of a shape, N times."""
    array = np.asarray(values)
    array = array[None] if array.shape == shape else array
    if array.shape[1:] != shape or (n is not None and len(array) != n):
        wanted = ", ".join(map(str, shape))
        raise UsageError(f"{name} has the shape {np.shape(values)}; give ({wanted}) or ({'N' if n is None else n}, {wanted}).")
    return np.ascontiguousarray(array, dtype=np.float32)
