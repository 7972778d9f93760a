"""The parts of a dataset: whole shards of its store, each drawn once, by any process, and never written twice.

In: a request, the dataset's folder, a part's number. Out: the part's shards in the unfinished store, its rows in ``parts/``;
the truth is written last, so that a part with its truth is complete. Refused: nothing; what the disk refuses is raised as it
is (OSError).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scanner.cutouts import quality
from scanner.cutouts.layout import SHARD_OBJECTS, StoreAttributes
from scanner.cutouts.shared_writer import begin_store, finish_store, write_shards
from scanner.cutouts.store_arrays import COLUMNS, column_values
from scanner.cutouts.writer import store_attributes
from scanner.records import BANDS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, CutoutBatch, Targets
from scanner.simulation.datasets import on_device
from scanner.simulation.datasets.component_table import component_table
from scanner.simulation.datasets.labelled_cutouts import LabelledCutouts, draw
from scanner.simulation.datasets.request import DatasetRequest
from scanner.simulation.datasets.truth import truth_table
from scanner.simulation.telescope.photometry import ZERO_POINT

STORE, TRUTH, COMPONENTS, PARTS = "cutouts.zarr", "truth.parquet", "components.parquet", "parts"
#: One shard a part: it is drawn in a few seconds, and an interrupted run loses no more than that.
PART_OBJECTS = SHARD_OBJECTS
_PARTS_PER_GROUP = 256


def begin_parts(request: DatasetRequest, out: Path) -> None:
    """Make what parts are written into, or find it made."""
    (out / PARTS).mkdir(exist_ok=True)
    if not (out / STORE).exists():
        begin_store(out / STORE, _attributes(request))


def part_rows(request: DatasetRequest, number: int) -> range:
    """Numbers of a part's objects."""
    return range(number * PART_OBJECTS, min((number + 1) * PART_OBJECTS, request.n_objects))


def count_parts(request: DatasetRequest) -> int:
    """How many parts a dataset has."""
    return -(-request.n_objects // PART_OBJECTS)


def missing_parts(request: DatasetRequest, out: Path) -> list[int]:
    """Numbers of the parts that are not complete."""
    return [number for number in range(count_parts(request)) if not _truth(out, number).exists()]


def draw_part(request: DatasetRequest, out: Path, number: int) -> None:
    """Draw one part and write it."""
    preset, rows = request.drawn_as, part_rows(request, number)
    if request.device == "cpu":
        drawn = draw(preset, request.seed, rows, request.generator)
    else:
        drawn = on_device.draw(preset, request.seed, rows, request.device)
    write_part(out, number, drawn)


def write_part(out: Path, number: int, drawn: LabelledCutouts) -> None:
    """Write a part's shards, its rows and, last, its truth."""
    batch = batch_of(drawn)
    write_shards(out / STORE, number * PART_OBJECTS, batch)
    np.savez(_rows(out, number), allow_pickle=False, **column_values(batch))
    pq.write_table(component_table(drawn.components), _components(out, number), compression="zstd")
    truth = _truth(out, number)
    pq.write_table(truth_table(drawn.truth), truth.with_suffix(".partial"))
    truth.with_suffix(".partial").replace(truth)


def finish_parts(request: DatasetRequest, out: Path) -> tuple[int, int]:
    """Put the rows of all parts in their places; returns the numbers of lenses and of visible ones."""
    numbers = range(count_parts(request))
    if not (out / STORE).exists():
        finish_store(out / STORE, _columns(out, numbers))
    _join(out / COMPONENTS, [_components(out, number) for number in numbers], _PARTS_PER_GROUP // 16)
    _join(out / TRUTH, [_truth(out, number) for number in numbers], _PARTS_PER_GROUP)
    verdicts = pq.read_table(out / TRUTH, columns=["is_lens", "visible"])
    n_lenses, n_visible = (int(np.count_nonzero(verdicts[name])) for name in ("is_lens", "visible"))
    return n_lenses, n_visible


def _join(target: Path, parts: Sequence[Path], per_group: int) -> None:
    """Put the rows of Parquet files of one schema into one, ``per_group`` files a row group."""
    partial = target.with_name(target.name + ".partial")
    with pq.ParquetWriter(partial, pq.read_schema(parts[0]), compression="zstd") as writer:
        for first in range(0, len(parts), per_group):
            writer.write_table(pa.concat_tables(pq.read_table(part) for part in parts[first : first + per_group]))
    partial.replace(target)


def _columns(out: Path, numbers: Sequence[int]) -> dict[str, list[NDArray[Any]]]:
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    for number in numbers:
        with np.load(_rows(out, number)) as rows:
            for name in COLUMNS:
                columns[name].append(rows[name])
    return columns


def _truth(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.parquet"


def _components(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.components.parquet"


def _rows(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.npz"


def _attributes(request: DatasetRequest) -> StoreAttributes:
    name = f"{request.preset}-{request.seed}"
    attributes = store_attributes(name, "", ZERO_POINT, dict.fromkeys(BANDS, "adu"), request.codec)
    return attributes.model_copy(update={"n_objects": request.n_objects})


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
