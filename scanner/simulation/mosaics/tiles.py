"""A folder of simulated tiles that ``scanner run`` can scan, with the truth beside it.

In: :class:`TilesRequest`. Out, in its folder: ``tile-list.txt``, one folder a tile with its mosaics and catalogue,
``truth.parquet`` and, first of all, ``simulation.json`` with the request. A tile whose catalogue exists is complete and not
drawn again; a folder made by another request is refused. Equal requests give equal bytes, whatever the workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from scanner.errors import OutputError
from scanner.records import VIS_PIXEL_SCALE_ARCSEC, Record
from scanner.simulation.mosaics.mosaic import catalogue_name, draw_mosaics, file_names
from scanner.simulation.mosaics.sky_field import CLASS_DENSITY, FieldParameters, SkyObject, draw_rectangle
from scanner.simulation.mosaics.tile_geometry import NATIVE_ROTATION_DEG, TileGeometry, lay_out
from scanner.simulation.mosaics.tile_tables import in_tile, truth_table, write_catalogue, write_truth
from scanner.simulation.population.field import FIELD_DENSITY, STAR_DENSITY
from scanner.simulation.processes import run_all

#: Objects this far outside a tile still shed light into it.
_SURROUNDINGS_ARCSEC = 66.0


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
        out.mkdir(parents=True, exist_ok=True)
        _claim(out / "simulation.json", request)
        missing = [tile for tile in tiles if not catalogue_name(out / tile.tile_id, tile, request.seed).exists()]
        there = len(tiles) - len(missing)
        if progress is not None:
            progress(there, len(tiles))
        for done in run_all(draw_tile, [(request, tile, out) for tile in missing], workers):
            if progress is not None:
                progress(there + done, len(tiles))
        if missing or not (out / "truth.parquet").exists():
            write_truth(out / "truth.parquet", truth_table(tiles, _objects_of_all(request, tiles)))
        lines = ["# Simulated tiles; truth.parquet beside this list says what is in them.", *(t.tile_id for t in tiles)]
        (out / "tile-list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        truth = pq.read_table(out / "truth.parquet", columns=["visible"])
        return sum(truth["visible"].to_pylist()), truth.num_rows
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _claim(path: Path, request: TilesRequest) -> None:
    if path.exists():
        try:
            same = TilesRequest.model_validate_json(path.read_text(encoding="utf-8")) == request
        except (ValidationError, UnicodeDecodeError):
            same = False
        if not same:
            raise OutputError(f"{path}: the folder holds another simulation; choose another --out or remove it.")
    elif any(path.parent.iterdir()):
        raise OutputError(f"{path.parent}: the folder is not empty and holds no simulation.json; choose another --out.")
    else:
        path.write_text(request.model_dump_json(indent=1) + "\n", encoding="utf-8")


def draw_tile(request: TilesRequest, tile: TileGeometry, out: Path) -> None:
    """Draw one tile into its folder; the catalogue, written last, marks it complete."""
    folder = out / tile.tile_id
    folder.mkdir(exist_ok=True)
    objects = _objects_of(request, tile)
    draw_mosaics(tile, objects, file_names(folder, tile, request.seed), request.seed, request.companions)
    write_catalogue(catalogue_name(folder, tile, request.seed), tile, objects, request.seed)


def field_of(request: TilesRequest) -> FieldParameters:
    """The sky that the request looks at."""
    area = (request.size * VIS_PIXEL_SCALE_ARCSEC) ** 2
    return FieldParameters(
        seed=request.seed,
        lens_density=request.lenses_per_tile / area,
        galaxy_density=request.density * FIELD_DENSITY,
        star_density=request.density * STAR_DENSITY,
        class_density=request.density * CLASS_DENSITY,
    )


def _objects_of(request: TilesRequest, tile: TileGeometry) -> list[SkyObject]:
    half = 0.5 * request.size * VIS_PIXEL_SCALE_ARCSEC
    if tile.native:  # the corners of rotated NISP stick out
        turn = math.radians(NATIVE_ROTATION_DEG)
        half *= (math.cos(turn) + math.sin(turn)) ** 2
    half += _SURROUNDINGS_ARCSEC
    x, y = tile.centre
    return list(draw_rectangle(field_of(request), x - half, x + half, y - half, y + half))


def _objects_of_all(request: TilesRequest, tiles: list[TileGeometry]) -> list[SkyObject]:
    """Objects of all tiles, each once, without those that no tile holds."""
    found: dict[int, SkyObject] = {}
    for tile in tiles:
        objects = _objects_of(request, tile)
        for item, here in zip(objects, in_tile(tile, objects), strict=True):
            if here:
                found[item.object_id] = item
    return list(found.values())
