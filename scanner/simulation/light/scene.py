"""From components to noiseless pixels, before the telescope: one renderer for cutouts and for mosaics."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_array

from scanner.records import BANDS, Band
from scanner.simulation.light.components import Component
from scanner.simulation.light.integration import Raster, Window, centred_raster, pixel_means, place

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
        values = np.asarray(values)
        return xp.asarray(values.astype(np.float32) if values.dtype.kind == "f" else values, device=where)

    channels = [BANDS.index(band) for band in bands]
    elements = _ELEMENTS if str(where).startswith("cpu") else _ELEMENTS_ACCELERATOR
    drawn = [
        window for stamps in place(scenes, raster, bands).alike() for window in pixel_means(stamps, raster, elements, asarray)
    ]
    (_add_slices if is_numpy_array(like) else _add_scattered)(out, drawn, channels, raster.scale**2)
    return out


def _add_slices(out: Any, drawn: Sequence[Window], channels: Sequence[int], area: float) -> None:
    """Add the stamps' pixels times their flux to all bands of their images, clipped at the raster's edges."""
    places: list[tuple[Any, ...]] = []
    ny, nx = out.shape[-2:]
    for window in drawn:
        stamps = window.stamps
        left, right = np.maximum(stamps.column, 0), np.minimum(stamps.column + 2 * stamps.half, nx)
        low, high = np.maximum(stamps.row, 0), np.minimum(stamps.row + 2 * stamps.half, ny)
        corners = (low, high, left, right, low - window.row, high - window.row, left - window.column, right - window.column)
        weights = (area * stamps.table.flux[:, channels]).astype(np.float32)[:, :, None, None]
        places += zip(stamps.image.tolist(), window.light, weights, *(values.tolist() for values in corners), strict=True)
    # Image by image: one fits into the cache, all of them do not.
    places.sort(key=itemgetter(0))
    for image, light, weight, y0, y1, x0, x1, from_y, to_y, from_x, to_x in places:
        out[image, :, y0:y1, x0:x1] += weight * light[from_y:to_y, from_x:to_x]


def _add_scattered(out: Any, drawn: Sequence[Window], channels: Sequence[int], area: float) -> None:
    """As :func:`_add_slices` for torch: one addition a window and band, on an accelerator in no fixed order."""
    xp, where = array_namespace(out), device(out)
    bands, ny, nx = out.shape[-3:]

    def there(values: Any) -> Any:
        return xp.asarray(values, device=where)

    for window in drawn:
        stamps, light = window.stamps, window.light
        inside, places = [], []
        for first, start, count, limit in (
            (window.row, stamps.row, light.shape[1], ny),
            (window.column, stamps.column, light.shape[2], nx),
        ):
            place = first[:, None] + np.arange(count)
            low, high = np.maximum(start, 0), np.minimum(start + 2 * stamps.half, limit)
            inside.append(there(((place >= low[:, None]) & (place < high[:, None])).astype(np.float32)))
            places.append(np.clip(place, 0, limit - 1))
        rows, columns = there(stamps.image[:, None] * (bands * ny * nx) + places[0] * nx), there(places[1])
        target = xp.reshape(rows[:, :, None] + columns[:, None, :], (-1,))
        light = light * inside[0][:, :, None] * inside[1][:, None, :]
        weights = there((area * stamps.table.flux[:, channels]).astype(np.float32))
        for band in range(bands):
            xp.reshape(out, (-1,)).index_add_(
                0, target + band * ny * nx, xp.reshape(weights[:, band, None, None] * light, (-1,))
            )
