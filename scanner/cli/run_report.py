"""What ``scanner run`` prints on standard output: a plan, or the end of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from scanner.cli.quantities import counted, duration
from scanner.config import RunConfig
from scanner.storage.location import join
from scanner.survey.finish import RunReport
from scanner.survey.folder.cost import one_line
from scanner.survey.plan import RunPlan

if TYPE_CHECKING:
    from scanner.explain.stage import ExplainReport

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
            f"{duration(plan.fetched.seconds)}); {counted(n_alike, 'other remote tile')} "
            f"{'is' if n_alike == 1 else 'are'} taken to be like it.",
        )
    for failure in plan.failed:
        console.print(f"tile {failure.tile_id} would fail: {failure.reason}")
    console.print(
        f"\n{counted(len(plan.tiles), 'tile')}, {counted(plan.n_targets, 'object')} to score, "
        f"{_bytes(plan.input_bytes)} to read, about {_bytes(plan.stored_bytes(config))} of cutouts to keep "
        f"({config.cutouts.keep}, {config.cutouts.codec})."
    )
    console.print(
        f"About {duration(plan.seconds)} on {counted(plan.workers, 'worker')} at {plan.objects_per_second:.0f} objects/s each "
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
        if report.n_candidates > PRINTED_CANDIDATES:
            console.print(f"… and {report.n_candidates - PRINTED_CANDIDATES:,} more")
    n_done = report.n_tiles - len(report.failed)
    console.print(
        f"\n{n_done:,} of {counted(report.n_tiles, 'tile')} done ({report.sky_area_deg2:.4f} deg²), "
        f"{counted(report.n_targets, 'object')} in {'it' if n_done == 1 else 'them'}, {report.n_unique:,} distinct; "
        f"{report.n_scored:,} scored, {counted(report.n_candidates, 'candidate')} above the threshold."
    )
    console.print(one_line(report.cost))
    for note in report.notes:
        console.print(f"Note: {note}")
    if report.failed:
        console.print(f"{counted(len(report.failed), 'tile')} failed; why: {join(out, 'failed-tiles.ecsv')}")
    tables = f"{join(out, 'candidates.fits')} (.ecsv, .vot), all: {join(out, 'catalogue')}"
    console.print(f"Look at {join(out, 'candidates.html')}; tables: {tables}")


def print_explained(console: Console, explained: ExplainReport) -> None:
    """Print how many candidates are explained, and why others are not."""
    n = explained.n_before + explained.n_done
    console.print(f"{n:,} of {counted(explained.n_candidates, 'candidate')} explained; their strips are on the contact sheet.")
    for failure in explained.failed:
        console.print(f"tile {failure.tile_id} was not explained: {failure.reason}")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
