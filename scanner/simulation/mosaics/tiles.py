"""A folder of simulated tiles that ``scanner run`` can scan, with the truth beside it.

In: :class:`TilesRequest`. Out, in its folder: ``tile-list.txt``, one folder a tile with its mosaics and catalogue,
``truth.parquet`` and ``artefacts.parquet``, which are put together of ``parts``, and, first of all, ``simulation.json`` with
the request. A tile whose catalogue exists is complete and not drawn again; a folder made by another request is refused. Equal
requests give equal bytes, whatever the workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from scanner.errors import OutputError
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Record
from scanner.simulation.claim import claim
from scanner.simulation.mosaics.mosaic import catalogue_name, draw_mosaics, file_names
from scanner.simulation.mosaics.sky_field import CELL_ARCSEC, CLASS_DENSITY, FieldParameters, SkyObject, draw_rectangle
from scanner.simulation.mosaics.tile_catalogue import CATALOGUE_LIMIT, in_tile, write_catalogue
from scanner.simulation.mosaics.tile_geometry import TileGeometry, lay_out, to_plane
from scanner.simulation.mosaics.tile_telescope import draw_telescope
from scanner.simulation.mosaics.tile_truth import artefact_table, object_table
from scanner.simulation.parquet_parts import join_parts, write_part
from scanner.simulation.population.field import FIELD_DENSITY, STAR_DENSITY, UNSEEN_DENSITY
from scanner.simulation.processes import run_all

_RECORD, _TRUTH, _ARTEFACTS, _PARTS = "simulation.json", "truth.parquet", "artefacts.parquet", "parts"
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


def draw_tiles(
    request: TilesRequest, out: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> tuple[int, int]:
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
        for name in (_TRUTH, _ARTEFACTS):
            if missing or not (out / name).exists():
                join_parts(out / name, [_part(out, tile, name) for tile in tiles])
        lines = ["# Simulated tiles; truth.parquet beside this list says what is in them.", *(t.tile_id for t in tiles)]
        (out / "tile-list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        truth = pq.read_table(out / _TRUTH, columns=["visible"])
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
    (out / _PARTS).mkdir(exist_ok=True)
    field = field_of(request)
    draw_mosaics(tile, partial(draw_rectangle, field), file_names(folder, tile, request.seed), request.seed, request.companions)
    objects = _objects_of(field, tile)
    tiles = lay_out(request.n_tiles, request.size, request.overlap, request.seed)
    near = tiles[max(0, tile.number - _NEIGHBOURS) : tile.number + _NEIGHBOURS + 1]
    write_part(_part(out, tile, _TRUTH), object_table(tile, near, objects))
    write_part(_part(out, tile, _ARTEFACTS), artefact_table(tile, draw_telescope(request.seed, tile.number)))
    write_catalogue(catalogue_name(folder, tile, request.seed), tile, objects, request.seed)


def _part(out: Path, tile: TileGeometry, name: str) -> Path:
    return out / _PARTS / f"{tile.tile_id}-{name}"


def field_of(request: TilesRequest) -> FieldParameters:
    """The sky that the request looks at."""
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
