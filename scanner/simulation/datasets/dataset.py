"""A labelled dataset on disk: the cutout store, the truth beside it, and what was asked for.

In: a :class:`DatasetRequest`. Out, in its folder: ``cutouts.zarr``, ``truth.parquet`` (row-aligned with it) and
``dataset.json``. Objects are drawn in parts by worker processes and kept in ``parts/`` until all are there; a run that was
interrupted goes on with the missing parts. Equal requests give equal bytes, whatever the workers. Refused: a folder that
holds another dataset or cannot be written (OutputError).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from scanner import __version__
from scanner.cutouts import quality
from scanner.cutouts.layout import CodecName
from scanner.cutouts.store import CutoutStore, CutoutWriter
from scanner.errors import OutputError
from scanner.records import BANDS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, CutoutBatch, Record, Targets
from scanner.simulation.datasets.labelled_cutouts import LabelledCutouts, draw
from scanner.simulation.datasets.presets import PRESETS, Preset, PresetName
from scanner.simulation.datasets.truth import truth_table
from scanner.simulation.processes import run_all
from scanner.simulation.telescope.photometry import ZERO_POINT

PART_OBJECTS = 512
_BATCH_OBJECTS = 16


class DatasetRequest(Record):
    """What to draw."""

    preset: PresetName
    n_objects: int = Field(ge=1, le=100_000_000)
    seed: int = Field(ge=0, lt=2**63)
    codec: CodecName = Field("compact", description="Codec of the cutout store.")


class DatasetRecord(Record):
    """``dataset.json``: what was drawn; ``complete`` once everything is in place."""

    format_version: Literal[1] = 1
    scanner_version: str
    request: DatasetRequest
    preset: Preset
    complete: bool = False
    n_lenses: int | None = None
    n_visible: int | None = None


def draw_dataset(
    request: DatasetRequest, out: Path, workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> DatasetRecord:
    """Draw what is missing of a dataset.

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
    """
    record = DatasetRecord(scanner_version=__version__, request=request, preset=PRESETS[request.preset])
    try:
        found = _claim(out, record)
        if found.complete:
            if progress is not None:
                progress(request.n_objects, request.n_objects)
            return found
        (out / "parts").mkdir(exist_ok=True)
        for done in _draw_parts(request, out, workers):
            if progress is not None:
                progress(min(done * PART_OBJECTS, request.n_objects), request.n_objects)
        truth = _merge(request, out)
        finished = record.model_copy(
            update={
                "complete": True,
                "n_lenses": sum(truth["is_lens"].to_pylist()),
                "n_visible": sum(truth["visible"].to_pylist()),
            }
        )
        _write_record(out, finished)
        shutil.rmtree(out / "parts")
        return finished
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


def _claim(out: Path, record: DatasetRecord) -> DatasetRecord:
    """Make the folder, or check that it is this dataset's; returns the record that is there now."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "dataset.json"
    if not path.exists():
        if any(out.iterdir()):
            raise OutputError(f"{out}: the folder is not empty and holds no dataset.json; choose another --out.")
        _write_record(out, record)
        return record
    try:
        found = DatasetRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError):
        raise OutputError(f"{path}: not a dataset's record; choose another --out or remove the folder.") from None
    if found.request != record.request or found.preset != record.preset:
        given, there = record.request, found.request
        raise OutputError(
            f"{out}: holds another dataset (preset {there.preset}, {there.n_objects} objects, seed {there.seed}, codec"
            f" {there.codec}), not the one asked for ({given.preset}, {given.n_objects}, {given.seed}, {given.codec});"
            " choose another --out or remove it."
        )
    return found


def _write_record(out: Path, record: DatasetRecord) -> None:
    part = out / "dataset.json.part"
    part.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(out / "dataset.json")


def _part_folder(out: Path, number: int) -> Path:
    return out / "parts" / f"{number:06d}"


def _n_parts(request: DatasetRequest) -> int:
    return -(-request.n_objects // PART_OBJECTS)


def _draw_parts(request: DatasetRequest, out: Path, workers: int) -> Iterator[int]:
    """Draw the missing parts; yields how many are there."""
    missing = [number for number in range(_n_parts(request)) if not _part_folder(out, number).exists()]
    there = _n_parts(request) - len(missing)
    yield there
    for done in run_all(draw_part, [(request, out, number) for number in missing], workers):
        yield there + done


def draw_part(request: DatasetRequest, out: Path, number: int) -> None:
    """Draw one part into ``parts/``; it appears under its name when it is complete."""
    folder = _part_folder(out, number)
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    last = min((number + 1) * PART_OBJECTS, request.n_objects)
    rows = []
    with _writer(partial / "cutouts.zarr", request) as writer:
        for first in range(number * PART_OBJECTS, last, _BATCH_OBJECTS):
            drawn = draw(PRESETS[request.preset], request.seed, range(first, min(first + _BATCH_OBJECTS, last)))
            writer.append(batch_of(drawn))
            rows += drawn.truth
    pq.write_table(truth_table(rows), partial / "truth.parquet")
    partial.rename(folder)


def _writer(path: Path, request: DatasetRequest) -> CutoutWriter:
    return CutoutWriter(
        path,
        tile_id=f"{request.preset}-{request.seed}",
        wcs_header="",
        zero_points=ZERO_POINT,
        units=dict.fromkeys(BANDS, "adu"),
        codec=request.codec,
    )


def _merge(request: DatasetRequest, out: Path) -> pa.Table:
    """Put the parts together in order; the codes of the compact codec survive a round trip unchanged."""
    shutil.rmtree(out / "cutouts.zarr", ignore_errors=True)
    tables = []
    with _writer(out / "cutouts.zarr", request) as writer:
        for number in range(_n_parts(request)):
            folder = _part_folder(out, number)
            for batch in CutoutStore(folder / "cutouts.zarr").batches():
                writer.append(batch)
            tables.append(pq.read_table(folder / "truth.parquet"))
    truth = pa.concat_tables(tables)
    pq.write_table(truth, out / "truth.parquet.part", compression="zstd")
    (out / "truth.parquet.part").replace(out / "truth.parquet")
    return truth


def batch_of(drawn: LabelledCutouts) -> CutoutBatch:
    """Simulated cutouts as the rest of the package knows cutouts: no sky position, a mosaic of their own each."""
    n = len(drawn)
    measured = quality.measure(drawn.vis, drawn.nisp)
    offset = np.array([(row.x_arcsec, row.y_arcsec) for row in drawn.truth]).reshape(n, 2) / VIS_PIXEL_SCALE_ARCSEC
    centre = 0.5 * (VIS_CUTOUT_PIXELS - 1)
    targets = Targets(
        target_id=np.array([row.target_id for row in drawn.truth], dtype=np.int64),
        ra=np.full(n, np.nan),
        dec=np.full(n, np.nan),
        x=centre + offset[:, 0],
        y=centre + offset[:, 1],
        magnitude=np.array([row.magnitude_vis for row in drawn.truth], dtype=np.float32),
    )
    return CutoutBatch(
        targets=targets,
        vis=drawn.vis,
        nisp=drawn.nisp,
        x0=np.zeros(n, dtype=np.int64),
        y0=np.zeros(n, dtype=np.int64),
        offset=offset.astype(np.float32),
        bad_fraction=measured.bad_fraction,
        sky=measured.sky,
        sigma=measured.sigma,
        flags=np.zeros(n, dtype=np.uint32),
    )
