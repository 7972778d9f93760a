"""Log-odds of a new bundle for the rows that its grid and calibration are made of: in parallel, and kept on disk.

In: a bundle's folder, training data, rows and their orientations, a cache folder. Out: (n, 7) float32. Refused: what sessions
refuse. A part is written when it is scored, so that an interrupted assembly goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from scanner.ensemble import bundles
from scanner.ensemble.bundle import MODEL_FILE, Bundle
from scanner.ensemble.session import EnsembleSession, open_session
from scanner.evaluation import scores
from scanner.evaluation.scores import dataset_logits
from scanner.records import MEMBERS, Float32, Int64
from scanner.simulation.processes import run_all
from scanner.training.data import TrainingData

#: Objects of one call of a worker process.
PART = 512


def training_logits(
    bundle: Bundle,
    data: TrainingData,
    rows: Int64,
    orientations: Int64,
    folder: Path,
    *,
    provider: str = "auto",
    workers: int = 1,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Float32:
    """Score rows, each turned as asked, or read what an earlier call scored.

    Parameters
    ----------
    bundle, data
        What scores, and what is scored.
    rows, orientations
        (n,) row numbers in any order, and orientations 0..7.
    folder
        Of the cache; parts of other networks, data or rows lie beside these.
    provider, workers
        Of the sessions, and how many processes with one each.
    report
        Called with (objects done, objects in all) after every part.

    Returns
    -------
    numpy.ndarray
        (n, 7) float32, in the order of ``rows``.
    """
    key = hashlib.sha256(f"{bundle.manifest.sha256[MODEL_FILE]} {data.fingerprint}".encode()).hexdigest()[:16]
    # Parts follow the order that was asked for, so that those of a longer list begin with those of a shorter one; within a
    # part, rows are read in the order of the store.
    parts = []
    for start in range(0, len(rows), PART):
        order = start + np.argsort(rows[start : start + PART], kind="stable")
        parts.append((order, _path(folder / key, rows[order], orientations[order])))
    logits = np.empty((len(rows), len(MEMBERS)), dtype=np.float32)
    missing = [(order, path) for order, path in parts if not _taken(logits, order, path)]
    calls = [(bundle.path, data.paths, rows[order], orientations[order], path, provider) for order, path in missing]
    there = len(parts) - len(missing)
    for done in run_all(_score_part, calls, workers):
        report(min((there + done) * PART, len(rows)), len(rows))
    for order, path in missing:
        _taken(logits, order, path)
    return logits


def _taken(logits: Float32, order: Int64, path: Path) -> bool:
    """Put a part into its place, if it is there."""
    part = scores.read_array(path, (len(order), len(MEMBERS)))
    if part is not None:
        logits[order] = part
    return part is not None


def _path(place: Path, rows: Int64, orientations: Int64) -> Path:
    return place / f"{hashlib.sha256(rows.tobytes() + orientations.tobytes()).hexdigest()[:16]}.npy"


@lru_cache(maxsize=1)
def _opened(bundle: Path, data: tuple[Path, ...], provider: str) -> tuple[EnsembleSession, TrainingData]:
    return open_session(bundles.load(bundle), provider), TrainingData(data)


def _score_part(bundle: Path, data: tuple[Path, ...], rows: Int64, orientations: Int64, path: Path, provider: str) -> None:
    session, opened = _opened(bundle, data, provider)
    scores.write_array(path, dataset_logits(session, opened, rows, orientations))
