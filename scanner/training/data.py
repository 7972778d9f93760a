"""What members are trained on, from labelled sets or drawn on the spot: labels, split, and scaled images."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray
from pydantic import Field, ValidationError

from scanner.atomic_file import replacement
from scanner.cutouts.quality import measure
from scanner.ensemble.preprocessing import Preprocessing, from_minimum, resize, scale_asinh_mad, scale_minmax
from scanner.errors import ContentError, OutputError, UsageError
from scanner.processes import run_all
from scanner.records import (
    DRAWN,
    IMAGE_SHAPES,
    NISP_CUTOUT_PIXELS,
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    CutoutBatch,
    Float32,
    Float64,
    Int64,
    Record,
)
from scanner.training.presets import ImageType, Shares

if TYPE_CHECKING:
    from scanner.labelled_set import LabelledSet

#: Every member is trained on the same rows, whatever its seed: one set of calibration objects is left to the ensemble.
SPLIT_SEED = 0
#: Of every preset but the paper's.
SHARES = Shares()
#: Training, validation and calibration need a field of the sky each.
FEWEST_FIELDS = 3
#: Shape of one object in each array.
SHAPES = IMAGE_SHAPES | {"vis66": (NISP_CUTOUT_PIXELS, NISP_CUTOUT_PIXELS)}
SCALED = "scaled.json"
#: Further column of truth: how much a label counts in training.
WEIGHT_COLUMN = "weight"
#: Objects read and scaled at once, and by one call of a worker process.
BATCH, PART = 256, 2048


@dataclass(frozen=True)
class Labels:
    """What is known of ``N`` objects.

    ``is_lens`` (N,) bool. ``arc_snr`` (N,) float32: signal-to-noise ratio of the lensed light in VIS, of the brighter system
    where there are two; NaN where a person labelled it. ``visible`` (N,) bool: lenses whose arcs a person could see.
    ``position`` (N, 2) float32: (y, x) of the object off the cutout's centre, arcsec. ``missing`` (N, 4) bool: bands (VIS,
    Y, J, H) without a good pixel. ``weight`` (N,) float32: how much a row counts in the loss; 0: it is not trained on.
    """

    is_lens: NDArray[np.bool_]
    arc_snr: Float32
    visible: NDArray[np.bool_]
    position: Float32
    missing: NDArray[np.bool_]
    weight: Float32

    def __len__(self) -> int:
        return len(self.is_lens)


@dataclass(frozen=True)
class Split:
    """Row numbers, (n,) int64 each and ascending: no row is in two of them, and no field of the real sky."""

    train: Int64
    validation: Int64
    calibration: Int64


@dataclass(frozen=True)
class ScaledImages:
    """Images scaled as a bundle's graph scales them: what the trainers of all members share.

    ``vis`` (N, 200, 200), ``nisp`` (N, 3, 66, 66; Y, J, H) and ``vis66`` (N, 66, 66), float32 or float16, which resolves 0.0005
    near 1: a hundredth of the sky's σ in either scaling. Arrays of numpy, memory-mapped or not, or tensors of torch on any
    device.
    """

    vis: Any
    nisp: Any
    vis66: Any
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.vis)


class TrainingData:
    """Labelled sets as one: rows numbered through, in the order in which the sets were given.

    Parameters
    ----------
    paths
        Their folders.
    shares
        Of the rows that train and validate.

    Raises
    ------
    InputMissingError, ContentError
        A folder is no dataset, or all of their objects are of one class.
    UsageError
        A dataset is there for evaluation only, or given twice.
    """

    def __init__(self, paths: Sequence[Path], shares: Shares = SHARES) -> None:
        # Here, as it needs zarr: a machine that draws what it trains on may do without.
        from scanner.labelled_set import TRUTH, LabelledSet

        self.paths = tuple(paths)
        self.datasets = tuple(LabelledSet(path) for path in paths)
        for dataset in self.datasets:
            if dataset.is_for_evaluation_only:
                raise UsageError(
                    f"{dataset.path}: {dataset.preset} is for evaluation only and must never be trained on; give a training "
                    "set, such as 'scanner simulate dataset --preset train' draws."
                )
        if len(set(self.fingerprints)) < len(self.datasets):
            raise UsageError("a dataset is given twice as --data; give each once.")
        self.starts = np.concatenate([[0], np.cumsum([len(dataset) for dataset in self.datasets])])
        self.labels = joined_labels([_labels(dataset) for dataset in self.datasets])
        if self.labels.is_lens.all() or not self.labels.is_lens.any():
            raise ContentError(
                f"{self.datasets[0].path / TRUTH}: needs lenses and non-lenses, but all {len(self)} rows are of one class; "
                "train on another dataset."
            )
        self.split: Split = self._split(shares)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _split(self, shares: Shares) -> Split:
        """Split simulated objects one by one, set by set, and those of the real sky by whole fields."""
        sizes = [len(dataset) for dataset in self.datasets]
        names = [dataset.fields or [""] * len(dataset) for dataset in self.datasets]
        fields = np.array([name for of_set in names for name in of_set], dtype=np.str_)
        if not (fields != "").any():
            return joined_splits(sizes, shares=shares)
        ra, dec = (np.concatenate([getattr(dataset.store, axis) for dataset in self.datasets]) for axis in ("ra", "dec"))
        return apart(joined_splits(sizes, fields, self.labels.is_lens, shares), ra, dec)

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over the fingerprints of all datasets; that of the dataset where there is one."""
        first, *others = self.fingerprints
        return hashlib.sha256("".join((first, *others)).encode()).hexdigest() if others else first

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Those of the datasets."""
        return tuple(dataset.fingerprint for dataset in self.datasets)

    @property
    def seen(self) -> tuple[str, ...]:
        """Fingerprints of the datasets, and of those that they are a part of."""
        return tuple(dict.fromkeys([*self.fingerprints, *(one.part_of for one in self.datasets if one.part_of)]))

    @property
    def drawn_from(self) -> frozenset[str]:
        """``drawn:PRESET:SEED`` of every dataset that says so."""
        return frozenset(dataset.drawn_from for dataset in self.datasets if dataset.drawn_from is not None)

    @property
    def description(self) -> str:
        """The texts of all ``dataset.json``."""
        return "\n".join(dataset.description.strip() for dataset in self.datasets)

    def batches(self, rows: Int64, size: int) -> Iterator[tuple[CutoutBatch, Float32, Float32]]:
        """Read rows, ascending over the datasets: batches of at most ``size``, with VIS and NISP free of NaN."""
        for dataset, start, end in zip(self.datasets, self.starts, self.starts[1:], strict=False):
            yield from dataset.batches(rows[(rows >= start) & (rows < end)] - start, size)


def _labels(dataset: LabelledSet) -> Labels:
    truth, second = dataset.truth, dataset.column("arc_snr_2")
    snr = truth.arc_snr if second is None else np.fmax(truth.arc_snr, second.astype(np.float32))
    given = dataset.column(WEIGHT_COLUMN)
    weight = np.ones(len(dataset), np.float32) if given is None else given.astype(np.float32)
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ContentError(f"{dataset.path}: has weights that are negative or no numbers; import its labels again.")
    return Labels(truth.is_lens, snr, truth.visible, truth.position, dataset.store.bad_fraction == 1.0, weight)


def scale_data(
    data: TrainingData, folder: Path, preprocessing: Preprocessing, workers: int = 1, image_type: ImageType = "float16"
) -> ScaledImages:
    """Scale all cutouts into ``folder``, or open what an earlier call left there.

    Parameters
    ----------
    data
        What to scale.
    folder
        Gets ``vis.npy``, ``nisp.npy``, ``vis66.npy`` (115 kB an object in float16, twice that in float32) and ``scaled.json``.
    preprocessing
        See :mod:`scanner.ensemble.preprocessing`.
    workers
        Processes.
    image_type
        How the images are kept.

    Returns
    -------
    ScaledImages
        Row-aligned with ``data.labels``, memory-mapped.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    wanted = ScaledDescription(dataset_sha256=data.fingerprint, preprocessing=preprocessing, n=len(data), image_type=image_type)
    marker = folder / SCALED
    try:
        if ScaledDescription.model_validate_json(marker.read_text(encoding="utf-8")) == wanted:
            return open_scaled(folder, preprocessing)
    except (OSError, ValidationError):
        pass
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        for name, shape in SHAPES.items():
            open_memmap(folder / f"{name}.npy", mode="w+", dtype=image_type, shape=(len(data), *shape))
        calls = [
            (dataset.path, int(first), start, min(start + PART, len(dataset)), folder, preprocessing)
            for dataset, first in zip(data.datasets, data.starts, strict=False)
            for start in range(0, len(dataset), PART)
        ]
        for _ in run_all(_scale_part, calls, workers):
            pass
        marker.write_bytes(wanted.to_bytes())
    except OSError as error:
        raise OutputError.of(folder, error) from None
    return open_scaled(folder, preprocessing)


def _scale_part(path: Path, first: int, start: int, end: int, folder: Path, preprocessing: Preprocessing) -> None:
    """Scale rows ``start`` to ``end`` of the dataset whose rows begin at ``first``."""
    from scanner.labelled_set import LabelledSet

    arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in SHAPES}
    at = first + start
    for batch, vis, nisp in LabelledSet(path).batches(np.arange(start, end, dtype=np.int64), BATCH):
        scaled = scale_batch(vis, nisp, batch.sky, batch.sigma, preprocessing, arrays["vis"].dtype)
        for name, array in arrays.items():
            array[at : at + len(vis)] = getattr(scaled, name)
        at += len(vis)
    for array in arrays.values():
        array.flush()


def open_scaled(folder: Path, preprocessing: Preprocessing) -> ScaledImages:
    """Memory-map a folder that :func:`scale_data` finished."""
    # Copy-on-write: torch wants writable arrays, and nothing writes to them.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in SHAPES}
    return ScaledImages(**arrays, preprocessing=preprocessing)


class ScaledDescription(Record):
    """``scaled.json``: what the arrays were made from."""

    dataset_sha256: str
    preprocessing: Preprocessing
    n: int
    image_type: ImageType = "float16"


class DrawnSet(Record):
    """Objects of the simulator's preset ``train``, drawn where members are trained on them.

    ``folder`` keeps them scaled, 115 kB an object, so that a later call on the same machine finds them.
    """

    n_objects: int = Field(ge=1)
    seed: int = Field(ge=0)
    folder: Path

    @property
    def fingerprint(self) -> str:
        """``drawn:train:SEED:N``, in the place of a dataset's fingerprint."""
        return f"{DRAWN}train:{self.seed}:{self.n_objects}"

    def part(self, preprocessing: Preprocessing, first: int, image_type: ImageType = "float16") -> Path:
        """File of the objects from number ``first`` on."""
        kind = preprocessing if image_type == "float16" else f"{preprocessing}-{image_type}"
        return self.folder / f"{kind}-{self.seed}-{first}-{min(PART, self.n_objects - first)}.npz"


def draw_missing(
    drawn: DrawnSet,
    preprocessing: Preprocessing,
    device: str,
    workers: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
    image_type: ImageType = "float16",
) -> None:
    """Draw and scale the parts of a set that are not there yet.

    Parameters
    ----------
    drawn, preprocessing
        Which objects, and how they are scaled.
    device, workers
        Of torch, and processes that draw ahead: see :func:`scanner.simulation.datasets.cutouts.draw_batches`.
    report
        Called with (objects there, objects in all) after every part that was drawn.
    image_type
        How the images are kept.

    Raises
    ------
    UsageError
        There is no such device.
    OutputError
        The folder cannot be written.
    """
    from scanner.simulation.datasets.cutouts import draw_batches
    from scanner.simulation.datasets.presets import PRESETS

    for first in range(0, drawn.n_objects, PART):
        path, n = drawn.part(preprocessing, first, image_type), min(PART, drawn.n_objects - first)
        if path.exists():
            continue
        images, labels = [], []
        for batch in draw_batches(PRESETS["train"], drawn.seed, n, min(BATCH, n), device, first=first, workers=workers):
            vis, nisp, truth = batch.vis.cpu().numpy(), batch.nisp.cpu().numpy(), batch.truth
            seen = measure(vis, nisp)
            images.append(scale_batch(vis, nisp, seen.sky, seen.sigma, preprocessing, image_type))
            snr = np.fmax(truth["arc_snr"], truth["arc_snr_2"]).astype(np.float32)
            position = np.nan_to_num(np.stack([truth["y_arcsec"], truth["x_arcsec"]], axis=1)).astype(np.float32)
            weight = np.ones(len(vis), np.float32)
            labels.append(Labels(truth["is_lens"], snr, truth["visible"], position, seen.bad_fraction == 1.0, weight))
        scaled = joined_images(images)
        arrays = {name: getattr(scaled, name) for name in SHAPES} | vars(joined_labels(labels))
        try:
            drawn.folder.mkdir(parents=True, exist_ok=True)
            with replacement(path) as partial, partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise OutputError.of(path, error) from None
        report(first + n, drawn.n_objects)


def read_drawn(drawn: DrawnSet, preprocessing: Preprocessing, image_type: ImageType = "float16") -> tuple[ScaledImages, Labels]:
    """Read what :func:`draw_missing` drew into memory."""
    images, labels = [], []
    for first in range(0, drawn.n_objects, PART):
        with np.load(drawn.part(preprocessing, first, image_type)) as arrays:
            images.append(ScaledImages(**{name: arrays[name] for name in SHAPES}, preprocessing=preprocessing))
            labels.append(Labels(**{item.name: arrays[item.name] for item in fields_of(Labels)}))
    return joined_images(images), joined_labels(labels)


def scale_batch(
    vis: Float32, nisp: Float32, sky: Float32, sigma: Float32, preprocessing: Preprocessing, image_type: DTypeLike = "float16"
) -> ScaledImages:
    """Scale cutouts without NaN as the bundle's graph does, VIS at both sizes.

    Parameters
    ----------
    vis, nisp
        (n, 200, 200) and (n, 3, 66, 66), any unit.
    sky, sigma
        (n, 4), VIS, Y, J, H.
    preprocessing
        ``minmax`` or ``asinh_mad``.
    image_type
        Type of the scaled images, float16 or float32.
    """
    if preprocessing == "minmax":
        scaled_vis, scaled_nisp = scale_minmax(vis), scale_minmax(nisp)
        small = scale_minmax(resize(from_minimum(vis), NISP_CUTOUT_PIXELS))
    else:
        scaled_vis = scale_asinh_mad(vis, sky[:, 0], sigma[:, 0])
        scaled_nisp = scale_asinh_mad(nisp, sky[:, 1:], sigma[:, 1:])
        small = resize(scaled_vis, NISP_CUTOUT_PIXELS)
    kept = {"vis": scaled_vis, "nisp": scaled_nisp, "vis66": small}
    return ScaledImages(**{name: part.astype(image_type) for name, part in kept.items()}, preprocessing=preprocessing)


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Labels of several sets, one after the other."""
    return Labels(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields_of(Labels)})


def split(n: int, seed: int = SPLIT_SEED, shares: Shares = SHARES) -> Split:
    """Split ``n`` rows at random; the same for the same ``n``, ``seed`` and ``shares``."""
    order = np.random.default_rng((seed, n)).permutation(n).astype(np.int64)
    first, second = round(n * shares.train), round(n * (shares.train + shares.validation))
    return Split(*(np.sort(part) for part in (order[:first], order[first:second], order[second:])))


def joined_splits(
    sizes: Sequence[int],
    fields: NDArray[np.str_] | None = None,
    is_lens: NDArray[np.bool_] | None = None,
    shares: Shares = SHARES,
) -> Split:
    """Splits of several sets, each by itself, with rows numbered through: adding a set moves no row of another.

    Parameters
    ----------
    sizes
        Rows of each set.
    fields, is_lens
        (N,) of all sets: the field of each row and whether it is a lens. Rows of a field are kept together
        (:func:`split_fields`); those of none, "", are split one by one.
    shares
        Of the rows that train and validate.

    Raises
    ------
    ContentError
        See :func:`split_fields`; where rows of no field are there too, all fields go to training instead.
    """
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    parts = []
    for first, n in zip(starts, sizes, strict=False):
        alone = np.arange(n, dtype=np.int64) if fields is None else np.flatnonzero(fields[first : first + n] == "")
        part = split(len(alone), shares=shares)
        parts.append(Split(*(alone[getattr(part, item.name)] + first for item in fields_of(Split))))
    if fields is not None and is_lens is not None:
        rows = np.flatnonzero(fields != "")
        if len(rows) < len(fields) and len(np.unique(fields[rows])) < FEWEST_FIELDS:
            parts.append(Split(rows, rows[:0], rows[:0]))
        else:
            part = split_fields(fields[rows], is_lens[rows], shares=shares)
            parts.append(Split(*(rows[getattr(part, item.name)] for item in fields_of(Split))))
    return Split(*(np.sort(np.concatenate([getattr(part, item.name) for part in parts])) for item in fields_of(Split)))


def apart(parts: Split, ra: Float64, dec: Float64) -> Split:
    """Leave out what has pixels in common with a part that judges it: neighbours across the edge of two fields.

    Parameters
    ----------
    parts
        Rows by field.
    ra, dec
        (N,) degrees of all rows; NaN: nowhere.

    Returns
    -------
    Split
        Without rows of training near one of validation or calibration, and of validation near one of calibration.
    """
    # Here: a machine that draws what it trains on may do without.
    from scipy.spatial import KDTree

    from scanner.sphere import chord, unit_vectors

    reach = chord(VIS_CUTOUT_PIXELS * VIS_PIXEL_SCALE_ARCSEC * math.sqrt(2))

    def away(rows: Int64, others: Int64) -> Int64:
        here, there = (part[np.isfinite(ra[part]) & np.isfinite(dec[part])] for part in (rows, others))
        if not len(here) or not len(there):
            return rows
        distance, _ = KDTree(unit_vectors(ra[there], dec[there])).query(unit_vectors(ra[here], dec[here]))
        return np.setdiff1d(rows, here[distance < reach])

    validation = away(parts.validation, parts.calibration)
    return Split(away(away(parts.train, parts.calibration), parts.validation), validation, parts.calibration)


def split_fields(
    fields: NDArray[np.str_], is_lens: NDArray[np.bool_], seed: int = SPLIT_SEED, shares: Shares = SHARES
) -> Split:
    """Split rows by whole fields of the sky.

    Validation and calibration get fields with both classes first, in an order drawn by ``seed``, until they have their share;
    fields that are larger than both shares together come last. Training gets the rest.

    Parameters
    ----------
    fields, is_lens
        (n,) field of each row, and whether it is a lens.
    seed
        Of the order.
    shares
        Of the rows that train and validate.

    Raises
    ------
    ContentError
        There are fewer than three fields.
    """
    numbers, group = np.unique(fields, return_inverse=True)
    if len(numbers) < FEWEST_FIELDS:
        raise ContentError(
            f"all {len(fields):,} objects lie in {len(numbers)} field{'s'[: len(numbers) != 1]}, and training, validation and "
            "calibration need fields of their own; import labels of three or more, or add a simulated set."
        )
    n, sizes = len(fields), np.bincount(group)
    n_lenses = np.bincount(group, weights=is_lens)
    is_mixed = (n_lenses > 0) & (n_lenses < sizes)
    drawn = np.random.default_rng((seed, n, len(numbers))).permutation(len(numbers))
    # Stable: among equals the order stays as it was drawn.
    waiting = drawn[np.lexsort((~is_mixed[drawn], sizes[drawn] > n * (1.0 - shares.train)))].tolist()
    part_of = np.zeros(len(numbers), dtype=np.int64)
    # Another field is left for every part that is still to come.
    for part, share, n_to_come in ((1, shares.validation, 2), (2, shares.calibration, 1)):
        taken = 0
        while taken < max(1, round(share * n)) and len(waiting) > n_to_come:
            part_of[waiting[0]] = part
            taken += int(sizes[waiting.pop(0)])
    return Split(*(np.flatnonzero(part_of[group] == part) for part in range(3)))


def joined_images(parts: Sequence[ScaledImages]) -> ScaledImages:
    """Images of several batches, one after the other, in memory."""
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in SHAPES}
    return ScaledImages(**arrays, preprocessing=parts[0].preprocessing)
