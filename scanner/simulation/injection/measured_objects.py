"""What is measured of the objects of a tile on their own pixels: magnitude, colour, shape, concentration.

In: an opened tile and its targets. Out: :class:`MeasuredObjects`, in the order of their rows. Refused: damaged mosaics
(:class:`~scanner.errors.TileError`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.cutouts.extract import cut
from scanner.records import (
    BANDS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    Targets,
)
from scanner.simulation.injection import tile_psf
from scanner.simulation.injection.object_shapes import shapes
from scanner.sky.tile_images import TileImages

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
    parts = [_measure(batch, zero) for batch in cut(images, targets, _BATCH)]
    if not parts:
        nothing = np.empty(0)
        return MeasuredObjects(targets, nothing.astype(bool), nothing, nothing, nothing, nothing, np.empty((len(BANDS), 0)))
    joined = Targets(*(np.concatenate([vars(part.targets)[name] for part in parts]) for name in vars(targets)))
    columns = [np.concatenate([vars(part)[name] for part in parts], axis=-1) for name in vars(parts[0]) if name != "targets"]
    return MeasuredObjects(joined, *columns)


def _measure(batch: CutoutBatch, zero_points: dict[Band, float]) -> MeasuredObjects:
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
    good = (batch.bad_fraction.max(axis=1) <= MAX_BAD_FRACTION) & np.isfinite(core).all(axis=(1, 2))
    good &= np.isfinite(batch.nisp[:, :, 28:38, 28:38]).all(axis=(1, 2, 3))
    vis, h = (_aperture_magnitude(*stamps[band], _APERTURE_ARCSEC, zero_points[band]) for band in ("VIS", "H"))
    catalogued = batch.targets.magnitude.astype(np.float64)
    total = _aperture_magnitude(*stamps["VIS"], _TOTAL_ARCSEC, zero_points["VIS"])
    q, angle = shapes(stamps["VIS"][0], dx, dy)
    concentration = np.stack(
        [tile_psf.concentrations(image, scale, band, *place) for band, (image, scale, *place) in stamps.items()]
    )
    return MeasuredObjects(
        batch.targets, good, np.where(np.isfinite(catalogued), catalogued, total), vis - h, q, angle, concentration
    )


def _aperture_magnitude(
    image: Float32, scale: float, dx: Float64, dy: Float64, radius_arcsec: float, zero_point: float
) -> Float64:
    flux = tile_psf.aperture_sums(image, radius_arcsec / scale, dx, dy)
    return np.where(flux > 0.0, zero_point - 2.5 * np.log10(np.where(flux > 0.0, flux, 1.0)), np.nan)


def stars_among(objects: MeasuredObjects) -> NDArray[np.bool_]:
    """Which objects are stars that are neither saturated nor faint, (N,) bool."""
    bright, faint = _STAR_MAGNITUDES
    stars = objects.good & (objects.magnitude > bright) & (objects.magnitude < faint)
    stars[stars] = tile_psf.stellar(objects.concentration[0][stars])
    return np.asarray(stars, dtype=bool)
