"""Scores a dataset with several bundles and puts their figures side by side.

In: paths of bundles, a dataset, optionally a list of single images. Out: :class:`Comparison`. Refused: what bundles, sessions
and tiles refuse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from scanner.ensemble import bundle as bundles
from scanner.ensemble.session import open_session
from scanner.evaluation.evaluate import compare, evaluate, scores_of
from scanner.evaluation.images import score_images
from scanner.evaluation.labelled_data import Dataset, Truth
from scanner.evaluation.logits import dataset_logits
from scanner.evaluation.results import Evaluation
from scanner.records import Float64

Report = Callable[[str, int], None]


@dataclass(frozen=True)
class Comparison:
    """The figures, and per bundle the scores they were measured on: (N,) float64 each, row-aligned with ``truth``."""

    evaluation: Evaluation
    scores: tuple[dict[str, Float64], ...]
    truth: Truth


def compare_bundles(
    paths: Sequence[Path | None],
    dataset: Dataset,
    *,
    images: Path | None = None,
    provider: str = "auto",
    threads: int = 1,
    beta: float | None = None,
    report: Report = lambda name, n: None,
) -> Comparison:
    """Evaluate bundles on one dataset.

    Parameters
    ----------
    paths
        Folders of bundles, or None for the default one.
    dataset
        That none of them was trained on.
    images
        A tile list; the centre of every tile is scored over eight orientations.
    provider, threads
        Of the sessions.
    beta
        Of the decisions; None: each bundle's default.
    report
        Called with the bundle's name and the number of objects scored since the last call.
    """
    rows = np.arange(len(dataset), dtype=np.int64)
    found, scores = [], []
    for path in paths:
        bundle = bundles.load(path)
        session = open_session(bundle, provider, threads)
        name = bundle.manifest.name
        started = time.monotonic()
        logits = dataset_logits(session, dataset, rows, report=partial(report, name))
        seconds = time.monotonic() - started
        figures = evaluate(bundle, session, logits, dataset.truth, seconds=seconds, beta=beta)
        if images is not None:
            figures = figures.model_copy(update={"images": score_images(images, bundle, session)})
        found.append(figures)
        scores.append(scores_of(bundle, logits))
    evaluation = compare(dataset.path.name, dataset.fingerprint, dataset.truth, found)
    return Comparison(evaluation, tuple(scores), dataset.truth)
