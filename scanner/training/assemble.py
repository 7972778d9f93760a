"""Makes a bundle of seven trained members.

In: seven trained members, the dataset they were trained on, optionally held-out datasets. Out: a bundle with grid,
calibration, threshold, measured figures and model card. Refused: what the exporter and the output folder refuse.

The bundle is exported twice. The first one, without grid, gives the log-odds that grid and calibration are made of, and with
which it is evaluated: they come from the very graph that will score the sky.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from scanner.cutouts.orientation import ORIENTATIONS
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import Calibration, MeanProbability
from scanner.ensemble.embedding_grid import EmbeddingGrid
from scanner.ensemble.f_beta import OperatingCurve
from scanner.ensemble.manifest import Metric
from scanner.ensemble.session import open_session
from scanner.evaluation.labelled_data import Dataset
from scanner.evaluation.logits import dataset_logits
from scanner.evaluation.results import Evaluation
from scanner.records import Int64
from scanner.training.card import model_card
from scanner.training.embedding import combine
from scanner.training.export import export_bundle
from scanner.training.runs import Ensemble
from scanner.training.split import split_dataset

#: Rows of the embedding, as many as in the paper (section 3.2): a cell is worth as much as the objects in it are many.
EMBEDDED_ROWS = 45_000
CARD_FILE = "MODEL_CARD.md"
Report = Callable[[str], None]


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


def assemble(
    ensemble: Ensemble,
    dataset: Dataset,
    out: Path,
    *,
    name: str,
    version: str,
    description: str,
    seed: int = 0,
    embed: int = EMBEDDED_ROWS,
    provider: str = "auto",
    threads: int = 1,
    report: Report = lambda text: None,
) -> Bundle:
    """Export the members with their grid, calibration and threshold, without figures.

    Parameters
    ----------
    ensemble, dataset
        The members and what they were trained on.
    out
        Folder of the bundle; replaced if it is one.
    name, version, description
        For the manifest.
    seed
        Of the choice of embedded rows and of the embedding.
    embed
        Rows of the embedding at most; see :func:`embedded_rows`.
    provider, threads
        Of the session that computes the log-odds; threads of openTSNE.
    report
        Called with one line per step.

    Raises
    ------
    OutputError
        ``out`` cannot be written.
    """
    rows = split_dataset(dataset)
    train, orientations = embedded_rows(rows.train, seed, embed)
    with tempfile.TemporaryDirectory() as scratch:
        plain = _export(Path(scratch) / "plain", ensemble, name, version, description, MeanProbability())
        session = open_session(plain, provider, threads)
        report(f"scoring {len(train)} training and {len(rows.calibration)} calibration objects")
        train_logits = dataset_logits(session, dataset, train, orientations)
        held_out_logits = dataset_logits(session, dataset, rows.calibration)
    report("embedding the training objects and setting grid, calibration and threshold")
    combination = combine(
        train_logits,
        dataset.truth.is_lens[train],
        held_out_logits,
        dataset.truth.is_lens[rows.calibration],
        seed=seed,
        threads=threads,
    )
    return _export(
        out,
        ensemble,
        name,
        version,
        description,
        combination.calibration,
        grid=combination.grid,
        curve=combination.curve,
        class_prior=float(dataset.truth.is_lens.mean()),
    )


def publish(bundle: Bundle, ensemble: Ensemble, *, dataset: str, n_objects: int, evaluations: Sequence[Evaluation]) -> Bundle:
    """Write the measured figures and the model card into a bundle that :func:`assemble` made.

    Parameters
    ----------
    bundle, ensemble
        The bundle and what it was made of.
    dataset, n_objects
        Description and size of the training set.
    evaluations
        On held-out data, this bundle first in each.

    Raises
    ------
    OutputError
        The bundle's folder cannot be written.
    """
    manifest = bundle.manifest
    card = model_card(
        manifest.name,
        manifest.version,
        manifest.description,
        ensemble.records,
        dataset,
        n_objects,
        evaluations,
        manifest.thresholds[0].beta,
    )
    return _export(
        bundle.path,
        ensemble,
        manifest.name,
        manifest.version,
        manifest.description,
        bundle.calibration,
        grid=bundle.grid,
        curve=bundle.curve,
        class_prior=manifest.class_prior,
        metrics=[metric for evaluation in evaluations for metric in metrics_of(evaluation)],
        texts={CARD_FILE: card},
    )


def metrics_of(evaluation: Evaluation) -> list[Metric]:
    """The figures of the first bundle of an evaluation, as a manifest lists them."""
    found = []
    for figures in evaluation.bundles[0].figures:
        name = f"{evaluation.dataset}: {figures.positives} lenses, {figures.negatives} non-lenses"
        values = {"auroc": figures.auroc, **{f"recall_at_fpr_{recall.fpr:g}": recall.recall for recall in figures.recalls}}
        for metric, interval in values.items():
            found.append(
                Metric(
                    set=name,
                    member=figures.score,
                    metric=metric,
                    n_pos=figures.n_positives,
                    n_neg=figures.n_negatives,
                    **interval.model_dump(),
                )
            )
    return found


def _export(
    out: Path,
    ensemble: Ensemble,
    name: str,
    version: str,
    description: str,
    calibration: Calibration | MeanProbability,
    *,
    grid: EmbeddingGrid | None = None,
    curve: OperatingCurve | None = None,
    class_prior: float | None = None,
    metrics: Sequence[Metric] = (),
    texts: Mapping[str, str] | None = None,
) -> Bundle:
    return export_bundle(
        out,
        ensemble.networks,
        ensemble.preprocessing,
        name=name,
        version=version,
        description=description,
        sources=ensemble.sources,
        calibration=calibration,
        training_fingerprint=ensemble.fingerprint,
        class_prior=class_prior,
        grid=grid,
        curve=curve,
        metrics=metrics,
        texts=texts,
    )
