"""Let a bundle learn from a survey: adapt it to its tiles, or to the grades of a run, and measure on fields kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import InputMissingError, UsageError, importing
from scanner.interface.progress import bar
from scanner.processes import script_kept_from_children, sigterm_interrupts
from scanner.records import MEMBERS
from scanner.storage import open_store
from scanner.survey.scan.machine import cores

if TYPE_CHECKING:
    from scanner.ensemble.bundle import Bundle
    from scanner.evaluation.promotion import Promotion
    from scanner.interface.progress import Move
    from scanner.training.adaptation import AdaptationPlan

#: A night of two cores; of it, the share that training takes: the rest is painting before and scoring after.
HOURS, TRAINING_SHARE = 10.0, 0.6
N_OBJECTS = 20_000
#: Objects of the embedding in a cell of the grid, on average: with fewer, a cell's share of lenses is noise.
OBJECTS_PER_CELL = 30


def adapt(
    tiles: str | Path,
    out: str | Path,
    bundle: str | Path | None = None,
    *,
    labels: str | Path | Sequence[str | Path] = (),
    data: str | Path | Sequence[str | Path] = (),
    n_objects: int = N_OBJECTS,
    hours: float = HOURS,
    seed: int = 1,
    name: str | None = None,
    version: str = "1",
    magnitude_limit: float | None = None,
    config: str | Path | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
) -> Bundle:
    """Adapt a bundle to a survey's own tiles, without labels or with, as ``scanner train adapt`` does.

    The same call goes on where it was stopped. Needs the extra ``train`` (torch).

    Parameters
    ----------
    tiles
        A tile list, on disk. A fifth of the sky that the tiles cover, lying together, judges and is never trained on.
    out
        Folder of everything that is made; the bundle is in ``out/bundle``.
    bundle
        What is adapted; the default bundle by default.
    labels
        Labelled sets of :func:`scanner.import_labels` or of graded runs: what lies in fields to train on is trained on, by its
        weights; what lies in the others judges too.
    data
        Simulated sets that are trained on beside.
    n_objects
        Objects to paint, as far as the tiles have room.
    hours
        Time that all of it may take.
    seed
        Of all draws.
    name, version
        What the new bundle is called, by default as the old one with ``-adapted``.
    magnitude_limit
        Faintest VIS magnitude of the survey's objects, in the place of the configuration's.
    config
        TOML file that a scan of these tiles would take: which objects there are.
    jobs
        Processes; one a core by default.
    progress
        Show bars; by default on a terminal and in a notebook.

    Returns
    -------
    Bundle
        Its card tells recall before and after.

    Raises
    ------
    ScannerError
        A tile, a set or the bundle cannot be used; ``out`` holds another adaptation, or the tiles changed since.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; the same call goes on.

    Examples
    --------
    >>> import scanner
    >>> adapted = scanner.adapt("tile-list.txt", "adapted", hours=8)  # doctest: +SKIP
    >>> adapted.path.name  # doctest: +SKIP
    'bundle'
    """
    from scanner.ensemble import bundles
    from scanner.interface.train import listed, make_bundle, moving, train_members
    from scanner.labelled_set import LabelledSet
    from scanner.sky.tile_list import read
    from scanner.training import adaptation

    if not hours > 0 or n_objects < 1:
        raise UsageError("--hours and --n must be above 0.")
    out, before = Path(out), bundles.load(bundle)
    tile_list = read(tiles)
    if tile_list.failed:
        raise InputMissingError(tile_list.failed[0].reason)
    sets, simulated = ([LabelledSet(path) for path in listed(given)] for given in (labels, data))
    limits = configuration.load(None if config is None else Path(config), {"targets.magnitude_limit": magnitude_limit})
    all_tiles = tuple(tile_list.tiles.values())
    request = adaptation.AdaptationRequest(
        tiles=all_tiles,
        tile_fingerprints=adaptation.tile_fingerprints(all_tiles),
        bundle=before.fingerprint,
        labels=tuple(one.fingerprint for one in sets),
        data=tuple(one.fingerprint for one in simulated),
        targets=limits.targets,
        n_objects=n_objects,
        seed=seed,
        seconds=3600.0 * hours * TRAINING_SHARE,
    )
    workers = jobs or cores()
    plan = adaptation.begin(request, out)
    adapted = out / "bundle"
    if (adapted / "bundle.json").exists() and (found := bundles.load(adapted)).manifest.metrics:
        return found
    with (
        sigterm_interrupts(),
        script_kept_from_children(),
        bar("adapting", shown=progress, unit="", many=True) as move,
    ):
        plan = adaptation.complete_plan(plan, before, sets, out, workers, lambda what, done, n: move(done, n, f"1/4 {what}"))
        _paint(plan, out, workers, move)
        parts = [
            adaptation.divide_labels(plan, one, out / f"labels-{number}", out / f"held-out-labels-{number}")
            for number, one in enumerate(sets)
        ]
        training = [out / one for one in adaptation.TRAINING_SETS]
        training += [train for train, _ in parts if train is not None] + [one.path for one in simulated]
        members = out / "members"
        for _ in train_members(
            training, members, MEMBERS, jobs, moving(move, "3/4 "), bundle=before.path, time_budget=request.seconds, seed=seed
        ):
            pass
        n_embedded = _embedded(training)
        old = before.manifest
        return make_bundle(
            members,
            training,
            adapted,
            name=name or f"{old.name}-adapted",
            version=version,
            description=f"{old.name} {old.version}, adapted to tile {all_tiles[0].tile_id} and {len(all_tiles) - 1} others.",
            embed=n_embedded,
            cells=max(2, round((n_embedded / OBJECTS_PER_CELL) ** 0.5)),
            evaluate_on=[out / one for one in adaptation.JUDGING_SETS],
            real=[judge for _, judge in parts if judge is not None],
            compare=[before.path],
            rotations=0,
            jobs=jobs,
            report=lambda text: move(1, 1, f"4/4 {text}"),
        )


@dataclass(frozen=True)
class Learned:
    """``bundle``: what learned from grades. ``promotion``: the gate's verdict, on graded objects kept apart and on fixed sets.

    ``n_lenses``, ``n_others``: graded objects that it was fitted to. ``moved``: members whose last layer changed.
    """

    bundle: Bundle
    promotion: Promotion
    n_lenses: int
    n_others: int
    moved: tuple[str, ...]


def learn(
    run: str | Path,
    out: str | Path,
    *,
    grades: str | Path = "grades.sqlite",
    known: str | Path | None = None,
    least_graders: int = 1,
    fixed: str | Path | Sequence[str | Path] = (),
    name: str | None = None,
    version: str = "1",
    all_layers: bool = False,
    hours: float = HOURS,
    storage: StorageConfig | None = None,
    progress: bool | None = None,
) -> Learned:
    """Let the bundle of a run learn from the grades of its objects, as ``scanner train from-grades`` does.

    The last layer of each network and the calibration are fitted, on features that are computed once; a fifth of the graded
    objects, which lie together on the sky, is kept apart and judges. Needs the extra ``train``.

    Parameters
    ----------
    run
        The run folder that was graded; its own bundle is what learns.
    out
        Folder to make: ``bundle``, and the two parts of the graded objects, ``graded`` and ``held-out``.
    grades
        File that ``scanner serve`` keeps grades in.
    known
        Objects whose answer is known: an object's weight then is the probability of its label, from votes weighted by skill.
    least_graders
        Objects that fewer have graded teach nothing.
    fixed
        Labelled sets that judge too.
    name, version
        Of the new bundle; the name of the old one with ``-graded`` by default.
    all_layers, hours
        Train all networks as :func:`scanner.adapt` does, with the grades as its labels, for so many hours; the tiles must be
        at hand. The bundle is in ``out/adapted/bundle``.
    storage
        How object stores are reached; by default as the run reached them.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Raises
    ------
    UsageError
        There are too few graded lenses or others, or a bundle that cannot learn.
    ScannerError
        The run, its cutouts, the grades or a set cannot be used; ``out`` is there already.

    Examples
    --------
    >>> import scanner
    >>> learned = scanner.learn("scan", "learned", grades="grades.sqlite")  # doctest: +SKIP
    >>> learned.promotion.passed  # doctest: +SKIP
    True
    """
    with importing("learning from grades", "train"):
        from scanner.training import from_grades
        from scanner.training.adaptation import divide
    from scanner.ensemble import bundles
    from scanner.ensemble.bundle import write_bundle
    from scanner.evaluation.promotion import judge
    from scanner.grading.labels import FEWEST, FEWEST_JUDGES
    from scanner.grading.store import GradeStore
    from scanner.grading.training_set import graded_rows, label_weights, write_training_set
    from scanner.interface.bundle import evaluate
    from scanner.interface.train import listed
    from scanner.labelled_set import LabelledSet
    from scanner.labels.table import read_labels
    from scanner.sphere import cell_numbers
    from scanner.survey.folder.ledger import RunFolder
    from scanner.survey.published import open_published

    out, folder = Path(out), RunFolder(open_store(str(run), storage or StorageConfig()))
    record = folder.record()
    storage = storage or record.config.storage
    store = GradeStore.existing(Path(grades))
    answers = None if known is None else read_labels(Path(known)).rows
    rows = graded_rows(store.places(), [open_published(str(run), storage=storage)])
    labels = label_weights(store, rows, answers, least_graders)
    clear = [row for row in rows if labels[row.object]["label"] != "unclear"]
    if not clear:
        raise UsageError(f"{grades}: no object of {run} has a clear label; grade more.")
    ra, dec = (np.array([row.row[axis][0].as_py() for row in clear]) for axis in ("ra", "dec"))
    order, first = divide(ra, dec)
    judges = cell_numbers(ra, dec, order) >= first
    sets = []
    for part, which in (("graded", ~judges), ("held-out", judges)):
        chosen = [row for row, is_in in zip(clear, which, strict=True) if is_in]
        write_training_set({row.object: labels[row.object] for row in chosen}, chosen, least_graders, out / part)
        sets.append(LabelledSet(out / part))
    graded, held_out = sets
    from_grades.usable(held_out, fewest=FEWEST_JUDGES)
    if all_layers:
        adapted = adapt(
            record.tile_list,
            out / "adapted",
            record.config.scoring.bundle,
            labels=graded.path,
            hours=hours,
            name=name,
            version=version,
            progress=progress,
        )
        verdict = judge(evaluate((adapted, record.config.scoring.bundle), [held_out, *listed(fixed)], rotations=0).record)
        n_lenses = int(graded.truth.is_lens.sum())
        return Learned(adapted, verdict, n_lenses, len(graded) - n_lenses, MEMBERS)
    before = bundles.load(record.config.scoring.bundle, storage)
    with sigterm_interrupts(), bar("learning", shown=progress, unit="objects") as move:
        seen = from_grades.usable(graded, fewest=FEWEST)
        features = from_grades.features_of(before, graded, np.flatnonzero(seen), move)
        is_lens, weight = graded.truth.is_lens[seen], from_grades.weights_of(graded)[seen]
        named = name or f"{before.manifest.name}-graded"
        content, fitted = from_grades.learned(
            before, features, is_lens, weight, from_grades.folds(graded, order)[seen], graded.fingerprint, named, version
        )
        made = write_bundle(out / "bundle", content)
        verdict = judge(evaluate((made, before), [held_out, *listed(fixed)], rotations=0, progress=False).record)
        n = int(is_lens.sum()), int((~is_lens).sum())
        made = write_bundle(out / "bundle", from_grades.with_card(content, before, fitted, n, verdict))
    return Learned(made, verdict, *n, fitted.moved)


def _paint(plan: AdaptationPlan, out: Path, workers: int, move: Move) -> None:
    from scanner.simulation.injection.inject import inject

    for folder, request in plan.painting().items():
        inject(request, out / folder, workers, lambda done, n, what=folder: move(done, n, f"2/4 painting {what}"))  # type: ignore[misc]


def _embedded(training: Sequence[Path]) -> int:
    """Rows of the embedding: each training row once or twice, as many as the paper's at most."""
    from scanner.training.data import TrainingData
    from scanner.training.presets import EMBEDDED_ROWS

    return min(EMBEDDED_ROWS, 2 * len(TrainingData(training).split.train))
