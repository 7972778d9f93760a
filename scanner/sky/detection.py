"""Sources found on the VIS mosaic itself, by SExtractor's method (package ``sep``: Barbary 2016; Bertin & Arnouts 1996).

In: a mosaic, read in strips of whole rows. Out: :class:`Detections`. Refused (:class:`~scanner.errors.TileError`): a mosaic so
crowded that ``sep`` cannot tell its sources apart.

Strips overlap, and each source belongs to the strip whose own rows hold its brightest pixel, where it is seen whole together
with its neighbours. Background and noise come from maps of the whole mosaic. So where the strips begin makes no difference to
single sources smaller than the overlap, and to those in blends a few pixels (sep shares their faint pixels out by a draw whose
seed is the same for every strip); the strips are always the same, and so is the result. Memory does not depend on the height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

from scanner.errors import TileError
from scanner.records import Float32, Float64
from scanner.sky import background
from scanner.sky.mosaic import Mosaic

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
    sky = background.measure(image)
    # A noiseless image has no scale of its own: every pixel above its sky is part of a source.
    noise = np.maximum(np.nan_to_num(sky.noise, nan=1.0), np.finfo(np.float32).tiny)
    sky = background.BackgroundMap(level=np.nan_to_num(sky.level), noise=noise, y=sky.y, x=sky.x)
    found = [
        _detect_strip(image, sky, threshold_sigma, photometry_area, y0, min(y0 + strip_rows, ny))
        for y0 in range(0, ny, strip_rows)
    ]
    x, y, area, flux = np.concatenate(found, axis=1)
    return Detections(x=x, y=y, area=area, flux=flux)


def _detect_strip(
    image: Mosaic, sky: background.BackgroundMap, threshold_sigma: float, photometry_area: int, y0: int, y1: int
) -> Float64:
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
