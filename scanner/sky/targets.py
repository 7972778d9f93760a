"""Which objects of a tile to cut: its catalogue's, a grid's, or what SExtractor's methods detect (Bertin & Arnouts 1996)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import scipy
import sep
from astropy.coordinates import SkyCoord
from astropy.wcs import NoConvergence
from astropy.wcs.utils import pixel_to_skycoord, skycoord_to_pixel
from numpy.typing import NDArray

from scanner.config import SAME_ID_RADIUS_ARCSEC, TargetsConfig
from scanner.errors import TileError
from scanner.imaging_surveys import ImagingSurvey
from scanner.records import Float32, Float64, Int64, Targets, Tile
from scanner.sky import source_catalogue
from scanner.sky.mosaic import Mosaic
from scanner.sphere import chord, healpix_29, unit_vectors

#: Side of a cell, 25.6": larger than the galaxies whose light must not count as sky.
CELL_PIXELS = 256
#: Every other pixel of every other row is enough: the level of a cell is known to 0.01 sigma.
_SAMPLING = 2
_CLIP_SIGMA = 3.0
_MOST_CLIPPINGS = 12
_CROWDED = 0.3
_SMALLEST_GOOD_FRACTION = 0.1
#: Rows of a strip's own, and of its neighbours' on either side (25.6").
STRIP_ROWS = 1280
OVERLAP_ROWS = 256
#: Half the side of the window that sources near a place are detected in.
NEAR_PIXELS = 192
#: Fewest pixels above the threshold that make a source.
SMALLEST_AREA_PIXELS = 5
DEBLENDING_LEVELS = 32
DEBLENDING_CONTRAST = 0.005
#: Sources that one blend may fall into; sep's own limit of 1024 is met around saturated stars.
_MOST_BLENDED = 8192
#: Pixels that sep may have in hand; tried in turn, since the memory is taken at once.
_PIXELS_IN_HAND = (1_000_000, 8_000_000, 64_000_000)
#: Kron (1980) photometry as SExtractor's MAG_AUTO: factor and smallest radius in units of the source's axes, and search radius.
_KRON_FACTOR = 2.5
_KRON_SMALLEST = 3.5
_KRON_SEARCH = 6.0


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


@dataclass(frozen=True)
class Near:
    """Places, the only ones whose objects are wanted: ``x, y`` (N,) pixels of VIS, and how far from them objects may lie.

    ``sky``: the background of the whole mosaic. Places are further from one another than ``2 radius_pixels``.
    """

    x: Float64
    y: Float64
    radius_pixels: float
    sky: BackgroundMap

    def holds(self, x: Float64, y: Float64) -> NDArray[np.bool_]:
        """Which positions lie near a place, (M,); positions that are not known do not."""
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        near = np.zeros(len(x), dtype=np.bool_)
        if len(known) and len(self.x):
            tree = scipy.spatial.cKDTree(np.stack([self.x, self.y], axis=1))
            distance, _ = tree.query(np.stack([x[known], y[known]], axis=1))
            near[known] = distance <= self.radius_pixels
        return near


def list_targets(tile: Tile, vis: Mosaic, config: TargetsConfig, near: Near | None = None) -> TargetSelection:
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
    near
        List objects there only: the very ones that are there in the list of all.

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
        found = _from_detection(vis, config, near)
    else:
        found = _from_grid(vis, config)
    ny, nx = vis.shape
    inside = (found.x >= -0.5) & (found.x < nx - 0.5) & (found.y >= -0.5) & (found.y < ny - 0.5)
    if source == "catalogue" and len(inside) > 0 and not inside.any():
        raise TileError(f"{tile.catalogue}: none of its {len(inside):,} positions lies in {vis.name}; do they belong together?")
    keep = inside.copy() if near is None else inside & near.holds(found.x, found.y)
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


def _from_detection(vis: Mosaic, config: TargetsConfig, near: Near | None) -> _Found:
    detections = detect(vis, config.detection_sigma, max(config.min_area_pixels, SMALLEST_AREA_PIXELS), near=near)
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


@dataclass(frozen=True)
class Detections:
    """Sources of a mosaic, by rows.

    ``x, y`` (N,) float64: barycentre in pixels. ``area`` (N,) float64: pixels above the threshold. ``flux`` (N,) float64: in a
    Kron ellipse, in the mosaic's unit, sky subtracted; NaN where ``area`` is below the smallest that photometry was asked for.
    """

    x: Float64
    y: Float64
    area: Float64
    flux: Float64

    def __len__(self) -> int:
        return len(self.x)


def detect(
    image: Mosaic,
    threshold_sigma: float,
    photometry_area: int = SMALLEST_AREA_PIXELS,
    *,
    strip_rows: int = STRIP_ROWS,
    near: Near | None = None,
) -> Detections:
    """Detect sources.

    Detection reads strips of whole rows. Strips overlap, and each source belongs to the strip whose own rows hold its brightest
    pixel, where it is seen whole together with its neighbours. So where the strips begin makes no difference to single sources
    smaller than the overlap, and to those in blends a few pixels (sep shares their faint pixels out by a draw whose seed is the
    same for every strip); the strips are always the same, and so is the result. Memory does not depend on the height.

    Near given places it reads a window around each, which makes no difference either to what is smaller than
    :data:`NEAR_PIXELS`.

    Parameters
    ----------
    image
        The mosaic; bad pixels are NaN.
    threshold_sigma
        Threshold on the image smoothed by sep's 3×3 kernel, in units of the noise of an unsmoothed pixel.
    photometry_area
        Fluxes are measured of sources with at least this many pixels.
    strip_rows
        Rows of a strip.
    near
        Detect sources there only, place by place.

    Raises
    ------
    TileError
        A blend holds more sources or pixels than sep can take.
    """
    (ny, nx), sky = image.shape, measure_background(image) if near is None else near.sky
    # A noiseless image has no scale of its own: every pixel above its sky is part of a source.
    noise = np.maximum(np.nan_to_num(sky.noise, nan=1.0), np.finfo(np.float32).tiny)
    sky = BackgroundMap(level=np.nan_to_num(sky.level), noise=noise, y=sky.y, x=sky.x)
    how = threshold_sigma, photometry_area
    found = [np.empty((4, 0))]
    if near is None:
        for y0 in range(0, ny, strip_rows):
            y1 = min(y0 + strip_rows, ny)
            strip = max(0, y0 - OVERLAP_ROWS), min(ny, y1 + OVERLAP_ROWS), 0, nx
            found.append(_detect_window(image, sky, *how, strip, partial(_in_rows, y0, y1)))
    else:
        for x, y in zip(near.x.tolist(), near.y.tolist(), strict=True):
            y0, y1 = (min(max(edge, 0), ny) for edge in (round(y) - NEAR_PIXELS, round(y) + NEAR_PIXELS + 1))
            x0, x1 = (min(max(edge, 0), nx) for edge in (round(x) - NEAR_PIXELS, round(x) + NEAR_PIXELS + 1))
            found.append(_detect_window(image, sky, *how, (y0, y1, x0, x1), partial(_in_disc, x, y, near.radius_pixels)))
    columns, rows, area, flux = np.concatenate(found, axis=1)
    return Detections(x=columns, y=rows, area=area, flux=flux)


def _in_rows(y0: int, y1: int, row: Int64, _x: Float64, _y: Float64) -> NDArray[np.bool_]:
    return np.asarray((row >= y0) & (row < y1), dtype=np.bool_)


def _in_disc(at_x: float, at_y: float, radius: float, _row: Int64, x: Float64, y: Float64) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(x - at_x, y - at_y) <= radius, dtype=np.bool_)


def _detect_window(
    image: Mosaic,
    sky: BackgroundMap,
    threshold_sigma: float,
    photometry_area: int,
    window: tuple[int, int, int, int],
    is_own: Callable[[Int64, Float64, Float64], NDArray[np.bool_]],
) -> Float64:
    """Own sources of a window (first and last row, first and last column): (4, N) float64 of x, y, area, flux.

    ``is_own``: called with the row of each source's brightest pixel, its x and its y.
    """
    pixels = image.read(*window)
    level, noise = sky.at(*window)
    pixels -= level
    bad = ~np.isfinite(pixels)
    pixels[bad] = 0.0
    sources, segments = _extract(image, pixels, noise, bad, threshold_sigma)
    rows = sources["ypeak"] + window[0]
    own = np.flatnonzero(is_own(rows, sources["x"] + window[2], sources["y"] + window[0]))
    own = own[np.lexsort((sources["xpeak"][own], rows[own]))]
    chosen = sources[own]
    flux = np.full(len(own), np.nan)
    large = chosen["npix"] >= photometry_area
    flux[large] = _kron_flux(pixels, bad, chosen[large], segments, own[large] + 1)
    return np.stack([chosen["x"] + window[2], chosen["y"] + window[0], chosen["npix"].astype(np.float64), flux])


def _extract(
    image: Mosaic, pixels: Float32, noise: Float32, bad: NDArray[np.bool_], threshold_sigma: float
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    sep.set_sub_object_limit(_MOST_BLENDED)
    for n_pixels in _PIXELS_IN_HAND:
        sep.set_extract_pixstack(min(n_pixels, pixels.size + 1))
        try:
            sources, segments = sep.extract(
                pixels,
                threshold_sigma,
                err=noise,
                mask=bad,
                minarea=SMALLEST_AREA_PIXELS,
                # sep's own default, "matched", would take the threshold as one on the smoothed image's noise.
                filter_type="conv",
                deblend_nthresh=DEBLENDING_LEVELS,
                deblend_cont=DEBLENDING_CONTRAST,
                segmentation_map=True,
            )
        except Exception as error:
            # sep's own limits come as bare Exceptions; anything else is not for the user to mend.
            if type(error) is not Exception:
                raise
            reason = str(error)
        else:
            return sources, segments
    sentence = reason.partition(":")[0]
    raise TileError(f"{image.name}: detection fails ({sentence}); raise targets.detection_sigma, or give a catalogue.")


def _kron_flux(
    pixels: Float32, bad: NDArray[np.bool_], sources: NDArray[Any], segments: NDArray[np.int32], numbers: NDArray[np.intp]
) -> Float64:
    """Flux in a Kron ellipse, pixels of other sources left out."""
    if len(sources) == 0:
        return np.empty(0)
    # Angles come in single precision, and a rounded-up pi/2 is out of sep's range.
    angle = np.clip(sources["theta"], -np.pi / 2, np.pi / 2)
    ellipses = sources["x"], sources["y"], sources["a"], sources["b"], angle
    masks = {"mask": bad, "seg_id": numbers.astype(np.int32), "segmap": segments}
    kron, _ = sep.kron_radius(pixels, *ellipses, _KRON_SEARCH, **masks)
    radius = np.maximum(np.nan_to_num(_KRON_FACTOR * kron), _KRON_SMALLEST)
    flux, _, _ = sep.sum_ellipse(pixels, *ellipses, radius, **masks)
    return np.asarray(flux, dtype=np.float64)


@dataclass(frozen=True)
class BackgroundMap:
    """Level and noise (standard deviation) per cell, (ny, nx) float64 each, and the cells' centres ``y``, ``x`` in pixels."""

    level: Float64
    noise: Float64
    y: Float64
    x: Float64

    def at(self, y0: int, y1: int, x0: int, x1: int) -> tuple[Float32, Float32]:
        """Level and noise of the rows ``y0 … y1 - 1`` and columns ``x0 … x1 - 1``, (y1 - y0, x1 - x0) float32 each."""
        rows, columns = np.arange(y0, y1, dtype=np.float64), np.arange(x0, x1, dtype=np.float64)
        return _interpolate(self.level, self.y, self.x, rows, columns), _interpolate(self.noise, self.y, self.x, rows, columns)


@dataclass(frozen=True)
class BackgroundCells:
    """Level and noise of each cell of a mosaic as they were measured, (ny, nx) float64; NaN where too few pixels are good."""

    level: Float64
    noise: Float64

    def smoothed(self, shape: tuple[int, int]) -> BackgroundMap:
        """The background of the mosaic of this shape, in pixels."""
        y, x = (_centres(_edges(length)) for length in shape)
        return BackgroundMap(level=_smooth(self.level), noise=_smooth(self.noise), y=y, x=x)

    def renewed(self, image: Mosaic, x: Float64, y: Float64, reach_pixels: int) -> BackgroundCells:
        """The cells of a mosaic that has changed within squares of ``2 reach_pixels`` a side around places, (N,) pixels."""
        level, noise = self.level.copy(), self.noise.copy()
        y_edges, x_edges = (np.array(_edges(length)) for length in image.shape)
        changed: set[tuple[int, int]] = set()
        for column, row in zip(x.tolist(), y.tolist(), strict=True):
            rows, columns = (
                np.flatnonzero((edges[:-1] <= place + reach_pixels) & (edges[1:] > place - reach_pixels)).tolist()
                for edges, place in ((y_edges, row), (x_edges, column))
            )
            changed.update((i, j) for i in rows for j in columns)
        for i, j in sorted(changed):
            pixels = image.read(int(y_edges[i]), int(y_edges[i + 1]), int(x_edges[j]), int(x_edges[j + 1]))
            level[i, j], noise[i, j] = cell_statistics(pixels[::_SAMPLING, ::_SAMPLING])
        return BackgroundCells(level, noise)


def measure_background(image: Mosaic) -> BackgroundMap:
    """Measure the background of a mosaic.

    Background (section 4): clip each cell's histogram at three sigma until it stands still; level = 2.5 median - 1.5 mean, or
    the median where the cell is crowded (mean and median differ by more than 0.3 sigma); median filter over 3×3 cells;
    interpolate between the centres of the cells. It is measured once over the whole mosaic.
    """
    return measure_cells(image).smoothed(image.shape)


def measure_cells(image: Mosaic) -> BackgroundCells:
    """Measure the background of each cell of a mosaic, see :func:`measure_background`."""
    ny, nx = image.shape
    y_edges, x_edges = _edges(ny), _edges(nx)
    level, noise = np.full((2, len(y_edges) - 1, len(x_edges) - 1), np.nan)
    for i, (y0, y1) in enumerate(pairwise(y_edges)):
        strip = image.read(y0, y1, 0, nx)
        for j, (x0, x1) in enumerate(pairwise(x_edges)):
            level[i, j], noise[i, j] = cell_statistics(strip[::_SAMPLING, x0:x1:_SAMPLING])
    return BackgroundCells(level, noise)


def cell_statistics(pixels: Float32) -> tuple[float, float]:
    """Sky level and noise of one cell, NaN where too few pixels are good.

    Parameters
    ----------
    pixels
        Any shape; NaN where bad.
    """
    values = np.sort(pixels[np.isfinite(pixels)])
    if len(values) <= _SMALLEST_GOOD_FRACTION * pixels.size:
        return np.nan, np.nan
    low, high = 0, len(values)
    for _ in range(_MOST_CLIPPINGS):
        median, sigma = float(values[(low + high) // 2]), float(values[low:high].std(dtype=np.float64))
        bounds = np.array([median - _CLIP_SIGMA * sigma, median + _CLIP_SIGMA * sigma], dtype=values.dtype)
        clipped = int(np.searchsorted(values, bounds[0], "left")), int(np.searchsorted(values, bounds[1], "right"))
        if clipped == (low, high):
            break
        low, high = clipped
    kept = values[low:high]
    median, mean, sigma = float(np.median(kept)), float(kept.mean(dtype=np.float64)), float(kept.std(dtype=np.float64))
    level = 2.5 * median - 1.5 * mean if abs(mean - median) < _CROWDED * sigma else median
    return level, sigma


def _edges(length: int) -> list[int]:
    n = max(1, round(length / CELL_PIXELS))
    return [round(i * length / n) for i in range(n + 1)]


def _centres(edges: list[int]) -> Float64:
    return np.array([(low + high - 1) / 2 for low, high in pairwise(edges)])


def _smooth(cells: Float64) -> Float64:
    """Fill empty cells from the nearest good one and take the median of each cell and its neighbours."""
    empty = np.isnan(cells)
    if empty.all():
        return cells
    nearest = scipy.ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return np.asarray(scipy.ndimage.median_filter(cells[tuple(nearest)], size=3, mode="nearest"), dtype=np.float64)


def _interpolate(cells: Float64, y: Float64, x: Float64, rows: Float64, columns: Float64) -> Float32:
    """Bilinear, constant beyond the outermost centres."""
    low_y, weight_y = _weights(y, rows)
    low_x, weight_x = _weights(x, columns)
    by_row = (cells[low_y] * (1 - weight_y)[:, None] + cells[np.minimum(low_y + 1, len(y) - 1)] * weight_y[:, None]).astype(
        np.float32
    )
    left, right = (by_row.take(nodes, axis=1) for nodes in (low_x, np.minimum(low_x + 1, len(x) - 1)))
    right -= left
    right *= weight_x.astype(np.float32)
    left += right
    return left


def _weights(nodes: Float64, at: Float64) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], Float64]:
    """Node below each position, and the weight of the node above."""
    position = np.interp(at, nodes, np.arange(len(nodes), dtype=np.float64))
    low = np.minimum(position.astype(np.intp), max(len(nodes) - 2, 0))
    return low, position - low
