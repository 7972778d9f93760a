"""From components to noiseless pixels, before the telescope: one renderer for cutouts and for mosaics.

In: lists of :class:`~scanner.simulation.galaxies.Component`, one list an image, and a :class:`Raster` that says where the
pixels lie. Out: images (N, bands, ny, nx) float32 whose pixels hold the flux that falls into them. Stars are left out:
the telescope draws them exactly, after convolution (:mod:`scanner.simulation.instrument`).

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
from scanner.simulation.galaxies import Component, Kind, extent_radius, profiles, surface_brightness
from scanner.simulation.lens import Lens, deflection

#: Surface brightness at which stamps end, image units per 0.01 arcsec²: about 4% of the sky σ of one VIS or NISP 0.1" pixel.
FAINT_LEVEL: dict[Band, float] = {"VIS": 1.0e-4, "Y": 0.02, "J": 0.02, "H": 0.02}
_HALF_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_ELEMENTS = 200_000  # grid points drawn at once: the temporaries stay within the cache
_CORE_HALF_SIZE = 4
_CORE_SAMPLES = 5
#: Below this minor-axis scale (arcsec) a profile changes too much within a 0.1" pixel to be sampled at pixel centres.
_THIN_ARCSEC = 0.16
_THIN_SAMPLES = 3
_ARC_SAMPLES = 2


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
    plain: dict[tuple[int, int, int], list[_Stamp]] = defaultdict(list)
    lensed: dict[tuple[int, int], list[_Stamp]] = defaultdict(list)
    for image, components in enumerate(scenes):
        for component in components:
            if component.kind is Kind.POINT:
                continue
            stamp = _stamp(image, component, raster, bands)
            if stamp is None:
                continue
            if component.lens is None:
                plain[_samples(component), stamp.half, int(component.kind)].append(stamp)
            else:
                lensed[stamp.half, int(component.kind)].append(stamp)
    for samples, half, _ in sorted(plain):
        group = plain[samples, half, _]
        step = max(1, _ELEMENTS // (2 * half * samples) ** 2)
        for start in range(0, len(group), step):
            part = group[start : start + step]
            yield part, _plain_light(part, raster, samples, asarray)
    for half, _ in sorted(lensed):
        group = lensed[half, _]
        step = max(1, _ELEMENTS // (2 * half * _ARC_SAMPLES) ** 2)
        for start in range(0, len(group), step):
            part = group[start : start + step]
            yield part, _lensed_light(part, raster, asarray)


def _samples(component: Component) -> int:
    scale = component.q * (component.width if component.kind is Kind.ANNULUS else component.radius)
    return _THIN_SAMPLES if scale < _THIN_ARCSEC else 1


def _stamp(image: int, component: Component, raster: Raster, bands: Sequence[Band]) -> _Stamp | None:
    ratio = max(abs(component.flux[BANDS.index(band)]) / FAINT_LEVEL[band] for band in bands) * 0.01
    if ratio <= 0.0:
        return None
    reach = extent_radius(component, 1.0 / ratio)
    lens = component.lens
    x, y = component.x, component.y
    if lens is not None:
        # An image lies at most θ_E (stretched by ellipticity and shear) further out than its source, as seen from the lens.
        reach = 1.25 * lens.theta_e / math.sqrt(lens.q) + 1.1 * (math.hypot(x - lens.x, y - lens.y) + reach)
        x, y = lens.x, lens.y
    reach /= raster.scale
    half = next((size for size in _HALF_SIZES if size >= reach + 1.0), _HALF_SIZES[-1])
    # The stamp's middle is the pixel corner nearest to the centre.
    column = math.floor((x - raster.x0) / raster.scale + 1.0) - half
    row = math.floor((y - raster.y0) / raster.scale + 1.0) - half
    if column >= raster.nx or row >= raster.ny or column + 2 * half <= 0 or row + 2 * half <= 0:
        return None
    return _Stamp(image, component, column, row, half)


def _axes(stamps: list[_Stamp], raster: Raster, samples: int, first: int, pixels: int, asarray: Callable[[Any], Any]) -> Any:
    """Offsets (K, 1, n) and (K, n, 1) from the component (or its lens), of sub-pixels of ``pixels`` pixels from ``first``."""
    offsets = []
    for stamp in stamps:
        centre = stamp.component if stamp.component.lens is None else stamp.component.lens
        offsets.append(
            (
                raster.x0 + (stamp.column + first) * raster.scale - centre.x,
                raster.y0 + (stamp.row + first) * raster.scale - centre.y,
            )
        )
    fine = [((k + 0.5) / samples - 0.5) * raster.scale for k in range(pixels * samples)]
    grid = asarray(fine)
    x = asarray([[[offset[0]]] for offset in offsets]) + grid[None, None, :]
    y = asarray([[[offset[1]]] for offset in offsets]) + grid[None, :, None]
    return x, y


def _bin(light: Any, samples: int) -> Any:
    """Mean over samples×samples blocks of the last two axes."""
    xp = array_namespace(light)
    if samples == 1:
        return light
    k, ny, nx = light.shape
    return xp.mean(xp.reshape(light, (k, ny // samples, samples, nx // samples, samples)), axis=(2, 4))


def _plain_light(stamps: list[_Stamp], raster: Raster, samples: int, asarray: Callable[[Any], Any]) -> Any:
    shape = profiles([stamp.component for stamp in stamps], asarray)
    half = stamps[0].half
    area = raster.scale**2

    def light(samples: int, first: int, pixels: int) -> Any:
        x, y = _axes(stamps, raster, samples, first, pixels, asarray)
        return _bin(surface_brightness(x, y, shape, softening=0.2 * raster.scale / samples), samples) * area

    pixels = light(samples, 0, 2 * half)
    if shape.kind is not Kind.ANNULUS:
        core = slice(half - _CORE_HALF_SIZE, half + _CORE_HALF_SIZE)
        pixels[:, core, core] = light(_CORE_SAMPLES, half - _CORE_HALF_SIZE, 2 * _CORE_HALF_SIZE)
    return pixels


def _lensed_light(stamps: list[_Stamp], raster: Raster, asarray: Callable[[Any], Any]) -> Any:
    shape = profiles([stamp.component for stamp in stamps], asarray)
    lenses: list[Lens] = [stamp.component.lens for stamp in stamps if stamp.component.lens is not None]
    x, y = _axes(stamps, raster, _ARC_SAMPLES, 0, 2 * stamps[0].half, asarray)

    def column(values: list[float]) -> Any:
        return asarray([[[value]] for value in values])

    zeros = column([0.0 for _ in lenses])
    theta_e, q, angle, gamma1, gamma2 = (
        column([getattr(item, name) for item in lenses]) for name in ("theta_e", "q", "angle", "gamma1", "gamma2")
    )
    lens = Lens(theta_e=theta_e, q=q, angle=angle, x=zeros, y=zeros, gamma1=gamma1, gamma2=gamma2)
    alpha_x, alpha_y = deflection(x, y, lens)
    source_x = column([stamp.component.x - item.x for stamp, item in zip(stamps, lenses, strict=True)])
    source_y = column([stamp.component.y - item.y for stamp, item in zip(stamps, lenses, strict=True)])
    light = surface_brightness(
        x - alpha_x - source_x, y - alpha_y - source_y, shape, softening=0.2 * raster.scale / _ARC_SAMPLES
    )
    return _bin(light, _ARC_SAMPLES) * raster.scale**2


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
