"""Bundles of trained networks: load one, score arrays with it, measure several, add a network, set the cascade."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from scanner import config as configuration
from scanner.atomic_file import cache_folder
from scanner.config import StorageConfig
from scanner.ensemble import bundles as bundle_files
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.embedding_grid import Embedded, GridRule, Placing
from scanner.ensemble.preprocessing import Scaling
from scanner.ensemble.session import Scorer
from scanner.errors import UsageError, importing
from scanner.interface.progress import bar
from scanner.processes import cores, script_kept_from_children
from scanner.records import Band, MemberName
from scanner.training.presets import (
    EMBEDDED_ROWS,
    SCREEN_MEMBERS,
    SCREEN_SHARE,
    SECOND_LOOK_MEMBERS,
    SECOND_LOOK_SHARE,
)

# Tables, plots and cutouts are imported where they are used: a bundle is loaded without them.
if TYPE_CHECKING:
    from astropy.table import Table

    from scanner.evaluation.benchmark import BenchmarkResult
    from scanner.evaluation.compare import Comparison
    from scanner.evaluation.results import BenchmarkName, Evaluation
    from scanner.evaluation.tables import Table as PaperTable
    from scanner.interface.objects import ObjectTable
    from scanner.labelled_set import LabelledSet
    from scanner.training.added_member import AddedMember, Output
    from scanner.training.quantised import Quantised

#: What names a bundle: itself, a folder, an installed bundle's name or a URL; None: the default bundle.
BundleLike = Bundle | str | Path | None

#: Objects scored together, which bounds the memory.
BATCH_SIZE = 256
#: Columns that an array without a place on the sky has no value for.
PLACE_COLUMNS = frozenset({"target_id", "tile_id", "ra", "dec", "x", "y", "offset_x", "offset_y", "magnitude_vis"})

_last: tuple[tuple[str, str, float | None, float], Scorer] | None = None


def load_bundle(
    bundle: str | Path | None = None,
    *,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
) -> Bundle:
    """Load a bundle of trained networks, every file checked against its SHA-256.

    Parameters
    ----------
    bundle
        A folder, the name of an installed bundle, an ``s3://…`` URL, or ``STORE/current``; the default bundle by default.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.

    Returns
    -------
    Bundle
        ``manifest`` (members, metrics, thresholds, what it was trained on), ``threshold()``, ``calibration``, ``grid``,
        ``fingerprint``.

    Raises
    ------
    InputMissingError
        There is no such bundle.
    ContentError
        It is damaged.

    Examples
    --------
    >>> import scanner
    >>> len(scanner.load_bundle().manifest.members)
    7
    """
    return bundle_files.load(bundle, configuration.load_storage(config, endpoint, anonymous))


def score(
    vis: ArrayLike,
    nisp: ArrayLike,
    sky: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    bundle: BundleLike = None,
    *,
    beta: float | None = None,
    provider: str = "auto",
    max_bad_fraction: float = 0.25,
) -> ObjectTable:
    """Score cutouts as a scan does.

    Parameters
    ----------
    vis
        (200, 200) or (N, 200, 200): VIS around each object, 0.1″ a pixel, any unit; bad pixels, which are NaN, are filled with
        noise.
    nisp
        (3, 66, 66) or (N, 3, 66, 66): Y, J, H around the same centre, 0.3″ a pixel.
    sky, sigma
        (4,) or (N, 4): median and robust standard deviation of the sky in VIS, Y, J, H, in the unit of the images; measured
        on each cutout by default, as a scan does.
    bundle
        A bundle of :func:`load_bundle`, or what that takes.
    beta
        β of the F-beta threshold; the bundle's own by default.
    provider
        What runs the networks: ``auto``, ``cpu``, ``openvino``, ``openvino-bfloat16``, ``cuda``, ``tensorrt``.
    max_bad_fraction
        A band with more bad pixels than this is left out; without VIS an object is not scored.

    Returns
    -------
    ObjectTable
        N rows: each member's probability (``p_ou_j`` …), position in the embedding, ``grid_value`` and ``cell_count``,
        ``p_calibrated``, the decision ``is_candidate``, bad fractions and flags; NaN where an object was not scored.

    Raises
    ------
    UsageError
        Arrays of other shapes, or a provider that is not here.
    ScannerError
        See :func:`load_bundle`.

    Examples
    --------
    >>> import numpy as np
    >>> import scanner
    >>> noise = np.random.default_rng(1)
    >>> scores = scanner.score(noise.normal(size=(2, 200, 200)), noise.normal(size=(2, 3, 66, 66)))
    >>> len(scores), bool(scores["is_candidate"].any())
    (2, False)
    """
    import pyarrow as pa

    from scanner.catalogue import columns
    from scanner.cutouts.quality import cutouts_of
    from scanner.interface.objects import ObjectTable
    from scanner.survey.scan.tile import score_batch

    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if not len(np.asarray(vis)):
        schema = columns.with_further(columns.SCORE_SCHEMA, loaded.manifest.further_names)
        return ObjectTable.of(schema.empty_table().select([name for name in schema.names if name not in PLACE_COLUMNS]))
    batch = cutouts_of(vis, nisp, sky, sigma)
    scorer = _scorer(loaded, provider, beta, max_bad_fraction)
    parts = []
    for first in range(0, len(batch), BATCH_SIZE):
        part = batch.take(np.arange(first, min(first + BATCH_SIZE, len(batch))))
        parts.append(columns.score_table(part, score_batch(scorer, part), "", loaded.manifest.further_names))
    rows = pa.concat_tables(parts)
    return ObjectTable.of(rows.select([name for name in rows.column_names if name not in PLACE_COLUMNS]))


def evaluate(
    bundles: BundleLike | Sequence[BundleLike],
    data: str | Path | LabelledSet | Iterable[str | Path | LabelledSet],
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    known: str | Path | None = None,
    real: str | Path | LabelledSet | Iterable[str | Path | LabelledSet] = (),
    beta: float | None = None,
    prevalence: float | None = None,
    rotations: int | None = None,
    source_colours: int = 0,
    cache: str | Path | Literal[False] | None = None,
    provider: str = "auto",
    threads: int = 1,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    progress: bool | None = None,
) -> BundleEvaluation:
    """Measure bundles on labelled sets, as ``scanner evaluate`` does: the first against each of the others.

    Parameters
    ----------
    bundles
        One or several of what :func:`load_bundle` takes or returns; None: the default bundle.
    data
        One or several labelled sets, as of :func:`scanner.simulate_dataset`, that no bundle was trained on; folders or
        ``s3://…``.
    out
        Folder for page, plots and JSON; none is written by default.
    images
        Tile list; the centre of each tile is scored eight ways round.
    known
        List of known lenses with FITS images of any telescope.
    real
        One or several labelled sets of real cutouts; their figures come first.
    beta
        β of the F-beta threshold; each bundle's own by default.
    prevalence
        Share of lenses on the sky, between 0 and 1; the paper's by default.
    rotations
        Objects turned and mirrored, eight ways; 200 by default, 0: none.
    source_colours
        Lenses drawn with sources from blue to red; at least 2, or 0: none.
    cache
        Folder where log-odds, and copies of sets of an object store, are kept; the user's cache by default. False: log-odds
        are not kept.
    provider, threads
        What runs the networks, and threads that score one object; as many at a time as there are cores.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    progress
        Show a bar; by default on a terminal and in a notebook.

    Raises
    ------
    UsageError
        A setting that makes no sense; a set or bundle given twice; sets without lenses, or without non-lenses.
    ScannerError
        A bundle, a set, a tile or a list cannot be read.

    Examples
    --------
    >>> import scanner
    >>> drawn = scanner.simulate_dataset("measured", "quick", 16, workers=1)
    >>> measured = scanner.evaluate(None, "measured", rotations=0, cache=False)
    >>> measured.record.sets[0].n_objects, "low-fpr" in measured.tables
    (16, True)
    """
    from scanner.evaluation.biases import COLOURS
    from scanner.evaluation.compare import Scoring, compare_bundles
    from scanner.evaluation.results import SKY_PREVALENCE, TURNED

    prevalence, rotations = SKY_PREVALENCE if prevalence is None else prevalence, TURNED if rotations is None else rotations
    refuse_nonsense(beta, prevalence)
    storage = configuration.load_storage(config, endpoint, anonymous)
    kept = None if cache is False else cache_folder("log-odds") if cache is None else Path(cache)
    copies = (kept or cache_folder("log-odds")) / "datasets"
    datasets, real_sets = (_labelled_sets(given, copies, storage) for given in (data, real))
    chosen = [bundles] if bundles is None or isinstance(bundles, Bundle | str | Path) else list(bundles)
    # A comparison reads folders: what lies on an object store is copied.
    paths = [_loaded(one, storage).path for one in chosen]
    turned = 8 * (rotations + sum(map(len, real_sets)))
    total = len(paths) * (sum(map(len, datasets)) + turned + len(COLOURS) * source_colours)
    with script_kept_from_children(), bar("scoring", shown=progress, unit="objects") as move:
        done = 0

        def report(name: str, n: int) -> None:
            nonlocal done
            done += n
            move(done, total, name)

        comparison = compare_bundles(
            paths,
            datasets,
            images=None if images is None else Path(images),
            known=None if known is None else Path(known),
            real=real_sets,
            beta=beta,
            prevalence=prevalence,
            n_turned=rotations,
            n_recoloured=source_colours,
            scoring=Scoring(provider=provider, threads=threads, parallel=max(1, cores() // threads), cache=kept, report=report),
        )
    measured = BundleEvaluation(comparison)
    return measured if out is None else replace(measured, page=measured.write(out)[-1])


def evaluate_benchmark(
    bundles: Sequence[str | Path | None],
    name: BenchmarkName,
    folder: str | Path,
    out: str | Path | None = None,
    *,
    beta: float | None = None,
    provider: str = "auto",
    threads: int = 1,
    progress: bool | None = None,
) -> BenchmarkResult:
    """Measure bundles on a public benchmark of real images, as ``scanner evaluate --benchmark`` does.

    Parameters
    ----------
    bundles
        Folders or names; None: the default bundle.
    name, folder
        The benchmark, and its files as they are published.
    out
        Folder for ``benchmark.json``; none is written by default.
    beta, provider, threads, progress
        See :func:`evaluate`.

    Raises
    ------
    ScannerError
        See :func:`scanner.evaluation.benchmark.run_benchmark`.
    """
    from scanner.atomic_file import write_atomically
    from scanner.evaluation.benchmark import RESULT_FILE, run_benchmark
    from scanner.evaluation.compare import named_bundles

    storage = configuration.load_storage()
    loaded = named_bundles([bundle_files.load(one, storage).path for one in bundles])
    with script_kept_from_children(), bar("scoring", shown=progress, unit="objects") as move:
        result = run_benchmark(
            name,
            Path(folder),
            list(loaded.items()),
            beta=beta,
            provider=provider,
            threads=threads,
            parallel=max(1, cores() // threads),
            report=move,
        )
    if out is not None:
        write_atomically(Path(out) / RESULT_FILE, result.to_bytes())
    return result


def add_member(
    bundle: BundleLike,
    network: str | Path,
    name: str,
    bands: Sequence[Band],
    pixels: int,
    data: str | Path | LabelledSet,
    out: str | Path | None = None,
    *,
    scaling: Scaling = "sigma",
    output: Output | None = None,
    version: str | None = None,
    provider: str = "auto",
    threads: int = 1,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> AddedMember:
    """Add a network of your own to a bundle, from an ONNX file, as ``scanner models add-member`` does.

    Parameters
    ----------
    bundle
        What :func:`load_bundle` takes or returns; it stays as it is.
    network
        ONNX file: one float32 input (N, bands, pixels, pixels), one output a lens log-odds or probability (N,) or (N, 1), or
        two logits or probabilities (N, 2: non-lens, lens). N is free, or 1.
    name
        Small letters, digits and underscores; the column is ``p_NAME``.
    bands
        Of VIS, Y, J, H, in the order of the network's input.
    pixels
        Side of the input, even: of 0.1″ where VIS is among the bands, to which NISP is resampled bilinearly; else of 0.3″.
    data
        Labelled set that neither has seen, a folder or ``s3://…``: it makes the calibration, and shows what is gained.
    out
        Folder of the new bundle; ``BUNDLE-NAME`` here by default.
    scaling
        ``sigma``: (flux - sky) / σ; ``asinh_mad`` or ``minmax``, as bundles have it.
    output
        ``logit``, ``probability``, ``logits`` or ``softmax``; found out by default.
    version
        Of the new bundle; by default the old one with ``+NAME``.
    provider, threads
        What runs the networks, and threads that score one object.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    report
        Called with a line a step.

    Returns
    -------
    AddedMember
        ``bundle``; ``gains``: AUROC and recall at fixed false-positive rates before and after, with the interval of the paired
        difference; ``earns_its_place``.

    Raises
    ------
    UsageError
        Name, bands or pixels make no sense, or the set is one that the bundle was trained on; packages are missing.
    InputMissingError, ContentError
        The network does not fit; the set has too few objects.
    OutputError
        The new bundle cannot be written.
    """
    with importing("adding a network", "train"):
        from scanner.training import added_member
    storage = configuration.load_storage(config, endpoint, anonymous)
    loaded = _loaded(bundle, storage)
    (dataset,) = _labelled_sets(data, cache_folder("log-odds") / "datasets", storage)
    return added_member.add_member(
        loaded,
        added_member.NewMember(Path(network), name, tuple(bands), pixels, scaling, output),
        dataset,
        Path(f"{loaded.manifest.name}-{name}" if out is None else out),
        version=version,
        provider=provider,
        threads=threads,
        report=report,
    )


def regrid(
    bundle: BundleLike,
    data: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    embeds: Embedded = "log-odds",
    places: Placing = "nearest",
    cells: int | None = None,
    embed: int = EMBEDDED_ROWS,
    second_look: bool = True,
    version: str | None = None,
    seed: int = 0,
    provider: str = "auto",
    threads: int = 1,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Give a bundle another t-SNE grid, and a threshold on it, as ``scanner models regrid`` does; the networks stay.

    Parameters
    ----------
    bundle
        What :func:`load_bundle` takes or returns, with the paper's seven members; it stays as it is.
    data
        One or several training sets: 84% of the rows make the grid, 10% that are not among them the threshold.
    out
        Folder of the new bundle; ``BUNDLE-regridded`` here by default.
    embeds
        What t-SNE is shown: limited ``log-odds``, or ``probabilities`` as in the paper.
    places
        Where new objects come to lie: at the ``nearest`` training object, or where ``opentsne`` moves them, so that they may
        fall into empty cells, as in the paper.
    cells
        Along each axis; by default 100 for 45,000 rows and fewer for fewer. The paper: 100.
    embed
        Most rows that are embedded.
    second_look
        False: the new bundle has no test-time augmentation.
    version
        Of the new bundle; by default the old one with ``+grid``.
    seed, provider, threads
        Of the embedding; what runs the networks; threads of both.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    report
        Called with a line a step.

    Raises
    ------
    UsageError
        The set is for evaluation, or a member is one that a grid does not embed; packages are missing.
    InputMissingError, ContentError
        The set is not there, too small, or sets a threshold that would take every object.
    OutputError
        The new bundle cannot be written.
    """
    with importing("making a grid", "train"):
        from scanner.training.assemble import Assembly, Naming
        from scanner.training.assemble import regrid as regridded
        from scanner.training.data import TrainingData
    storage = configuration.load_storage(config, endpoint, anonymous)
    loaded = _loaded(bundle, storage)
    manifest, copies = loaded.manifest, cache_folder("log-odds") / "datasets"
    training = TrainingData([one.path for one in _labelled_sets(data, copies, storage)])
    how = Assembly(
        cache=copies,
        seed=seed,
        embed=embed,
        cells=cells,
        rule=GridRule(embeds=embeds, places=places),
        provider=provider,
        threads=threads,
        second_look=SECOND_LOOK_SHARE if second_look else 0.0,
    )
    sets = ", ".join(path.resolve().name for path in training.paths)
    naming = Naming(
        manifest.name,
        version or f"{manifest.version}+grid",
        f"{manifest.description.rstrip('.')}; grid of {embeds} and threshold from {sets}.",
    )
    return regridded(loaded, training, Path(out or f"{manifest.name}-regridded"), naming, how, report)


def quantise(
    bundle: BundleLike,
    data: str | Path | LabelledSet | Iterable[str | Path | LabelledSet],
    out: str | Path,
    *,
    version: str | None = None,
    seed: int = 0,
    provider: str = "auto",
    threads: int = 1,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Quantised:
    """Have a bundle's networks compute in 8-bit integers, in a new bundle, as ``scanner models quantise`` does.

    Parameters
    ----------
    bundle
        What :func:`load_bundle` takes or returns; it stays as it is.
    data
        Labelled sets that it has not seen, folders or ``s3://…``: 256 objects set the ranges of all layers, on the others both
        bundles are compared.
    out
        Folder of the new bundle.
    version
        Of the new bundle; by default the old one with ``+int8``.
    seed
        Of the choice of objects that set the ranges.
    provider, threads
        What runs the networks, and threads that score one object.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    report
        Called with a line a step.

    Returns
    -------
    Quantised
        ``bundle``; ``changes`` of recall at low false-positive rates, paired.

    Raises
    ------
    UsageError
        The bundle was trained on a set or computes in integers already, or the version is its own; packages are missing.
    ContentError
        The sets have too few objects.
    OutputError
        The new bundle cannot be written.
    """
    with importing("quantising a bundle", "train"):
        from scanner.training import quantised
    storage = configuration.load_storage(config, endpoint, anonymous)
    loaded = _loaded(bundle, storage)
    return quantised.quantise(
        loaded,
        _labelled_sets(data, cache_folder("log-odds") / "datasets", storage),
        Path(out),
        version=f"{loaded.manifest.version}+int8" if version is None else version,
        seed=seed,
        provider=provider,
        threads=threads,
        report=report,
    )


def set_cascade(
    bundle: BundleLike,
    data: str | Path | LabelledSet | Iterable[str | Path | LabelledSet],
    out: str | Path,
    *,
    members: Sequence[MemberName] = SCREEN_MEMBERS,
    share: float = SCREEN_SHARE,
    calibration: str | Path | Iterable[str | Path] = (),
    turning: Sequence[MemberName] = SECOND_LOOK_MEMBERS,
    turning_share: float = SECOND_LOOK_SHARE,
    second_share: float | None = None,
    version: str | None = None,
    cache: str | Path | None = None,
    provider: str = "auto",
    threads: int = 1,
    config: str | Path | None = None,
    endpoint: str | None = None,
    anonymous: bool | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Bundle:
    """Set and measure a bundle's screen, calibration and test-time augmentation, in a new bundle; no network changes.

    What ``scanner models cascade`` does.

    Parameters
    ----------
    bundle
        What :func:`load_bundle` takes or returns; it stays as it is.
    data
        Labelled sets that it has not seen, folders or ``s3://…``: their non-lenses set the limit, their lenses show what is
        lost.
    out
        Folder of the new bundle.
    members, share
        The members that score every object, and the share of the non-lenses that all members score.
    calibration
        Sets whose calibration rows set calibration and test-time augmentation, folders or ``s3://…``, those that the bundle was
        trained on or others; by default they stay.
    turning, turning_share
        The members that score all orientations, and the share of the calibration rows' non-lenses above which they do.
    second_share
        Share of the sets' non-lenses that pass a second stage of the screen too, in which the members that turn score what
        passes the first; None: it has none.
    version
        Of the new bundle; by default the old one with ``+cascade``.
    cache
        Folder where log-odds are kept; by default they are not.
    provider, threads
        What runs the networks, and threads that score one object.
    config, endpoint, anonymous
        How object stores are reached: a TOML file, or the settings themselves.
    report
        Called with a line a step.

    Returns
    -------
    Bundle
        ``manifest.screen`` has the limit and what is lost, ``manifest.second_look`` the test-time augmentation.

    Raises
    ------
    UsageError
        The bundle was trained on a set or has no calibration, or the version is its own; a second stage would be none; packages
        are missing.
    ContentError
        The sets have too few objects.
    OutputError
        The new bundle, or the cache, cannot be written.
    """
    with importing("setting a cascade", "train"):
        from scanner.labelled_set import local_datasets
        from scanner.training import cascade
        from scanner.training.data import TrainingData
    storage = configuration.load_storage(config, endpoint, anonymous)
    loaded = _loaded(bundle, storage)
    place = cache_folder("log-odds") / "datasets"
    listed = [calibration] if isinstance(calibration, str | Path) else calibration
    rows = local_datasets([str(path) for path in listed], place, storage)
    return cascade.set_cascade(
        loaded,
        _labelled_sets(data, place, storage),
        Path(out),
        members=members,
        share=share,
        calibration=TrainingData(rows) if rows else None,
        turning=turning,
        turning_share=turning_share,
        second_share=second_share,
        version=f"{loaded.manifest.version}+cascade" if version is None else version,
        cache=None if cache is None else Path(cache),
        provider=provider,
        threads=threads,
        report=report,
    )


@dataclass(frozen=True, repr=False)
class BundleEvaluation:
    """What :func:`evaluate` measured.

    Attributes
    ----------
    comparison : Comparison
        The evaluation, and the bundles, sets and images that it was measured on.
    page : Path or None
        The page that was written.
    """

    comparison: Comparison
    page: Path | None = None

    def __repr__(self) -> str:
        bundles, sets = (", ".join(one.name for one in part) for part in (self.record.bundles, self.record.sets))
        return f"<BundleEvaluation of {bundles} on {sets}{'' if self.page is None else f'; {self.page}'}>"

    @property
    def record(self) -> Evaluation:
        """All that was measured, as ``evaluation.json`` has it."""
        return self.comparison.evaluation

    @property
    def figures(self) -> Table:
        """AUROC and recall at fixed false-positive rates as numbers, with 95% intervals.

        One row for each ``figure`` (``auroc``, ``recall at FPR 0.001`` …) of each ``score`` (a network, ``grid``,
        ``calibrated``) of each ``bundle``: ``lenses`` and ``others`` name the sets, ``positives`` and ``negatives`` what was
        chosen of them (``visible``, ``hard``, ``all``), ``n_positives`` and ``n_negatives`` their numbers; ``value``, ``low``,
        ``high``. Rates that the set is too small to measure have no row.
        """
        from astropy.table import Table

        rows = []
        for found in self.record.figures:
            measured = {"auroc": found.auroc} | {f"recall at FPR {one.fpr:g}": one.recall for one in found.recalls}
            common = {
                "bundle": found.bundle,
                "lenses": found.pairing.lenses,
                "others": found.pairing.others,
                "score": found.score,
                "positives": found.positives,
                "negatives": found.negatives,
                "n_positives": found.n_positives,
                "n_negatives": found.n_negatives,
            }
            rows += [
                {**common, "figure": name, "value": interval.value, "low": interval.low, "high": interval.high}
                for name, interval in measured.items()
                if interval is not None
            ]
        return Table(rows=rows)

    @property
    def tables(self) -> dict[str, Table]:
        """The tables of the page by their names (``low-fpr``, ``table-5`` …), as text; ``meta`` has title and note."""
        from astropy.table import Table

        from scanner.evaluation.tables import tables

        return {
            one.name: Table(rows=one.rows, names=one.header, meta={"title": one.title, "note": one.note})
            for one in tables(self.record)
        }

    def paper_tables(self, provider: str = "auto", threads: int = 1) -> tuple[PaperTable, ...]:
        """Tables 5 to 7 of Wilde et al. (2022) as printed, the bundles' figures beside the authors'.

        Parameters
        ----------
        provider, threads
            What scores the known lenses.

        Raises
        ------
        UsageError
            There is no set, and no lens, that one of them is about.
        """
        from scanner.ensemble.session import open_session
        from scanner.evaluation.page import paper_tables

        return paper_tables(self.comparison, lambda bundle: open_session(bundle, provider, threads))

    def write(self, out: str | Path) -> tuple[Path, ...]:
        """Write page, plots and JSON into a folder; returns the files, ``evaluation.html`` last.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        from scanner.evaluation.page import write_evaluation

        return write_evaluation(self.comparison, Path(out))

    def write_bundle(self, folder: str | Path, version: str) -> Bundle:
        """Write the first bundle as another version of itself, with these figures in its card and manifest.

        Raises
        ------
        UsageError
            The bundle has this version already.
        ContentError
            It has no card with a section for figures.
        OutputError
            The folder cannot be written.
        """
        from scanner.evaluation.promotion import with_figures

        return with_figures(self.comparison.bundles[0].bundle, self.record, version, Path(folder))

    def _repr_html_(self) -> str:
        from scanner.evaluation.tables import ON_TERMINAL

        shown = [(table.meta["title"], table) for name, table in self.tables.items() if name in ON_TERMINAL]
        return "".join(f"<h4>{html.escape(title)}</h4>{table._repr_html_()}" for title, table in shown)


def refuse_nonsense(beta: float | None, prevalence: float, flag: str = "") -> None:
    """Refuse settings of an evaluation that make no sense; ``flag``: what their names begin with.

    Raises
    ------
    UsageError
        β is not positive, or the prevalence no share.
    """
    if beta is not None and not beta > 0:
        raise UsageError(f"{flag}beta must be more than 0 (given: {beta:g}).")
    if not 0 < prevalence < 1:
        raise UsageError(f"{flag}prevalence must lie between 0 and 1 (given: {prevalence:g}).")


def _loaded(bundle: BundleLike, storage: StorageConfig) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else bundle_files.load(bundle, storage)


def _labelled_sets(
    given: str | Path | LabelledSet | Iterable[str | Path | LabelledSet], copies: Path, storage: StorageConfig
) -> list[LabelledSet]:
    """Open one set or several; those of an object store are copied below ``copies``."""
    from scanner.labelled_set import LabelledSet, local_datasets

    listed = [given] if isinstance(given, str | Path | LabelledSet) else given
    return [
        one if isinstance(one, LabelledSet) else LabelledSet(local_datasets([str(one)], copies, storage)[0]) for one in listed
    ]


def _scorer(bundle: Bundle, provider: str, beta: float | None, max_bad_fraction: float) -> Scorer:
    """The scorer that was used last, if it is the same: to open one takes a second."""
    global _last
    key = (bundle.fingerprint, provider, beta, max_bad_fraction)
    if _last is None or _last[0] != key:
        _last = (key, Scorer(bundle, provider, 1, beta, max_bad_fraction, cores()))
    return _last[1]
