"""A dataset: asked for, drawn in parts by several processes, resumed, finished."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from scanner import __version__
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
from scanner.errors import OutputError
from scanner.labelled_set import CUTOUTS, DESCRIPTION, TRUTH, described_sha256
from scanner.processes import run_all
from scanner.records import (
    BANDS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    CodecName,
    CutoutBatch,
    Record,
    SealedRecord,
    Targets,
)
from scanner.simulation import DeviceName, GeneratorName, Parameters, PresetName, parts
from scanner.simulation.datasets import cutouts
from scanner.simulation.datasets.cutouts import LabelledCutouts, check_device, draw
from scanner.simulation.datasets.presets import LENS_CLASSES, PRESETS, Preset
from scanner.simulation.datasets.truth import component_table, truth_table
from scanner.simulation.parts import PARTS, Progress, claim, join_parts, write_record
from scanner.simulation.telescope.noise import ZERO_POINT

#: Table 1 moves the whole object; nothing else is in its images.
_AS_IN_THE_PAPER = {"parameters": "paper", "centred_fraction": 0.0, "offset_arcsec": 5.0, "bright_star_fraction": 0.0}
#: Classes of which the paper states parameters (its Table 1).
PAPER_CLASSES = frozenset({"compound_arc", "double_ring"})


class DrawRequest(Record):
    """What objects to draw."""

    preset: PresetName
    n_objects: int = Field(ge=1, le=100_000_000)
    seed: int = Field(ge=0, lt=2**63)

    def described(self) -> str:
        """In a few words, to tell one from another."""
        return f"preset {self.preset}, {self.n_objects} objects, seed {self.seed}"

    @property
    def drawn_as(self) -> Preset:
        """The preset with what was asked for instead."""
        return PRESETS[self.preset]


class DatasetRequest(DrawRequest):
    """A labelled set of simulated cutouts."""

    codec: CodecName = Field("compact", description="Codec of the cutout store.")
    red_source_fraction: float | None = Field(None, ge=0, le=1, description="Instead of the preset's.")
    generator: GeneratorName = Field("fast", description="What traces the rays; lenstronomy is the referee, and slow.")
    parameters: Parameters = Field("physical", description="Compound lenses as physics has them, or as the paper's Table 1.")
    device: DeviceName = Field("cpu", description="What computes the pixels: numpy in processes, or torch on a GPU.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        preset = PRESETS[self.preset]
        if self.red_source_fraction is not None and self.preset == "red-sources":
            raise ValueError("preset red-sources draws red sources only: leave out --red-fraction, or take preset eval")
        if self.parameters == "paper" and not PAPER_CLASSES.issuperset(preset.mix):
            raise ValueError("--parameters paper is for the presets compound-arc and double-ring")
        if self.generator == "lenstronomy" and not set(LENS_CLASSES).issuperset(preset.mix):
            names = ", ".join(name for name, other in PRESETS.items() if set(LENS_CLASSES).issuperset(other.mix))
            raise ValueError(f"--generator lenstronomy cannot draw the non-lenses of preset {self.preset}; it draws {names}")
        if self.generator == "lenstronomy" and self.device != "cpu":
            raise ValueError("--generator lenstronomy runs on --device cpu only")
        return self

    def described(self) -> str:
        """In a few words, to tell one from another."""
        common = DrawRequest.model_fields
        changes = {name: value for name, value in self.model_dump(exclude_defaults=True).items() if name not in common}
        return ", ".join([super().described(), *(f"{name.replace('_', ' ')} {value}" for name, value in changes.items())])

    @property
    def drawn_as(self) -> Preset:
        """The preset with what was asked for instead."""
        preset = PRESETS[self.preset]
        if self.red_source_fraction is not None:
            options = preset.options.model_copy(update={"red_source_fraction": self.red_source_fraction})
            preset = preset.model_copy(update={"options": options})
        return preset if self.parameters == "physical" else preset.model_copy(update=_AS_IN_THE_PAPER)


class DrawnRecord(SealedRecord):
    """Record of a folder of drawn objects; ``complete`` once everything is in place.

    ``sha256``: of the files of a dataset that have no checksum of their own, see
    :func:`scanner.labelled_set.described_sha256`.
    """

    format_version: Literal[1] = 1
    scanner_version: str = __version__
    request: DrawRequest
    preset: Preset
    complete: bool = False
    n_lenses: int | None = None
    n_visible: int | None = None
    sha256: dict[str, str] = Field(default_factory=dict)


class DatasetRecord(DrawnRecord):
    """``dataset.json``: what was drawn."""

    request: DatasetRequest


COMPONENTS = "components.parquet"
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
        drawn = cutouts.draw_on_device(preset, request.seed, rows, request.device)
    write_dataset_part(out, number, batch_of(drawn), truth_table(drawn.truth), component_table(drawn.components))


def write_dataset_part(out: Path, number: int, batch: CutoutBatch, truth: pa.Table, components: pa.Table | None = None) -> None:
    """Write a part's shards, its rows and, last, its truth."""
    write_shards(out / CUTOUTS, number * PART_OBJECTS, batch)
    np.savez(_rows(out, number), allow_pickle=False, **column_values(batch))
    if components is not None:
        parts.write_part(_components(out, number), components)
    parts.write_part(_truth(out, number), truth)


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
    try:
        record = claimed(out, DESCRIPTION, DatasetRecord(request=request, preset=request.drawn_as), "dataset")
        n_objects = request.n_objects
        if not record.complete:
            begin_parts(out, attributes_of(request.preset, request.seed, n_objects, request.codec))
            missing = missing_parts(out, n_objects)
            there = n_objects - sum(len(part_rows(n_objects, number)) for number in missing)
            if progress is not None:
                progress(there, n_objects)
            for done in run_all(draw_part, [(request, out, number) for number in missing], workers):
                if progress is not None:
                    progress(min(there + done * PART_OBJECTS, n_objects), n_objects)
            record = completed(out, DESCRIPTION, record, *finish_parts(out, n_objects))
        elif progress is not None:
            progress(n_objects, n_objects)
        return record
    except OSError as error:
        raise OutputError.of(Path(error.filename or out), error) from None


D = TypeVar("D", bound=DrawnRecord)


def claimed(out: Path, name: str, record: D, noun: str) -> D:
    """Make the folder, or check that it is this request's; returns the record ``name`` that is there now.

    Raises
    ------
    OutputError
        The folder belongs to another request, or holds something else.
    ContentError
        It holds a file of that name which is no such record.
    """

    def read(path: Path) -> D:
        remedy = "choose another --out or remove the folder"
        return type(record).from_bytes(path.read_bytes(), path, remedy, wrong=f"damaged, or no {noun}'s record")

    found = claim(out, name, record, read)
    if found.request != record.request or found.preset != record.preset:
        asked, there = record.request.described(), found.request.described()
        if asked != there:
            difference = f"holds another {noun} ({there}), not the one asked for ({asked})"
        elif found.preset != record.preset:
            difference = f"holds objects of the preset {record.preset.name} as another version of scanner draws them"
        else:
            difference = f"holds another {noun}, with other tiles"
        raise OutputError(f"{out}: {difference}; choose another --out or remove it.")
    if found.complete:
        # A run that was killed between the two last steps left its parts behind.
        shutil.rmtree(out / PARTS, ignore_errors=True)
    return found


def completed(out: Path, name: str, record: D, n_lenses: int, n_visible: int, **more: Any) -> D:
    """Say in the record that all is there, and remove what was only on the way."""
    update = {"complete": True, "n_lenses": n_lenses, "n_visible": n_visible, "sha256": described_sha256(out), **more}
    finished = record.model_copy(update=update)
    write_record(out / name, finished)
    shutil.rmtree(out / PARTS)
    return finished
