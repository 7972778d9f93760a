"""``scanner run``: scan the tiles of a list, or say what that would mean."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console
from rich.table import Table

from scanner.cli import output
from scanner.cli.output import in_sections, standard_output
from scanner.config import RunConfig
from scanner.errors import TileError
from scanner.interface.progress import counted, duration
from scanner.interface.scan import run_request, stages
from scanner.query.formats import terminal_lines
from scanner.records import CodecName, ProviderChoice, ScreenChoice
from scanner.sky.tile_list import read as read_tile_list
from scanner.storage.contract import join, split
from scanner.survey.folder.cost import RunCost, one_line
from scanner.survey.status import RunReport

if TYPE_CHECKING:
    from scanner.explain.stage import ExplainReport
    from scanner.modelling.stage import ModelReport
    from scanner.survey.run import RunPlan, RunRequest


#: Objects that are printed at the end.
PRINTED_OBJECTS = 10
#: Tiles of a plan that are printed, and those that would fail.
PRINTED_TILES, PRINTED_FAILURES = 100, 20
#: Tiles whose failure is printed when a run has ended.
PRINTED_REASONS = 3


def print_plan(console: Console, plan: RunPlan, config: RunConfig) -> None:
    """Print what a run would do."""
    table = Table("tile", "bands", "targets from", "seen", "to score", "input", "deg²", box=None, pad_edge=False)
    for tile in plan.tiles[:PRINTED_TILES]:
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
    if len(plan.tiles) > PRINTED_TILES:
        console.print(f"… and {len(plan.tiles) - PRINTED_TILES:,} more")
    if plan.fetched is not None:
        n_alike = plan.n_tiles - len(plan.tiles)
        console.print(
            f"Tile {plan.fetched.tile_id} was fetched to be measured ({_bytes(plan.fetched.bytes)} in "
            f"{duration(plan.fetched.seconds)}); {counted(n_alike, 'other remote tile')} "
            f"{'is' if n_alike == 1 else 'are'} taken to be like it.",
        )
    for failure in plan.failed[:PRINTED_FAILURES]:
        console.print(f"tile {failure.tile_id} would fail: {failure.reason}")
    if len(plan.failed) > PRINTED_FAILURES:
        console.print(f"… and so would {counted(len(plan.failed) - PRINTED_FAILURES, 'other tile')}")
    console.print(
        f"\n{counted(plan.n_tiles, 'tile')}, {counted(plan.n_targets, 'object')} to score, "
        f"{_bytes(plan.input_bytes)} to read, about {_bytes(plan.stored_bytes(config))} of cutouts to keep "
        f"({config.cutouts.keep}, {config.cutouts.codec})."
    )
    if plan.without_screen is not None:
        console.print(
            f"The bundle's screen is used: all members score about {100 * plan.share_passing:.2g}% of the objects. Without "
            f"it (--screen none) scoring takes {plan.without_screen / plan.scoring_seconds:.1f} times as long."
        )
    if plan.sky_area_deg2 > 0:
        _print_cost(console, plan)
    console.print(
        f"About {duration(plan.seconds)} on {counted(plan.workers, 'worker')} at {plan.objects_per_second:.0f} objects/s each "
        "(scoring and cutting measured just now; a remote tile is fetched while another is scanned). Nothing was written."
    )


def _print_cost(console: Console, plan: RunPlan) -> None:
    """Print what sky like this costs, with the screen and without."""
    table = Table("cutting and scoring", "a square degree", "Q1, 63 deg²", "Wide Survey, 14,000 deg²", box=None, pad_edge=False)
    ways = {"as planned": plan.core_seconds}
    if plan.without_screen is not None:
        ways = {"with the screen": plan.core_seconds, "--screen none": plan.core_seconds_without_screen}
    for way, seconds in ways.items():
        each = seconds / plan.sky_area_deg2
        hours = (f"{each * area / 3600:,.1f} core-hours" for area in (63, 14_000))
        table.add_row(way, f"{each:,.1f} core-s", *hours)
    console.print(table)


def print_list(console: Console, request: RunRequest) -> None:
    """Print the tile list that was made of folders and images."""
    listed = read_tile_list(request.tile_list, request.config.storage)
    console.print(f"{counted(len(listed), 'tile')}, listed in {request.tile_list}:")
    for tile in islice(listed.tiles.values(), PRINTED_TILES):
        bands = ", ".join(f"{band}={split(files.image.path)[1]}" for band, files in tile.bands.items())
        console.print(f"  {tile.tile_id}: {bands}{', and a catalogue' if tile.catalogue is not None else ''}")
    if len(listed.tiles) > PRINTED_TILES:
        console.print(f"  … and {len(listed.tiles) - PRINTED_TILES:,} more")
    for failure in listed.failed[:PRINTED_FAILURES]:
        console.print(f"  {failure.tile_id}: cannot be scanned; its line says why")


def print_report(console: Console, report: RunReport, out: str) -> None:
    """Print how a run ended, and where its results are."""
    import pyarrow as pa

    from scanner.catalogue.rank import leaders
    from scanner.report.contact_sheet import likelihood

    best = leaders(report.listed).slice(0, PRINTED_OBJECTS)
    if len(best):
        table = best.select(["rank", "p_calibrated", "is_candidate", "name", "ra", "dec", "flags", "tile_id"])
        if report.sky_prevalence is not None:
            beside = [likelihood(p, report.sky_prevalence).partition(" as ")[0] for p in best["p_calibrated"].to_pylist()]
            table = table.add_column(1, "beside_average", pa.array(beside))
        console.print("\n".join(terminal_lines(table, console.width if console.is_terminal else None)[0]))
    n_done = report.n_tiles - len(report.failed)
    console.print(
        f"\n{n_done:,} of {counted(report.n_tiles, 'tile')} done ({report.sky_area_deg2:.4f} deg²), "
        f"{counted(report.n_targets, 'object')} in {'it' if n_done == 1 else 'them'}, {report.n_unique:,} distinct; "
        f"{report.n_scored:,} scored{_screened(report.cost)}.\nSheet and tables show the best {len(report.listed):,} by rank, "
        f"among them {counted(report.n_candidates, 'candidate')} at or above the threshold."
    )
    console.print(one_line(report.cost))
    for note in report.notes:
        console.print(f"Note: {note}")
    if report.failed:
        console.print(f"{counted(len(report.failed), 'tile')} failed; why: {join(out, 'failed-tiles.ecsv')}")
        for failure in report.failed[:PRINTED_REASONS]:
            console.print(f"  {failure.tile_id}: {failure.reason}")
    tables = f"{join(out, 'candidates.fits')} (.ecsv, .vot), all: {join(out, 'catalogue')}"
    console.print(f"Look at {join(out, 'candidates.html')}; tables: {tables}")


def _screened(cost: RunCost) -> str:
    return f" ({cost.n_screened / cost.n_objects:.0%} of them by the screen alone)" if cost.n_screened else ""


def print_explained(console: Console, explained: ExplainReport) -> None:
    """Print how many candidates are explained, and why others are not."""
    n = explained.n_before + explained.n_done
    console.print(f"{n:,} of {counted(explained.n_candidates, 'candidate')} explained; their strips are on the contact sheet.")
    for failure in explained.failed:
        console.print(f"tile {failure.tile_id} was not explained: {failure.reason}")


def print_modelled(console: Console, modelled: ModelReport) -> None:
    """Print what came of the lens models, and why some are not there."""
    n = modelled.n_before + modelled.n_done
    verdicts = Counter(one.verdict for one in modelled.models)
    said = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    console.print(f"{counted(n, 'candidate')} modelled{f': {said}' if said else ''}; their numbers are in all tables.")
    for failure in modelled.failed:
        console.print(f"tile {failure.tile_id} was not modelled: {failure.reason}")


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


SECTIONS = {
    "What is scored": ("survey", "targets", "magnitude_limit", "all_targets", "max_bad_fraction", "require_all_bands"),
    "With what": ("bundle", "provider", "beta", "threshold", "rank", "screen"),
    "What is kept": ("keep", "codec"),
    "About the candidates": ("known_lenses", "model", "explain"),
    "Where the work is done": ("workers", "placement", "memory_gb", "scratch"),
    "Workers from elsewhere": ("scheduler", "listen", "scale_deployment", "insecure", "tls_ca", "tls_cert", "tls_key"),
    "Object stores (s3://…)": ("endpoint", "anonymous"),
    "Logs and metrics": ("quiet", "verbose", "log_format", "metrics_port"),
}


@click.command(cls=in_sections(SECTIONS))
@click.argument("tiles", nargs=-1, required=True)
@click.option("--out", "-o", help="Run folder [default: the first name + '-scan', beside it; of what is on s3://, here].")
@click.option("--survey", help="Whose images: euclid, roman, lsst, hst, jwst, or a file that describes it [default: euclid].")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; flags win over it.")
@click.option("--dry-run", "only_plan", is_flag=True, help="Say what would be done (tiles, objects, bytes, time) and stop.")
@click.option("--restart", is_flag=True, help="Throw away what the run folder holds and begin again.")
@click.option("--verify", is_flag=True, help="Hash the cutouts of finished tiles too; damaged ones are scanned again.")
@click.option("--targets", type=click.Choice(["auto", "catalogue", "detection", "grid"]), help="Where positions come from.")
@click.option("--magnitude-limit", type=float, help="Faintest VIS magnitude that is scored [default: 23].")
@click.option("--all", "all_targets", is_flag=True, help="Score every target: no magnitude or area limit.")
@click.option("--max-bad-fraction", type=float, help="Leave out a band with more bad pixels than this [default: 0.25].")
@click.option("--require-all-bands", is_flag=True, help="Do not score objects that lack a NISP band.")
@click.option("--bundle", help="Bundle folder, or STORE/current [default: the bundle that ships with scanner].")
@click.option("--provider", type=click.Choice(get_args(ProviderChoice)), help="What runs the networks.")
@click.option("--beta", type=float, help="β of the F-beta threshold [default: the bundle's].")
@click.option("--threshold", type=click.FloatRange(0, 1), help="Score of a candidate, instead of F-beta's; the paper: 0.5.")
@click.option(
    "--rank", type=click.Choice(["probability", "grid"]), help="What ranks objects; the paper: grid [default: probability]."
)
@click.option(
    "--screen",
    type=click.Choice(get_args(ScreenChoice)),
    help="none: all members score everything; bundle: only what passes its screen [default: auto, if that loses little].",
)
@click.option("--keep", help="Cutouts kept: all, candidates, sample:<fraction> or none [default: candidates].")
@click.option("--codec", type=click.Choice(get_args(CodecName)), help="How cutouts are stored [default: compact].")
@click.option("--known-lenses", help="Table that known lenses are looked up in: lenscat, or a FITS, VOTable, ECSV or CSV file.")
@click.option("--model", type=click.Choice(["none", "candidates"]), help="Fit a lens to the candidates of the contact sheet.")
@click.option("--explain", type=click.Choice(["none", "candidates"]), help="Explain the candidates of the contact sheet.")
@click.option("--workers", type=int, help="Worker processes [default: one a core]; most workers from elsewhere.")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786 or tls://host:8786.")
@click.option("--listen", help="Wait for workers at this address, e.g. tcp://0.0.0.0:8786, and start none here.")
@click.option("--scale-deployment", help="Kubernetes Deployment of the workers: to --workers now, to 0 at the end.")
@click.option("--placement", type=click.Choice(["whole", "split"]), help="split: any worker cuts, those with a GPU score.")
@click.option("--memory-gb", type=float, help="Memory of one worker process in GB [default: 3].")
@click.option("--scratch", help="Folder for fetched, decompressed and resampled mosaics.")
@click.option("--insecure", is_flag=True, help="Wait for workers beyond this machine without TLS: on a network of your own.")
@click.option("--tls-ca", help="Certificate that signed those of a tls:// cluster (PEM).")
@click.option("--tls-cert", help="This process's certificate (PEM).")
@click.option("--tls-key", help="This process's private key (PEM).")
@click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")
@click.option("--anonymous", is_flag=True, help="Do not sign requests: public buckets.")
@click.option("--metrics-port", type=int, help="Port of Prometheus metrics of the driver; its workers take the next ones.")
@output.log_format_option
def run(
    tiles: tuple[str, ...],
    out: str | None,
    config_file: Path | None,
    log_format: str,
    only_plan: bool,
    restart: bool,
    verify: bool,
    **flags: Any,
) -> int:
    """Scan TILES and rank what looks like a lens.

    TILES is a tile list, or folders and FITS images, of which a list is made beside the run folder. They, the run folder and
    the bundle are local paths or s3:// URLs. An interrupted run goes on where it was when the same command is given again. Exit
    code 3: done, but some tiles failed (see failed-tiles.ecsv).
    """
    settings = {name: value for name, value in flags.items() if value is not None and value is not False}
    request = run_request(
        tiles[0] if len(tiles) == 1 else tiles, out, config=config_file, restart=restart, verify=verify, **settings
    )
    console = standard_output()
    if request.tile_list not in tiles:
        print_list(console, request)
    if only_plan:
        from scanner.survey.run import dry_run

        plan = dry_run(request)
        print_plan(console, plan, request.config)
        return TileError.exit_code if plan.failed else 0
    n_failed = 0
    with output.log_lines(log_format):
        for report in stages(request, progress=not (output.is_json(log_format) or output.is_quiet())):
            n_failed += len(report.failed)
            if isinstance(report, RunReport):
                print_report(console, report, request.out)
                continue
            from scanner.modelling.stage import ModelReport

            if isinstance(report, ModelReport):
                print_modelled(console, report)
            else:
                print_explained(console, report)
    return TileError.exit_code if n_failed else 0
