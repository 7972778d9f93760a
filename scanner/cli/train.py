"""``scanner train``: train the seven networks and make a bundle of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scanner.cli import output
from scanner.cli.options import endpoint_option, provider_option, storage_of
from scanner.cli.output import standard_output
from scanner.errors import UsageError
from scanner.processes import sigterm_interrupts
from scanner.records import MEMBERS, MemberName
from scanner.storage.location import is_remote
from scanner.survey.scan.machine import cores
from scanner.training.presets import EMBEDDED_ROWS, PRESET_NAMES, PRESETS, SECOND_LOOK_SHARE, PresetName, seconds

# What needs torch, or the libraries of a scan, is imported where it is used: a machine with a GPU may lack the latter.
if TYPE_CHECKING:
    from scanner.training.jobs import Listener, TrainingEvent, TrainingJob


@click.command("bundle")
@click.option("--data", required=True, multiple=True, help="What the members were trained on: folders or s3://…")
@click.option("--members", type=click.Path(path_type=Path), required=True, help="Folder of the seven finished runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; an old bundle is replaced.")
@click.option("--name", help="Name of the bundle [default: that of its folder].")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--description", default="Trained on simulated images.", show_default=True, help="One sentence on what it is.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the embedding.")
@click.option("--embed", type=click.IntRange(10), default=EMBEDDED_ROWS, show_default=True, help="Most rows of the embedding.")
@click.option("--cells", type=click.IntRange(2), help="Cells of the grid along each axis [default: 100 for 45,000 rows].")
@click.option(
    "--second-look",
    type=click.FloatRange(0, 1, max_open=True),
    default=SECOND_LOOK_SHARE,
    show_default=True,
    help="Objects that score as high as this share of the non-lenses are scored eight ways round; 0: none.",
)
@click.option("--evaluate-on", multiple=True, help="Held-out dataset for the card, a folder or s3://…; repeat for more.")
@click.option("--compare", multiple=True, help="Another bundle to set beside it in the card.")
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of single images for the card.")
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses, images of any telescope, for the card.")
@click.option("--rotations", type=click.IntRange(0), help="Objects scored eight ways round [default: as 'scanner evaluate'].")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of log-odds on held-out data [default: in --members].")
@provider_option
@click.option("--jobs", type=click.IntRange(1), help="Processes that score [default: one a core; 1 on a GPU].")
@click.option("--mirror", help="Mirror of the runs, see 'scanner train all'; members are taken from there first.")
@click.option("--publish", "store", help="Store of bundles, a folder or s3://…, that it is put into when it is done.")
@endpoint_option
@output.log_format_option
def train_bundle(
    data: tuple[str, ...],
    members: Path,
    out: Path,
    name: str | None,
    version: str,
    description: str,
    seed: int,
    embed: int,
    cells: int | None,
    second_look: float,
    evaluate_on: tuple[str, ...],
    compare: tuple[str, ...],
    images: Path | None,
    known: Path | None,
    rotations: int | None,
    cache: Path | None,
    provider: str,
    jobs: int | None,
    mirror: str | None,
    store: str | None,
    endpoint: str | None,
    log_format: str,
) -> None:
    """Make a bundle of seven finished runs: grid, calibration, thresholds, figures, model card.

    Log-odds are kept in the folder of the runs, so that an interrupted call goes on where it was. With --publish the bundle can
    then be promoted: 'scanner models promote latest --published STORE'.
    """
    from scanner.cli.evaluate import compared
    from scanner.ensemble import bundles
    from scanner.ensemble.bundles import PublishedBundles
    from scanner.evaluation.compare import TURNED
    from scanner.evaluation.decisions import SKY_PREVALENCE
    from scanner.labelled_set import LabelledSet, local_datasets
    from scanner.training.assemble import Assembly, Naming, assemble, read_ensemble
    from scanner.training.card import draw_assembled, publish
    from scanner.training.data import TrainingData
    from scanner.training.jobs import pull_members

    console = standard_output()
    storage = storage_of(endpoint)
    with sigterm_interrupts(), output.log_lines(log_format):
        training = TrainingData(local_datasets(data, members / "datasets", storage))
        held_out = [LabelledSet(path) for path in local_datasets(evaluate_on, members / "datasets", storage)]
        if mirror is not None:
            pull_members(mirror, members, storage)
        ensemble = read_ensemble(members, training.fingerprint, training.drawn_from)
        trained_on = ensemble.trained_on(training.fingerprints)
        for dataset in held_out:
            if dataset.was_seen_by(trained_on):
                raise UsageError(f"{dataset.path}: is what the members were trained on; evaluate on another dataset.")
        how = Assembly(
            cache=members / "log-odds",
            seed=seed,
            embed=embed,
            cells=cells,
            provider=provider,
            workers=jobs or (1 if provider in ("cuda", "tensorrt") else cores()),
            threads=cores(),
            second_look=second_look,
        )
        naming = Naming(name or out.resolve().name, version, description)
        assembled = assemble(ensemble, training, out, naming, how, lambda text: console.print(text))
        draw_assembled(assembled, training, members)
        evaluation = None
        if held_out:
            console.print(f"evaluating on {', '.join(str(dataset.path) for dataset in held_out)}")
            others = [str(bundles.load(other, storage).path) for other in compare]
            evaluation = compared(
                (str(out), *others),
                [dataset.path for dataset in held_out],
                images,
                known,
                beta=None,
                prevalence=SKY_PREVALENCE,
                n_turned=TURNED if rotations is None else rotations,
                n_recoloured=0,
                cache=cache or members / "log-odds",
                provider=provider,
                threads=1,
            ).evaluation
        bundle = publish(assembled.bundle, ensemble, training, evaluation)
        console.print(f"{bundle.path}: bundle {bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:12]}")
        if store is not None:
            console.print(f"published as {PublishedBundles(store, storage).publish(bundle)}")


Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--data",
        multiple=True,
        help="Training set, from 'scanner simulate dataset': a folder or s3://…; repeat for more. Never an evaluation set.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder of the runs, one a member; a run in it goes on.",
    ),
    click.option("--preset", type=click.Choice(PRESET_NAMES), default="best", show_default=True, help="How to train."),
    click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the weights and of all draws."),
    click.option("--time-budget", help="Time to take, such as 90s, 20m or 1.5h; it shortens the preset [no limit]."),
    click.option(
        "--from",
        "bundle",
        help="Bundle (folder, name or s3://…) whose members are trained on, instead of He-initialised weights.",
    ),
    click.option("--device", default="cpu", show_default=True, help="Of torch: cpu, cuda, cuda:1 ..."),
    click.option("--mirror", help="Folder or s3://… that checkpoints are copied to, and taken from where it is further."),
    endpoint_option,
    click.option("--metrics-port", type=click.IntRange(0, 65535), help="Port of Prometheus metrics [default: none]."),
    click.option("--metrics-address", help="Address that they are served at [default: all; for port 0, the loopback]."),
    output.log_format_option,
)


def training_options(command: Command) -> Command:
    """Give a verb the flags that all training has."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train the seven networks on labelled datasets, and make a bundle of them."""


train.add_command(train_bundle)


def _job(
    member: MemberName,
    *,
    data: tuple[str, ...],
    out: Path,
    preset: PresetName,
    seed: int,
    time_budget: str | None,
    bundle: str | None,
    device: str,
    mirror: str | None,
    endpoint: str | None,
    threads: int = 1,
    draw: int | None = None,
    scratch: Path | None = None,
) -> TrainingJob:
    """The job of one member, its datasets and bundle found, or brought here."""
    from scanner.ensemble import bundles
    from scanner.training.data import DrawnSet
    from scanner.training.jobs import TrainingJob

    if bool(data) == (draw is not None):
        raise UsageError("Give the training set as --data, or have one drawn with 'scanner train all --draw N'.")
    if mirror is not None and not is_remote(mirror) and Path(mirror).resolve() == out.resolve():
        raise UsageError(f"--mirror {mirror}: is the folder of the runs itself; name another disk, or s3://…")
    storage = storage_of(endpoint)
    datasets: tuple[Path, ...] = ()
    if data:
        from scanner.labelled_set import local_datasets

        datasets = local_datasets(data, out / "datasets", storage)
    return TrainingJob(
        data=datasets,
        drawn=None if draw is None else DrawnSet(n_objects=draw, seed=seed, folder=scratch or out / "drawn"),
        out=out,
        member=member,
        preset=PRESETS[preset],
        seed=seed,
        time_budget=None if time_budget is None else seconds(time_budget),
        bundle=None if bundle is None else bundles.load(bundle, storage).path,
        threads=threads,
        device=device,
        mirror=mirror,
        storage=storage,
    )


@contextmanager
def _followed(
    members: Sequence[MemberName], out: Path, log_format: str, metrics_port: int | None, metrics_address: str | None
) -> Iterator[Listener]:
    """Tell of a training run while it goes on: lines on standard output, metrics; yields what takes its events."""
    with sigterm_interrupts(), output.log_lines(log_format), ExitStack() as stack:
        listeners: list[Listener] = []
        if metrics_port is not None:
            from scanner.interface.scan import LAST_VISIT_SECONDS
            from scanner.training.metrics import served_metrics

            listeners.append(
                stack.enter_context(served_metrics(metrics_port, metrics_address, members, out, LAST_VISIT_SECONDS))
            )
        # Last: the page already says what is printed.
        listeners.append(_print_validation)

        def tell(event: TrainingEvent) -> None:
            for listener in listeners:
                listener(event)

        yield tell


def _print_validation(event: TrainingEvent) -> None:
    from scanner.training.jobs import MemberValidated

    if isinstance(event, MemberValidated):
        click.echo(f"{event.member:6}  {event.row.described()}")


@train.command("member")
@click.argument("name", type=click.Choice(MEMBERS))
@training_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of this run.")
def train_member(
    name: MemberName, log_format: str, metrics_port: int | None, metrics_address: str | None, **settings: Any
) -> None:
    """Train one network, NAME, or go on where it was stopped."""
    from scanner.training.jobs import run_job

    with _followed((name,), settings["out"], log_format, metrics_port, metrics_address) as tell:
        click.echo(run_job(_job(name, **settings), tell).described())


@train.command("all")
@training_options
@click.option(
    "--member", "members", type=click.Choice(MEMBERS), multiple=True, help="Only these members; repeat for more [all seven]."
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Networks trained side by side, one thread each [default: one a core; 1 on a GPU].",
)
@click.option(
    "--draw",
    type=click.IntRange(1),
    help="Draw a training set of so many objects on --device, by --seed, in the place of --data.",
)
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder where what is drawn is kept, 115 kB an object [default: in --out].",
)
def train_all(
    members: tuple[MemberName, ...],
    jobs: int | None,
    log_format: str,
    metrics_port: int | None,
    metrics_address: str | None,
    **settings: Any,
) -> None:
    """Train all seven networks, or go on with those that are not finished.

    With --draw nothing but a seed is needed, and neither astropy nor zarr: for a machine with a GPU and little else. The set is
    unlike any dataset of another seed, so 'scanner train bundle' makes a bundle of the members with such a one.
    """
    from scanner.training.jobs import all_jobs, run_jobs

    wanted, workers = members or MEMBERS, jobs or (1 if settings["device"].startswith("cuda") else cores())
    with _followed(wanted, settings["out"], log_format, metrics_port, metrics_address) as tell:
        for record in run_jobs(all_jobs(_job(MEMBERS[0], **settings), workers, wanted), workers, tell):
            click.echo(record.described())
