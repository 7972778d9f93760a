"""``scanner run``: scan the tiles of a list, or say what that would mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from scanner import config as configuration
from scanner.cli import logs
from scanner.cli.watched import driver_metrics, watched
from scanner.config import RunConfig
from scanner.errors import TileError
from scanner.survey.finish import RunReport
from scanner.survey.plan import RunPlan
from scanner.survey.run import RunRequest, dry_run, run_survey

#: Rows of the candidate list printed at the end.
PRINTED_CANDIDATES = 10


@click.command()
@click.argument("tile_list", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Run folder [default: the list's name + '-scan'].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; flags win over it.")
@click.option("--bundle", help="Bundle folder [default: the bundle that ships with scanner].")
@click.option("--provider", type=click.Choice(["auto", "cpu", "openvino", "cuda", "tensorrt"]), help="What runs the networks.")
@click.option("--workers", type=int, help="Worker processes [default: one a core].")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786.")
@click.option("--memory-gb", type=float, help="Memory of one worker process in GB [default: 3].")
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for decompressed and resampled mosaics.")
@click.option("--targets", type=click.Choice(["auto", "catalogue", "detection", "grid"]), help="Where positions come from.")
@click.option("--magnitude-limit", type=float, help="Faintest VIS magnitude that is scored [default: 23].")
@click.option("--all", "all_targets", is_flag=True, help="Score every target: no magnitude or area limit.")
@click.option("--beta", type=float, help="β of the F-beta threshold [default: the bundle's].")
@click.option("--max-bad-fraction", type=float, help="Do not score objects with more bad pixels than this [default: 0.25].")
@click.option("--keep", help="Cutouts kept: all, candidates, sample:<fraction> or none [default: candidates].")
@click.option("--codec", type=click.Choice(["exact", "compact"]), help="How cutouts are stored [default: compact].")
@click.option("--metrics-port", type=int, help="Port of Prometheus metrics of the driver; its workers take the next ones.")
@logs.log_format_option
@click.option("--dry-run", "only_plan", is_flag=True, help="Say what would be done (tiles, objects, bytes, time) and stop.")
@click.option("--restart", is_flag=True, help="Throw away what the run folder holds and begin again.")
def run(
    tile_list: Path,
    out: Path | None,
    config_file: Path | None,
    log_format: str,
    only_plan: bool,
    restart: bool,
    **flags: Any,
) -> int:
    """Scan the tiles of TILE_LIST and rank what looks like a lens.

    An interrupted run goes on where it was when the same command is given again. Exit code 3: done, but some tiles failed
    (see failed-tiles.ecsv).
    """
    request = RunRequest(
        tile_list=str(tile_list),
        out=str(out or tile_list.with_name(f"{tile_list.stem}-scan")),
        config=configuration.load(config_file, _dotted(flags)),
        restart=restart,
    )
    console = Console(highlight=False, soft_wrap=True)
    if only_plan:
        plan = dry_run(request)
        _print_plan(console, plan, request.config)
        return TileError.exit_code if plan.failed else 0
    with logs.written(log_format), driver_metrics(request.config.engine):
        with watched(log_format) as on_event:
            report = run_survey(request, on_event)
        _print_report(console, report, Path(request.out))
    return TileError.exit_code if report.failed else 0


def _dotted(flags: dict[str, Any]) -> dict[str, Any]:
    no_limit = {"targets.magnitude_limit": "none", "targets.min_area_pixels": 0} if flags["all_targets"] else {}
    return no_limit | {
        key: value
        for key, value in {
            "scoring.bundle": flags["bundle"],
            "scoring.provider": flags["provider"],
            "scoring.beta": flags["beta"],
            "engine.workers": flags["workers"],
            "engine.scheduler": flags["scheduler"],
            "engine.memory_limit_gb": flags["memory_gb"],
            "engine.metrics_port": flags["metrics_port"],
            "engine.scratch": flags["scratch"] and str(flags["scratch"]),
            "targets.source": flags["targets"],
            "targets.magnitude_limit": flags["magnitude_limit"],
            "cutouts.max_bad_fraction": flags["max_bad_fraction"],
            "cutouts.keep": flags["keep"],
            "cutouts.codec": flags["codec"],
        }.items()
        if value is not None
    }


def _print_plan(console: Console, plan: RunPlan, config: RunConfig) -> None:
    table = Table("tile", "bands", "targets from", "seen", "to score", "input", "deg²", box=None, pad_edge=False)
    for tile in plan.tiles:
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
    for failure in plan.failed:
        console.print(f"tile {failure.tile_id} would fail: {failure.reason}", markup=False)
    console.print(
        f"\n{len(plan.tiles)} tiles, {plan.n_targets:,} objects to score, {_bytes(plan.input_bytes)} to read, "
        f"about {_bytes(plan.stored_bytes(config))} of cutouts to keep ({config.cutouts.keep}, {config.cutouts.codec})."
    )
    console.print(
        f"About {_duration(plan.seconds)} on {plan.workers} workers at {plan.objects_per_second:.0f} objects/s each "
        "(scoring measured just now). Nothing was written."
    )


def _print_report(console: Console, report: RunReport, out: Path) -> None:
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
    for note in report.notes:
        console.print(f"Note: {note}", markup=False)
    if report.failed:
        console.print(f"{len(report.failed)} tiles failed; the reasons are in {out / 'failed-tiles.ecsv'}", markup=False)
    console.print(
        f"Look at {out / 'candidates.html'}; tables: {out / 'candidates.fits'} (.ecsv, .vot), all: {out / 'catalogue'}"
    )


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
