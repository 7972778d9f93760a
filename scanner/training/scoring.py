"""Log-odds of a new bundle for the rows that its grid and calibration are made of: in parallel, and kept on disk.

In: a bundle's folder, training data, rows and their orientations, a cache folder. Out: (n, 7) float32. Refused: what sessions
refuse. A part is written when it is scored, so that an interrupted assembly goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from scanner.atomic_file import write_atomically
from scanner.cutouts.orientation import augment
from scanner.ensemble import bundle as bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.manifest import MODEL_FILE
from scanner.ensemble.session import EnsembleSession, open_session
from scanner.records import MEMBERS, Float32, Int64
from scanner.simulation.processes import run_all
from scanner.training.data import TrainingData

#: Objects of one call of a worker process, and of one batch.
PART, BATCH = 512, 128


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
    # By row: a store is read shard by shard.
    order = np.argsort(rows, kind="stable")
    ordered, turned = rows[order], orientations[order]
    key = hashlib.sha256(bundle.manifest.sha256[MODEL_FILE].encode())
    for part in (data.fingerprint.encode(), ordered.tobytes(), turned.tobytes()):
        key.update(part)
    place = folder / key.hexdigest()[:16]
    starts = range(0, len(rows), PART)
    missing = [start for start in starts if not _path(place, start).exists()]
    calls = [
        (bundle.path, data.paths, ordered[start : start + PART], turned[start : start + PART], _path(place, start), provider)
        for start in missing
    ]
    there = len(starts) - len(missing)
    for done in run_all(_score_part, calls, workers):
        report(min((there + done) * PART, len(rows)), len(rows))
    logits = np.empty((len(rows), len(MEMBERS)), dtype=np.float32)
    logits[order] = np.concatenate([np.load(_path(place, start)) for start in starts])
    return logits


def _path(place: Path, start: int) -> Path:
    return place / f"{start:08d}.npy"


@lru_cache(maxsize=1)
def _opened(bundle: Path, data: tuple[Path, ...], provider: str) -> tuple[EnsembleSession, TrainingData]:
    return open_session(bundles.load(bundle), provider), TrainingData(data)


def _score_part(bundle: Path, data: tuple[Path, ...], rows: Int64, orientations: Int64, path: Path, provider: str) -> None:
    session, opened = _opened(bundle, data, provider)
    found, start = [], 0
    for batch, vis, nisp in opened.batches(rows, BATCH):
        turned = orientations[start : start + len(batch)]
        found.append(session.logits(augment(vis, turned), augment(nisp, turned), batch.sky, batch.sigma))
        start += len(batch)
    stream = io.BytesIO()
    np.save(stream, np.concatenate(found), allow_pickle=False)
    write_atomically(path, stream.getvalue())
