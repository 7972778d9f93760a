"""Painted cutouts: a labelled set on real sky."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from scanner.errors import OutputError
from scanner.labelled_set import DESCRIPTION
from scanner.records import Tile
from scanner.simulation.datasets.dataset import (
    PART_OBJECTS,
    attributes_of,
    begin_parts,
    count_parts,
    finish_parts,
    missing_parts,
    part_rows,
    write_part,
)
from scanner.simulation.datasets.truth import TruthRow, truth_table
from scanner.simulation.injection.folder import Progress, claimed, finish, scratch_of, survey_tiles
from scanner.simulation.injection.painting import OpenTiles, Plan, columns, make_plan, paint_rows
from scanner.simulation.injection.request import InjectionRecord, InjectionRequest, TileSummary
from scanner.simulation.parts import run_all

#: Parts that one call of a worker draws, so that a tile is opened (and resampled) once for all of them.
_PARTS_A_CALL = 4


def inject_cutouts(request: InjectionRequest, out: Path, workers: int = 1, progress: Progress | None = None) -> InjectionRecord:
    """Paint what is missing of a dataset.

    Parameters
    ----------
    request, out
        What, and where to; the folder is made if need be.
    workers
        Processes.
    progress
        Called with (objects done, objects in all).

    Raises
    ------
    OutputError
        The folder holds something else, or cannot be written.
    InputMissingError
        A tile cannot be used.
    UsageError
        The tiles hold too few places.
    """
    try:
        record = claimed(out, DESCRIPTION, request)
        if record.complete:
            return record
        surveys = survey_tiles(request, out, workers)
        plan = make_plan(request, [places for _, places in surveys])
        summaries = [summary for summary, _ in surveys]
        begin_parts(out, attributes_of(request.preset, request.seed, request.n_objects, request.codec))
        missing = missing_parts(out, request.n_objects)
        calls = [missing[first : first + _PARTS_A_CALL] for first in range(0, len(missing), _PARTS_A_CALL)]
        done = count_parts(request.n_objects) - len(missing)
        for finished in run_all(_paint_parts, [(request, out, plan, summaries, numbers) for numbers in calls], workers):
            if progress is not None:
                progress(min((done + finished * _PARTS_A_CALL) * PART_OBJECTS, request.n_objects), request.n_objects)
        return finish(out, DESCRIPTION, record, summaries, finish_parts(out, request.n_objects))
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _paint_parts(
    request: InjectionRequest, out: Path, plan: Plan, summaries: Sequence[TileSummary], numbers: Sequence[int]
) -> None:
    tiles = OpenTiles(request.tiles, summaries, scratch_of(out))
    try:
        for number in numbers:
            rows = part_rows(request.n_objects, number)
            batch, truth = paint_rows(request, plan, tiles, rows)
            write_part(out, number, batch, truth_with_places(truth, plan.take(rows), request.tiles))
    finally:
        tiles.close()


def truth_with_places(truth: Sequence[TruthRow], plan: Plan, tiles: Sequence[Tile]) -> pa.Table:
    """The truth of simulated cutouts, and where each object was painted."""
    table = truth_table(truth)
    names = pa.array([tiles[number].tile_id for number in plan.tile.tolist()], pa.string())
    described = {"tile_id": ("", "tile whose pixels these are", names)}
    described |= {name: (unit, text, pa.array(values)) for name, (unit, text, values) in columns(plan).items()}
    for name, (unit, text, values) in described.items():
        field = pa.field(name, values.type, nullable=False, metadata={"unit": unit, "description": text})
        table = table.append_column(field, values)
    return table
