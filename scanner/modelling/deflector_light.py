"""The light of the galaxy in front: a multi-Gaussian expansion in every band, with the arcs kept out of it.

Gaussians have exact Fourier transforms, so that convolution with the PSF costs nothing (Emsellem, Monnet & Bacon 1994;
Cappellari 2002). All bands share centre, axis ratio and widths; the amplitudes are linear and not negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray
from scipy.optimize import nnls

from scanner.errors import ContentError
from scanner.modelling.observation import SIDE, Observation, observe
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, CutoutBatch, Float32, Float64

#: Widths of the Gaussians, arcsec, and how flat those of each set are: as the galaxy's main axes, and rounder.
_WIDTHS = np.geomspace(0.04, 1.2, 8)
#: Those so wide that the window ends before they do, and that the PSF does nothing to: drawn where they are, not by Fourier.
_WIDE = np.array([1.9, 3.0, 4.8])
_FLATNESS = (1.0, 0.3)
#: Share of the deflector's own light that is not trusted, near its centre and outside: the PSF is not known better.
_CORE_ERROR, _OUTER_ERROR, _CORE_RADIUS = 0.08, 0.006, 0.4
_ROUNDS = 6
_CLIP = 2.5
#: Largest steps in one round: arcsec, and of the logarithm of the axis ratio.
_LARGEST_STEP = np.array([0.06, 0.06, 0.3, 0.3])
_FLATTEST = 1.4
#: Foreign light: peaks beyond this radius (arcsec) and so many sigma high, with what is bright about them, but no further in.
FOREIGN_RADIUS, _NEVER_FOREIGN = 3.0, 2.4
_FOREIGN_PEAK, _FOREIGN_EDGE, _FOREIGN_REACH = 6.0, 2.0, 0.9


@dataclass(frozen=True)
class Deflector:
    """The deflector's light.

    ``x``, ``y``: centre, arcsec. ``e1``, ``e2``: ``-ln q`` times cosine and sine of twice the position angle. ``light``: of
    each band, as the telescope sees it. ``modes``: of each band (M, ny, nx), what the light may still change by in a fit: each
    Gaussian that has a share of it, a shift, another flatness, the sky. ``mode_sigma``: by how much, of each mode.
    ``error``: of each band, what is not trusted of the light.
    """

    x: float
    y: float
    e1: float
    e2: float
    light: tuple[Float32, ...]
    modes: tuple[Float32, ...]
    mode_sigma: tuple[Float64, ...]
    error: tuple[Float32, ...]


def fit_deflector(data: Observation) -> Deflector:
    """Fit the deflector and keep off its arcs."""
    vis = data.images[0]
    shape = _start(data)
    masks = [good.copy() for good in data.good]
    masks[0] &= ~_brighter_than_antipode(data, shape)
    weights = [1.0 / data.deviation(band, image) for band, image in enumerate(data.images)]
    amplitudes = np.zeros(1)
    for round_ in range(_ROUNDS):
        images = _expansion(data, 0, shape)
        amplitudes = _amplitudes(images, vis, weights[0], masks[0])
        light = _sum(amplitudes, images)
        weights[0] = 1.0 / np.hypot(data.deviation(0, light), _error(data, light, shape))
        slopes = _slopes(data, 0, shape, amplitudes)
        shape += _step(slopes, light, vis - light, weights[0], masks[0])
        shape[2:] *= min(1.0, _FLATTEST / max(math.hypot(shape[2], shape[3]), 1e-9))
        if round_ >= 1:
            masks[0] = data.good[0] & ~_arcs((vis - light) * weights[0], data, shape)
    parts = []
    for band, image in enumerate(data.images):
        mask = masks[0] if band == 0 else data.good[band] & (_fraction(data, band, masks[0]) > 0.5)
        if mask.sum() < 50:
            mask = data.good[band]
        images = _expansion(data, band, shape)
        amplitudes = _amplitudes(images, image, weights[band], mask)
        light = _sum(amplitudes, images)
        if band:
            weights[band] = 1.0 / np.hypot(data.deviation(band, light), _error(data, light, shape, band))
            amplitudes = _amplitudes(images, image, weights[band], mask)
            light = _sum(amplitudes, images)
        parts.append((light, *_modes(data, band, shape, images, amplitudes), _error(data, light, shape, band)))
    x, y, e1, e2 = shape.tolist()
    lights, modes, mode_sigma, error = zip(*parts, strict=True)
    return Deflector(x, y, e1, e2, lights, modes, mode_sigma, error)


def without_deflector(cutout: CutoutBatch) -> CutoutBatch:
    """A cutout, a batch of one, less the light of the galaxy in its middle; as it is where there is nothing to fit.

    Nothing changes beyond the window of 9" that is fitted. The PSFs are Euclid's mean ones.
    """
    try:
        data = observe(cutout)
    except ContentError:
        return cutout
    light = fit_deflector(data).light
    vis, nisp = cutout.vis.copy(), cutout.nisp.copy()
    for number, band in enumerate(data.bands):
        rows, columns = data.place(number)
        plane = vis[0] if band == 0 else nisp[0, band - 1]
        plane[rows, columns] -= light[number]
    return replace(cutout, vis=vis, nisp=nisp)


def _sum(amplitudes: Float64, images: Float32) -> Float32:
    return np.asarray(np.tensordot(amplitudes, images, 1), dtype=np.float32)


def _start(data: Observation) -> Float64:
    """Centre and flatness from second moments about the brightest pixel."""
    smooth = scipy.ndimage.gaussian_filter(data.images[0], 1.5)
    distance = np.hypot(data.x - data.x.mean(), data.y - data.y.mean())
    peak = int(np.argmax(np.where(distance < 0.7, smooth, -np.inf)))
    x, y = float(data.x.flat[peak]), float(data.y.flat[peak])
    e1 = e2 = 0.0
    for _ in range(3):
        weight = np.clip(data.images[0], 0.0, None) * np.exp(-((data.x - x) ** 2 + (data.y - y) ** 2) / (2.0 * 0.35**2))
        total = float(weight.sum())
        if total <= 0.0:
            break
        x, y = float((weight * data.x).sum() / total), float((weight * data.y).sum() / total)
        dx, dy = data.x - x, data.y - y
        xx, yy, xy = (float((weight * v).sum() / total) for v in (dx * dx, dy * dy, dx * dy))
        e1, e2 = 1.5 * (xx - yy) / (xx + yy), 3.0 * xy / (xx + yy)
    return np.array([x, y, e1, e2])


def _form(shape: Float64, share: float) -> tuple[float, float, float]:
    """Coefficients of the squared elliptical radius of unit area, of x², y² and xy, for a share of the flatness."""
    e1, e2 = share * shape[2], share * shape[3]
    size = math.hypot(e1, e2)
    sinh = math.sinh(size) / size if size > 1e-9 else 1.0
    return math.cosh(size) - sinh * e1, math.cosh(size) + sinh * e1, -2.0 * sinh * e2


def _spectra(data: Observation, shape: Float64) -> Any:
    """(2 × 8, 90, 46) complex64: Gaussians of unit flux in Fourier space, at the deflector's place."""
    v, u = (f.astype(np.float32) for f in (np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)))
    column, row = ((value - axis[0, 0]) / VIS_PIXEL_SCALE_ARCSEC for value, axis in ((shape[0], data.x), (shape[1], data.y)))
    phase = np.exp(-2j * np.pi * (u * column + v * row)).astype(np.complex64)
    widths = (_WIDTHS / VIS_PIXEL_SCALE_ARCSEC)[:, None, None].astype(np.float32)
    out = []
    for share in _FLATNESS:
        xx, yy, xy = _form(shape, share)
        # The transform of a form is that of its inverse, which has the two axes changed about.
        form = (yy * u * u + xx * v * v - xy * u * v).astype(np.float32)
        out.append(np.exp(-2.0 * np.pi**2 * widths**2 * form))
    return np.concatenate(out) * (phase * np.sinc(u) * np.sinc(v)).astype(np.complex64)


def _wide(data: Observation, shape: Float64) -> Float32:
    """(3, 90, 90): wide Gaussians of unit flux."""
    xx, yy, xy = _form(shape, 1.0)
    dx, dy = data.x - np.float32(shape[0]), data.y - np.float32(shape[1])
    form = (xx * dx * dx + yy * dy * dy + xy * dx * dy)[None]
    variance = (_WIDE**2)[:, None, None]
    return np.asarray(np.exp(-0.5 * form / variance) * VIS_PIXEL_SCALE_ARCSEC**2 / (2.0 * np.pi * variance), dtype=np.float32)


def _expansion(data: Observation, band: int, shape: Float64) -> Float32:
    """All Gaussians as a band sees them, unit flux."""
    images = scipy.fft.irfft2(_spectra(data, shape) * data.transfers[band], s=(SIDE, SIDE))
    return np.asarray(data.binned(band, np.concatenate([images, _wide(data, shape)])), dtype=np.float32)


def _slopes(data: Observation, band: int, shape: Float64, amplitudes: Float64) -> Float32:
    """Derivatives of the light with respect to the four numbers of ``shape``."""
    narrow, wide = (part.astype(np.float32) for part in np.split(amplitudes, [len(_FLATNESS) * len(_WIDTHS)]))
    used = np.flatnonzero(narrow)
    spectra, images = [], []
    for number, step in enumerate((0.01, 0.01, 0.02, 0.02)):
        plus, minus = shape.copy(), shape.copy()
        plus[number] += step
        minus[number] -= step
        difference = _spectra(data, plus)[used] - _spectra(data, minus)[used]
        spectra.append(np.tensordot(narrow[used], difference, 1) / (2.0 * step))
        images.append(np.tensordot(wide, _wide(data, plus) - _wide(data, minus), 1) / (2.0 * step))
    total = scipy.fft.irfft2(np.stack(spectra) * data.transfers[band], s=(SIDE, SIDE)) + np.stack(images)
    return np.asarray(data.binned(band, total), dtype=np.float32)


def _amplitudes(images: Float32, image: Float32, weight: Float32, mask: NDArray[np.bool_]) -> Float64:
    """Fluxes of the Gaussians, not negative; a flat sky is fitted beside them."""
    columns = np.concatenate([images[:, mask], np.ones((1, int(mask.sum())), np.float32)]) * weight[mask]
    columns = np.concatenate([columns, -columns[-1:]]).astype(np.float64)
    scale = np.linalg.norm(columns, axis=1)
    unit = columns / scale[:, None]
    gram = unit @ unit.T + 1e-8 * np.eye(len(unit))
    factor = np.linalg.cholesky(gram)
    right = np.linalg.solve(factor, unit @ (image[mask] * weight[mask]).astype(np.float64))
    return np.asarray((nnls(factor.T, right, maxiter=500)[0] / scale)[:-2], dtype=np.float64)


def _step(slopes: Float32, light: Float32, residual: Float32, weight: Float32, mask: NDArray[np.bool_]) -> Float64:
    """A damped Gauss-Newton step of the shape."""
    columns = np.concatenate([slopes[:, mask], light[None, mask], np.ones((1, int(mask.sum())), np.float32)]) * weight[mask]
    columns = columns.astype(np.float64)
    gram = columns @ columns.T
    gram[np.diag_indices_from(gram)] *= 1.01
    gram[np.diag_indices_from(gram)] += 1e-12
    step = np.linalg.solve(gram, columns @ (residual[mask] * weight[mask]).astype(np.float64))[:4]
    return np.asarray(np.clip(step, -_LARGEST_STEP, _LARGEST_STEP))


def _error(data: Observation, light: Float32, shape: Float64, band: int = 0) -> Float32:
    x, y = data.x - shape[0], data.y - shape[1]
    share = np.where(np.hypot(x, y) < (_CORE_RADIUS if band == 0 else 2.0 * _CORE_RADIUS), _CORE_ERROR, _OUTER_ERROR)
    if data.bands[band]:
        share = data.binned(band, share.astype(np.float32)) / 9.0
    return np.asarray(share * np.clip(light, 0.0, None), dtype=np.float32)


def _brighter_than_antipode(data: Observation, shape: Float64) -> NDArray[np.bool_]:
    """Pixels that outshine those across the deflector: arcs and neighbours, while nothing is known of the deflector yet."""
    column, row = ((value - axis[0, 0]) / VIS_PIXEL_SCALE_ARCSEC for value, axis in ((shape[0], data.x), (shape[1], data.y)))
    smooth = scipy.ndimage.gaussian_filter(data.images[0], 1.0)
    rows, columns = np.indices(smooth.shape)
    across = scipy.ndimage.map_coordinates(smooth, [2.0 * row - rows, 2.0 * column - columns], order=1, mode="nearest")
    far = np.hypot(data.x - shape[0], data.y - shape[1]) > 0.3
    excess = smooth - across > 2.5 * data.deviation(0, across) * 0.5 + 0.1 * np.clip(across, 0.0, None)
    return np.asarray(scipy.ndimage.binary_dilation(excess & far, iterations=1))


def _arcs(unit: Float32, data: Observation, shape: Float64) -> NDArray[np.bool_]:
    """Pixels whose smoothed residual, in units of its noise, stands out."""
    smooth = scipy.ndimage.gaussian_filter(np.where(data.good[0], unit, 0.0), 1.2)
    # A Gaussian of 1.2 pixels lowers independent noise by 2 √π 1.2.
    excess = smooth > _CLIP / (2.0 * math.sqrt(math.pi) * 1.2)
    far = np.hypot(data.x - shape[0], data.y - shape[1]) > 0.25
    return np.asarray(scipy.ndimage.binary_dilation(excess & far, iterations=1))


def foreign_light(data: Observation, deflector: Deflector) -> tuple[NDArray[np.bool_], ...]:
    """Pixels of bright neighbours, of each band: those about peaks too far out to be images of what the deflector lenses."""
    x, y = data.x - deflector.x, data.y - deflector.y
    distance = np.hypot(x, y)
    unit = (data.images[0] - deflector.light[0]) / np.hypot(data.deviation(0, deflector.light[0]), deflector.error[0])
    smooth = scipy.ndimage.gaussian_filter(np.where(data.good[0], unit, 0.0), 1.2) * (2.0 * math.sqrt(math.pi) * 1.2)
    peaks = (smooth == scipy.ndimage.maximum_filter(smooth, 5)) & (smooth > _FOREIGN_PEAK) & (distance > FOREIGN_RADIUS)
    if not peaks.any():
        return tuple(np.zeros(image.shape, dtype=np.bool_) for image in data.images)
    # Not what merely hangs together with them: that may be an arc.
    near = scipy.ndimage.distance_transform_edt(~peaks) * VIS_PIXEL_SCALE_ARCSEC < _FOREIGN_REACH
    mask = scipy.ndimage.binary_dilation(near & (smooth > _FOREIGN_EDGE)) & (distance > _NEVER_FOREIGN)
    return tuple(mask if band == 0 else _fraction(data, number, mask) > 0.0 for number, band in enumerate(data.bands))


def _fraction(data: Observation, band: int, mask: NDArray[np.bool_]) -> Float32:
    return np.asarray(data.binned(band, mask.astype(np.float32)) / 9.0)


def _modes(data: Observation, band: int, shape: Float64, images: Float32, amplitudes: Float64) -> tuple[Float32, Float64]:
    used = np.flatnonzero(amplitudes > 1e-4 * max(amplitudes.sum(), 1e-30))
    slopes = _slopes(data, band, shape, amplitudes)
    sky = np.full_like(images[:1], data.sigma[band])
    modes = np.concatenate([images[used] * amplitudes[used, None, None].astype(np.float32), slopes, sky])
    return modes, np.array([0.5] * len(used) + [0.02, 0.02, 0.1, 0.1, 1.0])
