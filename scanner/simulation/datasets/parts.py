"""The parts of a dataset: whole shards of its store, each drawn once, by any process, and never written twice.

In: a dataset's folder, a part's number, what was drawn or painted. Out: the part's shards in the unfinished store, its rows in
``parts/``; the truth is written last, so that a part with its truth is complete. Refused: nothing; what the disk refuses is
raised as it is (OSError).
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
from scanner.cutouts.store import (
    COLUMNS,
    SHARD_OBJECTS,
    StoreAttributes,
    begin_store,
    column_values,
    finish_store,
    store_attributes,
    write_shards,
)
from scanner.labelled_set import CUTOUTS, TRUTH
from scanner.records import BANDS, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, CodecName, CutoutBatch, Targets
from scanner.simulation import parquet_parts
from scanner.simulation.datasets import on_device
from scanner.simulation.datasets.component_table import component_table
from scanner.simulation.datasets.labelled_cutouts import LabelledCutouts, draw
from scanner.simulation.datasets.request import DatasetRequest
from scanner.simulation.datasets.truth import truth_table
from scanner.simulation.parquet_parts import join_parts
from scanner.simulation.telescope.photometry import ZERO_POINT

COMPONENTS, PARTS = "components.parquet", "parts"
#: One shard a part: it is drawn in a few seconds, and an interrupted run loses no more than that.
PART_OBJECTS = SHARD_OBJECTS
_PARTS_PER_GROUP = 256


def attributes_of(preset: str, seed: int, n_objects: int, codec: CodecName) -> StoreAttributes:
    """Of the store of a dataset: in the units of the simulation, without a mosaic."""
    attributes = store_attributes(f"{preset}-{seed}", "", ZERO_POINT, dict.fromkeys(BANDS, "adu"), codec)
    return attributes.model_copy(update={"n_objects": n_objects})


def begin_parts(out: Path, attributes: StoreAttributes) -> None:
    """Make what parts are written into, or find it made."""
    (out / PARTS).mkdir(exist_ok=True)
    if not (out / CUTOUTS).exists():
        begin_store(out / CUTOUTS, attributes)


def part_rows(n_objects: int, number: int) -> range:
    """Numbers of a part's objects."""
    return range(number * PART_OBJECTS, min((number + 1) * PART_OBJECTS, n_objects))


def count_parts(n_objects: int) -> int:
    """How many parts a dataset has."""
    return -(-n_objects // PART_OBJECTS)


def missing_parts(out: Path, n_objects: int) -> list[int]:
    """Numbers of the parts that are not complete."""
    return [number for number in range(count_parts(n_objects)) if not _truth(out, number).exists()]


def draw_part(request: DatasetRequest, out: Path, number: int) -> None:
    """Draw one part and write it."""
    preset, rows = request.drawn_as, part_rows(request.n_objects, number)
    if request.device == "cpu":
        drawn = draw(preset, request.seed, rows, request.generator)
    else:
        drawn = on_device.draw(preset, request.seed, rows, request.device)
    write_part(out, number, batch_of(drawn), truth_table(drawn.truth), component_table(drawn.components))


def write_part(out: Path, number: int, batch: CutoutBatch, truth: pa.Table, components: pa.Table | None = None) -> None:
    """Write a part's shards, its rows and, last, its truth."""
    write_shards(out / CUTOUTS, number * PART_OBJECTS, batch)
    np.savez(_rows(out, number), allow_pickle=False, **column_values(batch))
    if components is not None:
        parquet_parts.write_part(_components(out, number), components)
    parquet_parts.write_part(_truth(out, number), truth)


def finish_parts(out: Path, n_objects: int) -> tuple[int, int]:
    """Put the rows of all parts in their places; returns the numbers of lenses and of visible ones."""
    numbers = range(count_parts(n_objects))
    if not (out / CUTOUTS).exists():
        finish_store(out / CUTOUTS, _columns(out, numbers))
    if _components(out, 0).exists():
        join_parts(out / COMPONENTS, [_components(out, number) for number in numbers], _PARTS_PER_GROUP // 16)
    join_parts(out / TRUTH, [_truth(out, number) for number in numbers], _PARTS_PER_GROUP)
    return count_lenses(out / TRUTH)


def count_lenses(truth: Path) -> tuple[int, int]:
    """Numbers of lenses and of visible ones in a truth table."""
    verdicts = pq.read_table(truth, columns=["is_lens", "visible"])
    n_lenses, n_visible = (int(np.count_nonzero(verdicts[name])) for name in ("is_lens", "visible"))
    return n_lenses, n_visible


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
        magnitude=np.array([row.light.magnitude_vis for row in drawn.truth], dtype=np.float32),
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
