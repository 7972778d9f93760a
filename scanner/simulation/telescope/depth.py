"""How uneven a cutout's sky is: what background subtraction left, and where fewer dithered exposures overlap.

In: a random generator and the detectors' orientation. Out: one plane a band, one line a camera; and maps of both for batches
of cutouts, numpy or torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.random import Generator

from scanner.records import BANDS, VIS_PIXEL_SCALE_ARCSEC
from scanner.simulation.telescope.artefacts import ONE_SIGMA

#: What background subtraction leaves, σ of the sky in the cutouts' pixels: scatter of its mean, and of its change over 10".
_LEFT_SIGMA = {"VIS": 0.03, "Y": 0.2, "J": 0.2, "H": 0.2}
#: ... and its mean: subtraction takes the wings of the field's galaxies for background.
_LEFT_MEAN_SIGMA = {"VIS": -0.07, "Y": 0.0, "J": 0.0, "H": 0.0}
_SLOPE_PIXELS = 100.0
#: Share of cutouts across which the number of dithered exposures changes, and what is left of four.
_SHALLOW_FRACTION = 0.15
_EXPOSURES, _EXPOSURES_LEFT = 4, (3, 3, 2)


@dataclass(frozen=True)
class Background:
    """What background subtraction left in one band: a plane. Image units per 0.1" pixel; slopes per pixel along x and y."""

    level: float
    slope_x: float
    slope_y: float


@dataclass(frozen=True)
class Shallow:
    """A half-plane that fewer exposures cover.

    Beyond the line through ``(x, y)`` (arcsec from the centre), on the side that ``angle`` (radians) points to, the sky's noise
    is ``factor`` times larger.
    """

    x: float
    y: float
    angle: float
    factor: float


def draw_background(rng: Generator, factor: float = 1.0) -> tuple[Background, ...]:
    """One plane a band, VIS, Y, J, H; ``factor``: on all of them."""
    drawn = []
    for band, one_sigma in zip(BANDS, ONE_SIGMA, strict=True):
        level, x, y = (float(value) * factor * _LEFT_SIGMA[band] * one_sigma for value in rng.standard_normal(3))
        drawn.append(Background(level + _LEFT_MEAN_SIGMA[band] * one_sigma, x / _SLOPE_PIXELS, y / _SLOPE_PIXELS))
    return tuple(drawn)


def draw_shallow(rng: Generator, roll: float) -> Shallow | None:
    """The edge of a detector across the cutout, parallel to the detector's rows or columns; for most cutouts none."""
    x, y = (float(value) for value in rng.uniform(-10.0, 10.0, 2))
    angle, left = roll + 0.5 * math.pi * int(rng.integers(4)), int(rng.choice(_EXPOSURES_LEFT))
    return Shallow(x, y, angle, math.sqrt(_EXPOSURES / left)) if rng.random() < _SHALLOW_FRACTION else None


def planes(backgrounds: Sequence[Sequence[Background]], pixels: int, samples: int, like: Any) -> Any:
    """Backgrounds of N cutouts in B bands, (N, B, pixels, pixels) float32, in pixels of ``samples`` 0.1" pixels a side."""
    steps = samples * (np.arange(pixels) - 0.5 * (pixels - 1))
    # A pixel of several 0.1" pixels holds their sum.
    drawn = np.array([[(item.level, item.slope_y, item.slope_x) for item in bands] for bands in backgrounds]) * samples**2
    rows = (drawn[..., :1] + drawn[..., 1:2] * steps).astype(np.float32)
    columns = (drawn[..., 2:] * steps).astype(np.float32)
    xp = array_namespace(like)
    up, right = (xp.asarray(values, device=device(like)) for values in (rows, columns))
    return up[..., :, None] + right[..., None, :]


def noise_factors(shallows: Sequence[Shallow | None], pixels: int, samples: int, like: Any) -> Any:
    """Factors on the sky's noise of N cutouts, (N, pixels, pixels) float32, or (N, 1, 1) where all are even."""
    even = all(item is None for item in shallows)
    factors = np.ones((len(shallows), *((1, 1) if even else (pixels, pixels))), dtype=np.float32)
    steps = samples * VIS_PIXEL_SCALE_ARCSEC * (np.arange(pixels) - 0.5 * (pixels - 1))
    for factor, item in zip(factors, shallows, strict=True):
        if item is not None:
            c, s = math.cos(item.angle), math.sin(item.angle)
            factor[c * (steps - item.x)[None, :] + s * (steps - item.y)[:, None] > 0.0] = item.factor
    return array_namespace(like).asarray(factors, device=device(like))
