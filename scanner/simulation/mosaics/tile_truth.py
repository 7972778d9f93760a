"""What simulated tiles really hold: objects with every drawn parameter, and artefacts.

In: the objects of a tile, its telescope, the tiles that may share them. Out: two Arrow tables a tile, whose fields carry
``unit`` and ``description``. An object belongs to the first tile that has it, and names all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from scanner.records import BANDS
from scanner.simulation.mosaics import flags
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.tile_catalogue import in_tile
from scanner.simulation.mosaics.tile_geometry import PLANE, Grid, TileGeometry, to_plane
from scanner.simulation.mosaics.tile_telescope import TileTelescope
from scanner.simulation.population.columns import Column, column, columns_of, getters_of, part, schema
from scanner.simulation.population.object_truth import ObjectLight, ObjectVerdict, object_light, object_verdict
from scanner.simulation.population.system_truth import SECOND, SystemTruth, system_truths
from scanner.simulation.telescope.artefacts import Artefact


@dataclass(frozen=True)
class ObjectTruth:
    """One object of the sky; what does not apply is NaN, zero or False."""

    class_name: str = column("what was drawn")
    verdict: ObjectVerdict = part(ObjectVerdict)
    n_systems: int = column("sources behind a deflector: 0, 1, or 2 in compound lenses")
    light: ObjectLight = part(ObjectLight)
    first: SystemTruth = part(SystemTruth)
    second: SystemTruth = part(SystemTruth, SECOND)


def _on_the_sky(item: Column) -> str:
    """The description of a column where x points west, y north, and places are the object's."""
    text = item.description.replace("the cutout's centre", "the object's place")
    return text.replace("from +x to +y", "from west to north") if item.name == "object_angle" else text


_PLACE = (
    Column("object_id", "int64", "", "number of the object in the field"),
    Column("ra", "float64", "deg", "right ascension, ICRS"),
    Column("dec", "float64", "deg", "declination, ICRS"),
)
_GETTERS = getters_of(ObjectTruth)
_COLUMNS = (
    *_PLACE,
    *(replace(item, description=_on_the_sky(item)) for item in columns_of(ObjectTruth)),
)
_ARTEFACTS = (
    Column("tile_id", "string", "", "tile whose images it is in"),
    Column("kind", "string", "", "kind of the artefact"),
    Column("bands", "string", "", "bands it is in, separated by blanks"),
    Column("flag", "int64", "", "its bit in the FLAG mosaics; 0: it has escaped the flags"),
    Column("ra", "float64", "deg", "right ascension of its middle, ICRS"),
    Column("dec", "float64", "deg", "declination of its middle, ICRS"),
    Column("strength", "float32", "", "peak, in sigma of the sky in a 0.1 arcsec VIS or 0.3 arcsec NISP pixel"),
    Column("length_arcsec", "float32", "arcsec", "length of a line, or radius of a ghost"),
    Column("width_arcsec", "float32", "arcsec", "Gaussian sigma of a line or blob, or of a ghost's edge"),
    Column("angle", "float32", "rad", "direction of a line on the pixels, from +x to +y"),
)
_TILE_IDS = pa.field(
    "tile_ids", pa.list_(pa.string()), False, {"unit": "", "description": "tiles on whose VIS pixels the object lies"}
)


def object_table(tile: TileGeometry, tiles: Sequence[TileGeometry], objects: Sequence[SkyObject]) -> pa.Table:
    """Rows of the objects that lie in ``tile`` and in none of the ``tiles`` before it, in order of id."""
    held = np.array([in_tile(other, objects) for other in tiles]).reshape(len(tiles), len(objects))
    before = held[: list(tiles).index(tile)].any(axis=0)
    rows = sorted(np.flatnonzero(held[list(tiles).index(tile)] & ~before).tolist(), key=lambda k: objects[k].object_id)
    kept = [objects[k] for k in rows]
    ra, dec = PLANE.wcs.wcs_pix2world([item.x for item in kept], [item.y for item in kept], 0) if kept else ([], [])
    truth = [_object(item) for item in kept]
    values = [[value(row) for row in truth] for value in _GETTERS]
    ids = [[other.tile_id for other, here in zip(tiles, held[:, k], strict=True) if here] for k in rows]
    found = schema(_COLUMNS).append(_TILE_IDS)
    return pa.table([[item.object_id for item in kept], ra, dec, *values, ids], schema=found)


def _object(item: SkyObject) -> ObjectTruth:
    first, second = system_truths(item.systems, item.arcs, item.labels)
    return ObjectTruth(
        class_name=item.class_name,
        verdict=object_verdict(item.labels),
        n_systems=len(item.systems),
        light=object_light(item.components),
        first=first,
        second=second,
    )


def artefact_table(tile: TileGeometry, telescope: TileTelescope) -> pa.Table:
    """Artefacts that were painted into a tile's images with their middle on them."""
    found: list[tuple[Artefact, float, float]] = []
    for grid, band in ((tile.vis, BANDS[0]), (tile.nisp, BANDS[1])):
        ny, nx = (0.1 * grid.samples * length for length in grid.shape)
        inside = [
            item for item in telescope.artefacts(band, (0.0, nx), (0.0, ny), 0.0) if 0.0 <= item.x < nx and 0.0 <= item.y < ny
        ]
        found += [(item, *place) for item, place in zip(inside, _sky_places(grid, inside), strict=True)]
    rows = [
        (
            tile.tile_id,
            item.kind.value,
            " ".join(BANDS[channel] for channel in item.channels),
            flags.OF_ARTEFACT.get(item.kind, 0),
            ra,
            dec,
            item.strength,
            item.length,
            item.width,
            item.angle,
        )
        for item, ra, dec in found
    ]
    return pa.table([list(values) for values in zip(*rows, strict=True)] or [[] for _ in _ARTEFACTS], schema=schema(_ARTEFACTS))


def _sky_places(grid: Grid, items: Sequence[Artefact]) -> list[tuple[float, float]]:
    x, y = to_plane(grid, [10.0 * item.x for item in items], [10.0 * item.y for item in items])
    return list(zip(*(values.tolist() for values in PLANE.wcs.wcs_pix2world(x, y, 0)), strict=True)) if items else []
