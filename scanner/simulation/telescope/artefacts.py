"""What spoils an image: bright stars and their spikes, cosmic rays, gradients, dead pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.random import Generator

from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC, Band, Float32
from scanner.simulation.telescope.noise import SKY_SIGMA
from scanner.simulation.telescope.psf import Psf

_VIS, _NISP = (0,), (1, 2, 3)
_SINGLE_NISP = ((1,), (2,), (3,))
#: Signal per 0.1" pixel that makes one σ of the sky in a pixel of the cutouts (0.1" in VIS, 0.3" in NISP).
ONE_SIGMA = tuple(SKY_SIGMA[band] / (1.0 if band == "VIS" else 9.0) for band in BANDS)
#: Artefacts are drawn over the square of the cutout and its margin.
HALF_SIDE_ARCSEC = 12.0
_GHOST_HOLE = 0.35  # of the radius: the shadow of the secondary mirror
_BLOB_REACH = 4.5  # widths


class ArtefactKind(StrEnum):
    """What an artefact is."""

    GHOST = "ghost"  #: out-of-focus image of a bright star: a disc with a hole
    GRADIENT = "gradient"  #: stray light: a patch wider than a cutout can show, in all bands
    COSMIC_RAY = "cosmic_ray"  #: VIS: what is left of a particle's track
    CLUMP = "clump"  #: NISP: a few pixels of a particle or of a noisy pixel, smeared by resampling
    HOT_PIXEL = "hot_pixel"  #: VIS: one pixel too bright or too dark
    BAD_COLUMN = "bad_column"  #: a detector column or row a little off
    PERSISTENCE = "persistence"  #: NISP: the after-image of a bright star that was there in an earlier exposure
    TRAIL = "trail"  #: what is left of a satellite's trail


@dataclass(frozen=True)
class Artefact:
    """One artefact.

    ``channels``: bands it is in, as indices of VIS, Y, J, H. ``x, y``: arcsec from the centre. ``strength``: peak in σ of the
    sky in the cutout's pixels, negative where light is missing. ``length``: of a line, or the radius of a ghost, arcsec.
    ``width``: Gaussian σ of a line or blob, or of a ghost's edge, arcsec. ``angle``: of a line, radians from +x to +y.
    """

    kind: ArtefactKind
    channels: tuple[int, ...]
    x: float
    y: float
    strength: float
    length: float
    width: float
    angle: float


@dataclass(frozen=True)
class _Recipe:
    """``rate``: mean number in a cutout and its margin. Ranges are log-uniform. ``along``: lines follow the detector."""

    rate: float
    channels: tuple[tuple[int, ...], ...]
    strength: tuple[float, float]
    length: tuple[float, float]
    width: tuple[float, float]
    signed: bool = False
    along: bool = False


_RECIPES: dict[ArtefactKind, _Recipe] = {
    ArtefactKind.GHOST: _Recipe(0.015, (_VIS, _VIS, _NISP), (0.3, 4.0), (2.0, 8.0), (0.1, 0.3)),
    ArtefactKind.GRADIENT: _Recipe(0.05, (_VIS + _NISP,), (0.3, 3.0), (1.0, 1.0), (5.0, 20.0)),
    ArtefactKind.COSMIC_RAY: _Recipe(0.05, (_VIS,), (3.0, 60.0), (0.2, 6.0), (0.05, 0.08)),
    ArtefactKind.CLUMP: _Recipe(0.12, _SINGLE_NISP, (2.0, 30.0), (1.0, 1.0), (0.12, 0.2), signed=True),
    ArtefactKind.HOT_PIXEL: _Recipe(0.05, (_VIS,), (4.0, 80.0), (1.0, 1.0), (0.045, 0.06), signed=True),
    ArtefactKind.BAD_COLUMN: _Recipe(
        0.015, (_VIS, *_SINGLE_NISP), (0.7, 6.0), (5.0, 60.0), (0.05, 0.15), signed=True, along=True
    ),
    ArtefactKind.PERSISTENCE: _Recipe(0.02, (*_SINGLE_NISP, _NISP), (1.0, 12.0), (1.0, 1.0), (0.3, 0.9)),
    ArtefactKind.TRAIL: _Recipe(0.006, (_VIS, _VIS, _NISP), (0.5, 6.0), (100.0, 100.0), (0.1, 0.5)),
}
#: What may lie on an object on purpose, and how strong and large it is there at least and at most.
_ON_OBJECT: dict[ArtefactKind, tuple[tuple[float, float], tuple[float, float]]] = {
    ArtefactKind.GHOST: ((3.0, 12.0), (0.8, 3.5)),
    ArtefactKind.COSMIC_RAY: ((15.0, 150.0), (0.6, 6.0)),
    ArtefactKind.CLUMP: ((12.0, 60.0), (1.0, 1.0)),
    ArtefactKind.HOT_PIXEL: ((30.0, 300.0), (1.0, 1.0)),
    ArtefactKind.BAD_COLUMN: ((4.0, 15.0), (8.0, 60.0)),
    ArtefactKind.PERSISTENCE: ((8.0, 40.0), (1.0, 1.0)),
    ArtefactKind.TRAIL: ((5.0, 25.0), (100.0, 100.0)),
}
_ON_OBJECT_ARCSEC = 0.7


def draw_artefacts(rng: Generator, roll: float, area: float = (2.0 * HALF_SIDE_ARCSEC) ** 2) -> tuple[Artefact, ...]:
    """Artefacts of a square of ``area`` square arcsec about the origin, in the numbers that real images have left.

    Parameters
    ----------
    rng
        Random numbers.
    roll
        Direction of the detectors' rows, radians.
    area
        As many artefacts per area as in a cutout and its margin; positions are uniform over the square.
    """
    half = 0.5 * math.sqrt(area)
    found = []
    for kind, recipe in _RECIPES.items():
        for _ in range(rng.poisson(recipe.rate * area / (2.0 * HALF_SIDE_ARCSEC) ** 2)):
            x, y = rng.uniform(-half, half, 2)
            found.append(_draw(rng, kind, (float(x), float(y)), recipe.strength, recipe.length, roll))
    return tuple(found)


def draw_on_object(rng: Generator, roll: float, x: float = 0.0, y: float = 0.0) -> tuple[Artefact, ...]:
    """One or two conspicuous artefacts within 0.7" of ``(x, y)`` (arcsec): enough to be taken for arcs, rings or knots."""
    kinds = list(_ON_OBJECT)
    found = []
    for number in rng.choice(len(kinds), size=rng.integers(1, 3), replace=False).tolist():
        kind = kinds[number]
        dx, dy = rng.uniform(-_ON_OBJECT_ARCSEC, _ON_OBJECT_ARCSEC, 2)
        found.append(_draw(rng, kind, (x + float(dx), y + float(dy)), *_ON_OBJECT[kind], roll))
    return tuple(found)


def _draw(
    rng: Generator,
    kind: ArtefactKind,
    place: tuple[float, float],
    strength: tuple[float, float],
    length: tuple[float, float],
    roll: float,
) -> Artefact:
    recipe = _RECIPES[kind]
    sign = -1.0 if recipe.signed and rng.random() < 0.4 else 1.0
    angle = roll + 0.5 * math.pi * rng.integers(0, 2) if recipe.along else rng.uniform(0.0, 2.0 * math.pi)
    return Artefact(
        kind=kind,
        channels=recipe.channels[int(rng.integers(len(recipe.channels)))],
        x=place[0],
        y=place[1],
        strength=sign * _log_uniform(rng, strength),
        length=_log_uniform(rng, length),
        width=_log_uniform(rng, recipe.width),
        angle=float(angle),
    )


def _log_uniform(rng: Generator, limits: tuple[float, float]) -> float:
    return float(limits[0] * (limits[1] / limits[0]) ** rng.random())


def artefact_light(
    shape: tuple[int, int], x: float, y: float, artefact: Artefact, channel: int
) -> tuple[slice, slice, Float32] | None:
    """Light of an artefact on a band's image of 0.1" pixels.

    Parameters
    ----------
    shape
        (ny, nx) of the image.
    x, y
        The artefact's place on it, pixels; may lie outside.
    artefact, channel
        What, and which band the image is (index of VIS, Y, J, H).

    Returns
    -------
    tuple
        Rows, columns, and the light there, image units per 0.1" pixel; None where there is none.
    """
    if channel not in artefact.channels:
        return None
    reach = _reach(artefact) / VIS_PIXEL_SCALE_ARCSEC
    ny, nx = shape
    left, right = math.floor(max(0.0, x - reach)), math.ceil(min(nx, x + reach + 1.0))
    bottom, top = math.floor(max(0.0, y - reach)), math.ceil(min(ny, y + reach + 1.0))
    if right <= left or top <= bottom:
        return None
    scale = VIS_PIXEL_SCALE_ARCSEC
    dx = (scale * (np.arange(left, right) - x)).astype(np.float32)[None, :]
    dy = (scale * (np.arange(bottom, top) - y)).astype(np.float32)[:, None]
    light = np.float32(artefact.strength * ONE_SIGMA[channel]) * _shape(artefact, dx, dy)
    return slice(bottom, top), slice(left, right), light


def add_artefact(image: Any, x: float, y: float, artefact: Artefact, channel: int) -> None:
    """Paint an artefact onto a band's image (ny, nx) of 0.1" pixels, float32, numpy or torch, in place.

    ``x, y, artefact, channel``: as of :func:`artefact_light`.
    """
    found = artefact_light(tuple(image.shape), x, y, artefact, channel)
    if found is not None:
        rows, columns, light = found
        image[rows, columns] += array_namespace(image).asarray(light, device=device(image))


def _reach(artefact: Artefact) -> float:
    """Beyond this distance along x or y there is nothing, arcsec."""
    match artefact.kind:
        case ArtefactKind.GHOST:
            return artefact.length + _BLOB_REACH * artefact.width
        case ArtefactKind.COSMIC_RAY | ArtefactKind.BAD_COLUMN | ArtefactKind.TRAIL:
            return 0.5 * artefact.length + _BLOB_REACH * artefact.width
        case _:
            return _BLOB_REACH * artefact.width


def _shape(artefact: Artefact, dx: Float32, dy: Float32) -> Float32:
    """The artefact's light, of peak one, at offsets in arcsec."""
    c, s = np.float32(math.cos(artefact.angle)), np.float32(math.sin(artefact.angle))
    width = np.float32(artefact.width)
    match artefact.kind:
        case ArtefactKind.GHOST:
            r = np.sqrt(dx * dx + dy * dy)
            rim, hole = np.float32(artefact.length), np.float32(_GHOST_HOLE * artefact.length)
            return np.asarray(0.25 * (1.0 + np.tanh((rim - r) / width)) * (1.0 + np.tanh((r - hole) / width)))
        case ArtefactKind.COSMIC_RAY | ArtefactKind.BAD_COLUMN | ArtefactKind.TRAIL:
            along, across = c * dx + s * dy, c * dy - s * dx
            ends = np.clip((np.float32(0.5 * artefact.length) - np.abs(along)) / width + np.float32(0.5), 0.0, 1.0)
            return np.asarray(ends * np.exp(np.float32(-0.5) * (across / width) ** 2), dtype=np.float32)
        case _:
            return np.asarray(np.exp(np.float32(-0.5) * (dx * dx + dy * dy) / width**2), dtype=np.float32)


#: Pixel value at which the detector saturates: VIS per 0.1" pixel, NISP per 0.3" pixel.
SATURATION: dict[Band, float] = {"VIS": 40.0, "Y": 6000.0, "J": 6000.0, "H": 6000.0}
_BRIGHT_MAGNITUDE = 19.5
_CORE_REACH_PIXELS = 24  # beyond it the PSF holds 3e-4 of the flux
_LARGEST_REACH_PIXELS = 200
#: VIS charge above saturation runs along the columns, half of it each way, in a trail of this Gaussian width.
_TRAIL_WIDTH_PIXELS = 0.7
_LONGEST_TRAIL_PIXELS = 120.0


@dataclass(frozen=True)
class Star:
    """A point source: place in arcsec from the middle of the image, flux in VIS, Y, J, H (image units)."""

    x: float
    y: float
    flux: tuple[float, float, float, float]


def add_star(images: Any, x: float, y: float, fluxes: Sequence[float], psfs: Psf, magnitude: float, roll: float) -> None:
    """Add a star at pixel ``(x, y)`` to the images (C, ny, nx) of C bands; bright ones get a halo and six spikes.

    Halo and spikes hold 3% and 0.5% of the flux: enough to be seen beside stars that saturate.

    Parameters
    ----------
    images
        float32, changed in place.
    fluxes, psfs
        Of the C bands; the PSFs stacked.
    magnitude
        VIS magnitude: how far light is drawn.
    roll
        Of the telescope, radians: the direction of the spikes.
    """
    scale = np.asarray(fluxes, dtype=np.float32)[:, None, None]
    window = _window(images, x, y, _CORE_REACH_PIXELS)
    if window is not None:
        rows, columns, dx, dy = window
        _add(images[:, rows, columns], scale * psfs.values(dx, dy))
    if magnitude < _BRIGHT_MAGNITUDE:
        half = min(_LARGEST_REACH_PIXELS, int(50 * 10 ** (0.15 * (_BRIGHT_MAGNITUDE - magnitude))))
        window = _window(images, x, y, half)
        if window is not None:
            rows, columns, dx, dy = window
            _add(images[:, rows, columns], scale * _halo_and_spikes(dx, dy, roll, half))


def add_bleeding(image: Any, x: float, y: float, flux: float, psf: Psf, columns_angle: float) -> None:
    """Add the trail of a star that saturates in VIS: charge of its core beyond saturation, along the detector's columns.

    Parameters
    ----------
    image
        (ny, nx) float32 of VIS, changed in place; trails are as bright as saturation and end where their charge does.
    x, y, flux, psf
        Of the star: pixels, image units; its VIS PSF.
    columns_angle
        Direction of the columns, radians.
    """
    if flux * float(psf.values(0.0, 0.0)) <= SATURATION["VIS"]:
        return
    offsets = np.arange(-_CORE_REACH_PIXELS, _CORE_REACH_PIXELS + 1, dtype=np.float32)
    core = np.float32(flux) * psf.values(offsets[None, :], offsets[:, None])
    excess = float(np.maximum(core - SATURATION["VIS"], 0.0).sum())
    per_length = SATURATION["VIS"] * math.sqrt(2.0 * math.pi) * _TRAIL_WIDTH_PIXELS
    half = min(0.5 * excess / per_length, _LONGEST_TRAIL_PIXELS)
    window = _window(image, x, y, half + 3.0)
    if window is None:
        return
    rows, columns, dx, dy = window
    c, s = np.float32(math.cos(columns_angle)), np.float32(math.sin(columns_angle))
    along, across = np.abs(c * dx + s * dy), c * dy - s * dx
    ends = np.clip(np.float32(half + 0.5) - along, 0.0, 1.0)
    trail = np.exp(np.float32(-0.5 / _TRAIL_WIDTH_PIXELS**2) * across * across) * ends
    _add(image[rows, columns], np.float32(SATURATION["VIS"]) * trail)


def _halo_and_spikes(dx: Float32, dy: Float32, roll: float, half: int) -> Float32:
    """Share of the flux in the pixels; ``half``: where both have faded, pixels."""
    r2 = dx * dx + dy * dy
    taper = np.clip(np.float32(2.0) - np.sqrt(r2) * np.float32(2.0 / half), 0.0, 1.0)
    light = np.float32(0.03 * 0.5 / (math.pi * 36.0)) * (np.float32(1.0) + r2 / np.float32(36.0)) ** np.float32(-1.5)
    for turn in range(3):
        c, s = (np.float32(part(roll + turn * math.pi / 3.0)) for part in (math.cos, math.sin))
        along, across = np.abs(c * dx + s * dy), c * dy - s * dx
        decline = (np.float32(1.0) + along / np.float32(4.0)) ** np.float32(-1.5)
        light += np.float32(0.00012) * np.exp(np.float32(-0.5 / 0.9**2) * across * across) * decline
    return np.asarray(light * taper, dtype=np.float32)


def _window(images: Any, x: float, y: float, reach: float) -> tuple[slice, slice, Float32, Float32] | None:
    """Rows and columns within ``reach`` pixels of ``(x, y)``, and their offsets from it; None where there are none."""
    ny, nx = images.shape[-2:]
    left, right = max(0, math.floor(x - reach)), min(nx, math.ceil(x + reach) + 1)
    bottom, top = max(0, math.floor(y - reach)), min(ny, math.ceil(y + reach) + 1)
    if right <= left or top <= bottom:
        return None
    dx = (np.arange(left, right) - x).astype(np.float32)[None, :]
    dy = (np.arange(bottom, top) - y).astype(np.float32)[:, None]
    return slice(bottom, top), slice(left, right), dx, dy


def _add(part: Any, light: Float32) -> None:
    part += array_namespace(part).asarray(light, device=device(part))
