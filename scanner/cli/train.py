"""``scanner train``: train the seven networks, and make a bundle of them."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from scanner.errors import UsageError
from scanner.evaluation.compare import TURNED, Scoring, compare_bundles
from scanner.evaluation.labelled_data import Dataset
from scanner.records import MEMBERS, MemberName
from scanner.training.assemble import EMBEDDED_ROWS, Assembly, Naming, assemble, publish
from scanner.training.data import TrainingData
from scanner.training.drawings import draw_assembled
from scanner.training.history import HistoryRow
from scanner.training.jobs import TrainingJob, all_jobs, run_job, run_jobs
from scanner.training.presets import PRESET_NAMES, PRESETS, PresetName
from scanner.training.runs import read_ensemble
from scanner.training.schedule import seconds

_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Training set, from 'scanner simulate dataset'; repeat for more. Never one of the evaluation sets.",
)
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the runs, one a member; a run in it goes on.",
)
_PRESET = click.option("--preset", type=click.Choice(PRESET_NAMES), default="best", show_default=True, help="How to train.")
_SEED = click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the weights and of all draws.")
_BUDGET = click.option("--time-budget", help="Time to take, such as 90s, 20m or 1.5h; it shortens the preset [no limit].")
_FROM = click.option(
    "--from", "bundle", help="Bundle (folder or name) whose members are trained on, instead of He-initialised weights."
)
_DEVICE = click.option("--device", default="cpu", show_default=True, help="Of torch: cpu, cuda, cuda:1 ...")


@click.group()
def train() -> None:
    """Train the seven networks on labelled datasets, and make a bundle of them."""


def _resolved(bundle: str | None) -> Path | None:
    from scanner.ensemble import bundle as bundles

    return None if bundle is None else bundles.find(bundle)


@train.command("member")
@click.argument("name", type=click.Choice(MEMBERS))
@_DATA
@_OUT
@_PRESET
@_SEED
@_BUDGET
@_FROM
@_DEVICE
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of this run.")
def train_member(
    name: MemberName,
    data: tuple[Path, ...],
    out: Path,
    preset: PresetName,
    seed: int,
    time_budget: str | None,
    bundle: str | None,
    device: str,
    threads: int,
) -> None:
    """Train one network, NAME, or go on where it was stopped."""
    job = TrainingJob(
        data=data,
        out=out,
        member=name,
        preset=PRESETS[preset],
        seed=seed,
        time_budget=None if time_budget is None else seconds(time_budget),
        bundle=_resolved(bundle),
        threads=threads,
        device=device,
    )
    click.echo(run_job(job, _report).described())


def _report(member: MemberName, row: HistoryRow) -> None:
    click.echo(f"{member:6}  {row.described()}")


@train.command("all")
@_DATA
@_OUT
@_PRESET
@_SEED
@_BUDGET
@_FROM
@_DEVICE
@click.option(
    "--member", "members", type=click.Choice(MEMBERS), multiple=True, help="Only these members; repeat for more [all seven]."
)
@click.option("--jobs", type=click.IntRange(1), help="Networks trained side by side, one thread each [default: one a core].")
def train_all(
    data: tuple[Path, ...],
    out: Path,
    preset: PresetName,
    seed: int,
    time_budget: str | None,
    bundle: str | None,
    device: str,
    members: tuple[MemberName, ...],
    jobs: int | None,
) -> None:
    """Train all seven networks, or go on with those that are not finished."""
    workers = jobs or len(os.sched_getaffinity(0))
    first = TrainingJob(
        data=data,
        out=out,
        member=MEMBERS[0],
        preset=PRESETS[preset],
        seed=seed,
        time_budget=None if time_budget is None else seconds(time_budget),
        bundle=_resolved(bundle),
        device=device,
    )
    for record in run_jobs(all_jobs(first, workers, members or MEMBERS), workers, _report):
        click.echo(record.described())


@train.command("bundle")
@_DATA
@click.option("--members", type=click.Path(path_type=Path), required=True, help="Folder of the seven finished runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; an old bundle is replaced.")
@click.option("--name", help="Name of the bundle [default: that of its folder].")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--description", default="Trained on simulated images.", show_default=True, help="One sentence on what it is.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the embedding.")
@click.option("--embed", type=click.IntRange(10), default=EMBEDDED_ROWS, show_default=True, help="Most rows of the embedding.")
@click.option("--cells", type=click.IntRange(2), help="Cells of the grid along each axis [default: 100 for 45,000 rows].")
@click.option(
    "--evaluate-on", type=click.Path(path_type=Path), multiple=True, help="Held-out dataset for the card; repeat for more."
)
@click.option("--compare", multiple=True, help="Another bundle to set beside it in the card.")
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of single images for the card.")
@click.option("--rotations", type=click.IntRange(0), default=TURNED, show_default=True, help="Objects scored eight ways round.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of log-odds on held-out data [default: in --members].")
@click.option("--provider", default="auto", show_default=True, help="What runs the networks.")
@click.option("--jobs", type=click.IntRange(1), help="Processes that score [default: one a core; 1 on a GPU].")
def train_bundle(
    data: tuple[Path, ...],
    members: Path,
    out: Path,
    name: str | None,
    version: str,
    description: str,
    seed: int,
    embed: int,
    cells: int | None,
    evaluate_on: tuple[Path, ...],
    compare: tuple[str, ...],
    images: Path | None,
    rotations: int,
    cache: Path | None,
    provider: str,
    jobs: int | None,
) -> None:
    """Make a bundle of seven finished runs: grid, calibration, thresholds, figures, model card.

    Log-odds are kept in the folder of the runs, so that an interrupted call goes on where it was.
    """
    console = Console(highlight=False, soft_wrap=True)
    training = TrainingData(data)
    held_out = [Dataset(path) for path in evaluate_on]
    ensemble = read_ensemble(members, training.fingerprint, training.drawn_from)
    trained_on = {dataset.fingerprint for dataset in training.datasets}
    for dataset in held_out:
        if dataset.fingerprint in trained_on:
            raise UsageError(f"{dataset.path}: is what the members were trained on; evaluate on another dataset.")
    cores = len(os.sched_getaffinity(0))
    how = Assembly(
        cache=members / "log-odds",
        seed=seed,
        embed=embed,
        cells=cells,
        provider=provider,
        workers=jobs or (1 if provider in ("cuda", "tensorrt") else cores),
        threads=cores,
    )
    naming = Naming(name or out.resolve().name, version, description)
    assembled = assemble(ensemble, training, out, naming, how, lambda text: console.print(text, markup=False))
    draw_assembled(assembled, training, members)
    evaluation = None
    if held_out:
        console.print(f"evaluating on {', '.join(str(dataset.path) for dataset in held_out)}", markup=False)
        scoring = Scoring(provider=provider, threads=cores, cache=cache or members / "log-odds")
        evaluation = compare_bundles((out, *compare), held_out, images=images, n_turned=rotations, scoring=scoring).evaluation
    bundle = publish(assembled.bundle, ensemble, training, evaluation)
    console.print(
        f"{bundle.path}: bundle {bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:12]}", markup=False
    )
