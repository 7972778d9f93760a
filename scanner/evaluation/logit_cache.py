"""Log-odds of bundles for labelled sets, kept on disk: scoring takes hours, the figures seconds.

In: a bundle, a dataset, a folder. Out: (N, 7) float32. Refused: folders that cannot be written (OutputError); parts that are no
arrays of the right shape are scored again.

A part of :data:`PART` objects is written when it is scored, so an interrupted evaluation goes on where it was, and a cache that
was filled on another machine can be laid beside this one. The key is the SHA-256 of the networks, and of what decides on a
second look, with that of the dataset: a bundle whose grid or card changed keeps its log-odds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scanner.ensemble.bundle import MODEL_FILE, Bundle
from scanner.ensemble.session import EnsembleSession
from scanner.evaluation import cached_array
from scanner.evaluation.logits import dataset_logits
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, Float32

PART = 4096


def cached_logits(
    bundle: Bundle,
    dataset: LabelledSet,
    open_session: Callable[[], EnsembleSession],
    folder: Path | None,
    report: Callable[[int], None] = lambda n: None,
) -> Float32:
    """Read the log-odds of all rows of a dataset, and score what is missing.

    Parameters
    ----------
    bundle, dataset
        What scores, and what is scored.
    open_session
        Called once at most, and only if something is missing.
    folder
        Of the cache; None: everything is scored and nothing is kept.
    report
        Called with the number of objects after every batch, read or scored.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    found = np.empty((len(dataset), len(MEMBERS)), dtype=np.float32)
    session = None
    for start in range(0, len(dataset), PART):
        rows = np.arange(start, min(start + PART, len(dataset)), dtype=np.int64)
        path = None if folder is None else folder / cache_key(bundle, dataset) / f"{start // PART:06d}.npy"
        part = None if path is None else cached_array.read(path, (len(rows), len(MEMBERS)))
        if part is None:
            session = session or open_session()
            part = dataset_logits(session, dataset, rows, report=report)
            if path is not None:
                cached_array.write(path, part)
        else:
            report(len(rows))
        found[rows] = part
    return found


def cached_grid_values(bundle: Bundle, dataset: LabelledSet, logits: Float32, folder: Path | None) -> Float32:
    """Grid values of a bundle that has a grid, (N,) float32, kept beside the log-odds: looking up a point takes longest.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    if bundle.grid is None:
        raise ValueError("the bundle has no grid")
    path = None if folder is None else folder / cache_key(bundle, dataset) / f"grid-{bundle.fingerprint[:16]}.npy"
    if path is not None:
        kept = cached_array.read(path, (len(logits),))
        if kept is not None:
            return kept
    values = bundle.grid.lookup(logits).value
    if path is not None:
        cached_array.write(path, values)
    return values


def cache_key(bundle: Bundle, dataset: LabelledSet) -> str:
    """Folder name of a bundle's log-odds for a dataset."""
    networks = bundle.manifest.sha256[MODEL_FILE]
    if bundle.manifest.second_look is not None:
        rule = bundle.manifest.second_look.model_dump_json() + bundle.manifest.calibration.model_dump_json()
        networks = hashlib.sha256(f"{networks} {rule}".encode()).hexdigest()
    return f"{networks[:16]}-{dataset.content_key[:16]}"
