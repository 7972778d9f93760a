"""Paint lenses and look-alikes into real tiles: a labelled set of cutouts, or copies of the mosaics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanner.atomic_file import replacement
from scanner.errors import InputMissingError, OutputError, TileError
from scanner.labelled_set import DESCRIPTION
from scanner.simulation.datasets.dataset import (
    PART_OBJECTS,
    attributes_of,
    begin_parts,
    claimed,
    completed,
    count_parts,
    finish_parts,
    missing_parts,
    part_rows,
    write_part,
)
from scanner.simulation.injection.mosaics import RECORD, paint_mosaics
from scanner.simulation.injection.painting import OpenTiles, Plan, make_plan, paint_rows, truth_with_places
from scanner.simulation.injection.places import Places, scratch_of, survey_tile, within
from scanner.simulation.injection.request import InjectionRecord, InjectionRequest, TileSummary
from scanner.simulation.parts import PARTS, Progress, run_all

#: Parts that one call of a worker draws, so that a tile is opened (and resampled) once for all of them.
_PARTS_A_CALL = 4


def inject(request: InjectionRequest, out: Path, workers: int = 1, progress: Progress | None = None) -> InjectionRecord:
    """Paint what is missing of a labelled set, or of a folder of mosaics.

    Parameters
    ----------
    request, out
        What, and where to; the folder is made if need be.
    workers
        Processes; of mosaics, one tile is one process's work.
    progress
        Called with (objects done, objects in all); of mosaics, with tiles.

    Raises
    ------
    OutputError
        The folder holds something else, or cannot be written.
    ContentError
        Its record cannot be read.
    InputMissingError
        A tile cannot be used.
    UsageError
        The tiles hold too few places.
    """
    name = RECORD if request.mosaics else DESCRIPTION
    try:
        record = claimed(out, name, InjectionRecord(request=request, preset=request.drawn_as), "injection")
        if record.complete:
            return record
        surveys = _survey_tiles(request, out, workers)
        plan = make_plan(request, [within(places, request.region) for _, places in surveys])
        summaries = tuple(summary for summary, _ in surveys)
        paint = paint_mosaics if request.mosaics else _paint_cutouts
        return completed(out, name, record, *paint(request, out, plan, summaries, workers, progress), tiles=summaries)
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _paint_cutouts(
    request: InjectionRequest,
    out: Path,
    plan: Plan,
    summaries: Sequence[TileSummary],
    workers: int,
    progress: Progress | None,
) -> tuple[int, int]:
    """Paint the missing parts of a labelled set; returns the numbers of lenses and of visible ones."""
    begin_parts(out, attributes_of(request.preset, request.seed, request.n_objects, request.codec))
    missing = missing_parts(out, request.n_objects)
    calls = [missing[first : first + _PARTS_A_CALL] for first in range(0, len(missing), _PARTS_A_CALL)]
    done = count_parts(request.n_objects) - len(missing)
    for finished in run_all(_paint_parts, [(request, out, plan, summaries, numbers) for numbers in calls], workers):
        if progress is not None:
            progress(min((done + finished * _PARTS_A_CALL) * PART_OBJECTS, request.n_objects), request.n_objects)
    return finish_parts(out, request.n_objects)


def _paint_parts(
    request: InjectionRequest, out: Path, plan: Plan, summaries: Sequence[TileSummary], numbers: Sequence[int]
) -> None:
    tiles = OpenTiles(request.tiles, summaries, scratch_of(out))
    try:
        for number in numbers:
            rows = part_rows(request.n_objects, number)
            batch, truth = paint_rows(request, plan, tiles, rows)
            write_part(out, number, batch, truth_with_places(truth, plan.take(rows), request.tiles, request.region))
    finally:
        tiles.close()


def _survey_tiles(request: InjectionRequest, out: Path, workers: int) -> list[tuple[TileSummary, Places]]:
    """Survey the tiles that were not surveyed before; all of them, in their order.

    Raises
    ------
    InputMissingError
        A tile cannot be used.
    """
    (out / PARTS).mkdir(exist_ok=True)
    missing = [number for number in range(len(request.tiles)) if not _places_file(out, number).exists()]
    for _ in run_all(_survey, [(request, out, number) for number in missing], workers):
        pass
    return [_read(out, number) for number in range(len(request.tiles))]


def _survey(request: InjectionRequest, out: Path, number: int) -> None:
    tile = request.tiles[number]
    seed = [request.seed, number]
    try:
        summary, places = survey_tile(tile, request.drawn_as.options, request.n_objects, seed, scratch_of(out), request.region)
    except TileError as error:
        raise InputMissingError(f"tile {tile.tile_id}: {error}") from None
    (out / PARTS / f"tile-{number:05d}.json").write_text(summary.model_dump_json() + "\n", encoding="utf-8")
    path = _places_file(out, number)
    with replacement(path) as partial, partial.open("wb") as file:
        np.savez(file, **vars(places))


def _read(out: Path, number: int) -> tuple[TileSummary, Places]:
    summary = TileSummary.model_validate_json((out / PARTS / f"tile-{number:05d}.json").read_text(encoding="utf-8"))
    with np.load(_places_file(out, number)) as arrays:
        return summary, Places(**{name: arrays[name] for name in arrays.files})


def _places_file(out: Path, number: int) -> Path:
    return out / PARTS / f"tile-{number:05d}.npz"
