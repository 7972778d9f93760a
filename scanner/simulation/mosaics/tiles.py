"""Simulated tiles: mosaics, catalogue and truth, in the layout that a scan reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from scanner.atomic_file import replacement
from scanner.errors import OutputError
from scanner.processes import run_all
from scanner.records import BANDS, MICROJANSKY_ZERO_POINT, VIS_PIXEL_SCALE_ARCSEC, Record
from scanner.simulation.light.components import Component, Kind, extent_radius, total_flux
from scanner.simulation.mosaics import strips
from scanner.simulation.mosaics.field import (
    CELL_ARCSEC,
    CLASS_DENSITY,
    PLANE,
    FieldParameters,
    Grid,
    SkyObject,
    TileGeometry,
    TileTelescope,
    draw_rectangle,
    draw_telescope,
    lay_out,
    tile_generator,
    to_fine_pixels,
    to_plane,
)
from scanner.simulation.mosaics.strips import catalogue_name, draw_mosaics, file_names
from scanner.simulation.parts import PARTS, Progress, claim, join_parts, write_part
from scanner.simulation.population.neighbours import FIELD_DENSITY, STAR_DENSITY, UNSEEN_DENSITY
from scanner.simulation.population.truth import (
    SECOND,
    Column,
    ObjectLight,
    ObjectVerdict,
    SystemTruth,
    column,
    columns_of,
    getters_of,
    object_light,
    object_verdict,
    part,
    schema,
    system_truths,
)
from scanner.simulation.telescope.artefacts import Artefact
from scanner.simulation.telescope.noise import SKY_SIGMA

CATALOGUE_LIMIT = 25.0
CENTROID_SCATTER_ARCSEC = 0.02
_DETECTION_SIGMA = 1.5
_PSF_RADIUS_ARCSEC = 0.1


def in_tile(tile: TileGeometry, objects: Sequence[SkyObject]) -> NDArray[np.bool_]:
    """Which objects have their position on the tile's VIS pixels."""
    columns, rows = to_fine_pixels(tile.vis, [item.x for item in objects], [item.y for item in objects])
    ny, nx = tile.vis.shape
    return (columns > -0.5) & (columns < nx - 0.5) & (rows > -0.5) & (rows < ny - 0.5)


def write_catalogue(path: Path, tile: TileGeometry, objects: Sequence[SkyObject], seed: int) -> None:
    """Write the objects of a tile that are brighter than VIS 25 as a MER-like catalogue in FITS, in order of declination.

    ``OBJECT_ID`` is made of the catalogued position as MER's is, so that the same object has another in another tile.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    rng = tile_generator(seed, tile.number, "catalogue")
    kept = [item for item in objects if item.magnitude < CATALOGUE_LIMIT]
    scatter = CENTROID_SCATTER_ARCSEC * rng.standard_normal((2, len(kept)))
    x = np.array([item.x for item in kept]) + scatter[0]
    y = np.array([item.y for item in kept]) + scatter[1]
    ra, dec = PLANE.wcs.wcs_pix2world(x, y, 0)
    flux = 10.0 ** (0.4 * (MICROJANSKY_ZERO_POINT - np.array([item.magnitude for item in kept])))
    error = 0.02 + 0.03 * flux
    flux = np.maximum(flux + error * rng.standard_normal(len(kept)), 0.1 * flux)
    main = [max(item.components, key=lambda component: component.flux[0]) for item in kept]
    order = np.argsort(dec, kind="stable")
    digits = np.round(ra * 1e7).astype(np.int64) * 1_000_000_000 + np.round(np.abs(dec) * 1e7).astype(np.int64)
    columns = [
        ("OBJECT_ID", "K", None, np.where(dec < 0.0, -digits, digits)),
        ("RIGHT_ASCENSION", "D", "deg", ra),
        ("DECLINATION", "D", "deg", dec),
        ("VIS_DET", "I", None, np.ones(len(kept), dtype=np.int16)),
        ("DET_QUALITY_FLAG", "J", None, np.zeros(len(kept), dtype=np.int32)),
        ("SPURIOUS_FLAG", "I", None, np.zeros(len(kept), dtype=np.int16)),
        ("POINT_LIKE_PROB", "E", None, np.array([0.98 if item.is_star else 0.02 for item in kept])),
        ("FLUX_DETECTION_TOTAL", "E", "uJy", flux),
        ("FLUXERR_DETECTION_TOTAL", "E", "uJy", error),
        ("SEGMENTATION_AREA", "J", "pix", np.array([_area(item.components) for item in kept], dtype=np.int32)),
        ("SEMIMAJOR_AXIS", "E", "pix", np.array([10.0 * _size(component) for component in main])),
        ("KRON_RADIUS", "E", "pix", np.array([25.0 * _size(component) for component in main])),
        ("ELLIPTICITY", "E", None, np.array([1.0 - component.q for component in main])),
        ("POSITION_ANGLE", "E", "deg", np.array([_position_angle(component) for component in main])),
    ]
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name=name, format=form, unit=unit, array=values[order]) for name, form, unit, values in columns]
    )
    table.header["EXTNAME"] = "CATALOGUE"
    table.header["TILEID"] = tile.tile_id
    with replacement(path) as partial, partial.open("wb") as file:
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)


def _size(component: Component) -> float:
    """Half-light radius after the PSF, arcsec."""
    radius = 0.0 if component.kind is Kind.POINT else component.radius
    return math.hypot(radius, _PSF_RADIUS_ARCSEC)


def _position_angle(component: Component) -> float:
    """East of north, degrees in [-90, 90): the plane's x points west, and the angle counts from x towards north."""
    return (math.degrees(component.angle) - 90.0 + 90.0) % 180.0 - 90.0


def _area(components: Sequence[Component]) -> int:
    """VIS pixels brighter than 1.5 σ of the sky, as the profile widened by the PSF has them."""
    main = max(components, key=lambda component: component.flux[0])
    light = total_flux(components)[0]
    index = 0.7 if main.kind is Kind.POINT else main.index
    wide = Component(Kind.SERSIC, 0.0, 0.0, main.flux, radius=_size(main), index=index, q=main.q)
    threshold = _DETECTION_SIGMA * SKY_SIGMA["VIS"] * 100.0 / light
    return max(1, round(100.0 * math.pi * wide.q * extent_radius(wide, threshold) ** 2))


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
            strips.OF_ARTEFACT.get(item.kind, 0),
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


_RECORD, _TRUTH_FILE, _ARTEFACTS_FILE = "simulation.json", "truth.parquet", "artefacts.parquet"
#: An object can lie in a tile and in this many on each side: tiles overlap by half at most.
_NEIGHBOURS = 2


class TilesRequest(Record):
    """What to draw: ``simulation.json`` of a folder of tiles."""

    kind: str = Field("tiles", pattern="^tiles$")
    n_tiles: int = Field(ge=1, le=900)
    size: int = Field(ge=400, le=40_000, description="Side of a tile in VIS pixels.")
    seed: int = Field(ge=0, lt=2**63)
    overlap: float = Field(0.15, ge=0, le=0.5, description="Share of the side that neighbours have in common.")
    lenses_per_tile: float = Field(12.0, ge=0, description="Mean number of visible lenses in a tile.")
    density: float = Field(1.0, ge=0, description="Field galaxies and stars relative to the sky's.")
    companions: bool = Field(True, description="Write RMS and FLAG mosaics.")


def draw_tiles(request: TilesRequest, out: Path, workers: int = 1, progress: Progress | None = None) -> tuple[int, int]:
    """Draw what is missing of a folder of tiles.

    Parameters
    ----------
    request, out
        What, and where to; the folder is made if need be.
    workers
        Processes; one tile is one process's work.
    progress
        Called with (tiles done, tiles in all).

    Returns
    -------
    tuple
        Numbers of (visible lenses, rows) of the truth table.

    Raises
    ------
    OutputError
        The folder cannot be written, or holds something else.
    """
    tiles = lay_out(request.n_tiles, request.size, request.overlap, request.seed)
    try:
        if claim(out, _RECORD, request, _read_request) != request:
            raise _another(out / _RECORD)
        missing = [tile for tile in tiles if not catalogue_name(out / tile.tile_id, tile, request.seed).exists()]
        there = len(tiles) - len(missing)
        if progress is not None:
            progress(there, len(tiles))
        for done in run_all(draw_tile, [(request, tile, out) for tile in missing], workers):
            if progress is not None:
                progress(there + done, len(tiles))
        for name in (_TRUTH_FILE, _ARTEFACTS_FILE):
            if missing or not (out / name).exists():
                join_parts(out / name, [_part(out, tile, name) for tile in tiles])
        lines = ["# Simulated tiles; truth.parquet beside this list says what is in them.", *(t.tile_id for t in tiles)]
        (out / "tile-list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        truth = pq.read_table(out / _TRUTH_FILE, columns=["visible"])
        return sum(truth["visible"].to_pylist()), truth.num_rows
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _read_request(path: Path) -> TilesRequest:
    try:
        return TilesRequest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise _another(path) from None


def _another(path: Path) -> OutputError:
    return OutputError(f"{path}: the folder holds another simulation; choose another --out or remove it.")


def draw_tile(request: TilesRequest, tile: TileGeometry, out: Path) -> None:
    """Draw one tile into its folder; the catalogue, written last, marks it complete."""
    folder = out / tile.tile_id
    folder.mkdir(exist_ok=True)
    (out / PARTS).mkdir(exist_ok=True)
    field = field_of(request)
    draw_mosaics(tile, partial(draw_rectangle, field), file_names(folder, tile, request.seed), request.seed, request.companions)
    objects = _objects_of(field, tile)
    tiles = lay_out(request.n_tiles, request.size, request.overlap, request.seed)
    near = tiles[max(0, tile.number - _NEIGHBOURS) : tile.number + _NEIGHBOURS + 1]
    write_part(_part(out, tile, _TRUTH_FILE), object_table(tile, near, objects))
    write_part(_part(out, tile, _ARTEFACTS_FILE), artefact_table(tile, draw_telescope(request.seed, tile.number)))
    write_catalogue(catalogue_name(folder, tile, request.seed), tile, objects, request.seed)


def _part(out: Path, tile: TileGeometry, name: str) -> Path:
    return out / PARTS / f"{tile.tile_id}-{name}"


def field_of(request: TilesRequest) -> FieldParameters:
    """The sky that the request covers."""
    area = (request.size * VIS_PIXEL_SCALE_ARCSEC) ** 2
    return FieldParameters(
        seed=request.seed,
        lens_density=request.lenses_per_tile / area,
        galaxy_density=request.density * FIELD_DENSITY,
        unseen_density=request.density * UNSEEN_DENSITY,
        star_density=request.density * STAR_DENSITY,
        class_density=request.density * CLASS_DENSITY,
    )


def _objects_of(field: FieldParameters, tile: TileGeometry) -> list[SkyObject]:
    """Objects of a tile that its catalogue or the truth names: the bright ones, and all lenses."""
    ny, nx = tile.vis.shape
    x, y = to_plane(tile.vis, [0, nx, 0, nx], [0, 0, ny, ny])
    found: list[SkyObject] = []
    # One row of cells after the other: most of their objects are too faint to be kept.
    for row in range(math.floor(y.min() / CELL_ARCSEC), math.floor(y.max() / CELL_ARCSEC) + 1):
        middle = (row + 0.5) * CELL_ARCSEC
        objects = list(draw_rectangle(field, float(x.min()), float(x.max()), middle, middle))
        here = in_tile(tile, objects).tolist()
        found += [
            item
            for item, inside in zip(objects, here, strict=True)
            if inside and (item.magnitude < CATALOGUE_LIMIT or item.is_lens)
        ]
    return found
