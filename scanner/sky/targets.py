"""The objects of a tile that are to be scored: from its catalogue, from detection on its VIS mosaic, or on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import NoConvergence
from astropy.wcs.utils import pixel_to_skycoord, skycoord_to_pixel

from scanner.config import SAME_ID_RADIUS_ARCSEC, TargetsConfig
from scanner.errors import TileError
from scanner.imaging_surveys import ImagingSurvey
from scanner.records import Float64, Int64, Targets, Tile
from scanner.sky import source_catalogue
from scanner.sky.detection import SMALLEST_AREA_PIXELS, detect
from scanner.sky.mosaic import Mosaic
from scanner.sphere import chord, healpix_29, unit_vectors


@dataclass(frozen=True)
class TargetSelection:
    """Which objects of a tile are scored.

    ``n_seen = len(targets) + n_outside + n_rejected``. ``source``: ``catalogue``, ``detection`` or ``grid``. ``notes``:
    cuts that could not be made, ids that had to be made.
    """

    targets: Targets
    n_seen: int
    n_outside: int
    n_rejected: int
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """Objects before the cuts: positions in both systems; what a source does not know is None."""

    ra: Float64
    dec: Float64
    x: Float64
    y: Float64
    target_id: Int64 | None
    magnitude: Float64 | None
    area: Float64 | None
    notes: tuple[str, ...] = ()


def list_targets(tile: Tile, vis: Mosaic, config: TargetsConfig) -> TargetSelection:
    """List the targets of a tile.

    - Objects outside the mosaic (their pixel, not their cutout) and rows without a position count as ``n_outside``.
    - ``magnitude_limit`` and ``min_area_pixels`` apply to catalogue and detection. An object whose magnitude or area is not
      known while the limit is set is left out; a catalogue without such a column is not cut by it, and a note says so. A grid
      is not cut.
    - ``target_id`` is the catalogue's whole-number id where no objects further than 3" apart share one, else the order-29
      HEALPix index of the position (cells of 0.4 mas). Of several objects with one id the brightest stays, then the first by
      right ascension and declination; the others count as rejected.
    - Positions for which a distorted WCS gives no pixel count as ``n_outside``, and a note says so.

    Parameters
    ----------
    tile
        Names the catalogue, where there is one.
    vis
        Its VIS mosaic; read only by detection, in strips.
    config
        Source and limits.

    Raises
    ------
    TileError
        There is no catalogue though one is asked for, it cannot be used, or it is of another part of the sky.
    """
    source = config.source
    if source == "auto":
        source = "detection" if tile.catalogue is None else "catalogue"
    if source == "catalogue":
        found = _from_catalogue(tile, vis, config.survey)
    elif source == "detection":
        found = _from_detection(vis, config)
    else:
        found = _from_grid(vis, config)
    ny, nx = vis.shape
    inside = (found.x >= -0.5) & (found.x < nx - 0.5) & (found.y >= -0.5) & (found.y < ny - 0.5)
    if source == "catalogue" and len(inside) > 0 and not inside.any():
        raise TileError(f"{tile.catalogue}: none of its {len(inside):,} positions lies in {vis.name}; do they belong together?")
    keep = inside.copy()
    notes = []
    if source != "grid" and config.magnitude_limit is not None:
        if found.magnitude is None:
            notes.append(f"magnitude limit {config.magnitude_limit} not applied: the {source} gives no VIS magnitude")
        else:
            keep &= found.magnitude <= config.magnitude_limit
    if source != "grid" and config.min_area_pixels > 0:
        if found.area is None:
            notes.append(f"area limit {config.min_area_pixels} pixels not applied: the {source} gives no area")
        else:
            keep &= found.area >= config.min_area_pixels
    notes += found.notes
    targets = _targets(found, keep)
    n_inside = int(np.count_nonzero(inside))
    return TargetSelection(
        targets=targets,
        n_seen=len(inside),
        n_outside=len(inside) - n_inside,
        n_rejected=n_inside - len(targets),
        source=source,
        notes=tuple(notes),
    )


def _from_catalogue(tile: Tile, vis: Mosaic, survey: ImagingSurvey) -> _Found:
    if tile.catalogue is None:
        raise TileError(f"{vis.name}: tile {tile.tile_id} has no catalogue; name one, or use --targets detection.")
    sources = source_catalogue.read(tile.catalogue, survey)
    ids, notes = sources.target_id, []
    if ids is None:
        notes.append("target ids are HEALPix indices: the catalogue gives no whole-number id")
    elif _share_ids(ids, sources.ra, sources.dec):
        ids = None
        notes.append("target ids are HEALPix indices: the catalogue gives one id to objects at different positions")
    x, y, all_found = pixel_positions(vis, sources.ra, sources.dec)
    if not all_found:
        notes.append("objects without a pixel are left out: the distortion of a mosaic's WCS diverges there")
    return _Found(sources.ra, sources.dec, x, y, ids, sources.magnitude, sources.area, tuple(notes))


def _share_ids(target_id: Int64, ra: Float64, dec: Float64) -> bool:
    """Whether an id stands for objects further apart than two catalogues place one object."""
    placed = np.isfinite(ra) & np.isfinite(dec)
    order = np.flatnonzero(placed)[np.argsort(target_id[placed], kind="stable")]
    _, first, group = np.unique(target_id[order], return_index=True, return_inverse=True)
    directions = unit_vectors(ra[order], dec[order])
    distance = np.linalg.norm(directions - directions[first[group]], axis=1)
    return bool((distance > chord(SAME_ID_RADIUS_ARCSEC)).any())


def pixel_positions(vis: Mosaic, ra: Float64, dec: Float64) -> tuple[Float64, Float64, bool]:
    """Pixels (x, y) of positions in degrees, (N,) float64; NaN far outside the mosaic and where its WCS gives none.

    The third is False where the inversion of the WCS's distortion did not converge for a position near the mosaic.
    """
    x, y = np.full((2, len(ra)), np.nan)
    near, all_found = _near(vis, ra, dec), True
    if near.any():
        x[near], y[near], all_found = _pixels(vis, ra[near], dec[near])
    return x, y, all_found


@np.errstate(over="ignore", invalid="ignore")
def _pixels(vis: Mosaic, ra: Float64, dec: Float64) -> tuple[Float64, Float64, bool]:
    """Pixels of positions, NaN where the inversion of the WCS's distortion does not converge; whether it does everywhere."""
    try:
        x, y = skycoord_to_pixel(SkyCoord(ra, dec, unit="deg"), vis.wcs)
    except NoConvergence as error:
        solution = np.array(error.best_solution, dtype=np.float64)
        for rows in (error.divergent, error.slow_conv):
            if rows is not None:
                solution[rows] = np.nan
        return solution[:, 0], solution[:, 1], False
    return x, y, True


def _near(vis: Mosaic, ra: Float64, dec: Float64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which positions are within the mosaic's circumscribed circle; further off, projections fold and iterations diverge."""
    ny, nx = vis.shape
    corners = pixel_to_skycoord([0.0, 0.0, nx - 1.0, nx - 1.0], [0.0, ny - 1.0, 0.0, ny - 1.0], vis.wcs).icrs
    centre = pixel_to_skycoord((nx - 1) / 2, (ny - 1) / 2, vis.wcs).icrs
    reach = float(centre.separation(corners).max().arcsec) * 1.01 + 10.0
    distance = np.linalg.norm(unit_vectors(ra, dec) - unit_vectors(centre.ra.deg, centre.dec.deg), axis=1)
    return np.asarray(distance <= chord(min(reach, 180 * 3600.0)), dtype=np.bool_)


def _from_detection(vis: Mosaic, config: TargetsConfig) -> _Found:
    detections = detect(vis, config.detection_sigma, max(config.min_area_pixels, SMALLEST_AREA_PIXELS))
    ra, dec = _sky(vis, detections.x, detections.y)
    magnitude = None
    zero_point = vis.zero_point if np.isfinite(vis.zero_point) else config.survey.zero_point("VIS")
    if np.isfinite(zero_point):
        magnitude = np.full(len(ra), np.nan)
        known = detections.flux > 0
        magnitude[known] = zero_point - 2.5 * np.log10(detections.flux[known])
    return _Found(ra, dec, detections.x, detections.y, None, magnitude, detections.area)


def _from_grid(vis: Mosaic, config: TargetsConfig) -> _Found:
    x, y = grid_positions(vis.shape, vis.pixel_scale_arcsec, config.grid_step_arcsec)
    return _Found(*_sky(vis, x, y), x, y, None, None, None)


def grid_positions(shape: tuple[int, int], pixel_scale_arcsec: float, step_arcsec: float) -> tuple[Float64, Float64]:
    """Positions in row order.

    Parameters
    ----------
    shape
        (ny, nx) of the mosaic.
    pixel_scale_arcsec
        Its pixel scale.
    step_arcsec
        Distance of neighbours in a row and in a column.

    Returns
    -------
    x, y
        (N,) float64, pixels.
    """
    step = step_arcsec / pixel_scale_arcsec
    rows, columns = (_along_axis(length, step) for length in shape)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return x.ravel(), y.ravel()


def _along_axis(length: int, step: float) -> Float64:
    n = max(1, int(length / step))
    return np.asarray((np.arange(n) - (n - 1) / 2) * step + (length - 1) / 2, dtype=np.float64)


def _sky(vis: Mosaic, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    if len(x) == 0:
        return np.empty(0), np.empty(0)
    coordinates = pixel_to_skycoord(x, y, vis.wcs).icrs
    return np.asarray(coordinates.ra.deg, dtype=np.float64), np.asarray(coordinates.dec.deg, dtype=np.float64)


def _targets(found: _Found, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Targets:
    """The kept objects in order of their ids, one of each id."""
    ra, dec = found.ra[keep], found.dec[keep]
    magnitude = np.full(len(ra), np.nan) if found.magnitude is None else found.magnitude[keep]
    target_id = healpix_29(ra, dec) if found.target_id is None else found.target_id[keep]
    order = np.lexsort((dec, ra, np.where(np.isnan(magnitude), np.inf, magnitude), target_id))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = target_id[order][1:] != target_id[order][:-1]
    targets = Targets(
        target_id=target_id, ra=ra, dec=dec, x=found.x[keep], y=found.y[keep], magnitude=magnitude.astype(np.float32)
    )
    return targets.take(order[first])
