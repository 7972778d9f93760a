"""Train the networks and make a bundle; let one learn from a survey's tiles or a run's grades, measured on fields apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from scanner import config as configuration
from scanner.config import StorageConfig
from scanner.errors import InputMissingError, UsageError, importing
from scanner.interface.progress import bar
from scanner.processes import cores, script_kept_from_children, sigterm_interrupts
from scanner.records import MEMBERS
from scanner.storage import open_store
from scanner.storage.contract import is_remote
from scanner.training.presets import (
    EMBEDDED_ROWS,
    PRESETS,
    RADIUS_PASSES,
    SCREEN_SHARE,
    SECOND_LOOK_SHARE,
    Preset,
    PresetName,
    TrainedName,
    WantedPrecision,
    seconds,
)

# What needs torch, or the libraries of a scan, is imported where it is used: a machine with a GPU may lack the latter.
if TYPE_CHECKING:
    from scanner.ensemble.bundle import Bundle
    from scanner.evaluation.promotion import Promotion
    from scanner.interface.progress import Move
    from scanner.modelling.radius_network import RadiusManifest
    from scanner.training.adaptation import AdaptationPlan
    from scanner.training.checkpoint import FitRecord
    from scanner.training.jobs import Listener, TrainingEvent, TrainingJob


class TrainingSettings(TypedDict, total=False):
    """The settings of a training run: the options of ``scanner train all``, with ``_`` for ``-``.

    ``preset``: how to train, ``"best"`` (the default), ``"paper"``, or a record. ``seed``: of the weights and of all draws, 1
    by default. ``precision``: ``"float32"``, or ``"fastest"``, bfloat16 where hardware has it; None: as the preset says.
    ``time_budget``: seconds, or text such as ``"20m"``; it shortens the preset. ``bundle``: one whose members are
    trained on, in the place of random weights. ``device``: of torch, ``"cpu"`` by default. ``draw``: so many objects are drawn
    on the device, by the seed, in the place of ``data``; ``scratch``: folder where they are kept. ``mirror``: folder or
    ``s3://…`` that checkpoints are copied to, and taken from where it is further. ``config``, ``endpoint``, ``anonymous``: how
    object stores are reached.
    """

    preset: PresetName | Preset
    seed: int
    precision: WantedPrecision | None
    time_budget: str | float | None
    bundle: str | Path | None
    device: str
    draw: int | None
    scratch: str | Path | None
    mirror: str | None
    endpoint: str | None
    anonymous: bool | None
    config: str | Path | None


def train(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    members: Sequence[TrainedName] = MEMBERS,
    jobs: int | None = None,
    progress: bool | None = None,
    **settings: Unpack[TrainingSettings],
) -> tuple[FitRecord, ...]:
    """Train the seven networks, or go on with those that are not finished, as ``scanner train all`` does.

    Needs the extra ``train`` (torch). :func:`scanner.make_bundle` makes a bundle of what is trained.

    Parameters
    ----------
    data
        One or several training sets, as of :func:`scanner.simulate_dataset`: folders or ``s3://…``; none with ``draw``.
    out
        Folder of the runs, one a member; a run in it goes on where it was.
    members
        Only these; all seven by default.
    jobs
        Networks trained side by side, one thread each; one a core by default, 1 on a GPU.
    progress
        Show a bar for each network; by default on a terminal and in a notebook.
    **settings
        See :class:`TrainingSettings <scanner.interface.train.TrainingSettings>`.

    Returns
    -------
    tuple of FitRecord
        As they finished: ``plan.member``, ``passes``, ``seconds``, ``validation_loss``, ``validation_auroc``, ``history`` …

    Raises
    ------
    ScannerError
        Bad settings, a set that is missing, a folder that cannot be written or that another process trains in.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; all networks are saved, and the same call goes on.

    Examples
    --------
    >>> import scanner
    >>> trained = scanner.train("set", "runs", members=["OU-66"], time_budget="20m")  # doctest: +SKIP
    >>> trained[0].validation_auroc > 0.5  # doctest: +SKIP
    True
    """
    with script_kept_from_children(), sigterm_interrupts(), bar("training", shown=progress, many=True) as move:
        return tuple(train_members(data, out, members, jobs, moving(move), **settings))


def train_members(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    members: Sequence[TrainedName],
    jobs: int | None,
    listen: Listener,
    **settings: Unpack[TrainingSettings],
) -> Iterator[FitRecord]:
    """Train members side by side in processes; parameters as for :func:`train`, ``listen`` is called with each event.

    Yields
    ------
    FitRecord
        As soon as a member is trained.
    """
    from scanner.training.jobs import all_jobs, run_jobs

    first = _job(members[0], data, Path(out), threads=1, **settings)
    workers = jobs or (1 if first.device.startswith("cuda") else cores())
    yield from run_jobs(all_jobs(first, workers, members), workers, listen)


def train_member(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    member: TrainedName,
    threads: int,
    listen: Listener,
    **settings: Unpack[TrainingSettings],
) -> FitRecord:
    """Train one member in this process; parameters as for :func:`train_members`."""
    from scanner.training.jobs import run_job

    return run_job(_job(member, data, Path(out), threads=threads, **settings), listen)


def train_radius(
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    begin: str | Path | None = None,
    passes: float = RADIUS_PASSES,
    seed: int = 1,
    name: str = "einstein-radius",
    version: str = "1",
    licence: str | None = None,
    jobs: int | None = None,
    progress: bool | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
) -> RadiusManifest:
    """Train the network that sees Einstein radii, which lens models begin with, as ``scanner train radius`` does.

    The same call goes on where it was stopped. Needs the extra ``train`` (torch).

    Parameters
    ----------
    data
        One or several training sets with visible lenses: folders or ``s3://…``.
    out
        Folder of the network: three files, beside what it is trained with. In ``~/.local/share/scanner/models/einstein-radius``
        they are used in the place of those that come with scanner.
    begin
        Folder of a finished run of ``scanner train member residual`` that all but its last layer begins as; None: random
        weights.
    passes, seed
        How often each lens is shown; of the weights and of all draws.
    name, version, licence
        For its manifest and card; the licence is an SPDX expression.
    jobs
        Processes that scale images; one a core by default.
    progress
        Show a bar; by default on a terminal and in a notebook.
    config, endpoint, anonymous
        How object stores are reached.

    Returns
    -------
    RadiusManifest
        ``figures`` says how good it is on the lenses that were kept from it.

    Raises
    ------
    ScannerError
        A set cannot be trained on or has too few visible lenses; ``out`` holds another training, or cannot be written.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; the same call goes on.

    Examples
    --------
    >>> import scanner
    >>> network = scanner.train_radius("set", "radius", begin="runs/residual")  # doctest: +SKIP
    >>> network.figures[0].median_error  # doctest: +SKIP
    0.07
    """
    from scanner.labelled_set import local_datasets
    from scanner.training import radius
    from scanner.training.data import TrainingData

    out = Path(out)
    storage = configuration.load_storage(config, endpoint, anonymous)
    training = TrainingData(local_datasets(listed(data), out / "datasets", storage))
    with sigterm_interrupts(), script_kept_from_children(), bar("training", shown=progress) as move:
        return radius.train_radius(
            training,
            out,
            begin=None if begin is None else Path(begin),
            passes=passes,
            seed=seed,
            name=name,
            version=version,
            licence=licence,
            workers=jobs or cores(),
            on_progress=lambda share, note: move(share, 1.0, note=note),
        )


@contextmanager
def followed_training(
    members: Sequence[TrainedName], out: str | Path, metrics_port: int | None, metrics_address: str | None, listen: Listener
) -> Iterator[Listener]:
    """Serve the metrics of a training run where a port is set; yields what takes its events, ``listen`` gets them last."""
    listeners = [listen]
    with ExitStack() as stack:
        if metrics_port is not None:
            from scanner.interface.scan import LAST_VISIT_SECONDS
            from scanner.training.metrics import served_metrics

            served = served_metrics(metrics_port, metrics_address, members, Path(out), LAST_VISIT_SECONDS)
            # First: the page already says what is printed.
            listeners.insert(0, stack.enter_context(served))

        def tell(event: TrainingEvent) -> None:
            for listener in listeners:
                listener(event)

        yield tell


def make_bundle(
    members: str | Path,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    bundle: str | Path | None = None,
    name: str | None = None,
    version: str = "1",
    description: str = "Trained on simulated images.",
    licence: str | None = None,
    seed: int = 0,
    embed: int = EMBEDDED_ROWS,
    cells: int | None = None,
    second_look: float = SECOND_LOOK_SHARE,
    screen: float = SCREEN_SHARE,
    paper: bool = False,
    evaluate_on: str | Path | Sequence[str | Path] = (),
    compare: Sequence[str | Path] = (),
    images: str | Path | None = None,
    known: str | Path | None = None,
    real: Sequence[str | Path] = (),
    rotations: int | None = None,
    cache: str | Path | None = None,
    provider: str = "auto",
    jobs: int | None = None,
    mirror: str | None = None,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    report: Callable[[str], None] = print,
) -> Bundle:
    """Make a bundle of trained networks, as ``scanner train bundle`` does: grid, calibration, thresholds, model card.

    Log-odds are kept in the folder of the runs, so that an interrupted call goes on where it was. Needs the extra ``train``.

    Parameters
    ----------
    members
        Folder of the finished runs, ``out`` of :func:`scanner.train`.
    data
        What the members were trained on: folders or ``s3://…``.
    out
        Folder of the bundle; an old bundle is replaced.
    bundle
        Members that have no run in ``members`` are taken from this bundle as they are; None: all seven have one.
    name, version, description, licence
        What the bundle is called, that of its folder by default, one sentence on what it is, and the licence that its weights
        may be used under, an SPDX expression such as ``CC-BY-4.0``.
    seed, embed, cells
        Seed and most rows of the embedding; cells of the grid along each axis, 100 for 45,000 rows by default.
    second_look
        Objects that score as high as this share of the non-lenses are scored eight ways round, by OU-VIS and OU-66; 0: none.
    screen
        Objects that stand as high by OU-66 alone as this share of the non-lenses are scored by all members; 0: all are.
    paper
        The grid of Wilde et al. (2022): t-SNE of the probabilities of the rows as they are, 100 x 100 cells, new objects placed
        by openTSNE; neither second look nor screen.
    evaluate_on, compare, images, known, real, rotations, cache
        Held-out sets for the card, other bundles beside this one, and the rest as for :func:`scanner.evaluate`; log-odds are
        kept in the folder of the runs by default.
    provider, jobs
        What runs the networks, and in how many processes; one a core by default, 1 on a GPU.
    mirror
        Mirror of the runs; members are taken from there first.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    report
        Called with a line for each step.

    Raises
    ------
    InputMissingError
        A run is not finished, or a set is not there.
    ContentError
        The members were trained on other data.
    UsageError
        A held-out set is what the members were trained on.

    Examples
    --------
    >>> import scanner
    >>> bundle = scanner.make_bundle("runs", "set", "my-bundle", evaluate_on="held-out")  # doctest: +SKIP
    >>> bundle.manifest.name  # doctest: +SKIP
    'my-bundle'
    """
    from scanner.ensemble import bundles
    from scanner.ensemble.embedding_grid import CELLS, NEAREST_LOG_ODDS, PAPER_RULE
    from scanner.interface.bundle import evaluate
    from scanner.labelled_set import LabelledSet, local_datasets
    from scanner.training.assemble import Assembly, Naming, assemble, read_ensemble, shares_of_runs
    from scanner.training.card import draw_assembled, publish
    from scanner.training.data import TrainingData
    from scanner.training.jobs import pull_members

    members, out = Path(members), Path(out)
    storage = configuration.load_storage(config, endpoint, anonymous)
    with sigterm_interrupts(), script_kept_from_children():
        if mirror is not None:
            pull_members(mirror, members, storage)
        training = TrainingData(local_datasets(listed(data), members / "datasets", storage), shares_of_runs(members))
        held_out = [LabelledSet(path) for path in local_datasets(listed(evaluate_on), members / "datasets", storage)]
        begun = None if bundle is None else bundles.load(bundle, storage)
        ensemble = read_ensemble(members, training.fingerprint, training.drawn_from, begun)
        trained_on = ensemble.trained_on(training.seen)
        for dataset in held_out:
            if dataset.was_seen_by(trained_on):
                raise UsageError(f"{dataset.path}: is what the members were trained on; evaluate on another dataset.")
        how = Assembly(
            cache=members / "log-odds",
            seed=seed,
            embed=embed,
            cells=CELLS if paper and cells is None else cells,
            rule=PAPER_RULE if paper else NEAREST_LOG_ODDS,
            provider=provider,
            workers=jobs or (1 if provider in ("cuda", "tensorrt") else cores()),
            threads=cores(),
            second_look=0.0 if paper else second_look,
            screen=0.0 if paper else screen,
            turned=not paper,
        )
        assembled = assemble(
            ensemble, training, out, Naming(name or out.resolve().name, version, description, licence), how, report
        )
        draw_assembled(assembled, training, members)
        evaluation = None
        if held_out:
            report(f"evaluating on {', '.join(str(dataset.path) for dataset in held_out)}")
            evaluation = evaluate(
                [out, *(bundles.load(other, storage) for other in compare)],
                held_out,
                images=images,
                known=known,
                real=real,
                rotations=rotations,
                cache=cache or members / "log-odds",
                provider=provider,
            ).record
        return publish(assembled.bundle, ensemble, training, evaluation)


def _job(
    member: TrainedName,
    data: str | Path | Sequence[str | Path],
    out: Path,
    *,
    threads: int,
    preset: PresetName | Preset = "best",
    seed: int = 1,
    precision: WantedPrecision | None = None,
    time_budget: str | float | None = None,
    bundle: str | Path | None = None,
    device: str = "cpu",
    draw: int | None = None,
    scratch: str | Path | None = None,
    mirror: str | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    config: str | Path | None = None,
) -> TrainingJob:
    """The job of one member, its datasets and bundle found, or brought here."""
    from scanner.ensemble import bundles
    from scanner.training.data import DrawnSet
    from scanner.training.jobs import TrainingJob

    locations = listed(data)
    if bool(locations) == (draw is not None):
        raise UsageError("Give the training set as --data, or have one drawn with 'scanner train all --draw N'.")
    if mirror is not None and not is_remote(mirror) and Path(mirror).resolve() == out.resolve():
        raise UsageError(f"--mirror {mirror}: is the folder of the runs itself; name another disk, or s3://…")
    storage = configuration.load_storage(config, endpoint, anonymous)
    datasets: tuple[Path, ...] = ()
    if locations:
        from scanner.labelled_set import local_datasets

        datasets = local_datasets(locations, out / "datasets", storage)
    way = preset if isinstance(preset, Preset) else PRESETS[preset]
    return TrainingJob(
        data=datasets,
        drawn=None if draw is None else DrawnSet(n_objects=draw, seed=seed, folder=Path(scratch or out / "drawn")),
        out=out,
        member=member,
        preset=way if precision is None else way.model_copy(update={"precision": precision}),
        seed=seed,
        time_budget=seconds(time_budget) if isinstance(time_budget, str) else time_budget,
        bundle=None if bundle is None else bundles.load(bundle, storage).path,
        threads=threads,
        device=device,
        mirror=mirror,
        storage=storage,
    )


def listed(data: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """One name or several, as several."""
    return (str(data),) if isinstance(data, str | Path) else tuple(map(str, data))


def moving(move: Move, before: str = "") -> Listener:
    """Move a bar for each member with its events; ``before``: what stands before its name."""
    from scanner.training.jobs import MemberFinished, MemberProgress, MemberStarted, MemberValidated

    shares: dict[TrainedName, float] = {}
    notes: dict[TrainedName, str] = {}

    def listen(event: TrainingEvent) -> None:
        match event:
            case MemberStarted():
                shares[event.member] = 0.0
            case MemberProgress():
                shares[event.member] = event.share
            case MemberValidated():
                notes[event.member] = event.row.described()
            case MemberFinished():
                shares[event.member] = 1.0
            case _:
                return
        move(shares.get(event.member, 0.0), 1.0, before + event.member, notes.get(event.member, ""))

    return listen


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
        at hand. The bundle is in ``out/adapted/bundle``. The same call goes on where it was stopped, with the grades that it
        began with.
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
    goes_on = all_layers and not (out / "adapted" / "bundle").exists()
    sets = []
    for part, which in (("graded", ~judges), ("held-out", judges)):
        chosen = [row for row, is_in in zip(clear, which, strict=True) if is_in]
        if not (goes_on and (out / part).exists()):
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
