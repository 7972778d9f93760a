"""Makes a bundle of seven trained members: grid, calibration, thresholds; and gives a bundle another grid."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from scanner.ensemble import bundles
from scanner.ensemble import calibration as combining
from scanner.ensemble.bundle import MODEL_FILE, Bundle, content_of, write_bundle
from scanner.ensemble.calibration import BETAS, Calibration, OperatingCurve
from scanner.ensemble.embedding_grid import CELLS, NEAREST_LOG_ODDS, EmbeddingGrid, GridRule
from scanner.ensemble.preprocessing import ORIENTATIONS, Preprocessing
from scanner.ensemble.session import EnsembleSession, open_session
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.evaluation import scores
from scanner.evaluation.results import SKY_PREVALENCE
from scanner.evaluation.scores import dataset_logits
from scanner.processes import run_all
from scanner.records import DRAWN, MEMBERS, Float32, Float64, Int64, MemberName
from scanner.training import checkpoint
from scanner.training.cascade import augmented, mean_over_orientations, member_graph, screen_on
from scanner.training.checkpoint import KEPT_IN_WORDS, FitRecord, read_member
from scanner.training.data import TrainingData
from scanner.training.export import bundle_content, read_members
from scanner.training.presets import (
    EMBEDDED_ROWS,
    SCREEN_MEMBERS,
    SCREEN_SHARE,
    SECOND_LOOK_MEMBERS,
    SECOND_LOOK_SHARE,
    Shares,
)

#: Objects of one call of a worker process.
PART = 512
PERPLEXITY = 30.0
#: So few objects are embedded by one thread: two took five times its processor time for 1,000, and more than twice for 3,000.
MOST_BY_ONE_THREAD = 5_000
Report = Callable[[str], None]


@dataclass(frozen=True)
class Naming:
    """What a bundle is called, one sentence on what it is, and the licence of its weights (SPDX); None: not said."""

    name: str
    version: str
    description: str
    licence: str | None = None


@dataclass(frozen=True)
class Assembly:
    """How a bundle is put together.

    ``seed``: of the choice of embedded rows and of the embedding. ``embed``: rows of the embedding at most; see
    :func:`embedded_rows`. ``cells``: of the grid along each axis; None: :func:`cells_for`. ``rule``: what is embedded, and
    how new objects are placed. ``cache``: folder where log-odds are kept. ``provider``, ``workers``: of the sessions that
    compute them. ``threads``: of openTSNE. ``second_look``: share of the calibration rows' non-lenses, those with the highest
    scores, above which objects are scored in all orientations; 0: none. ``screen``: share of them that pass the bundle's
    screen; 0: it has none. ``turned``: rows are embedded in drawn orientations, else as they are.
    """

    cache: Path
    seed: int = 0
    embed: int = EMBEDDED_ROWS
    cells: int | None = None
    rule: GridRule = NEAREST_LOG_ODDS
    provider: str = "auto"
    workers: int = 1
    threads: int = 1
    second_look: float = SECOND_LOOK_SHARE
    screen: float = SCREEN_SHARE
    turned: bool = True


@dataclass(frozen=True)
class Assembled:
    """A bundle, and the rows that its grid (``train``) and its calibration (``held_out``) were made of, with their log-odds.

    ``positions`` (N, 2): where each row of ``train`` lies in the embedding.
    """

    bundle: Bundle
    train: Int64
    positions: Float32
    train_logits: Float32
    train_labels: NDArray[np.bool_]
    held_out_logits: Float32
    held_out_labels: NDArray[np.bool_]


def assemble(
    ensemble: Ensemble, data: TrainingData, out: Path, naming: Naming, how: Assembly, report: Report = lambda text: None
) -> Assembled:
    """Export the members with their grid, calibration and thresholds, without figures.

    The log-odds that grid and calibration are made of come from the very graph that will score the sky.

    Parameters
    ----------
    ensemble, data
        The members and what they were trained on, or never saw.
    out
        Folder of the bundle; replaced if it is one.
    naming, how
        What the bundle is called, and how it is put together.
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
    _check_classes(data)
    train, orientations = embedded_rows(data.split.train, how.seed, how.embed)
    if not how.turned:
        train = np.sort(train[: len(data.split.train)])
        orientations = np.zeros_like(train)
    content = bundle_content(
        ensemble.networks,
        ensemble.preprocessing,
        name=naming.name,
        version=naming.version,
        description=naming.description,
        sources=ensemble.sources,
        trained_on=ensemble.trained_on(data.seen),
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
    combination = _combine(how, train_logits, labels[train], held_out_logits, labels[held_out])
    content = replace(
        content,
        licence=naming.licence,
        class_prior=float(labels.mean()),
        grid=combination.grid,
        calibration=combination.calibration,
        curve=combination.curve,
    )
    plain_logits = held_out_logits
    if how.second_look:
        is_lens = labels[held_out]
        columns = np.array([MEMBERS.index(member) for member in SECOND_LOOK_MEMBERS])

        def means_of(again: Int64) -> Float64:
            report(f"scoring {len(again):,} calibration objects in all orientations")
            return mean_over_orientations(
                plain_logits[again],
                columns,
                lambda orientation: scored(held_out[again], np.full_like(again, orientation)),
            )

        rule, held_out_logits = augmented(
            combination.calibration, columns, how.second_look, SECOND_LOOK_MEMBERS, plain_logits, is_lens, means_of
        )
        curve = OperatingCurve.of(combination.grid.lookup(held_out_logits).value, is_lens)
        graph = member_graph(content.model, SECOND_LOOK_MEMBERS)
        content = replace(content, second_look=rule, augmentation_model=graph, curve=curve)
    if how.screen:
        screen = screen_on(
            "calibration rows",
            SCREEN_MEMBERS,
            how.screen,
            combination.calibration,
            combination.grid.logits,
            plain_logits,
            combination.calibration.ranking_score(held_out_logits),
            labels[held_out],
        )
        content = replace(content, screen=screen, screen_model=member_graph(content.model, SCREEN_MEMBERS))
    assert content.curve is not None
    if (useless := useless_threshold(content.curve, combination.grid)) is not None:
        report(f"{out}: {useless}")
    bundle = write_bundle(out, content)
    return Assembled(bundle, train, combination.positions, train_logits, labels[train], held_out_logits, labels[held_out])


def _combine(
    how: Assembly, train_logits: Float32, train_labels: NDArray[np.bool_], held_out: Float32, held_out_labels: NDArray[np.bool_]
) -> Combination:
    cells = how.cells or cells_for(len(train_logits))
    return combine(
        train_logits, train_labels, held_out, held_out_labels, cells=cells, rule=how.rule, seed=how.seed, threads=how.threads
    )


def _check_classes(data: TrainingData) -> None:
    is_lens = data.labels.is_lens
    if any(is_lens[part].all() or not is_lens[part].any() for part in (data.split.train, data.split.calibration)):
        raise ContentError(
            f"{data.paths[0]}: too few objects to set a threshold on; both classes must be among a tenth of them."
        )


def useless_threshold(curve: OperatingCurve, grid: EmbeddingGrid) -> str | None:
    """Say so where the default threshold takes every object: then F-beta found nothing to choose by."""
    # The lowest of those within a standard error takes everything only where this one does.
    point = curve.best(BETAS[0], exact=True)
    if point.n_selected < curve.n_lenses + curve.n_non_lenses:
        return None
    empty = float((grid.counts == 0).mean())
    return (
        f"the threshold that maximises F-beta, {point.threshold:.2g}, calls all {point.n_selected} held-out objects candidates "
        f"({grid.counts.sum():,} objects on {' x '.join(map(str, grid.counts.shape))} cells, {empty:.0%} of them empty); give "
        "more objects, or fewer --cells."
    )


def regrid(
    bundle: Bundle,
    data: TrainingData,
    out: Path,
    naming: Naming,
    how: Assembly,
    report: Report = lambda text: None,
) -> Bundle:
    """Give a bundle a grid, and a threshold on it, made of another labelled set; its networks stay as they are.

    A bundle without calibration gets one as well. The grid is made of the set's training rows as they are, and the threshold is
    set on its calibration rows. The set is recorded as seen by the bundle. A screen goes by a calibration that the old grid's
    objects made, and goes with it; :func:`scanner.training.cascade.set_cascade` sets another.

    Parameters
    ----------
    bundle
        Of the paper's seven.
    data
        Never an evaluation set.
    out, naming
        Folder of the new bundle, and what it is called.
    how
        ``second_look`` 0 takes test-time augmentation away; else the bundle's own rule stays. ``cache`` and ``workers`` are not
        used.
    report
        Called with one line per step.

    Raises
    ------
    UsageError
        The bundle has members that a grid does not embed.
    ContentError
        The set lacks a class, or the threshold would take every object.
    """
    if bundle.manifest.further:
        raise UsageError(
            f"{bundle.path}: a grid embeds the paper's seven networks, and {', '.join(bundle.manifest.further_names)} is one "
            "more; give the bundle that it was added to."
        )
    _check_classes(data)
    labels, held_out = data.labels.is_lens, data.split.calibration
    rng = np.random.default_rng(how.seed)
    train = data.split.train
    if len(train) > how.embed:
        train = np.sort(rng.choice(train, how.embed, replace=False))
    content = content_of(bundle)
    if not how.second_look:
        content = replace(content, second_look=None, augmentation_model=None)
    session = open_session(bundle, how.provider, how.threads)

    def scored(rows: Int64, orientations: Int64 | None) -> Float32:
        return dataset_logits(session, data, rows, orientations)

    report(f"scoring {len(held_out):,} calibration and {len(train):,} training objects")
    train_logits = scored(train, np.zeros_like(train))
    held_out_logits = scored(held_out, None if content.second_look else np.zeros_like(held_out))
    report("embedding the training objects and setting the threshold")
    combination = _combine(how, train_logits, labels[train], held_out_logits, labels[held_out])
    if (useless := useless_threshold(combination.curve, combination.grid)) is not None:
        raise ContentError(f"{data.paths[0]}: {useless}")
    kept = isinstance(bundle.calibration, Calibration)
    content = replace(
        content,
        name=naming.name,
        version=naming.version,
        description=naming.description,
        trained_on=tuple(sorted({*content.trained_on, *data.fingerprints})),
        grid=combination.grid,
        curve=combination.curve,
        calibration=bundle.calibration if kept else combination.calibration,
        betas=BETAS,
        prevalence=None,
        metrics=(),
        screen=None,
        screen_model=None,
    )
    return write_bundle(out, content)


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


@dataclass(frozen=True)
class Combination:
    """The grid, the calibration and the operating curve of the grid value on the calibration objects.

    ``positions`` (N, 2): of the training objects in the embedding.
    """

    grid: EmbeddingGrid
    positions: Float32
    calibration: Calibration
    curve: OperatingCurve


def combine(
    train_logits: Float32,
    train_labels: NDArray[np.bool_],
    held_out_logits: Float32,
    held_out_labels: NDArray[np.bool_],
    *,
    seed: int,
    cells: int = CELLS,
    rule: GridRule | None = None,
    threads: int = 1,
) -> Combination:
    """Make the grid from training objects; calibrate and set the operating curve on held-out ones.

    The paper embedded the training set with t-SNE and nothing else (section 3.3). The threshold is set by F-beta on
    held-out objects: on the training set itself the grid would judge its own cells.

    Parameters
    ----------
    train_logits, train_labels
        (N, 7) and (N,) of objects the members were trained on.
    held_out_logits, held_out_labels
        (K, 7) and (K,) of others.
    seed, threads
        See :func:`embed`.
    cells
        Of the grid along each axis.
    rule
        What is embedded, and how new objects are placed.

    Raises
    ------
    ValueError
        The others lack one class.
    """
    rule = rule or NEAREST_LOG_ODDS
    positions = embed(train_logits, rule, seed=seed, threads=threads)
    grid = EmbeddingGrid.build(train_logits, positions, train_labels, held_out=held_out_logits, cells=cells, rule=rule)
    return Combination(
        grid=grid,
        positions=positions,
        calibration=combining.fit(held_out_logits, held_out_labels, sky_prevalence=SKY_PREVALENCE),
        curve=OperatingCurve.of(grid.lookup(held_out_logits).value, held_out_labels),
    )


def fit_embedding(logits: Float32, rule: GridRule | None = None, *, seed: int, threads: int = 1) -> Any:
    """Embed log-odds, or probabilities, in two dimensions with t-SNE, started from the principal components.

    The work is openTSNE's and not scikit-learn's, whose t-SNE cannot place new objects and takes many times as long for the
    paper's 45,000.

    Parameters
    ----------
    logits
        (N, 7) finite.
    rule
        Which of the two is embedded.
    seed, threads
        Of openTSNE; the same seed and number of threads give the same positions. Few objects are embedded by one thread:
        several wait for one another many times as long as they work.

    Returns
    -------
    openTSNE.TSNEEmbedding
        (N, 2) float64 positions, with openTSNE's own way to place other rows (``transform``).
    """
    from openTSNE import TSNE

    perplexity = min(PERPLEXITY, (len(logits) - 1) / 3)
    n_jobs = threads if len(logits) > MOST_BY_ONE_THREAD else 1
    return TSNE(perplexity=perplexity, random_state=seed, n_jobs=n_jobs).fit((rule or NEAREST_LOG_ODDS).coordinates(logits))


def embed(logits: Float32, rule: GridRule | None = None, *, seed: int, threads: int = 1) -> Float32:
    """Positions of :func:`fit_embedding`, (N, 2) float32."""
    return np.asarray(fit_embedding(logits, rule, seed=seed, threads=threads), dtype=np.float32)


@dataclass(frozen=True)
class Ensemble:
    """Seven trained members, what their runs say of themselves, and the bundle of those that have no run."""

    networks: dict[MemberName, nn.Sequential]
    records: dict[MemberName, FitRecord]
    bundle: Bundle | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """What all of them were trained with."""
        return next(iter(self.records.values())).plan.preset.preprocessing

    def trained_on(self, embedded: Collection[str]) -> tuple[str, ...]:
        """Fingerprints of all that they and the bundles that they began from have seen, and those of what is ``embedded``."""
        plans = [record.plan for record in self.records.values()]
        drawn = {plan.dataset_sha256 for plan in plans if plan.dataset_sha256.startswith(DRAWN)}
        before = {seen for plan in plans for seen in plan.seen_before}
        if self.bundle is not None:
            before |= set(self.bundle.manifest.trained_on)
        return tuple(sorted({*embedded, *drawn, *before}))

    @property
    def sources(self) -> Mapping[MemberName, str]:
        """One line per member on how it came to be."""
        kept = {} if self.bundle is None else {entry.name: entry.source for entry in self.bundle.manifest.members}
        return {member: _source(self.records[member]) if member in self.records else kept[member] for member in MEMBERS}


def read_ensemble(
    folder: Path,
    dataset_sha256: str | None = None,
    drawn_from: Collection[str] = (),
    bundle: Bundle | None = None,
) -> Ensemble:
    """Read the seven runs in ``folder``, one folder each, named like the members.

    Parameters
    ----------
    folder
        Holds ``OU-J`` … ``OU-200``.
    dataset_sha256
        Fingerprint of what they must have been trained on; None: of anything, but all of the same. Members of
        'scanner train all --draw' were trained on a set of their own, so that any dataset is new to them but
    drawn_from
        Those of these presets and seeds (``drawn:PRESET:SEED``).
    bundle
        Members that have no folder here are taken from it; None: all must have one.

    Raises
    ------
    InputMissingError
        A member has no finished run, or none has one.
    ContentError
        Runs, or the bundle, differ in preprocessing, or the runs were made on other data.
    """
    trained = [member for member in MEMBERS if bundle is None or (folder / member).exists()]
    if not trained:
        raise InputMissingError(f"{folder}: no training run of any member; train one first, or use the bundle as it is.")
    networks = {} if bundle is None else read_members(bundle.path / MODEL_FILE)
    records: dict[MemberName, FitRecord] = {}
    for member in trained:
        networks[member], records[member] = read_member(folder / member)
        plan = records[member].plan
        if plan.member != member:
            raise ContentError(f"{folder / member}: holds {plan.member}, not {member}; train it again.")
        if plan.dataset_sha256 != (dataset_sha256 or records[trained[0]].plan.dataset_sha256) and not (
            plan.dataset_sha256.startswith(DRAWN) and plan.dataset_sha256.rpartition(":")[0] not in drawn_from
        ):
            raise ContentError(
                f"{folder / member}: was trained on another dataset; give that one as --data, or train it again."
            )
    presets = [record.plan.preset for record in records.values()]
    if len({(preset.preprocessing, preset.shares) for preset in presets}) > 1:
        raise ContentError(
            f"{folder}: its members were trained with different preprocessing, or on other shares of the set; train them with "
            "one preset."
        )
    if bundle is not None and bundle.manifest.preprocessing != presets[0].preprocessing:
        raise ContentError(
            f"{bundle.path}: its networks see {bundle.manifest.preprocessing} images, those in {folder} "
            f"{presets[0].preprocessing} ones; give the bundle that they began from."
        )
    return Ensemble(networks, records, bundle)


def shares_of_runs(folder: Path) -> Shares:
    """How the runs in ``folder`` split their rows: what none of them trained on must set the threshold."""
    plans = (checkpoint.read_plan(folder / member) for member in MEMBERS)
    return next((plan.preset.shares for plan in plans if plan is not None), Shares())


def _source(record: FitRecord) -> str:
    plan = record.plan
    begins = {
        "random": "from random weights",
        "copy": f"from {plan.begins_as}",
        "bundle": f"from bundle {(plan.begins_as or '')[:12]}",
    }[plan.beginning]
    return (
        f"preset {plan.preset.name}, seed {plan.seed}, {begins}, {record.passes:.1f} passes over {plan.n_train} cutouts; "
        f"weights {KEPT_IN_WORDS[record.kept]}"
    )


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
    """Score rows in parallel, each turned as asked, or read what an earlier call scored.

    A part is written when it is scored, so that an interrupted assembly goes on where it was.

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
