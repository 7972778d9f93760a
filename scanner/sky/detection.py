"""Sky background of a mosaic, and the sources on it, by SExtractor's methods (Bertin & Arnouts 1996; sep: Barbary 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray
from scipy import ndimage

from scanner.errors import TileError
from scanner.records import Float32, Float64
from scanner.sky.mosaic import Mosaic

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
    image: Mosaic, threshold_sigma: float, photometry_area: int = SMALLEST_AREA_PIXELS, *, strip_rows: int = STRIP_ROWS
) -> Detections:
    """Detect sources.

    Detection reads strips of whole rows. Strips overlap, and each source belongs to the strip whose own rows hold its brightest
    pixel, where it is seen whole together with its neighbours. So where the strips begin makes no difference to single sources
    smaller than the overlap, and to those in blends a few pixels (sep shares their faint pixels out by a draw whose seed is the
    same for every strip); the strips are always the same, and so is the result. Memory does not depend on the height.

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

    Raises
    ------
    TileError
        A blend holds more sources or pixels than sep can take.
    """
    ny = image.shape[0]
    sky = measure_background(image)
    # A noiseless image has no scale of its own: every pixel above its sky is part of a source.
    noise = np.maximum(np.nan_to_num(sky.noise, nan=1.0), np.finfo(np.float32).tiny)
    sky = BackgroundMap(level=np.nan_to_num(sky.level), noise=noise, y=sky.y, x=sky.x)
    found = [
        _detect_strip(image, sky, threshold_sigma, photometry_area, y0, min(y0 + strip_rows, ny))
        for y0 in range(0, ny, strip_rows)
    ]
    x, y, area, flux = np.concatenate(found, axis=1)
    return Detections(x=x, y=y, area=area, flux=flux)


def _detect_strip(image: Mosaic, sky: BackgroundMap, threshold_sigma: float, photometry_area: int, y0: int, y1: int) -> Float64:
    """Sources whose brightest pixel is in the rows y0 to y1: (4, N) float64 of x, y, area, flux."""
    ny, nx = image.shape
    first, last = max(0, y0 - OVERLAP_ROWS), min(ny, y1 + OVERLAP_ROWS)
    pixels = image.read(first, last, 0, nx)
    level, noise = sky.at(first, last, nx)
    pixels -= level
    bad = ~np.isfinite(pixels)
    pixels[bad] = 0.0
    sources, segments = _extract(image, pixels, noise, bad, threshold_sigma)
    rows = sources["ypeak"] + first
    own = np.flatnonzero((rows >= y0) & (rows < y1))
    own = own[np.lexsort((sources["xpeak"][own], rows[own]))]
    chosen = sources[own]
    flux = np.full(len(own), np.nan)
    large = chosen["npix"] >= photometry_area
    flux[large] = _kron_flux(pixels, bad, chosen[large], segments, own[large] + 1)
    return np.stack([chosen["x"], chosen["y"] + first, chosen["npix"].astype(np.float64), flux])


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

    def at(self, y0: int, y1: int, width: int) -> tuple[Float32, Float32]:
        """Level and noise of the rows ``y0`` to ``y1`` of a mosaic ``width`` pixels wide, (y1 - y0, width) float32 each."""
        rows, columns = np.arange(y0, y1, dtype=np.float64), np.arange(width, dtype=np.float64)
        return _interpolate(self.level, self.y, self.x, rows, columns), _interpolate(self.noise, self.y, self.x, rows, columns)


def measure_background(image: Mosaic) -> BackgroundMap:
    """Measure the background of a mosaic.

    Background (section 4): clip each cell's histogram at three sigma until it stands still; level = 2.5 median - 1.5 mean, or
    the median where the cell is crowded (mean and median differ by more than 0.3 sigma); median filter over 3×3 cells;
    interpolate between the centres of the cells. It is measured once over the whole mosaic.
    """
    ny, nx = image.shape
    y_edges, x_edges = _edges(ny), _edges(nx)
    level, noise = np.full((2, len(y_edges) - 1, len(x_edges) - 1), np.nan)
    for i, (y0, y1) in enumerate(pairwise(y_edges)):
        strip = image.read(y0, y1, 0, nx)
        for j, (x0, x1) in enumerate(pairwise(x_edges)):
            level[i, j], noise[i, j] = cell_statistics(strip[::_SAMPLING, x0:x1:_SAMPLING])
    return BackgroundMap(level=_smooth(level), noise=_smooth(noise), y=_centres(y_edges), x=_centres(x_edges))


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
    nearest = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return np.asarray(ndimage.median_filter(cells[tuple(nearest)], size=3, mode="nearest"), dtype=np.float64)


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
