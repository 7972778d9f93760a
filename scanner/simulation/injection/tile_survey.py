"""One tile before anything is painted: its optics, and the places where something can be painted.

In: a tile. Out: :class:`TileSummary` and :class:`Places`. Refused (:class:`~scanner.errors.TileError`): what
:func:`~scanner.cutouts.tile_images.open_tile` and :func:`~scanner.sky.targets.list_targets` refuse, and a mosaic without
MAGZERO.

Deflectors are bright objects that look like the simulated deflectors in magnitude and colour, larger than the PSF and not too
flat. Galaxies are all other catalogued or detected objects that a scan would score. Empty places are points of a 4" lattice
with no object within 2.5". Around all of them at least three quarters of a cutout's pixels are good in every band, and all of
the central ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs.utils import pixel_to_skycoord
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanner.config import CutoutsConfig, TargetsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.tile_images import TileImages, open_tile
from scanner.errors import TileError
from scanner.records import (
    BANDS,
    NISP_PIXEL_SCALE_ARCSEC,
    VIS_PIXEL_SCALE_ARCSEC,
    Band,
    CutoutBatch,
    Float32,
    Float64,
    Targets,
    Tile,
)
from scanner.simulation.injection import tile_psf
from scanner.simulation.injection.deflector_choice import FEWEST_LIKES, explained
from scanner.simulation.injection.object_shapes import shapes
from scanner.simulation.injection.request import BandOptics, PsfSource, SlopeSource, TileSummary
from scanner.simulation.injection.variance_slope import variance_slope
from scanner.simulation.population.options import Options
from scanner.simulation.telescope.noise import VARIANCE_SLOPE
from scanner.simulation.telescope.photometry import ZERO_POINT
from scanner.sky.alignment import map_pixels
from scanner.sky.scratch import ScratchFolder
from scanner.sky.target_grid import grid_positions
from scanner.sky.targets import list_targets
from scanner.sphere import healpix_29

DEFLECTOR, GALAXY, EMPTY = 0, 1, 2
MAX_BAD_FRACTION = 0.25
GALAXY_LIMIT = 23.0
DEFLECTOR_MAGNITUDES = (16.5, 22.8)
FLATTEST_DEFLECTOR = 0.45
_STAR_MAGNITUDES = (18.0, 21.5)
_SLOPE_MAGNITUDES = (17.0, 20.5)
_LARGEST_STELLAR_SHARE = 0.85
_EMPTY_STEP_ARCSEC, _EMPTY_RADIUS_ARCSEC = 4.0, 2.5
_APERTURE_ARCSEC, _TOTAL_ARCSEC = 1.0, 2.0
_BATCH = 64
#: Central pixels that are looked at, and of them those that must all be good.
_VIS_STAMP, _NISP_STAMP, _CORE = 48, 16, 30
#: A slope this many times ours, or less than its inverse, is the map's and not the light's.
_LARGEST_SLOPE_RATIO = 4.0


@dataclass(frozen=True)
class Places:
    """Places of one tile, (P,) each: ``kind`` (DEFLECTOR, GALAXY, EMPTY), position; of objects magnitude, VIS - H, shape."""

    kind: NDArray[np.int8]
    target_id: NDArray[np.int64]
    ra: Float64
    dec: Float64
    x: Float64
    y: Float64
    magnitude: Float64
    colour: Float64
    q: Float64
    angle: Float64

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: NDArray[Any]) -> Places:
        """Select by an index array."""
        return Places(**{name: values[index] for name, values in vars(self).items()})


def flux_scale(zero_point: float, band: Band) -> float:
    """Mosaic units in one of the simulation's."""
    return float(10.0 ** (0.4 * (zero_point - ZERO_POINT[band])))


def survey_tile(
    tile: Tile, options: Options, most_empty: int, seed: list[int], scratch: Path | None
) -> tuple[TileSummary, Places]:
    """Measure a tile.

    Parameters
    ----------
    tile
        Its files.
    options
        Of the deflectors that galaxies are compared with.
    most_empty
        Empty places to look for at most.
    seed
        Which of the empty places, where there are more.
    scratch
        Folder for decompressed mosaics; None: a passing one.

    Raises
    ------
    TileError
        See the module.
    """
    with open_tile(tile, CutoutsConfig(), scratch) as images:
        for band, zero_point in images.zero_points.items():
            if not math.isfinite(zero_point):
                raise TileError(f"{tile.bands[band].image}: has no MAGZERO; add the AB zero point to its header.")
        targets = list_targets(tile, images.vis, TargetsConfig(magnitude_limit=None, min_area_pixels=0)).targets
        bright = targets.take(~(targets.magnitude > max(GALAXY_LIMIT, DEFLECTOR_MAGNITUDES[1]) + 0.5))
        objects = _measured(images, bright)
        stars = _stars(objects)
        optics = {band: _optics(tile, images, band, objects, stars, scratch) for band in BANDS}
        host = _deflectors(objects, optics["VIS"].psf_width, options)
        galaxy = objects.good & ~host & (objects.magnitude <= GALAXY_LIMIT)
        empty = _empty_places(images, targets, most_empty, seed)
    found = [_places(objects, host, DEFLECTOR), _places(objects, galaxy, GALAXY), empty]
    places = Places(*(np.concatenate([vars(part)[name] for part in found]) for name in vars(empty)))
    summary = TileSummary(
        tile_id=tile.tile_id,
        alignment=images.alignment.case,
        bands=optics,
        n_stars=int(stars.sum()),
        n_deflectors=int(host.sum()),
        n_galaxies=int(galaxy.sum()),
        n_empty=len(empty),
    )
    return summary, places


@dataclass(frozen=True)
class _Objects:
    """What was measured of N objects; ``concentration`` (4, N) by band."""

    targets: Targets
    good: NDArray[np.bool_]
    magnitude: Float64
    colour: Float64
    q: Float64
    angle: Float64
    concentration: Float64


def _measured(images: TileImages, targets: Targets) -> _Objects:
    zero = images.zero_points
    parts = [_measure(batch, zero) for batch in cut(images, targets, _BATCH)]
    if not parts:
        nothing = np.empty(0)
        return _Objects(targets, nothing.astype(bool), nothing, nothing, nothing, nothing, np.empty((len(BANDS), 0)))
    joined = Targets(*(np.concatenate([vars(part.targets)[name] for part in parts]) for name in vars(targets)))
    columns = [np.concatenate([vars(part)[name] for part in parts], axis=-1) for name in vars(parts[0]) if name != "targets"]
    return _Objects(joined, *columns)


def _measure(batch: CutoutBatch, zero_points: dict[Band, float]) -> _Objects:
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
    return _Objects(batch.targets, good, np.where(np.isfinite(catalogued), catalogued, total), vis - h, q, angle, concentration)


def _aperture_magnitude(
    image: Float32, scale: float, dx: Float64, dy: Float64, radius_arcsec: float, zero_point: float
) -> Float64:
    flux = tile_psf.aperture_sums(image, radius_arcsec / scale, dx, dy)
    return np.where(flux > 0.0, zero_point - 2.5 * np.log10(np.where(flux > 0.0, flux, 1.0)), np.nan)


def _stars(objects: _Objects) -> NDArray[np.bool_]:
    bright, faint = _STAR_MAGNITUDES
    stars = objects.good & (objects.magnitude > bright) & (objects.magnitude < faint)
    stars[stars] = tile_psf.stellar(objects.concentration[0][stars])
    return np.asarray(stars, dtype=bool)


def _optics(
    tile: Tile, images: TileImages, band: Band, objects: _Objects, stars: NDArray[np.bool_], scratch: Path | None
) -> BandOptics:
    channel, zero_point = BANDS.index(band), images.zero_points[band]
    mosaic = images.vis if band == "VIS" else images.nisp[band]
    source: PsfSource = "default"
    scale = VIS_PIXEL_SCALE_ARCSEC if band == "VIS" else NISP_PIXEL_SCALE_ARCSEC
    width = tile_psf.measured_width(objects.concentration[channel][stars], scale, band)
    if tile.bands[band].psf is not None:
        source = "image"
    elif width is not None:
        source = "stars"
    order = np.argsort(objects.magnitude, kind="stable")
    bright, faint = _SLOPE_MAGNITUDES
    order = order[(objects.good & (objects.magnitude > bright) & (objects.magnitude < faint))[order]]
    x, y = objects.targets.x[order], objects.targets.y[order]
    if band != "VIS" and len(x):
        x, y = map_pixels(images.vis.wcs, mosaic.wcs, x, y)
    default = VARIANCE_SLOPE[band] * flux_scale(zero_point, band)
    folder = ScratchFolder(scratch)
    try:
        slope = variance_slope(mosaic, tile.bands[band], x, y, folder)
    finally:
        folder.close()
    usable = slope is not None and 1.0 / _LARGEST_SLOPE_RATIO < slope / default < _LARGEST_SLOPE_RATIO
    kind: SlopeSource = "rms map" if usable else "default"
    return BandOptics(
        zero_point=zero_point,
        psf=source,
        psf_width=1.0 if width is None else width,
        variance_slope=slope if usable and slope is not None else default,
        slope=kind,
    )


def _deflectors(objects: _Objects, vis_width: float, options: Options) -> NDArray[np.bool_]:
    star = tile_psf.stellar_concentration("VIS", vis_width, VIS_PIXEL_SCALE_ARCSEC)
    likes = explained(objects.magnitude, objects.colour, options)
    bright, faint = DEFLECTOR_MAGNITUDES
    return np.asarray(
        objects.good
        & (likes >= FEWEST_LIKES)
        & (objects.concentration[0] < _LARGEST_STELLAR_SHARE * star)
        & (objects.q > FLATTEST_DEFLECTOR)
        & (objects.magnitude > bright)
        & (objects.magnitude < faint),
        dtype=bool,
    )


def _places(objects: _Objects, chosen: NDArray[np.bool_], kind: int) -> Places:
    targets = objects.targets.take(chosen)
    return Places(
        np.full(len(targets), kind, dtype=np.int8),
        targets.target_id,
        targets.ra,
        targets.dec,
        targets.x,
        targets.y,
        objects.magnitude[chosen],
        objects.colour[chosen],
        objects.q[chosen],
        objects.angle[chosen],
    )


def _empty_places(images: TileImages, targets: Targets, most: int, seed: list[int]) -> Places:
    """Points of a lattice far from every object, in a random order, at most ``most`` of them."""
    x, y = grid_positions(images.vis.shape, images.vis.pixel_scale_arcsec, _EMPTY_STEP_ARCSEC)
    if len(targets):
        distance, _ = cKDTree(np.stack([targets.x, targets.y], axis=1)).query(np.stack([x, y], axis=1))
        far = distance * VIS_PIXEL_SCALE_ARCSEC > _EMPTY_RADIUS_ARCSEC
        x, y = x[far], y[far]
    order = np.random.default_rng(seed).permutation(len(x))
    kept: list[Targets] = []
    n_kept = 0
    for start in range(0, len(order), 4 * _BATCH):
        if n_kept >= most:
            break
        some = order[start : start + 4 * _BATCH]
        sky = pixel_to_skycoord(x[some], y[some], images.vis.wcs).icrs
        ra, dec = np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)
        unknown = np.full(len(some), np.nan, dtype=np.float32)
        here = Targets(healpix_29(ra, dec), ra, dec, x[some], y[some], unknown)
        for batch in cut(images, here, _BATCH):
            good = batch.targets.take(_measure(batch, images.zero_points).good)
            kept.append(good)
            n_kept += len(good)
    columns = {
        name: np.concatenate([vars(part)[name] for part in kept] or [vars(targets)[name][:0]])[:most] for name in vars(targets)
    }
    found = Targets(**columns)
    unknown = np.full(len(found), np.nan)
    kind = np.full(len(found), EMPTY, dtype=np.int8)
    return Places(kind, found.target_id, found.ra, found.dec, found.x, found.y, unknown, unknown, unknown, unknown)
