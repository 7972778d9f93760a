"""``scanner train``: train the seven networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from scanner.cli import logs
from scanner.cli.storage_options import endpoint_option, storage_of
from scanner.cli.termination import sigterm_interrupts
from scanner.cli.train_bundle import train_bundle
from scanner.cli.watched import LAST_VISIT_SECONDS
from scanner.errors import UsageError
from scanner.evaluation.fetched_data import local_datasets
from scanner.records import MEMBERS, MemberName
from scanner.storage.location import is_remote
from scanner.survey.scan.machine import cores
from scanner.training.events import Listener, MemberValidated, TrainingEvent
from scanner.training.jobs import TrainingJob, all_jobs, run_job
from scanner.training.presets import PRESET_NAMES, PRESETS, PresetName
from scanner.training.schedule import seconds
from scanner.training.side_by_side import run_jobs

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--data",
        required=True,
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
    logs.log_format_option,
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


def _first(
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
) -> TrainingJob:
    """The job of one member, its datasets and bundle found, or brought here."""
    from scanner.ensemble import bundle as bundles

    if mirror is not None and not is_remote(mirror) and Path(mirror).resolve() == out.resolve():
        raise UsageError(f"--mirror {mirror}: is the folder of the runs itself; name another disk, or s3://…")
    storage = storage_of(endpoint)
    return TrainingJob(
        data=local_datasets(data, out / "datasets", storage),
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
    with sigterm_interrupts(), logs.written(log_format), ExitStack() as stack:
        listeners: list[Listener] = []
        if metrics_port is not None:
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
    with _followed((name,), settings["out"], log_format, metrics_port, metrics_address) as tell:
        click.echo(run_job(_first(name, **settings), tell).described())


@train.command("all")
@training_options
@click.option(
    "--member", "members", type=click.Choice(MEMBERS), multiple=True, help="Only these members; repeat for more [all seven]."
)
@click.option("--jobs", type=click.IntRange(1), help="Networks trained side by side, one thread each [default: one a core].")
def train_all(
    members: tuple[MemberName, ...],
    jobs: int | None,
    log_format: str,
    metrics_port: int | None,
    metrics_address: str | None,
    **settings: Any,
) -> None:
    """Train all seven networks, or go on with those that are not finished."""
    wanted, workers = members or MEMBERS, jobs or cores()
    with _followed(wanted, settings["out"], log_format, metrics_port, metrics_address) as tell:
        for record in run_jobs(all_jobs(_first(MEMBERS[0], **settings), workers, wanted), workers, tell):
            click.echo(record.described())
