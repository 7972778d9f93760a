"""Which object is painted at which place of which tile.

In: the places of all tiles and a request. Out: :class:`Plan`, one row an object, tile after tile. Refused
(:class:`~scanner.errors.UsageError`): more objects than there are places of the kinds that they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scanner.errors import UsageError
from scanner.simulation.injection.painted_scene import can_use_galaxies, class_shares, kind_of
from scanner.simulation.injection.places import DEFLECTOR, EMPTY, GALAXY, Places, joined
from scanner.simulation.injection.request import InjectionRequest
from scanner.simulation.population.classes import draw_class

#: With ``ground="both"``, share of objects that are painted whole into empty sky.
SKY_SHARE = 0.4
#: In mosaics, painted objects are at least this far from one another, VIS pixels.
_APART_PIXELS = 60.0
_NAMES = {DEFLECTOR: "bright early-type galaxies", GALAXY: "other galaxies", EMPTY: "empty places"}


@dataclass(frozen=True)
class Plan:
    """``tile`` (N,) number of the tile; ``places`` of N rows; ``class_name`` (N,); ``into_sky`` (N,) bool."""

    tile: NDArray[np.int64]
    places: Places
    class_name: tuple[str, ...]
    into_sky: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tile)

    def take(self, rows: range) -> Plan:
        """Some rows."""
        index = np.arange(rows.start, rows.stop)
        names = tuple(self.class_name[k] for k in index.tolist())
        return Plan(self.tile[index], self.places.take(index), names, self.into_sky[index])

    def host(self, row: int) -> tuple[float, float, float, float]:
        """VIS magnitude, VIS - H, axis ratio and position angle of the real galaxy of a row, NaN where there is none."""
        places = self.places
        magnitude, colour, q, angle = (float(v[row]) for v in (places.magnitude, places.colour, places.q, places.angle))
        return magnitude, colour, q, angle


def make_plan(request: InjectionRequest, found: Sequence[Places]) -> Plan:
    """Draw classes and places; every place is used once.

    Parameters
    ----------
    request
        How many, and how drawn.
    found
        Places of each tile.

    Raises
    ------
    UsageError
        Too few places of a kind; the message says how many there are.
    """
    rng = np.random.default_rng([request.seed, 0x706C616E])
    preset = request.drawn_as
    into_sky_share = {"sky": 1.0, "galaxies": 0.0, "both": SKY_SHARE}[request.ground]
    if not can_use_galaxies(preset):
        into_sky_share = 1.0
    shares = {flag: class_shares(preset, flag, painted_only=request.mosaics) for flag in (False, True)}
    into_sky = rng.random(request.n_objects) < into_sky_share
    names = [draw_class(rng, shares[flag]) for flag in into_sky.tolist()]
    kinds = np.array([kind_of(name, flag) for name, flag in zip(names, into_sky.tolist(), strict=True)])
    if request.mosaics:
        found = [_apart(places) for places in found]
    tile = np.concatenate([np.full(len(places), number) for number, places in enumerate(found)])
    pool = joined(found)
    place = np.empty(request.n_objects, dtype=np.int64)
    short = []
    for kind, what in _NAMES.items():
        there, rows = np.flatnonzero(pool.kind == kind), np.flatnonzero(kinds == kind)
        if len(rows) > len(there):
            short.append(f"{len(rows)} {what} are needed and there are {len(there)}")
            continue
        place[rows] = rng.permutation(there)[: len(rows)]
    if short:
        raise UsageError(
            f"--n {request.n_objects} is more than the {len(found)} tiles hold: {'; '.join(short)};"
            " ask for fewer objects, another --ground, or give more tiles."
        )
    order = np.argsort(tile[place], kind="stable")
    return Plan(tile[place][order], pool.take(place[order]), tuple(names[k] for k in order.tolist()), into_sky[order])


def _apart(places: Places) -> Places:
    """Places that keep a distance from all before them: painted objects must not run into one another."""
    pairs = cKDTree(np.stack([places.x, places.y], axis=1)).query_pairs(_APART_PIXELS, output_type="ndarray")
    keep = np.ones(len(places), dtype=bool)
    for first, second in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if keep[first]:
            keep[second] = False
    return places.take(np.flatnonzero(keep))


def columns(plan: Plan) -> dict[str, tuple[str, str, NDArray[Any]]]:
    """Columns of the truth table that tell where an object was painted: unit, description, values."""
    host = plan.places.kind != EMPTY
    unknown = np.full(len(plan), np.nan)
    return {
        "x_pixels": ("pix", "column of the object in the VIS mosaic, 0 in the middle of the first", plan.places.x),
        "y_pixels": ("pix", "row of the object in the VIS mosaic, 0 in the middle of the first", plan.places.y),
        "ra": ("deg", "right ascension of the object", plan.places.ra),
        "dec": ("deg", "declination of the object", plan.places.dec),
        "into_sky": ("", "the whole object is painted into empty sky", plan.into_sky),
        "host_id": ("", "id of the real galaxy; -1 where there is none", np.where(host, plan.places.target_id, -1)),
        "host_magnitude_vis": ("mag(AB)", "VIS magnitude of the real galaxy", np.where(host, plan.places.magnitude, unknown)),
        "host_vis_minus_h": (
            "mag(AB)",
            "VIS - H of the real galaxy within 1 arcsec",
            np.where(host, plan.places.colour, unknown),
        ),
    }
