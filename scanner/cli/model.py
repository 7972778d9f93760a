"""``scanner model`` and ``scanner export-model``: lens models of a run's candidates, and their way to other software."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from rich.table import Column, Table

from scanner.cli.output import standard_output, storage_options
from scanner.config import StorageConfig
from scanner.interface.model import export_model, model
from scanner.interface.opened import Run

if TYPE_CHECKING:
    from scanner.modelling.panels import Format

#: Exit code where some tiles could not be modelled, as of a run.
EXIT_SOME_FAILED = 3


@click.command("model")
@click.argument("run_folder", metavar="OUT")
@click.option("--top", type=click.IntRange(1), help="Model so many objects by rank [default: the candidates].")
@click.option("--workers", type=click.IntRange(1), help="Worker processes [default: the run's].")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786 or tls://host:8786.")
@storage_options(of_run=True)
def model_(run_folder: str, top: int | None, workers: int | None, scheduler: str | None, storage: StorageConfig) -> int:
    """Fit a lens to each candidate of the run in OUT, and say how much better it explains the pixels than unlensed galaxies do.

    They are listed by the probability of a lens that networks and model give together. Each object gets model.json, panels.png
    and model.fits in OUT/models, and a row of OUT/models.parquet. The same command goes on where it was. Exit code 3: done, but
    some tiles failed.
    """
    report = model(
        run_folder,
        top=top,
        workers=workers,
        scheduler=scheduler,
        storage=None if storage == StorageConfig() else storage,
        progress=True,
    )
    table = Table(
        Column("rank", justify="right"), "verdict", "θ_E", "ln evidence", "arc S/N", "p", "status", box=None, pad_edge=False
    )
    # Networks and model together order candidates better than the networks alone (docs/lens-models.md).
    best_first = sorted(zip(report.ranks, report.models, strict=True), key=lambda of: (-(of[1].p_lens_modelled or 0.0), of[0]))
    for rank, one in best_first:
        radius = "–" if one.mass is None else f"{one.mass.theta_e_arcsec:.2f}″ ± {one.mass.theta_e_error_arcsec:.2f}″"
        ratio = "–" if one.ln_evidence_ratio is None else f"{one.ln_evidence_ratio:+.1f}"
        snr = "–" if one.arc_snr is None else f"{one.arc_snr:.0f}"
        probability = "–" if one.p_lens_modelled is None else f"{one.p_lens_modelled:.2g}"
        status = f"{one.status}: {one.reason}" if one.reason else one.status
        verdict = f"{one.verdict} ({one.pattern})" if one.pattern else one.verdict
        table.add_row(str(rank), verdict, radius, ratio, snr, probability, status)
    standard_output().print(table)
    for failed in report.failed:
        click.echo(f"Failed: tile {failed.tile_id}: {failed.reason}", err=True)
    click.echo(f"{report.n_done} modelled now, {report.n_before} before; all are in models.parquet of {run_folder}.")
    return EXIT_SOME_FAILED if report.failed else 0


@click.command("export-model")
@click.argument("run_folder", metavar="OUT")
@click.argument("candidate", metavar="CANDIDATE_ID")
@click.option(
    "--to",
    type=click.Choice(["fits", "lenstronomy", "herculens", "pyautolens"]),
    default="fits",
    show_default=True,
    help="For which software.",
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder to make [default: TILE-TARGET-model, here].")
@storage_options(of_run=True)
def export_model_(run_folder: str, candidate: str, to: str, out: Path | None, storage: StorageConfig) -> None:
    """Hand the lens model of an object of the run in OUT to other software: images, noise, PSFs, best fit.

    CANDIDATE_ID is a name ('EUCL J…'), a rank ('#3', or 3) or a place (tile/target_id). 'scanner model' makes the models.
    """
    given = None if storage == StorageConfig() else storage
    folder = export_model(Run(run_folder, given), candidate, out, to=cast("Format", to), storage=given)
    for path in sorted(folder.iterdir()):
        click.echo(f"Written: {path}")
