"""``scanner models``: import, verify, list, show, publish and promote bundles, and add a network to one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from scanner.cli.output import WholeSentences, endpoint_option, provider_option, standard_output, storage_of, threads_option
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle, Metric, lost_at
from scanner.ensemble.bundles import POINTERS, PublishedBundle, PublishedBundles
from scanner.ensemble.calibration import Calibration, sigmoid
from scanner.ensemble.embedding_grid import CELLS, PAPER_RULE, Embedded, GridRule, Placing
from scanner.ensemble.preprocessing import SCALINGS, Scaling
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, InputMissingError, ScannerError, UsageError, importing
from scanner.interface.bundle import add_member, evaluate, load_bundle, quantise, set_cascade
from scanner.interface.bundle import regrid as regridded
from scanner.processes import sigterm_interrupts
from scanner.records import BANDS, MEMBERS, MemberName
from scanner.training.presets import SCREEN_MEMBERS, SCREEN_SHARE, SECOND_LOOK_MEMBERS, SECOND_LOOK_SHARE

if TYPE_CHECKING:
    from scanner.training.added_member import Output

#: Exit code of a promotion that was refused.
NOT_PROMOTED = 1


@click.command()
@click.argument("bundle")
@click.option("--to", "store", required=True, help="Store of bundles, a folder or s3://…; made if need be.")
@endpoint_option
def publish(bundle: str, store: str, endpoint: str | None) -> None:
    """Put BUNDLE into a store, where it can be promoted and all machines find it.

    It lies in a folder named by its fingerprint, whole or not at all; what is in use does not change.
    """
    storage = storage_of(endpoint)
    with sigterm_interrupts():
        click.echo(f"{PublishedBundles(store, storage).publish(bundles.load(bundle, storage))}: published")


@click.command()
@click.argument("new")
@click.option("--over", help="Bundle that it is judged against [default: the one in use].")
@click.option(
    "--data",
    required=True,
    multiple=True,
    help="Labelled set that neither was trained on, a folder or s3://…; repeat for more.",
)
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of real lenses, one in the centre of each tile.")
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses with FITS images of any telescope.")
@click.option("--real", multiple=True, help="Labelled set of real cutouts, a folder or s3://…; repeat for more.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder where log-odds are kept [default: the user's cache].")
@click.option(
    "--models",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the bundles [default: your own].",
)
@click.option("--published", help="Store of published bundles instead, a folder or s3://…; NEW is one of them.")
@endpoint_option
@provider_option
@threads_option
def promote(
    new: str,
    over: str | None,
    data: tuple[str, ...],
    images: Path | None,
    known: Path | None,
    real: tuple[str, ...],
    cache: Path | None,
    folder: Path | None,
    published: str | None,
    endpoint: str | None,
    provider: str,
    threads: int,
) -> int:
    """Bring NEW into use, unless it is worse than the bundle in use on any set or image, or loses a real lens.

    NEW becomes the default bundle; with --published, NEW is 'latest' or a fingerprint, and becomes the store's current bundle.
    Refused, with exit 1, is a bundle that is worse in any figure beyond its interval.
    """
    from scanner.cli.evaluate import plain
    from scanner.evaluation.promotion import installed_name, judge, make_default, reasons

    if folder is not None and published is not None:
        raise UsageError("Give one of --models and --published.")
    storage = storage_of(endpoint)

    def passes(new: str, old: str | None) -> bool:
        """Compare, and say why."""
        measured = evaluate(
            (new, old),
            data,
            images=images,
            known=known,
            real=real,
            rotations=0,
            cache=cache,
            provider=provider,
            threads=threads,
            endpoint=endpoint,
            progress=True,
        )
        promotion = judge(measured.record)
        click.echo("\n".join(plain(reasons(promotion))))
        failed = sum(not check.passed for check in promotion.checks)
        if failed:
            click.echo(
                f"{promotion.new} is worse than {promotion.old} in {failed} of {len(promotion.checks)} figures: not promoted."
            )
        return not failed

    with sigterm_interrupts():
        if published is None:
            place = folder or bundles.user_models_folder()
            name = installed_name(bundles.find(new), *((place,) if folder else (place, bundles.models_folder())))
            if not passes(new, over):
                return NOT_PROMOTED
            click.echo(f"{make_default(name, place)}: {name} is the default bundle now.")
            return 0
        store = PublishedBundles(published, storage)
        fingerprint, current = store.find(new), store.pointer("current")
        if current is not None and current.bundle == fingerprint:
            click.echo(f"{store.where(fingerprint)}: is in use already.")
            return 0
        if not passes(store.where(fingerprint), over or (None if current is None else store.where(current.bundle))):
            return NOT_PROMOTED
        click.echo(_moved(store, store.move("current", fingerprint, only_from=current)))
    return 0


@click.command()
@click.option("--published", required=True, help="Store of published bundles, a folder or s3://…")
@click.option("--to", "fingerprint", help="Fingerprint of the bundle to use [default: the one that was in use before].")
@endpoint_option
def rollback(published: str, fingerprint: str | None, endpoint: str | None) -> None:
    """Use the bundle again that was in use before the last promotion, or another one of the store.

    Nothing is measured. Runs that have begun go on with the bundle that they began with.
    """
    store = PublishedBundles(published, storage_of(endpoint))
    if fingerprint is None:
        current = store.pointer("current")
        if current is None or current.before is None:
            raise UsageError(f"{published}: no bundle was in use before; name one with --to.")
        chosen = current.before
    else:
        chosen = store.find(fingerprint)
    click.echo(_moved(store, store.move("current", chosen)))


def _moved(store: PublishedBundles, now: PublishedBundle) -> str:
    """What is in use, and how to undo that."""
    text = f"{store.where('current.json')}: {now.name} {now.version} ({now.bundle[:12]}) is in use now."
    if now.before is None:
        return text
    return f"{text}\nTo go back: scanner models rollback --published {store.location} --to {now.before[:12]}"


#: What --paper means.
PAPER_GRID: dict[str, Any] = {**PAPER_RULE.model_dump(), "cells": CELLS, "second_look": False}
GRID_OPTIONS = (
    click.option("--cells", type=click.IntRange(2), help="Cells along each axis [default: 100 for 45,000 rows]."),
    click.option("--embed", "embeds", type=click.Choice(get_args(Embedded)), help="What t-SNE is shown [default: log-odds]."),
    click.option(
        "--place",
        "places",
        type=click.Choice(get_args(Placing)),
        help="New objects: at the nearest training object, or where openTSNE moves them [default: nearest].",
    ),
    click.option(
        "--second-look/--no-second-look",
        "second_look",
        default=None,
        help="Keep the bundle's test-time augmentation, or drop it [default: keep].",
    ),
    click.option(
        "--paper",
        is_flag=True,
        help="As the paper: probabilities, 100 x 100 cells, placed by openTSNE, no test-time augmentation.",
    ),
)
Command = TypeVar("Command", bound=Callable[..., Any])


def grid_options(command: Command) -> Command:
    """Give a command the options of a grid."""
    for option in reversed(GRID_OPTIONS):
        command = option(command)
    return command


def _grid(paper: bool, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a grid that were given, over those of the paper where it is asked for."""
    return (PAPER_GRID if paper else {}) | {name: value for name, value in given.items() if value is not None}


PUBLISHED_OUT = Path("models/published-wilde2022")


def _table(*header: str, numbers: int = 0, prose: str | None = None) -> Table:
    """A plain table; ``numbers`` columns from the end are set flush right; a last column ``prose`` may wrap."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(header):
        right = position >= len(header) - numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    if prose is not None:
        table.add_column(prose, overflow="fold")
    return table


@click.group(cls=WholeSentences)
def models() -> None:
    """Look after bundles: folders that hold a trained ensemble, its grid, calibration, threshold and figures.

    BUNDLE is a folder or the name of an installed bundle; without it, the default bundle is meant.
    """


for command in (publish, promote, rollback):
    models.add_command(command)


@models.command("import-published")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), default=PUBLISHED_OUT, show_default=True, help="Bundle to make.")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled dataset for grid, calibration and threshold.")
@click.option("--provider", default="auto", show_default=True, help="What scores the dataset: auto, cpu, openvino or cuda.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads that score the dataset.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of objects and of the embedding.")
@grid_options
def import_published(
    folder: Path, out: Path, data: Path | None, provider: str, threads: int, seed: int, paper: bool, **given: Any
) -> None:
    """Make a bundle of the weights that the authors of the paper published, state dicts in FOLDER.

    Their training set is not public. With --data, a training set (see 'scanner simulate dataset'), grid, calibration and
    threshold are made from that one; without, objects are ranked and judged by the mean of the seven probabilities.
    """
    with importing("importing weights", "train"):
        from scanner.training import published
        from scanner.training.assemble import Assembly
        from scanner.training.data import TrainingData
    grid = _grid(paper, given)
    if data is None and grid:
        raise UsageError("a grid is made of labelled objects; give a training set as --data.")
    how = Assembly(
        cache=out,
        seed=seed,
        cells=grid.get("cells"),
        rule=GridRule(**{name: grid[name] for name in ("embeds", "places") if name in grid}),
        provider=provider,
        threads=threads,
    )
    made = published.import_published(folder, out, data=None if data is None else TrainingData((data,)), how=how)
    standard_output().print(f"{out}: bundle {made.manifest.name}, {_decides(made)}. Use it with --bundle {out}")


@models.command()
@click.argument("bundle")
@click.option("--data", required=True, multiple=True, help="Training set, a folder or s3://…; repeat for more.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the new bundle [default: BUNDLE-regridded here].")
@grid_options
@click.option("--version", help="Of the new bundle [default: the old one's with +grid].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of rows and of the embedding.")
@endpoint_option
@provider_option
@threads_option
def regrid(
    bundle: str,
    data: tuple[str, ...],
    out: Path | None,
    version: str | None,
    seed: int,
    endpoint: str | None,
    provider: str,
    threads: int,
    paper: bool,
    **given: Any,
) -> None:
    """Give BUNDLE another t-SNE grid, and a threshold on it, in a new bundle; its networks stay as they are.

    84% of the rows of --data make the grid, and 10% that are not among them the threshold. --paper is the grid of Wilde et al.
    (2022); 'scanner run --rank grid --threshold 0.5' then scans as they did.
    """
    console = standard_output()
    with sigterm_interrupts():
        made = regridded(
            bundle,
            data,
            out,
            **_grid(paper, given),
            version=version,
            seed=seed,
            endpoint=endpoint,
            provider=provider,
            threads=threads,
            report=lambda text: console.print(text),
        )
    console.print(f"{made.path}: {_embedding(made)}; {_decides(made)}. Use it with --bundle {made.path}")


@models.command("add-member")
@click.argument("bundle")
@click.argument("network", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the member: small letters, digits, underscores; its column is p_NAME.")
@click.option("--bands", required=True, help="What it sees, in the order of its input: VIS,Y,J,H or some of them.")
@click.option(
    "--pixels", type=int, required=True, help='Side of its input: of 0.1" where VIS is among the bands, else of 0.3".'
)
@click.option("--data", required=True, help="Labelled set that neither has seen, a folder or s3://…")
@click.option("--scaling", type=click.Choice(SCALINGS), default="sigma", show_default=True, help="Of its input.")
@click.option("--output", type=click.Choice(["logit", "probability", "logits", "softmax"]), help="What it gives [found out].")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the new bundle [default: BUNDLE-NAME here].")
@click.option("--version", help="Of the new bundle [default: the old one's with +NAME].")
@endpoint_option
@provider_option
@threads_option
def add_member_(
    bundle: str,
    network: Path,
    name: str,
    bands: str,
    pixels: int,
    data: str,
    scaling: Scaling,
    output: Output | None,
    out: Path | None,
    version: str | None,
    endpoint: str | None,
    provider: str,
    threads: int,
) -> None:
    """Add NETWORK, an ONNX file, to BUNDLE as a further member, in a new bundle.

    The network is checked, and calibrated together with the others on --data. What it gains is measured there too, paired:
    both combinations are fitted on one half of the set and measured on the other.
    """
    seen = tuple(band for name in bands.split(",") for band in BANDS if band == name)
    if len(seen) != len(bands.split(",")):
        raise UsageError(f"--bands must be some of {','.join(BANDS)} (given: {bands}).")
    console = standard_output()
    with sigterm_interrupts():
        added = add_member(
            bundle,
            network,
            name,
            seen,
            pixels,
            data,
            out,
            scaling=scaling,
            output=output,
            version=version,
            provider=provider,
            threads=threads,
            endpoint=endpoint,
            report=lambda text: console.print(text),
        )
    table = _table("", "without", "with", "difference", numbers=3)
    for gain in added.gains:
        low, high = gain.difference.low, gain.difference.high
        difference = f"{gain.difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"
        table.add_row(gain.figure, f"{gain.before:.3f}", f"{gain.after:.3f}", difference)
    console.print(table)
    verdict = "it earns its place" if added.earns_its_place else "no gain that this set can show"
    manifest = added.bundle.manifest
    console.print(f"{name} alone: AUROC {added.own}; {verdict}.")
    console.print(f"{added.bundle.path}: bundle {manifest.name} {manifest.version}. Use it with --bundle {added.bundle.path}")


@models.command()
@click.argument("bundle")
@click.option("--data", required=True, multiple=True, help="Labelled set that it has not seen, a folder or s3://…; repeat.")
@click.option(
    "--member",
    "members",
    multiple=True,
    type=click.Choice(MEMBERS),
    default=SCREEN_MEMBERS,
    show_default=True,
    help="Member that scores every object; repeat for more.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=SCREEN_SHARE,
    show_default=True,
    help="Share of the sets' non-lenses that pass, and are scored by all members.",
)
@click.option(
    "--calibration",
    multiple=True,
    help="Set whose calibration rows set calibration and test-time augmentation, also one that it was trained on; repeat "
    "[default: they stay].",
)
@click.option(
    "--turn",
    "turning",
    multiple=True,
    type=click.Choice(MEMBERS),
    default=SECOND_LOOK_MEMBERS,
    show_default=True,
    help="Member that scores all eight orientations; repeat for more.",
)
@click.option(
    "--turn-share",
    "turning_share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=SECOND_LOOK_SHARE,
    show_default=True,
    help="Share of the calibration rows' non-lenses that are scored in all orientations.",
)
@click.option(
    "--second-share",
    "second_share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of the sets' non-lenses that pass a second stage too, in which the members that turn score what passes the "
    "first [default: there is no second stage].",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--version", help="Of the new bundle [default: the old one's with +cascade].")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder where log-odds are kept [default: they are not].")
@endpoint_option
@provider_option
@threads_option
def cascade(
    bundle: str,
    data: tuple[str, ...],
    members: tuple[MemberName, ...],
    share: float,
    calibration: tuple[str, ...],
    turning: tuple[MemberName, ...],
    turning_share: float,
    second_share: float | None,
    out: Path,
    version: str | None,
    cache: Path | None,
    endpoint: str | None,
    provider: str,
    threads: int,
) -> None:
    """Set screen, calibration and test-time augmentation of BUNDLE, in a new bundle, and measure what they lose.

    A scan then has all members score only what a few quick ones place high, in one stage or two ('scanner run --screen'), and a
    few members score in all orientations what stands high by all. No network changes.
    """
    console = standard_output()
    with sigterm_interrupts():
        made = set_cascade(
            bundle,
            data,
            out,
            members=members,
            share=share,
            calibration=calibration,
            turning=turning,
            turning_share=turning_share,
            second_share=second_share,
            version=version,
            cache=cache,
            provider=provider,
            threads=threads,
            endpoint=endpoint,
            report=lambda text: console.print(text),
        )
    console.print(_screen(made))
    console.print(_second_look(made))
    console.print(f"{made.path}: bundle {made.manifest.name} {made.manifest.version}. Use it with --bundle {made.path}")


@models.command("quantise")
@click.argument("bundle")
@click.option("--data", required=True, multiple=True, help="Labelled set that it has not seen, a folder or s3://…; repeat.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new bundle.")
@click.option("--version", help="Of the new bundle [default: the old one's with +int8].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the choice of objects that set the ranges.")
@endpoint_option
@provider_option
@threads_option
def quantise_(
    bundle: str,
    data: tuple[str, ...],
    out: Path,
    version: str | None,
    seed: int,
    endpoint: str | None,
    provider: str,
    threads: int,
) -> None:
    """Have the networks of BUNDLE compute in 8-bit integers, in a new bundle, and measure what that changes.

    It scores in about half of the time, on processors with VNNI (all Intel and AMD servers since 2019 and 2022). Screen,
    calibration, grid and thresholds stay as they are.
    """
    console = standard_output()
    with sigterm_interrupts():
        made = quantise(
            bundle,
            data,
            out,
            version=version,
            seed=seed,
            provider=provider,
            threads=threads,
            endpoint=endpoint,
            report=lambda text: console.print(text),
        )
    table = _table("lenses of", "lenses", "non-lenses", "at FPR", prose="change of recall, 95% interval")
    for change in made.changes:
        interval = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
        table.add_row(
            change.set, f"{change.n_pos:,}", f"{change.n_neg:,}", change.metric.removeprefix("recall_change_"), interval
        )
    console.print(table)
    manifest = made.bundle.manifest
    console.print(f"{made.bundle.path}: bundle {manifest.name} {manifest.version}. Use it with --bundle {made.bundle.path}")


@models.command()
@click.argument("bundle", required=False)
def verify(bundle: str | None) -> None:
    """Check every file of BUNDLE against its SHA-256, and that its networks can be run."""
    found = load_bundle(bundle)
    provider = open_session(found).provider
    manifest = found.manifest
    standard_output().print(
        f"{found.path}: {manifest.name} {manifest.version} is sound ({len(manifest.sha256) + 1} files; runs on {provider}; "
        f"fingerprint {found.fingerprint[:12]})",
    )


@models.command("list")
@click.option("--published", help="Store of published bundles to list instead, a folder or s3://…")
@endpoint_option
def list_(published: str | None, endpoint: str | None) -> int:
    """List the installed bundles, or those of a store."""
    console = standard_output()
    if published is not None:
        _list_published(console, PublishedBundles(published, storage_of(endpoint)))
        return 0
    try:
        default = bundles.find(None)
    except InputMissingError:
        default = None
    table, broken = _table("", "bundle", "version", "scaling", "decides on", prose="what it is"), []
    for path in bundles.installed():
        try:
            found = bundles.load(path)
        except ScannerError as error:
            broken.append(str(error))
            continue
        mark = "*" if path == default else ""
        manifest = found.manifest
        table.add_row(mark, path.name, manifest.version, manifest.preprocessing, manifest.decides_on, manifest.description)
    folders = f"{bundles.user_models_folder()} and {bundles.models_folder()}"
    console.print(table if table.rows else f"No bundles in {folders}")
    if default is not None:
        console.print(f"\n* the default; all in {folders}")
    for message in broken:
        console.print(message)
    return ContentError.exit_code if broken else 0


@models.command()
@click.argument("bundle", required=False)
def show(bundle: str | None) -> None:
    """Show what BUNDLE is made of, how it decides and how well it did."""
    found, console = load_bundle(bundle), standard_output()
    manifest = found.manifest
    console.print(f"{manifest.name} {manifest.version}", style="bold")
    console.print(f"{manifest.description}\n")
    for label, text in (
        ("folder", str(found.path)),
        ("fingerprint", found.fingerprint),
        ("licence", _licence(found)),
        ("trained on", ", ".join(manifest.trained_on) or "unknown"),
        ("lens share", "unknown" if manifest.class_prior is None else f"{manifest.class_prior:.0%} of the training set"),
        ("scaling", manifest.preprocessing),
        ("arithmetic", manifest.arithmetic),
        ("embedding", _embedding(found)),
        ("calibration", _calibration(found)),
        ("second look", _second_look(found)),
        ("screen", _screen(found)),
        ("decision", _decides(found)),
    ):
        console.print(f"{label:12} {text}")

    members = _table("member", "bands", "pixels", "parameters", numbers=2, prose="weights")
    for member in manifest.members:
        source = member.source if member.scaling is None else f"{member.source}; scaling {member.scaling}"
        members.add_row(member.name, "+".join(member.bands), str(member.pixels), f"{member.parameters:,}", source)
    console.print("")
    console.print(members)
    if manifest.thresholds:
        thresholds = _table("β", "threshold", "F-beta", "precision", "recall", "at prevalence", numbers=6)
        for point in manifest.thresholds:
            values = (point.threshold, point.f_beta, point.precision, point.recall, point.prevalence)
            thresholds.add_row(f"{point.beta:g}", *(f"{value:.4g}" for value in values))
        console.print("")
        console.print(thresholds)
    for name, metrics in groupby(manifest.metrics, key=lambda metric: metric.set):
        _print_metrics(console, name, list(metrics))


def _list_published(console: Console, store: PublishedBundles) -> None:
    table = _table("", "fingerprint", "bundle", "version", "scaling", "decides on", prose="what it is")
    named = {pointer: store.pointer(pointer) for pointer in POINTERS}
    for fingerprint in store.fingerprints():
        mark = ", ".join(pointer for pointer, found in named.items() if found is not None and found.bundle == fingerprint)
        manifest = store.manifest(fingerprint)
        columns = (manifest.name, manifest.version, manifest.preprocessing, manifest.decides_on, manifest.description)
        table.add_row(mark, fingerprint[:12], *columns)
    console.print(table if table.rows else f"No bundles in {store.location}")


def _embedding(bundle: Bundle) -> str:
    if bundle.grid is None:
        return "none"
    empty = float((bundle.grid.counts == 0).mean())
    rule, size = bundle.grid.rule, " x ".join(map(str, bundle.grid.counts.shape))
    placed = "" if rule.places == "nearest" else "; new objects where openTSNE moves them"
    return f"{rule.embeds} of {bundle.grid.counts.sum():,} objects on {size} cells, {empty:.0%} empty{placed}"


def _calibration(bundle: Bundle) -> str:
    if isinstance(bundle.calibration, Calibration):
        return f"logistic, stated for one lens in {1 / bundle.calibration.sky_prevalence:,.0f} objects"
    return "none: mean of the members' probabilities"


def _licence(bundle: Bundle) -> str:
    if bundle.manifest.licence is not None:
        return bundle.manifest.licence
    return "in its file LICENSE" if "LICENSE" in bundle.manifest.sha256 else "not stated: ask who made it"


def _second_look(bundle: Bundle) -> str:
    rule = bundle.manifest.second_look
    if rule is None:
        return "none: every object is scored as it is"
    limit = float(sigmoid(np.asarray(rule.log_odds_above)))
    who = "all members" if rule.members is None else ", ".join(rule.members)
    return f"{who} eight ways round, mean, from calibrated probability {limit:.2g} (the best {rule.share:.0%} of non-lenses)"


def _screen(bundle: Bundle) -> str:
    screen = bundle.manifest.screen
    if screen is None:
        return "none: all members score every object"
    lost = ", ".join(f"{metric.value:.1%} at FPR {metric.metric.removeprefix(lost_at(0)[:-1])}" for metric in screen.lost)
    used = "used by default" if screen.is_harmless else "used where a scan asks for it"
    stage = screen.second_stage
    second = "" if stage is None else f", and then by the members that turn as the best {stage.share:.1%}"
    return (
        f"all members score what is as high by {', '.join(screen.members)} alone as the best {screen.share:.0%} of non-lenses"
        f"{second} ({used}; lenses lost: {lost or 'not measured'})"
    )


def _decides(bundle: Bundle) -> str:
    score = "grid value" if bundle.manifest.decides_on == "grid" else "calibrated probability"
    beta = bundle.default_beta
    how = "the plain half; no labelled set chose it" if beta is None else f"set by F-beta at β = {beta:g}"
    return f"{score} >= {bundle.threshold():.4g} ({how})"


def _print_metrics(console: Console, name: str, metrics: list[Metric]) -> None:
    """One table per set: a row per member, a column per metric, with intervals."""
    columns = list(dict.fromkeys(metric.metric for metric in metrics))
    rows = list(dict.fromkeys(metric.member for metric in metrics))
    cells = {(metric.member, metric.metric): metric for metric in metrics}
    table = _table("", *columns, numbers=len(columns))
    for row in rows:
        shown = [cells.get((row, column)) for column in columns]
        texts = ["" if metric is None else f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]" for metric in shown]
        table.add_row(row, *texts)
    console.print(f"\n{name} ({metrics[0].n_pos:,} lenses, {metrics[0].n_neg:,} others)")
    console.print(table)
