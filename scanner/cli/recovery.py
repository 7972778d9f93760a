"""``scanner recovery``: lenses painted into a run's tiles, what it would have found; ``scanner forecast``: of another area."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from rich.table import Column, Table

from scanner.cli.model import EXIT_SOME_FAILED
from scanner.cli.output import standard_output, storage_options
from scanner.config import StorageConfig
from scanner.errors import InputMissingError
from scanner.interface.recovery import PURITIES, forecast, recover
from scanner.interval import Interval
from scanner.storage import open_store


@click.command("recovery")
@click.argument("run_folder", metavar="RUN")
@click.option("--out", "-o", required=True, help="Folder of the recovery, local or s3://….")
@click.option("--n", type=click.IntRange(1, 10_000_000), default=20_000, show_default=True, help="Paint so many lenses.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Which lenses.")
@click.option(
    "--ground",
    type=click.Choice(["both", "galaxies", "sky"]),
    default="both",
    show_default=True,
    help="Paint onto real galaxies, whole lenses into the sky, or both.",
)
@click.option(
    "--population",
    type=click.Path(path_type=Path),
    help="Table that lenses are drawn from: theta_e_arcsec and more [default: a survey's lenses].",
)
@click.option(
    "--models",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="If the run has lens models, fit so many of the lenses that rank as high.",
)
@click.option(
    "--grades", type=click.Path(path_type=Path), help="File that 'scanner serve' keeps grades in: they count in purity."
)
@click.option(
    "--known", type=click.Path(path_type=Path), help="Truth of painted lenses that a campaign mixed in: completeness by grade."
)
@click.option("--salt", multiple=True, help="Run of the painted mosaics that --known speaks of; may be repeated.")
@click.option("--density", "density_deg2", type=float, help="Visible lenses a square degree [default: 8, Euclid's Q1].")
@click.option("--density-error", type=float, help="Its relative error [default: 0.2].")
@click.option("--workers", type=click.IntRange(1), help="Worker processes [default: the run's].")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786 or tls://host:8786.")
@storage_options(of_run=True)
def recovery_(
    run_folder: str,
    out: str,
    n: int,
    seed: int,
    ground: Literal["both", "galaxies", "sky"],
    population: Path | None,
    models: int,
    grades: Path | None,
    known: Path | None,
    salt: tuple[str, ...],
    density_deg2: float | None,
    density_error: float | None,
    workers: int | None,
    scheduler: str | None,
    storage: StorageConfig,
) -> int:
    """Paint lenses into the tiles of the finished run in RUN, and see which it would have found.

    Only their neighbourhoods are scanned, with the run's own settings and bundle. Each lens is a row of lenses.parquet in the
    recovery's folder; beside it lie completeness, a map of it, purity and the page recovery.html. The same command goes on
    where it was, and takes up new grades. Exit code 3: done, but some tiles failed.
    """
    # Curve fitting takes a second to import, which --help should not wait for.
    from scanner.recovery.completeness import LEAST_LENSES
    from scanner.recovery.selection import CARD, PAGE, read

    report = recover(
        run_folder,
        out=out,
        n=n,
        seed=seed,
        ground=ground,
        population=population,
        models=models,
        grades=grades,
        known=known,
        salt=salt,
        density_deg2=density_deg2,
        density_error=density_error,
        workers=workers,
        scheduler=scheduler,
        storage=None if storage == StorageConfig() else storage,
    )
    table = Table("fate", Column("lenses", justify="right"), box=None, pad_edge=False)
    for fate, number in sorted(report.record.fates.items(), key=lambda item: -item[1]):
        table.add_row(fate, f"{number:,}")
    standard_output().print(table)
    for failed in report.failed:
        click.echo(f"Failed: tile {failed.tile_id}: {failed.reason}", err=True)
    click.echo(f"{report.n_done:,} scanned now, {report.n_before:,} before; all are in {out}/lenses.parquet.")
    try:
        selection, _ = read(open_store(out, storage))
    except InputMissingError:
        click.echo(f"Fewer than {LEAST_LENSES} came out as lenses, too few for a completeness: paint more with --n.")
    else:
        click.echo(f"{selection.sentences()} Look at {out}/{PAGE}; {out}/{CARD} is for a card.")
    return EXIT_SOME_FAILED if report.failed else 0


@click.command("forecast")
@click.option("--recovery", required=True, help="Folder of 'scanner recovery', local or s3://….")
@click.option("--area", "area_deg2", type=float, required=True, help="Area of the survey in square degrees.")
@click.option(
    "--purity",
    "purities",
    type=float,
    multiple=True,
    help=f"Share of lenses that the list shall have; repeat for more [default: {', '.join(map(str, PURITIES))}].",
)
@click.option("--density", "density_deg2", type=float, help="Visible lenses a square degree [default: the recovery's].")
@click.option("--density-error", type=float, help="Its relative error [default: the recovery's].")
@click.option("--seconds", "seconds_per_object", type=float, help="A person's time for a candidate [default: the recovery's].")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, an object a purity.")
@storage_options()
def forecast_(
    recovery: str,
    area_deg2: float,
    purities: tuple[float, ...],
    density_deg2: float | None,
    density_error: float | None,
    seconds_per_object: float | None,
    as_json: bool,
    storage: StorageConfig,
) -> None:
    """Say how many lenses a survey like the painted run would find, how many candidates to look at, and for how long.

    Each line is of the longest list with the purity asked for. Intervals are of 95%: chance, completeness and density.
    """
    found = forecast(
        recovery,
        area_deg2,
        purities or PURITIES,
        density_deg2=density_deg2,
        density_error=density_error,
        seconds_per_object=seconds_per_object,
        storage=storage,
    )
    if as_json:
        for one in found:
            click.echo(one.model_dump_json())
        return
    rows: list[tuple[str, ...]] = [("purity", "completeness", "lenses", "candidates", "hours")]
    for one in found:
        wanted = f"{one.wanted_purity:.3g}"
        if one.completeness is None:
            rows.append((wanted, "–", "–", "–", "–"))
        else:
            rows.append((wanted, f"{one.completeness.value:.2f}", *map(_counted, (one.n_lenses, one.n_listed, one.hours))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if any(one.completeness is None for one in found):
        click.echo(f"No list of the run is purer than {found[0].best_purity:.3g}.")


def _counted(value: Interval | None) -> str:
    """A number with its interval, to three digits: no forecast knows more."""
    if value is None:
        return "–"
    middle, low, high = (float(f"{part:.3g}") for part in (value.value, value.low, value.high))
    return f"{middle:,.0f} [{low:,.0f}, {high:,.0f}]"
