"""From components to noiseless pixels, before the telescope: one renderer for cutouts and for mosaics.

In: lists of :class:`Component`, one list an image, and a :class:`Raster` that says where the pixels lie. Out: images (N, bands,
ny, nx) float32 whose pixels hold the flux that falls into them. Stars are left out: the telescope draws them exactly, after
convolution (:mod:`scanner.simulation.telescope.stars`).

Every component is drawn on a stamp (:mod:`~scanner.simulation.light.stamps`); stamps alike are drawn together, and added in an
order that does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from scanner.records import BANDS, Band, Float64
from scanner.simulation.light.components import Component
from scanner.simulation.light.sampling import Window, pixel_means
from scanner.simulation.light.stamps import Raster, centred_raster, place

__all__ = ["Raster", "centred_raster", "render"]

#: Pixels drawn at once: temporaries that stay within a core's cache, or enough to keep an accelerator busy.
_ELEMENTS, _ELEMENTS_ACCELERATOR = 1 << 16, 1 << 24


def render(scenes: Sequence[Sequence[Component]], raster: Raster, bands: Sequence[Band] = BANDS, like: Any = None) -> Any:
    """Draw the scenes' galaxies, without telescope or noise.

    Parameters
    ----------
    scenes
        One sequence of components an image; components of kind ``POINT`` are skipped.
    raster
        Pixel grid, the same for all images.
    bands
        Which of the components' fluxes to draw.
    like
        An array of the library and device to compute with; numpy by default.

    Returns
    -------
    array
        (N, bands, ny, nx) float32, flux per pixel.
    """
    like = np.zeros(1) if like is None else like
    xp, where = array_namespace(like), device(like)
    out = xp.zeros((len(scenes), len(bands), raster.ny, raster.nx), dtype=xp.float32, device=where)

    def asarray(values: Any) -> Any:
        return xp.asarray(np.asarray(values, dtype=np.float32), device=where)

    channels = [BANDS.index(band) for band in bands]
    elements = _ELEMENTS if str(where).startswith("cpu") else _ELEMENTS_ACCELERATOR
    for stamps in place(scenes, raster, bands).groups(raster, elements):
        window = Window.of(stamps, raster)
        add = _add_slices if is_numpy_array(like) else _add_scattered
        add(out, window, pixel_means(window, asarray) * raster.scale**2, stamps.table.flux[:, channels])
    return out


def _add_slices(out: Any, window: Window, light: Any, flux: Float64) -> None:
    """Add the stamps' pixels times their flux to all bands of their images, clipped at the raster's edges."""
    stamps, (ny, nx) = window.stamps, out.shape[-2:]
    left, right = np.maximum(stamps.column, 0).tolist(), np.minimum(stamps.column + 2 * stamps.half, nx).tolist()
    low, high = np.maximum(stamps.row, 0).tolist(), np.minimum(stamps.row + 2 * stamps.half, ny).tolist()
    weights = flux.astype(np.float32)[:, :, None, None]
    places = zip(stamps.image.tolist(), window.row.tolist(), window.column.tolist(), low, high, left, right, strict=True)
    for pixels, weight, (image, row, column, y0, y1, x0, x1) in zip(light, weights, places, strict=True):
        out[image, :, y0:y1, x0:x1] += weight * pixels[y0 - row : y1 - row, x0 - column : x1 - column]


def _add_scattered(out: Any, window: Window, light: Any, flux: Float64) -> None:
    """As :func:`_add_slices` for torch: one addition a band instead of one a stamp, in no fixed order on an accelerator."""
    xp, where = array_namespace(out), device(out)
    stamps, (bands, ny, nx) = window.stamps, out.shape[-3:]
    inside, places = [], []
    for first, start, drawn, limit in (
        (window.row, stamps.row, window.ny, ny),
        (window.column, stamps.column, window.nx, nx),
    ):
        place = first[:, None] + np.arange(drawn)
        inside.append((place >= np.maximum(start, 0)[:, None]) & (place < np.minimum(start + 2 * stamps.half, limit)[:, None]))
        places.append(np.clip(place, 0, limit - 1))
    first = stamps.image * (bands * ny * nx)
    rows, columns = (xp.asarray(place, device=where) for place in (first[:, None] + places[0] * nx, places[1]))
    target = (rows[:, :, None] + columns[:, None, :]).reshape(-1)
    for masked, axis in zip(inside, (2, 1), strict=True):
        light = light * xp.expand_dims(xp.asarray(masked.astype(np.float32), device=where), axis=axis)
    for band in range(bands):
        weight = xp.asarray(flux[:, band, None, None].astype(np.float32), device=where)
        out.view(-1).index_add_(0, target + band * ny * nx, (weight * light).reshape(-1))
