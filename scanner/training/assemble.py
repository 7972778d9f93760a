"""Makes a bundle of seven trained members.

In: seven trained members, data that they were trained on (or never saw), a folder for log-odds. Out: a bundle with grid,
calibration and thresholds; :func:`publish` adds measured figures and the model card. Refused: what the exporter and the output
folder refuse, and data without both classes among the calibration rows (ContentError).

The log-odds that grid and calibration are made of come from the very graph that will score the sky.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.ensemble.augmentation import ORIENTATIONS, SecondLook
from scanner.ensemble.bundle import CARD_FILE, Bundle, content_of, write_bundle
from scanner.ensemble.calibration import Calibration
from scanner.ensemble.embedding_grid import CELLS
from scanner.ensemble.threshold import OperatingCurve
from scanner.errors import ContentError
from scanner.evaluation.card import metrics_of
from scanner.evaluation.results import Evaluation
from scanner.records import Float32, Int64
from scanner.training.card import model_card
from scanner.training.data import TrainingData
from scanner.training.embedding import combine
from scanner.training.export import bundle_content
from scanner.training.runs import Ensemble
from scanner.training.scoring import training_logits

#: Rows of the embedding, as many as in the paper (section 3.2): a cell is worth as much as the objects in it are many.
EMBEDDED_ROWS = 45_000
#: A harder crowd than the sky's: of a survey's non-lenses about half as many are looked at again.
SECOND_LOOK_SHARE = 0.05
Report = Callable[[str], None]


@dataclass(frozen=True)
class Naming:
    """What a bundle is called, and one sentence on what it is."""

    name: str
    version: str
    description: str


@dataclass(frozen=True)
class Assembly:
    """How a bundle is put together.

    ``seed``: of the choice of embedded rows and of the embedding. ``embed``: rows of the embedding at most; see
    :func:`embedded_rows`. ``cells``: of the grid along each axis; None: :func:`cells_for`. ``cache``: folder where log-odds are
    kept. ``provider``, ``workers``: of the sessions that compute them. ``threads``: of openTSNE. ``second_look``: share of the
    calibration rows' non-lenses, those with the highest scores, above which objects are scored in all orientations; 0: none.
    """

    cache: Path
    seed: int = 0
    embed: int = EMBEDDED_ROWS
    cells: int | None = None
    provider: str = "auto"
    workers: int = 1
    threads: int = 1
    second_look: float = SECOND_LOOK_SHARE


@dataclass(frozen=True)
class Assembled:
    """A bundle, and the rows that its grid (``train``) and its calibration (``held_out``) were made of, with their log-odds."""

    bundle: Bundle
    train: Int64
    train_logits: Float32
    train_labels: NDArray[np.bool_]
    held_out_logits: Float32
    held_out_labels: NDArray[np.bool_]


def embedded_rows(train: Int64, seed: int, n: int) -> tuple[Int64, Int64]:
    """Draw what is embedded: training rows, in as many orientations as it takes to reach ``n``, at most all eight.

    The members give a turned image other log-odds, as they would a new object of the same kind; a small training set
    needs such company (with 8,000 rows on 100 x 100 cells the grid value had AUROC 0.80, on 20 x 20 cells 0.875).

    Returns
    -------
    tuple of numpy.ndarray
        Row numbers and orientations (0..7), (m,) int64 each; a row stands once before any stands twice.
    """
    generator = np.random.default_rng(seed)
    orientations = generator.permuted(np.tile(np.arange(ORIENTATIONS, dtype=np.int64), (len(train), 1)), axis=1)
    rounds = [generator.permutation(len(train)) for _ in range(ORIENTATIONS)]
    chosen = np.concatenate(rounds)[:n]
    turn = np.repeat(np.arange(ORIENTATIONS), len(train))[:n]
    return train[chosen], orientations[chosen, turn]


def cells_for(n: int) -> int:
    """Cells along each axis for ``n`` embedded objects: the paper's 100 for its 45,000, fewer objects in larger cells."""
    return max(2, min(CELLS, round(CELLS * math.sqrt(n / EMBEDDED_ROWS))))


def assemble(
    ensemble: Ensemble, data: TrainingData, out: Path, naming: Naming, how: Assembly, report: Report = lambda text: None
) -> Assembled:
    """Export the members with their grid, calibration and thresholds, without figures.

    Parameters
    ----------
    ensemble, data
        The members and what they were trained on, or never saw.
    out
        Folder of the bundle; replaced if it is one.
    naming, how
        See there.
    report
        Called with one line per step.

    Raises
    ------
    OutputError
        ``out`` or the cache cannot be written.
    ContentError
        The calibration rows lack a class.
    """
    labels = data.labels.is_lens
    held_out = data.split.calibration
    if labels[held_out].all() or not labels[held_out].any():
        raise ContentError(
            f"{data.paths[0]}: too few objects to set a threshold on; both classes must be among a tenth of them."
        )
    train, orientations = embedded_rows(data.split.train, how.seed, how.embed)
    content = bundle_content(
        ensemble.networks,
        ensemble.preprocessing,
        name=naming.name,
        version=naming.version,
        description=naming.description,
        sources=ensemble.sources,
        trained_on=ensemble.trained_on(data.fingerprints),
    )
    plain = write_bundle(how.cache / "plain-bundle", content)

    def progress(done: int, total: int) -> None:
        report(f"scored {done:,} of {total:,}")

    def scored(rows: Int64, turned: Int64) -> Float32:
        return training_logits(
            plain, data, rows, turned, how.cache, provider=how.provider, workers=how.workers, report=progress
        )

    report(f"scoring {len(held_out):,} calibration and {len(train):,} training objects")
    held_out_logits = scored(held_out, np.zeros_like(held_out))
    train_logits = scored(train, orientations)
    report("embedding the training objects and setting grid, calibration and thresholds")
    combination = combine(
        train_logits,
        labels[train],
        held_out_logits,
        labels[held_out],
        cells=how.cells or cells_for(len(train)),
        seed=how.seed,
        threads=how.threads,
    )
    content = replace(content, class_prior=float(labels.mean()), **vars(combination))
    if how.second_look:
        rule = second_look_rule(combination.calibration, held_out_logits[~labels[held_out]], how.second_look)
        again = np.flatnonzero(combination.calibration.log_odds(held_out_logits) >= rule.log_odds_above)
        report(f"looking again at {len(again):,} calibration objects")
        turns = [scored(held_out[again], np.full_like(again, orientation)) for orientation in range(1, ORIENTATIONS)]
        held_out_logits[again] = np.mean([held_out_logits[again], *turns], axis=0, dtype=np.float64)
        curve = OperatingCurve.of(combination.grid.lookup(held_out_logits).value, labels[held_out])
        content = replace(content, second_look=rule, curve=curve)
    return Assembled(write_bundle(out, content), train, train_logits, labels[train], held_out_logits, labels[held_out])


def second_look_rule(calibration: Calibration, others: Float32, share: float) -> SecondLook:
    """Whom to look at again: whoever scores at least as high as the best ``share`` of non-lenses, (N, 7) log-odds, do."""
    return SecondLook(log_odds_above=float(np.quantile(calibration.log_odds(others), 1.0 - share)), share=share)


def publish(bundle: Bundle, ensemble: Ensemble, data: TrainingData, evaluation: Evaluation | None) -> Bundle:
    """Write the measured figures and the model card into a bundle that :func:`assemble` made.

    Parameters
    ----------
    bundle, ensemble, data
        The bundle and what it was made of.
    evaluation
        On held-out data, this bundle first; None: the card says that nothing was measured.

    Raises
    ------
    OutputError
        The bundle's folder cannot be written.
    """
    card = model_card(bundle.manifest, ensemble.records, data.description, len(data), evaluation)
    metrics = () if evaluation is None else metrics_of(evaluation)
    return write_bundle(bundle.path, replace(content_of(bundle), metrics=metrics, texts={CARD_FILE: card}))
