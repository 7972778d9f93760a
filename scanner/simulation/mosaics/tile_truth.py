"""What simulated tiles really hold: objects with every drawn parameter, and artefacts.

In: the objects of a tile, its telescope, the tiles that may share them. Out: two Arrow tables a tile, whose fields carry
``unit`` and ``description``. An object belongs to the first tile that has it, and names all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import attrgetter

import numpy as np
import pyarrow as pa

from scanner.records import BANDS
from scanner.simulation.light.components import total_flux
from scanner.simulation.mosaics import flags
from scanner.simulation.mosaics.sky_field import SkyObject
from scanner.simulation.mosaics.tile_catalogue import in_tile
from scanner.simulation.mosaics.tile_geometry import PLANE, Grid, TileGeometry, to_plane
from scanner.simulation.mosaics.tile_telescope import TileTelescope
from scanner.simulation.population.columns import Column, column, columns_of, schema
from scanner.simulation.population.system_truth import SystemTruth, system_truth
from scanner.simulation.telescope.artefacts import Artefact

SECOND = "_2"


@dataclass(frozen=True)
class ObjectTruth:
    """One object of the sky; what does not apply is NaN, zero or False."""

    class_name: str = column("what was drawn")
    is_lens: bool = column("a lens by the definition: a system with n_source_im > 0, mag_eff > 1.6, n_pix_source > 20")
    visible: bool = column("a lens whose arcs a person could see: arc_snr > 25, n_pix_source > 100")
    is_compound: bool = column("a lens by the definition twice: both of its systems are")
    n_systems: int = column("sources behind a deflector: 0, 1, or 2 in compound lenses")
    magnitude_vis: float = column("VIS magnitude of the object's unlensed light, satellites included", "mag(AB)")
    object_flux_vis: float = column("VIS flux of the object's unlensed light", "adu")
    object_flux_y: float = column("Y flux of the object's unlensed light", "adu")
    object_flux_j: float = column("J flux of the object's unlensed light", "adu")
    object_flux_h: float = column("H flux of the object's unlensed light", "adu")
    object_radius_arcsec: float = column("half-light radius of the object's first profile, along its major axis", "arcsec")
    object_index: float = column("Sérsic index of the object's first profile")
    object_q: float = column("axis ratio of the object's first profile, minor to major")
    object_angle: float = column("position angle of the object's first profile, from west to north", "rad")
    n_components: int = column("profiles and stars of the object's unlensed light")


_OBJECT = tuple(columns_of(ObjectTruth))
_SYSTEM = tuple(
    Column(item.name, item.dtype, item.unit, item.description.replace("the cutout's centre", "the object's place"))
    for item in columns_of(SystemTruth)
)
_PLACE = (
    Column("object_id", "int64", "", "number of the object in the field"),
    Column("ra", "float64", "deg", "right ascension, ICRS"),
    Column("dec", "float64", "deg", "declination, ICRS"),
)
_COLUMNS = (*_PLACE, *_OBJECT, *_SYSTEM, *(Column(f"{c.name}{SECOND}", c.dtype, c.unit, c.description) for c in _SYSTEM))
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
    parts = [(_object(item), *_systems(item)) for item in kept]
    names = [[item.name for item in fields(kind)] for kind in (ObjectTruth, SystemTruth, SystemTruth)]
    values = [[attrgetter(name)(part[place]) for part in parts] for place, chosen in enumerate(names) for name in chosen]
    ids = [[other.tile_id for other, here in zip(tiles, held[:, k], strict=True) if here] for k in rows]
    found = schema(_COLUMNS).append(_TILE_IDS)
    return pa.table([[item.object_id for item in kept], ra, dec, *values, ids], schema=found)


def _object(item: SkyObject) -> ObjectTruth:
    vis, y, j, h = total_flux(item.components)
    main = item.components[0]
    return ObjectTruth(
        class_name=item.class_name,
        is_lens=item.is_lens,
        visible=item.visible,
        is_compound=len(item.labels) > 1 and all(label.is_lens for label in item.labels),
        n_systems=len(item.systems),
        magnitude_vis=item.magnitude,
        object_flux_vis=vis,
        object_flux_y=y,
        object_flux_j=j,
        object_flux_h=h,
        object_radius_arcsec=math.nan if item.is_star else main.radius,
        object_index=math.nan if item.is_star else main.index,
        object_q=math.nan if item.is_star else main.q,
        object_angle=math.nan if item.is_star else main.angle,
        n_components=len(item.components),
    )


def _systems(item: SkyObject) -> tuple[SystemTruth, SystemTruth]:
    found = [system_truth(*parts) for parts in zip(item.systems, item.arcs, item.labels, strict=True)]
    first, second = (found + [SystemTruth()] * 2)[:2]
    return first, second


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
