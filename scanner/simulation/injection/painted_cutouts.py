"""A labelled dataset of real cutouts with lenses and look-alikes painted in.

In: an :class:`InjectionRequest`. Out, in its folder, what ``scanner simulate dataset`` writes: ``cutouts.zarr``,
``truth.parquet`` with further columns for where each object was painted, and ``dataset.json``. All pixels are scaled to the
simulation's zero points, so that tiles with others can share a store. Drawn in parts of one shard by worker processes; an
interrupted run goes on with the missing parts; equal requests on equal mosaics give equal bytes, whatever the workers. Refused:
what :mod:`~scanner.simulation.injection.folder` and :mod:`~scanner.simulation.injection.plan` refuse.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scanner.cutouts.layout import SHARD_OBJECTS
from scanner.cutouts.shared_writer import begin_store, finish_store, write_shards
from scanner.cutouts.store_arrays import COLUMNS, column_values
from scanner.cutouts.writer import store_attributes
from scanner.errors import OutputError
from scanner.records import BANDS, Tile
from scanner.simulation.datasets.truth import TruthRow, truth_table
from scanner.simulation.injection.cutout_painter import OpenTiles, paint_rows
from scanner.simulation.injection.folder import PARTS, Progress, claim, scratch_of, survey_tiles, write_record
from scanner.simulation.injection.plan import Plan, columns, make_plan
from scanner.simulation.injection.request import InjectionRecord, InjectionRequest, TileSummary
from scanner.simulation.processes import run_all
from scanner.simulation.telescope.photometry import ZERO_POINT

STORE, TRUTH, RECORD = "cutouts.zarr", "truth.parquet", "dataset.json"
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
        record = claim(out, RECORD, request)
        if record.complete:
            return record
        surveys = survey_tiles(request, out, workers)
        plan = make_plan(request, [places for _, places in surveys])
        summaries = [summary for summary, _ in surveys]
        attributes = store_attributes(
            f"{request.preset}-{request.seed}", "", ZERO_POINT, dict.fromkeys(BANDS, "adu"), request.codec
        )
        if not (out / STORE).exists():
            begin_store(out / STORE, attributes.model_copy(update={"n_objects": request.n_objects}))
        n_parts = -(-request.n_objects // SHARD_OBJECTS)
        missing = [number for number in range(n_parts) if not _truth(out, number).exists()]
        calls = [missing[first : first + _PARTS_A_CALL] for first in range(0, len(missing), _PARTS_A_CALL)]
        done = n_parts - len(missing)
        for finished in run_all(_paint_parts, [(request, out, plan, summaries, numbers) for numbers in calls], workers):
            if progress is not None:
                progress(min((done + finished * _PARTS_A_CALL) * SHARD_OBJECTS, request.n_objects), request.n_objects)
        n_lenses, n_visible = _finish(out, n_parts)
        update = {"complete": True, "n_lenses": n_lenses, "n_visible": n_visible, "tiles": tuple(summaries)}
        finished_record = record.model_copy(update=update)
        write_record(out / RECORD, finished_record)
        shutil.rmtree(out / PARTS)
        return finished_record
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _paint_parts(
    request: InjectionRequest, out: Path, plan: Plan, summaries: Sequence[TileSummary], numbers: Sequence[int]
) -> None:
    tiles = OpenTiles(request.tiles, summaries, scratch_of(out))
    try:
        for number in numbers:
            rows = range(number * SHARD_OBJECTS, min((number + 1) * SHARD_OBJECTS, len(plan)))
            batch, truth = paint_rows(request, plan, tiles, rows)
            write_shards(out / STORE, rows.start, batch)
            np.savez(_rows(out, number), allow_pickle=False, **column_values(batch))
            path = _truth(out, number)
            pq.write_table(truth_with_places(truth, plan.take(rows), request.tiles), path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
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


def _finish(out: Path, n_parts: int) -> tuple[int, int]:
    """Put the rows of all parts in their places; returns the numbers of lenses and of visible ones."""
    tables = [pq.read_table(_truth(out, number)) for number in range(n_parts)]
    table = pa.concat_tables(tables)
    if not (out / STORE).exists():
        rows: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
        for number in range(n_parts):
            with np.load(_rows(out, number)) as part:
                for name in COLUMNS:
                    rows[name].append(part[name])
        finish_store(out / STORE, rows)
    partial = (out / TRUTH).with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(out / TRUTH)
    return sum(table["is_lens"].to_pylist()), sum(table["visible"].to_pylist())


def _truth(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.parquet"


def _rows(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.npz"
