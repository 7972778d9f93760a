"""``scanner train``: train the seven networks, and make a bundle of them."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.console import Console

from scanner.errors import UsageError
from scanner.evaluation.comparison import compare_bundles
from scanner.evaluation.labelled_data import Dataset
from scanner.records import MEMBERS, MemberName
from scanner.training.assemble import EMBEDDED_ROWS, assemble, publish
from scanner.training.checkpoint import FitRecord, HistoryRow
from scanner.training.jobs import TrainingJob, all_members, run_job, run_jobs
from scanner.training.presets import PRESETS, PresetName
from scanner.training.runs import read_ensemble

_DATA = click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Dataset folder, from 'scanner simulate dataset'."
)
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the runs, one a member; a run in it goes on.",
)
_PRESET = click.option("--preset", type=click.Choice(list(PRESETS)), default="quick", show_default=True, help="How to train.")
_SEED = click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the weights and of all draws.")
_BUDGET = click.option("--time-budget", type=float, help="Minutes the training should take; it shortens the preset [no limit].")


@click.group()
def train() -> None:
    """Train the seven networks on a labelled dataset, and make a bundle of them."""


def _seconds(minutes: float | None) -> float | None:
    if minutes is None:
        return None
    if not minutes > 0:
        raise UsageError(f"--time-budget must be more than 0 minutes (given: {minutes:g}).")
    return 60.0 * minutes


def _row(row: HistoryRow) -> str:
    return (
        f"{row.stage} {row.passes:6.2f} passes  loss {row.train_loss:.4f}  validation {row.validation_loss:.4f}  "
        f"AUROC {row.auroc:.3f}, visible {row.auroc_visible:.3f}  {row.seconds:.0f} s"
    )


def _record(record: FitRecord) -> str:
    return (
        f"{record.plan.member}: {record.passes:.1f} passes in {record.seconds / 60:.1f} min, validation loss "
        f"{record.validation_loss:.4f}, AUROC {record.validation_auroc:.3f}, visible {record.validation_auroc_visible:.3f}"
    )


@train.command("member")
@click.argument("name", type=click.Choice(MEMBERS))
@_DATA
@_OUT
@_PRESET
@_SEED
@_BUDGET
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of this run.")
def train_member(
    name: MemberName, data: Path, out: Path, preset: PresetName, seed: int, time_budget: float | None, threads: int
) -> None:
    """Train one network, NAME, or go on where it was stopped."""
    job = TrainingJob(
        data=data, out=out, member=name, preset=preset, seed=seed, time_budget=_seconds(time_budget), threads=threads
    )
    console = Console(highlight=False, soft_wrap=True)
    console.print(_record(run_job(job, lambda row: console.print(_row(row)))))


@train.command("all")
@_DATA
@_OUT
@_PRESET
@_SEED
@_BUDGET
@click.option("--jobs", type=click.IntRange(1), help="Networks trained side by side, one thread each [default: one a core].")
def train_all(data: Path, out: Path, preset: PresetName, seed: int, time_budget: float | None, jobs: int | None) -> None:
    """Train all seven networks, or go on with those that are not finished."""
    workers = jobs or len(os.sched_getaffinity(0))
    first = TrainingJob(data=data, out=out, member=MEMBERS[0], preset=preset, seed=seed, time_budget=_seconds(time_budget))
    console = Console(highlight=False, soft_wrap=True)
    for record in run_jobs(all_members(first, workers), workers):
        console.print(_record(record))


@train.command("bundle")
@_DATA
@click.option("--members", type=click.Path(path_type=Path), required=True, help="Folder of the seven finished runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the bundle; an old bundle is replaced.")
@click.option("--name", help="Name of the bundle [default: that of its folder].")
@click.option("--version", default="1", show_default=True, help="Version of the bundle.")
@click.option("--description", default="Trained on simulated images.", show_default=True, help="One sentence on what it is.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the embedding.")
@click.option("--embed", type=click.IntRange(10), default=EMBEDDED_ROWS, show_default=True, help="Most rows of the embedding.")
@click.option(
    "--evaluate-on", type=click.Path(path_type=Path), multiple=True, help="Held-out dataset for the card; repeat for more."
)
@click.option("--compare", type=click.Path(path_type=Path), multiple=True, help="Another bundle to set beside it in the card.")
@click.option("--images", type=click.Path(path_type=Path), help="Tile list of single images for the card.")
@click.option("--provider", default="auto", show_default=True, help="What runs the networks.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of the scoring session.")
def train_bundle(
    data: Path,
    members: Path,
    out: Path,
    name: str | None,
    version: str,
    description: str,
    seed: int,
    embed: int,
    evaluate_on: tuple[Path, ...],
    compare: tuple[Path, ...],
    images: Path | None,
    provider: str,
    threads: int,
) -> None:
    """Make a bundle of seven finished runs: grid, calibration, threshold, figures, model card."""
    console = Console(highlight=False, soft_wrap=True)
    dataset = Dataset(data)
    held_out = [Dataset(path) for path in evaluate_on]
    for path in held_out:
        if path.fingerprint == dataset.fingerprint:
            raise UsageError(f"{path.path}: is what the members were trained on; evaluate on another dataset.")
    ensemble = read_ensemble(members, dataset.fingerprint)
    bundle = assemble(
        ensemble,
        dataset,
        out,
        name=name or out.resolve().name,
        version=version,
        description=description,
        seed=seed,
        embed=embed,
        provider=provider,
        threads=threads,
        report=console.print,
    )
    evaluations = []
    for number, path in enumerate(held_out):
        console.print(f"evaluating on {path.path}")
        comparison = compare_bundles(
            (out, *compare), path, images=images if number == 0 else None, provider=provider, threads=threads
        )
        evaluations.append(comparison.evaluation)
    bundle = publish(bundle, ensemble, dataset=dataset.description, n_objects=len(dataset), evaluations=evaluations)
    console.print(f"{bundle.path}: bundle {bundle.manifest.name} {bundle.manifest.version}, {bundle.fingerprint[:12]}")
