"""``scanner forecast``: what a survey of another area would yield, and what looking at it costs."""

from __future__ import annotations

import click

from scanner.cli.options import storage_options
from scanner.config import StorageConfig
from scanner.interface.selection import PURITIES, forecast
from scanner.interval import Interval


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
