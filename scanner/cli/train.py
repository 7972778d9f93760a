"""``scanner train``: train the seven networks and make a bundle of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scanner.cli import output
from scanner.cli.output import WholeSentences, endpoint_option, provider_option, standard_output, storage_of
from scanner.interface import train as interface
from scanner.interface.train import HOURS, N_OBJECTS, adapt, learn
from scanner.processes import sigterm_interrupts
from scanner.records import MEMBERS
from scanner.training.presets import (
    EMBEDDED_ROWS,
    PRESET_NAMES,
    RADIUS_PASSES,
    SCREEN_SHARE,
    SECOND_LOOK_SHARE,
    TRAINED,
    WANTED_PRECISIONS,
    TrainedName,
)

if TYPE_CHECKING:
    from scanner.training.jobs import Listener, TrainingEvent


@click.command("bundle")
@click.option("--data", required=True, multiple=True, help="What the members were trained on: folders or s3://…")
@click.option("--members", type=click.Path(path_type=Path), required=True, help="Folder of the finished runs.")
@click.option("--from", "bundle", help="Bundle (folder, name or s3://…) that gives the members without a run [default: none].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; an old bundle is replaced.")
@click.option("--name", help="Name of the bundle [default: that of its folder].")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--description", default="Trained on simulated images.", show_default=True, help="One sentence on what it is.")
@click.option("--licence", metavar="SPDX", help="Licence of the weights, e.g. CC-BY-4.0 or BSD-3-Clause.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the embedding.")
@click.option("--embed", type=click.IntRange(10), default=EMBEDDED_ROWS, show_default=True, help="Most rows of the embedding.")
@click.option("--cells", type=click.IntRange(2), help="Cells of the grid along each axis [default: 100 for 45,000 rows].")
@click.option(
    "--second-look",
    type=click.FloatRange(0, 1, max_open=True),
    default=SECOND_LOOK_SHARE,
    show_default=True,
    help="Objects that score as high as this share of the non-lenses get test-time augmentation by OU-VIS and OU-66; 0: none.",
)
@click.option(
    "--screen",
    type=click.FloatRange(0, 1, max_open=True),
    default=SCREEN_SHARE,
    show_default=True,
    help="Objects that stand as high by OU-66 alone as this share of the non-lenses are scored by all members; 0: all are.",
)
@click.option(
    "--paper",
    is_flag=True,
    help="The paper's grid: probabilities, 100 x 100 cells, openTSNE; no second look, no screen.",
)
@click.option("--evaluate-on", multiple=True, help="Held-out dataset for the card, a folder or s3://…; repeat for more.")
@click.option("--compare", multiple=True, help="Another bundle to set beside it in the card.")
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of single images for the card.")
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses, images of any telescope, for the card.")
@click.option("--real", multiple=True, type=click.Path(path_type=Path), help="Labelled set of real cutouts for the card.")
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
    bundle: str | None,
    out: Path,
    name: str | None,
    version: str,
    description: str,
    licence: str | None,
    seed: int,
    embed: int,
    cells: int | None,
    second_look: float,
    screen: float,
    paper: bool,
    evaluate_on: tuple[str, ...],
    compare: tuple[str, ...],
    images: Path | None,
    known: Path | None,
    real: tuple[Path, ...],
    rotations: int | None,
    cache: Path | None,
    provider: str,
    jobs: int | None,
    mirror: str | None,
    store: str | None,
    endpoint: str | None,
    log_format: str,
) -> None:
    """Make a bundle of finished runs: grid, calibration, thresholds, figures, model card.

    Log-odds are kept in the folder of the runs, so that an interrupted call goes on where it was. With --publish the bundle can
    then be promoted: 'scanner models promote latest --published STORE'.
    """
    from scanner.ensemble.bundles import PublishedBundles

    console = standard_output()
    with sigterm_interrupts(), output.log_lines(log_format):
        made = interface.make_bundle(
            members,
            data,
            out,
            bundle=bundle,
            name=name,
            version=version,
            description=description,
            licence=licence,
            seed=seed,
            embed=embed,
            cells=cells,
            second_look=second_look,
            screen=screen,
            paper=paper,
            evaluate_on=evaluate_on,
            compare=compare,
            images=images,
            known=known,
            real=real,
            rotations=rotations,
            cache=cache,
            provider=provider,
            jobs=jobs,
            mirror=mirror,
            endpoint=endpoint,
            report=lambda text: console.print(text),
        )
        console.print(f"{made.path}: bundle {made.manifest.name} {made.manifest.version}, {made.fingerprint[:12]}")
        if store is not None:
            console.print(f"published as {PublishedBundles(store, storage_of(endpoint)).publish(made)}")


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
    click.option(
        "--precision",
        type=click.Choice(WANTED_PRECISIONS),
        help="Of images and convolutions; fastest: bfloat16 where hardware has it [default: as the preset says].",
    ),
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


@click.group(cls=WholeSentences)
def train() -> None:
    """Train the seven networks on labelled datasets, and make a bundle of them."""


train.add_command(train_bundle)


@train.command("adapt")
@click.option("--tiles", type=click.Path(path_type=Path), required=True, help="Tile list of the survey, on disk.")
@click.option("--from", "bundle", help="Bundle that is adapted, a folder or a name [default: the one that ships].")
@click.option(
    "--labels", multiple=True, type=click.Path(path_type=Path), help="Labelled set that is trained on; repeat for more."
)
@click.option("--data", multiple=True, type=click.Path(path_type=Path), help="Simulated set that is trained on beside.")
@click.option(
    "--n", "n_objects", type=click.IntRange(1), default=N_OBJECTS, show_default=True, help="Objects to paint at most."
)
@click.option("--hours", type=float, default=HOURS, show_default=True, help="Time that all of it may take.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of all draws.")
@click.option("--name", help="Name of the new bundle [default: the old one with -adapted].")
@click.option("--version", default="1", show_default=True, help="Version of the new bundle.")
@click.option("--magnitude-limit", type=float, help="Faintest VIS magnitude of the survey's objects [default: the scan's].")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file that a scan of these tiles would take.")
@click.option("--jobs", type=click.IntRange(1), help="Processes [default: one a core].")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make, or to go on with.")
def train_adapt(tiles: Path, out: Path, **settings: Any) -> None:
    """Adapt a bundle to the tiles of a survey, without labels or with.

    Lenses and look-alikes are painted onto the survey's own galaxies and sky, its own objects stand for non-lenses, and all
    networks are trained on. A fifth of the sky is kept apart and shows recall before and after, on the new bundle's card. The
    same command goes on where it was stopped. The bundle is in OUT/bundle.
    """
    bundle = adapt(tiles, out, progress=True, **settings)
    click.echo(f"{bundle.path}: bundle {bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:12]}")


@train.command("from-grades")
@click.argument("run_folder", metavar="RUN")
@click.option("--grades", default="grades.sqlite", show_default=True, help="File that 'scanner serve' keeps grades in.")
@click.option("--known", type=click.Path(path_type=Path), help="Objects whose answer is known: graders' skill weighs labels.")
@click.option(
    "--least-graders", type=click.IntRange(1), default=1, show_default=True, help="Objects graded by fewer teach nothing."
)
@click.option("--fixed", multiple=True, type=click.Path(path_type=Path), help="Labelled set that judges too; repeat for more.")
@click.option("--name", help="Name of the new bundle [default: the old one with -graded].")
@click.option("--version", default="1", show_default=True, help="Version of the new bundle.")
@click.option("--all-layers", is_flag=True, help="Train all of the networks, as 'scanner train adapt' does.")
@click.option("--hours", type=float, default=HOURS, show_default=True, help="Time that --all-layers may take.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
def train_from_grades(run_folder: str, out: Path, **settings: Any) -> int:
    """Let the bundle of RUN learn from the grades of its objects.

    The last layers and the calibration are fitted to the stored cutouts of graded objects, in a minute or two. A fifth of them,
    which lies together on the sky, judges: exit code 1 where the new bundle, OUT/bundle, is worse in a figure beyond its
    interval. 'scanner rescore RUN --bundle OUT/bundle' then scores the run again.
    """
    from scanner.cli.evaluate import plain
    from scanner.cli.models import NOT_PROMOTED
    from scanner.evaluation.promotion import reasons

    learned = learn(run_folder, out, progress=True, **settings)
    click.echo("\n".join(plain(reasons(learned.promotion))))
    click.echo(f"{learned.bundle.path}: from {learned.n_lenses:,} graded lenses and {learned.n_others:,} others")
    return 0 if learned.promotion.passed else NOT_PROMOTED


@train.command("radius")
@click.option(
    "--data", required=True, multiple=True, help="Training set with visible lenses, a folder or s3://…; repeat for more."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the network; a training in it goes on.")
@click.option(
    "--begin",
    type=click.Path(path_type=Path),
    help="Folder of a finished run of 'train member residual' that it begins as [default: random weights].",
)
@click.option(
    "--passes",
    type=click.FloatRange(0, min_open=True),
    default=RADIUS_PASSES,
    show_default=True,
    help="Passes over the lenses.",
)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the weights and of all draws.")
@click.option("--name", default="einstein-radius", show_default=True, help="What it is called.")
@click.option("--version", default="1", show_default=True, help="Its version.")
@click.option("--licence", metavar="SPDX", help="Licence of the weights, e.g. CC-BY-4.0 or BSD-3-Clause.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that scale images [default: one a core].")
@endpoint_option
def train_radius(out: Path, **settings: Any) -> None:
    """Train the network that sees Einstein radii, which 'scanner model' begins its fits with.

    It learns from the visible lenses of the sets; those that are kept from it judge it. The same command goes on where it
    was stopped. 'scanner model' uses it, in the place of the one that comes with scanner, when the three files
    of OUT lie in ~/.local/share/scanner/models/einstein-radius on all machines.
    """
    network = interface.train_radius(out=out, progress=True, **settings)
    for one in network.figures:
        click.echo(
            f"{one.set:12} {one.n:,} lenses: median error {one.median_error:.1%}, "
            f"off by more than 20 % {one.off_by_20_percent:.2f}"
        )
    click.echo(f"{out}: {network.name} {network.version}, {network.passes:g} passes over {network.lenses:,} lenses")


@contextmanager
def _followed(
    members: Sequence[TrainedName], out: Path, log_format: str, metrics_port: int | None, metrics_address: str | None
) -> Iterator[Listener]:
    """Tell of a training run while it goes on: lines on standard output, metrics; yields what takes its events."""
    with (
        sigterm_interrupts(),
        output.log_lines(log_format),
        interface.followed_training(members, out, metrics_port, metrics_address, _print_validation) as listen,
    ):
        yield listen


def _print_validation(event: TrainingEvent) -> None:
    from scanner.training.jobs import MemberValidated

    if isinstance(event, MemberValidated):
        click.echo(f"{event.member:6}  {event.row.described()}")


@train.command("member")
@click.argument("name", type=click.Choice(TRAINED))
@training_options
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of this run.")
def train_member(
    name: TrainedName, log_format: str, metrics_port: int | None, metrics_address: str | None, **settings: Any
) -> None:
    """Train one network, NAME, or go on where it was stopped."""
    with _followed((name,), settings["out"], log_format, metrics_port, metrics_address) as listen:
        click.echo(interface.train_member(member=name, listen=listen, **settings).described())


@train.command("all")
@training_options
@click.option(
    "--member", "members", type=click.Choice(TRAINED), multiple=True, help="Only these members; repeat for more [all seven]."
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
    members: tuple[TrainedName, ...],
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
    wanted = members or MEMBERS
    with _followed(wanted, settings["out"], log_format, metrics_port, metrics_address) as listen:
        for record in interface.train_members(members=wanted, jobs=jobs, listen=listen, **settings):
            click.echo(record.described())
