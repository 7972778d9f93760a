"""Datasets to train on, as one: rows numbered through, in the order in which the datasets were given.

In: folders as written by ``scanner simulate dataset``. Out: :class:`TrainingData`, and its images scaled, on disk, for all
members. Refused (UsageError): evaluation sets, a dataset given twice. Refused (ContentError): sets of one class only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from pydantic import ValidationError

from scanner.ensemble.preprocessing import Preprocessing
from scanner.errors import ContentError, OutputError, UsageError
from scanner.labelled_set import TRUTH, LabelledSet
from scanner.records import CutoutBatch, Float32, Int64, Record
from scanner.simulation.processes import run_all
from scanner.training.labels import Labels, Split, joined_labels, joined_splits
from scanner.training.scaled import SHAPES, ScaledImages, scale_batch

SCALED = "scaled.json"
#: Objects read and scaled at once, and by one call of a worker process.
BATCH, PART = 256, 2048


class TrainingData:
    """Datasets, one after the other.

    Parameters
    ----------
    paths
        Their folders.

    Raises
    ------
    InputMissingError, ContentError
        A folder is no dataset, or all of their objects are of one class.
    UsageError
        A dataset is there for evaluation only, or given twice.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.datasets = tuple(LabelledSet(path) for path in paths)
        for dataset in self.datasets:
            if _purpose(dataset) == "evaluation":
                raise UsageError(
                    f"{dataset.path}: preset {dataset.preset} is for evaluation only and must never be trained on; "
                    "draw a training set with 'scanner simulate dataset --preset train'."
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
        self.split: Split = joined_splits([len(dataset) for dataset in self.datasets])

    def __len__(self) -> int:
        return int(self.starts[-1])

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


def _purpose(dataset: LabelledSet) -> str | None:
    try:
        return str(json.loads(dataset.description)["preset"]["purpose"])
    except (ValueError, KeyError, TypeError):
        return None


def _labels(dataset: LabelledSet) -> Labels:
    truth, second = dataset.truth, dataset.column("arc_snr_2")
    snr = truth.arc_snr if second is None else np.fmax(truth.arc_snr, second.astype(np.float32))
    return Labels(truth.is_lens, snr, truth.visible, truth.position)


class ScaledDescription(Record):
    """``scaled.json``: what the arrays were made from."""

    dataset_sha256: str
    preprocessing: Preprocessing
    n: int


def open_scaled(folder: Path, preprocessing: Preprocessing) -> ScaledImages:
    """Memory-map a folder that :func:`scale_data` finished."""
    # Copy-on-write: torch wants writable arrays, and nothing writes to them.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in SHAPES}
    return ScaledImages(**arrays, preprocessing=preprocessing)


def scale_data(data: TrainingData, folder: Path, preprocessing: Preprocessing, workers: int = 1) -> ScaledImages:
    """Scale all cutouts into ``folder``, or open what an earlier call left there.

    Parameters
    ----------
    data
        What to scale.
    folder
        Gets ``vis.npy``, ``nisp.npy``, ``vis66.npy`` (float16, 115 kB an object) and ``scaled.json``.
    preprocessing
        See :mod:`scanner.ensemble.preprocessing`.
    workers
        Processes.

    Returns
    -------
    ScaledImages
        Row-aligned with ``data.labels``, memory-mapped.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    wanted = ScaledDescription(dataset_sha256=data.fingerprint, preprocessing=preprocessing, n=len(data))
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
            open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=(len(data), *shape))
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
    arrays: dict[str, Any] = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in SHAPES}
    at = first + start
    for batch, vis, nisp in LabelledSet(path).batches(np.arange(start, end, dtype=np.int64), BATCH):
        scaled = scale_batch(vis, nisp, batch.sky, batch.sigma, preprocessing)
        for name, array in arrays.items():
            array[at : at + len(vis)] = getattr(scaled, name)
        at += len(vis)
    for array in arrays.values():
        array.flush()
