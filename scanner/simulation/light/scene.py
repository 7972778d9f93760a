"""From components to noiseless pixels, before the telescope: one renderer for cutouts and for mosaics.

In: lists of :class:`Component`, one list an image, and a :class:`Raster` that says where the
pixels lie. Out: images (N, bands, ny, nx) float32 whose pixels hold the flux that falls into them. Stars are left out:
the telescope draws them exactly, after convolution (:mod:`scanner.simulation.telescope.stars`).

Every component is drawn on a square stamp that reaches to where it sinks far below the noise; components of one kind and
stamp size are drawn together, and added in an order that does not depend on what else is in the batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from scanner.records import BANDS, Band
from scanner.simulation.lensing.lens import Lens
from scanner.simulation.lensing.sightline import Sightline, trace
from scanner.simulation.light.components import Component, Kind, Profiles, extent_radius, profiles, surface_brightness

#: Surface brightness at which stamps end, image units per 0.01 arcsec²: about 4% of the sky σ of one VIS or NISP 0.1" pixel.
FAINT_LEVEL: dict[Band, float] = {"VIS": 1.0e-4, "Y": 0.02, "J": 0.02, "H": 0.02}
_HALF_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_ELEMENTS = 200_000  # grid points drawn at once: the temporaries stay within the cache
#: Samples per pixel side of the first pass, without and with a lens, and where that is too coarse.
_COARSE, _COARSE_LENSED, _FINE = 1, 2, 10
#: ... and in the four pixels about the centre of an unlensed profile with a cusp (Sérsic index above 1.5).
_FINEST, _CUSP_INDEX = 32, 1.5
#: Softening length in units of the sampling step: a sample that falls on a cusp would stand for its whole cell, and with a
#: tenth of the step the mean over all phases is right.
_CUSP_SOFTENING = 0.1
_NO_SOFTENING = 1.0e-4  # arcsec; not zero, for the arms' logarithm
#: A pixel is drawn again where its second differences exceed this share of the component's peak: the mean over a pixel differs
#: from the value at its middle by a 24th of them.
_CURVATURE = 0.005


@dataclass(frozen=True)
class Raster:
    """A pixel grid in the plane of the scene.

    ``x0, y0``: position of the centre of pixel (0, 0), arcsec. ``scale``: pixel side, arcsec.
    """

    nx: int
    ny: int
    x0: float
    y0: float
    scale: float


def centred_raster(pixels: int, scale: float) -> Raster:
    """A square raster whose middle is the origin: a pixel corner for even ``pixels``."""
    start = -0.5 * (pixels - 1) * scale
    return Raster(pixels, pixels, start, start, scale)


@dataclass(frozen=True)
class _Stamp:
    image: int
    component: Component
    column: int  #: first pixel of the stamp in the raster; may lie outside
    row: int
    half: int


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
    xp = array_namespace(np.zeros(1) if like is None else like)
    out = xp.zeros((len(scenes), len(bands), raster.ny, raster.nx), dtype=xp.float32)

    def asarray(values: Any) -> Any:
        return xp.asarray(values, dtype=xp.float32)

    channels = [BANDS.index(band) for band in bands]
    for stamps, light in _drawn(scenes, raster, bands, asarray):
        for stamp, pixels in zip(stamps, light, strict=True):
            _add(out[stamp.image], stamp, pixels, [stamp.component.flux[channel] for channel in channels])
    return out


def _drawn(
    scenes: Sequence[Sequence[Component]], raster: Raster, bands: Sequence[Band], asarray: Callable[[Any], Any]
) -> Iterator[tuple[list[_Stamp], Any]]:
    groups: dict[tuple[int, int, int], list[_Stamp]] = defaultdict(list)
    for image, components in enumerate(scenes):
        for component in components:
            stamp = None if component.kind is Kind.POINT else _stamp(image, component, raster, bands)
            if stamp is not None:
                planes = 0 if component.seen_through is None else len(component.seen_through.lenses)
                groups[planes, stamp.half, int(component.kind)].append(stamp)
    for key in sorted(groups):
        planes, half, _ = key
        samples = _COARSE_LENSED if planes else _COARSE
        step = max(1, _ELEMENTS // (2 * half * samples) ** 2)
        for start in range(0, len(groups[key]), step):
            part = groups[key][start : start + step]
            yield part, _light(part, raster, samples, asarray)


def _stamp(image: int, component: Component, raster: Raster, bands: Sequence[Band]) -> _Stamp | None:
    ratio = max(abs(component.flux[BANDS.index(band)]) / FAINT_LEVEL[band] for band in bands) * 0.01
    if ratio <= 0.0:
        return None
    reach = extent_radius(component, 1.0 / ratio)
    x, y = component.x, component.y
    if component.seen_through is not None:
        # An image lies at most θ_E (stretched by ellipticity and shear) further out than its source, as seen from the lens.
        lenses, (x, y) = component.seen_through.lenses, (component.seen_through.lenses[0].x, component.seen_through.lenses[0].y)
        bent = sum(lens.theta_e / math.sqrt(lens.q) for lens in lenses)
        reach = 1.25 * bent + 1.1 * (math.hypot(component.x - x, component.y - y) + reach)
    reach /= raster.scale
    half = next((size for size in _HALF_SIZES if size >= reach + 1.0), _HALF_SIZES[-1])
    # The stamp's middle is the pixel corner nearest to the centre.
    column = math.floor((x - raster.x0) / raster.scale + 1.0) - half
    row = math.floor((y - raster.y0) / raster.scale + 1.0) - half
    if column >= raster.nx or row >= raster.ny or column + 2 * half <= 0 or row + 2 * half <= 0:
        return None
    return _Stamp(image, component, column, row, half)


def _light(stamps: list[_Stamp], raster: Raster, samples: int, asarray: Callable[[Any], Any]) -> Any:
    """Share of the components' flux in the pixels of their stamps, (K, n, n)."""
    size, scale = 2 * stamps[0].half, raster.scale
    shape = profiles([stamp.component for stamp in stamps], asarray)
    sightline = _sightlines(stamps, asarray)
    # Offsets of each stamp's first pixel from the component, in double precision before they become float32.
    x0 = asarray([[[raster.x0 + stamp.column * scale - stamp.component.x]] for stamp in stamps])
    y0 = asarray([[[raster.y0 + stamp.row * scale - stamp.component.y]] for stamp in stamps])
    grid = asarray([((k + 0.5) / samples - 0.5) * scale for k in range(size * samples)])
    x, y = x0 + grid[None, None, :], y0 + grid[None, :, None]
    light = _bin(_sample(x, y, shape, sightline, _NO_SOFTENING), samples)
    xp = array_namespace(light)
    stamp, row, column = xp.nonzero(_too_coarse(light, widen=sightline is not None))
    light[stamp, row, column] = _redraw(stamp, row, column, _FINE, (x0, y0, scale), shape, sightline, asarray)
    if sightline is None:
        half = size // 2
        cusps = [k for k, item in enumerate(stamps) if item.component.index > _CUSP_INDEX]
        where = [(k, row, column) for k in cusps for row in (half - 1, half) for column in (half - 1, half)]
        if where:
            stamp, row, column = (xp.asarray(values) for values in zip(*where, strict=True))
            light[stamp, row, column] = _redraw(stamp, row, column, _FINEST, (x0, y0, scale), shape, sightline, asarray)
    return light * scale**2


def _redraw(
    stamp: Any,
    row: Any,
    column: Any,
    samples: int,
    frame: tuple[Any, Any, float],
    shape: Profiles,
    sightline: Sightline | None,
    asarray: Callable[[Any], Any],
) -> Any:
    """Mean surface brightness (P,) of single pixels, ``samples`` a side; ``frame``: the stamps' first pixels, and the scale."""
    x0, y0, scale = frame
    fine = asarray([((k + 0.5) / samples - 0.5) * scale for k in range(samples)])
    x = x0[stamp] + (asarray(column) * scale)[:, None, None] + fine[None, None, :]
    y = y0[stamp] + (asarray(row) * scale)[:, None, None] + fine[None, :, None]
    through = None if sightline is None else sightline.take(stamp)
    light = _sample(x, y, shape.take(stamp), through, _CUSP_SOFTENING * scale / samples)
    return array_namespace(light).mean(light, axis=(1, 2))


def _sightlines(stamps: list[_Stamp], asarray: Callable[[Any], Any]) -> Sightline | None:
    """The stamps' sightlines as one of arrays (K, 1, 1), placed relative to the components; None where there are none."""
    through = [
        (sightline.moved(-stamp.component.x, -stamp.component.y))
        for stamp in stamps
        if (sightline := stamp.component.seen_through) is not None
    ]
    if not through:
        return None

    def column(values: list[Any]) -> Any:
        return asarray([[[value]] for value in values])

    lenses = tuple(
        Lens(**{name: column([getattr(line.lenses[plane], name) for line in through]) for name in vars(through[0].lenses[0])})
        for plane in range(len(through[0].lenses))
    )
    return Sightline(lenses, tuple(column(list(values)) for values in zip(*(line.couplings for line in through), strict=True)))


def _sample(x: Any, y: Any, shape: Profiles, sightline: Sightline | None, softening: float) -> Any:
    """Surface brightness at image-plane offsets from the (unlensed) component; ``sightline`` is placed relative to it."""
    if sightline is not None:
        x, y = trace(x, y, sightline)
    return surface_brightness(x, y, shape, softening)


def _too_coarse(light: Any, widen: bool) -> Any:
    """(K, n, n) bool: pixels whose light varies too much within them; ``widen`` by a pixel all around."""
    xp = array_namespace(light)
    curvature = xp.zeros_like(light)
    curvature[:, :, 1:-1] = xp.abs(light[:, :, 2:] + light[:, :, :-2] - 2.0 * light[:, :, 1:-1])
    curvature[:, 1:-1, :] += xp.abs(light[:, 2:, :] + light[:, :-2, :] - 2.0 * light[:, 1:-1, :])
    coarse = curvature > _CURVATURE * xp.max(light, axis=(1, 2), keepdims=True)
    if widen:
        wide = xp.asarray(coarse, copy=True)
        wide[:, 1:, :] |= coarse[:, :-1, :]
        wide[:, :-1, :] |= coarse[:, 1:, :]
        coarse = xp.asarray(wide, copy=True)
        coarse[:, :, 1:] |= wide[:, :, :-1]
        coarse[:, :, :-1] |= wide[:, :, 1:]
    return coarse


def _bin(light: Any, samples: int) -> Any:
    """Mean over samples×samples blocks of the last two axes."""
    if samples == 1:
        return light
    xp = array_namespace(light)
    k, ny, nx = light.shape
    return xp.mean(xp.reshape(light, (k, ny // samples, samples, nx // samples, samples)), axis=(2, 4))


def _add(image: Any, stamp: _Stamp, pixels: Any, flux: Sequence[float]) -> None:
    """Add a stamp, clipped at the raster's edges, to all bands of one image."""
    ny, nx = image.shape[-2:]
    size = 2 * stamp.half
    left, bottom = max(0, -stamp.column), max(0, -stamp.row)
    right, top = min(size, nx - stamp.column), min(size, ny - stamp.row)
    part = pixels[bottom:top, left:right]
    rows, columns = slice(stamp.row + bottom, stamp.row + top), slice(stamp.column + left, stamp.column + right)
    for channel, value in enumerate(flux):
        image[channel, rows, columns] += value * part
