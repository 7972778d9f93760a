"""What ``scanner run`` prints on standard output: a plan, or the end of a run."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from scanner.cli.quantities import duration
from scanner.config import RunConfig
from scanner.storage.location import join
from scanner.survey.finish import RunReport
from scanner.survey.folder.cost import one_line
from scanner.survey.plan import RunPlan

#: Rows of the candidate list printed at the end.
PRINTED_CANDIDATES = 10


def print_plan(console: Console, plan: RunPlan, config: RunConfig) -> None:
    """Print what a run would do."""
    table = Table("tile", "bands", "targets from", "seen", "to score", "input", "deg²", box=None, pad_edge=False)
    for tile in plan.tiles:
        if tile.like is None:
            table.add_row(
                tile.tile_id,
                tile.alignment,
                tile.target_source,
                f"{tile.n_seen:,}",
                f"{tile.n_targets:,}",
                _bytes(tile.input_bytes),
                f"{tile.sky_area_deg2:.4f}",
            )
    console.print(table)
    if plan.fetched is not None:
        n_alike = sum(tile.like is not None for tile in plan.tiles)
        console.print(
            f"Tile {plan.fetched.tile_id} was fetched to be measured ({_bytes(plan.fetched.bytes)} in "
            f"{duration(plan.fetched.seconds)}); {n_alike:,} other remote tiles are taken to be like it.",
            markup=False,
        )
    for failure in plan.failed:
        console.print(f"tile {failure.tile_id} would fail: {failure.reason}", markup=False)
    console.print(
        f"\n{len(plan.tiles)} tiles, {plan.n_targets:,} objects to score, {_bytes(plan.input_bytes)} to read, "
        f"about {_bytes(plan.stored_bytes(config))} of cutouts to keep ({config.cutouts.keep}, {config.cutouts.codec})."
    )
    console.print(
        f"About {duration(plan.seconds)} on {plan.workers} workers at {plan.objects_per_second:.0f} objects/s each "
        "(scoring measured just now; a remote tile is fetched while the one before it is scanned). Nothing was written."
    )


def print_report(console: Console, report: RunReport, out: str) -> None:
    """Print how a run ended, and where its results are."""
    candidates = report.candidates
    if len(candidates):
        table = Table("rank", "name", "RA °", "Dec °", "grid", "P(lens)", "tile", box=None, pad_edge=False)
        for row in candidates.slice(0, PRINTED_CANDIDATES).to_pylist():
            table.add_row(
                str(row["rank"]),
                row["name"],
                f"{row['ra']:.5f}",
                f"{row['dec']:+.5f}",
                f"{row['grid_value']:.3f}",
                f"{row['p_calibrated']:.2g}",
                row["tile_id"],
            )
        console.print(table)
        if len(candidates) > PRINTED_CANDIDATES:
            console.print(f"… and {len(candidates) - PRINTED_CANDIDATES:,} more")
    n_done = report.n_tiles - len(report.failed)
    console.print(
        f"\n{n_done} of {report.n_tiles} tiles done ({report.sky_area_deg2:.4f} deg²), {report.n_targets:,} objects in them, "
        f"{report.n_unique:,} distinct; {report.n_scored:,} scored, {len(candidates):,} candidates above the threshold."
    )
    console.print(one_line(report.cost), markup=False)
    for note in report.notes:
        console.print(f"Note: {note}", markup=False)
    if report.failed:
        console.print(f"{len(report.failed)} tiles failed; the reasons are in {join(out, 'failed-tiles.ecsv')}", markup=False)
    tables = f"{join(out, 'candidates.fits')} (.ecsv, .vot), all: {join(out, 'catalogue')}"
    console.print(f"Look at {join(out, 'candidates.html')}; tables: {tables}", markup=False)


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
