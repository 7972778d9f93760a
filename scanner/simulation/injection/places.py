"""Places in a tile where something can be painted.

In: what was measured of a tile's objects. Out: :class:`Places`: deflectors, other galaxies, empty sky. Nothing is refused.

Empty places are points of a 4" lattice with no object within 2.5". Around all places at least three quarters of a cutout's
pixels are good in every band, and all of the central ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.wcs.utils import pixel_to_skycoord
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Float64, Targets
from scanner.simulation.injection.measured_objects import MeasuredObjects, measure_objects
from scanner.sky.targets import grid_positions
from scanner.sky.tile_images import TileImages
from scanner.sphere import healpix_29

DEFLECTOR, GALAXY, EMPTY = 0, 1, 2
_EMPTY_STEP_ARCSEC, _EMPTY_RADIUS_ARCSEC = 4.0, 2.5
#: Points of the lattice that are looked at together.
_AT_ONCE = 256


@dataclass(frozen=True)
class Places:
    """Places of one tile, (P,) each: ``kind`` (DEFLECTOR, GALAXY, EMPTY), position; of objects magnitude, VIS - H, shape."""

    kind: NDArray[np.int8]
    target_id: NDArray[np.int64]
    ra: Float64
    dec: Float64
    x: Float64
    y: Float64
    magnitude: Float64
    colour: Float64
    q: Float64
    angle: Float64

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, index: NDArray[Any]) -> Places:
        """Select by an index array."""
        return Places(**{name: values[index] for name, values in vars(self).items()})


def places_of(objects: MeasuredObjects, chosen: NDArray[np.bool_], kind: int) -> Places:
    """The chosen objects as places of a kind."""
    targets = objects.targets.take(chosen)
    return Places(
        np.full(len(targets), kind, dtype=np.int8),
        targets.target_id,
        targets.ra,
        targets.dec,
        targets.x,
        targets.y,
        objects.magnitude[chosen],
        objects.colour[chosen],
        objects.q[chosen],
        objects.angle[chosen],
    )


def empty_places(images: TileImages, targets: Targets, most: int, seed: list[int]) -> Places:
    """Points of a lattice far from every object, in a random order, at most ``most`` of them."""
    x, y = grid_positions(images.vis.shape, images.vis.pixel_scale_arcsec, _EMPTY_STEP_ARCSEC)
    if len(targets):
        distance, _ = cKDTree(np.stack([targets.x, targets.y], axis=1)).query(np.stack([x, y], axis=1))
        far = distance * VIS_PIXEL_SCALE_ARCSEC > _EMPTY_RADIUS_ARCSEC
        x, y = x[far], y[far]
    order = np.random.default_rng(seed).permutation(len(x))
    found: list[Places] = [places_of(measure_objects(images, targets.take(np.arange(0))), np.zeros(0, dtype=bool), EMPTY)]
    for start in range(0, len(order), _AT_ONCE):
        if sum(map(len, found)) >= most:
            break
        some = order[start : start + _AT_ONCE]
        sky = pixel_to_skycoord(x[some], y[some], images.vis.wcs).icrs
        ra, dec = np.asarray(sky.ra.deg), np.asarray(sky.dec.deg)
        here = Targets(healpix_29(ra, dec), ra, dec, x[some], y[some], np.full(len(some), np.nan, dtype=np.float32))
        objects = measure_objects(images, here)
        found.append(places_of(objects, objects.good, EMPTY))
    return joined(found).take(np.arange(min(most, sum(map(len, found)))))


def joined(parts: Sequence[Places]) -> Places:
    """Places of several kinds or tiles as one."""
    return Places(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))
