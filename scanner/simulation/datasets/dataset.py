"""A labelled dataset on disk: the cutout store, the truth beside it, and what was asked for.

In: a :class:`DatasetRequest`. Out, in its folder: ``cutouts.zarr``, ``truth.parquet`` (row-aligned with it),
``components.parquet`` (what each object was drawn from) and ``dataset.json``. Objects are drawn in parts by worker processes,
straight into the store; a run that was interrupted goes on with the missing parts. Equal requests give equal bytes, whatever
the workers. Refused: a folder that holds another dataset or cannot be written (OutputError).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from scanner import __version__
from scanner.errors import OutputError
from scanner.labelled_set import DESCRIPTION
from scanner.simulation.claim import claim, write_record
from scanner.simulation.datasets.on_device import check_device
from scanner.simulation.datasets.parts import (
    PART_OBJECTS,
    PARTS,
    attributes_of,
    begin_parts,
    draw_part,
    finish_parts,
    missing_parts,
    part_rows,
)
from scanner.simulation.datasets.request import DatasetRecord, DatasetRequest
from scanner.simulation.processes import run_all

Progress = Callable[[int, int], None]


def draw_dataset(request: DatasetRequest, out: Path, workers: int = 1, progress: Progress | None = None) -> DatasetRecord:
    """Draw what is missing of a dataset.

    Memory: about 250 MB a worker, and 200 bytes an object at the end.

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
        The folder holds another dataset, or something else, or cannot be written.
    ContentError
        Its ``dataset.json`` cannot be read.
    UsageError
        There is no such device.
    """
    if request.device != "cpu":
        check_device(request.device)
    record = DatasetRecord(scanner_version=__version__, request=request, preset=request.drawn_as)
    try:
        found = claim(out, DESCRIPTION, record, read_record)
        _refuse_another(out, found, record)
        if found.complete:
            shutil.rmtree(out / PARTS, ignore_errors=True)  # a run killed at its very end leaves them
            if progress is not None:
                progress(request.n_objects, request.n_objects)
            return found
        begin_parts(out, attributes_of(request.preset, request.seed, request.n_objects, request.codec))
        for done in _draw_parts(request, out, workers):
            if progress is not None:
                progress(done, request.n_objects)
        n_lenses, n_visible = finish_parts(out, request.n_objects)
        finished = record.model_copy(update={"complete": True, "n_lenses": n_lenses, "n_visible": n_visible})
        write_record(out / DESCRIPTION, finished)
        shutil.rmtree(out / PARTS)
        return finished
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def read_record(path: Path) -> DatasetRecord:
    """Read ``dataset.json``.

    Raises
    ------
    ContentError
        It is not a dataset's record.
    """
    remedy = "choose another --out or remove the folder"
    return DatasetRecord.from_bytes(path.read_bytes(), path, remedy, wrong="damaged, or not a dataset's record")


def _refuse_another(out: Path, found: DatasetRecord, record: DatasetRecord) -> None:
    if found.request != record.request:
        raise OutputError(
            f"{out}: holds another dataset ({found.request.described()}), not the one asked for"
            f" ({record.request.described()}); choose another --out or remove it."
        )
    if found.preset != record.preset:
        raise OutputError(
            f"{out}: holds objects of the preset {record.preset.name} as another version of scanner draws them; choose another"
            " --out or remove it."
        )


def _draw_parts(request: DatasetRequest, out: Path, workers: int) -> Iterator[int]:
    """Draw the missing parts; yields how many objects are there."""
    missing = missing_parts(out, request.n_objects)
    there = request.n_objects - sum(len(part_rows(request.n_objects, number)) for number in missing)
    yield there
    for done in run_all(draw_part, [(request, out, number) for number in missing], workers):
        yield min(there + done * PART_OBJECTS, request.n_objects)
