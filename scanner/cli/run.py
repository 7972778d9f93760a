"""``scanner run``: scan the tiles of a list, or say what that would mean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scanner import config as configuration
from scanner.cli.options import sentence_of_bytes, sentence_of_seconds
from scanner.errors import TileError
from scanner.survey.plan import RunPlan
from scanner.survey.run import RunReport, RunRequest, dry_run, run_survey

#: Rows of the candidate list printed at the end.
PRINTED_CANDIDATES = 10


@click.command()
@click.argument("tile_list", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Run folder [default: the list's name + '-scan'].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; flags win over it.")
@click.option("--bundle", help="Bundle folder or name [default: the bundle that ships with scanner].")
@click.option("--provider", type=click.Choice(["auto", "cpu", "openvino", "cuda", "tensorrt"]), help="What runs the networks.")
@click.option("--workers", type=int, help="Worker processes [default: one a core].")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786.")
@click.option("--memory-gb", type=float, help="Memory of one worker process in GB [default: 3].")
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for decompressed mosaics.")
@click.option("--targets", type=click.Choice(["auto", "catalogue", "detection", "grid"]), help="Where positions come from.")
@click.option("--magnitude-limit", type=float, help="Faintest VIS magnitude that is scored [default: 23].")
@click.option("--all", "all_targets", is_flag=True, help="Score every target: no magnitude or area limit.")
@click.option("--beta", type=float, help="β of the F-beta threshold [default: the bundle's].")
@click.option("--max-bad-fraction", type=float, help="Do not score objects with more bad pixels than this [default: 0.25].")
@click.option("--keep", help="Cutouts kept: all, candidates, sample:<fraction> or none [default: candidates].")
@click.option("--codec", type=click.Choice(["exact", "compact"]), help="How cutouts are stored [default: compact].")
@click.option("--dry-run", "only_plan", is_flag=True, help="Say what would be done (tiles, objects, bytes, time) and stop.")
@click.option("--restart", is_flag=True, help="Throw away what the run folder holds and begin again.")
def run(tile_list: Path, out: Path | None, config_file: Path | None, only_plan: bool, restart: bool, **flags: Any) -> int:
    """Scan the tiles of TILE_LIST and rank what looks like a lens.

    Interrupted runs go on where they were. Exit code 3: done, but some tiles failed (see failed-tiles.ecsv).
    """
    request = RunRequest(
        tile_list=tile_list,
        out=out or tile_list.with_name(f"{tile_list.stem}-scan"),
        config=configuration.load(config_file, _dotted(flags)),
        restart=restart,
    )
    console = Console(highlight=False, soft_wrap=True)
    if only_plan:
        plan = dry_run(request)
        _print_plan(console, plan, request)
        return TileError.exit_code if plan.failed else 0
    with progress_display(console) as on_event:
        report = run_survey(request, on_event)
    _print_report(console, report, request.out)
    return TileError.exit_code if report.failed else 0


def _dotted(flags: dict[str, Any]) -> dict[str, Any]:
    dotted = {
        "scoring.bundle": flags["bundle"],
        "scoring.provider": flags["provider"],
        "scoring.beta": flags["beta"],
        "engine.workers": flags["workers"],
        "engine.scheduler": flags["scheduler"],
        "engine.memory_limit_gb": flags["memory_gb"],
        "engine.scratch": flags["scratch"] and str(flags["scratch"]),
        "targets.source": flags["targets"],
        "targets.magnitude_limit": flags["magnitude_limit"],
        "cutouts.max_bad_fraction": flags["max_bad_fraction"],
        "cutouts.keep": flags["keep"],
        "cutouts.codec": flags["codec"],
    }
    if flags["all_targets"]:
        dotted |= {"targets.magnitude_limit": "none", "targets.min_area_pixels": 0}
    return dotted
