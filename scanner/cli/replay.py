"""Whether a run is still the same: ``scanner replay`` and ``rescore`` do it again, ``scanner verify`` reads checksums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from scanner.cli.output import standard_output, storage_options
from scanner.config import StorageConfig
from scanner.errors import ContentError
from scanner.interface.opened import Run
from scanner.interface.progress import counted
from scanner.interface.scan import rescore

if TYPE_CHECKING:
    from scanner.survey.objects import ReplayedValue, ReplayReport

#: Exit code where the result is not the run's; another one than those of errors (:mod:`scanner.errors`).
EXIT_DIFFERENT = 4
#: Columns that tell where the object is, which are copied, not computed.
COPIED = {"target_id", "tile_id", "ra", "dec", "x", "y", "magnitude_vis"}


@click.command("replay")
@click.argument("run_folder", metavar="OUT")
@click.argument("candidate", metavar="CANDIDATE_ID")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder for the cutout as FITS, with WCS, and as PNG.")
@click.option("--tile-list", help="Tile list, where it is no longer where the run found it.")
@click.option("--bundle", help="Bundle, where it is no longer where the run found it.")
@click.option("--anyway", is_flag=True, help="Go on although the tile's files have changed.")
@click.option("--scratch", type=click.Path(path_type=Path), help="Folder for fetched, decompressed and resampled mosaics.")
@storage_options(of_run=True)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def replay_(
    run_folder: str,
    candidate: str,
    out: Path | None,
    tile_list: str | None,
    bundle: str | None,
    anyway: bool,
    scratch: Path | None,
    storage: StorageConfig,
    as_json: bool,
) -> int:
    """Cut an object of the run in OUT from its tile again, score it again, and compare.

    CANDIDATE_ID is a name ('EUCL J…'), a rank ('#3', or 3) or a place (tile/target_id).

    On a machine like the run's, every bit must be the same; on another one, within a tolerance that is named. Exit code 0: so
    it is; 4: it is not.
    """
    run = Run(run_folder, None if storage == StorageConfig() else storage)
    report = run.replay(candidate, out=out, tile_list=tile_list, bundle=bundle, anyway=anyway, scratch=scratch)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        _print(standard_output(), report)
    return 0 if report.passed else EXIT_DIFFERENT


def _print(console: Console, report: ReplayReport) -> None:
    rank = "not in the merged catalogue" if report.rank is None else f"rank {report.rank:,}"
    console.print(f"{report.name}, {rank}: tile {report.tile_id}, object {report.target_id}")
    for difference in report.differences:
        console.print(f"Changed: {difference}")
    table = Table("", "then", "now", "", box=None, pad_edge=False)
    for value in report.values:
        if value.name not in COPIED or value.agreement != "equal":
            table.add_row(value.name, _shown(value, value.then), _shown(value, value.now), _mark(value.agreement))
    table.add_row("kept cutout", report.pixels.codec or "–", _distance(report), _mark(report.pixels.agreement))
    console.print(table)
    console.print(_verdict(report))
    for file in report.files:
        console.print(f"Written: {file}")


def _shown(value: ReplayedValue, side: float | int | bool | str | None) -> str:
    if isinstance(side, float):
        # Nine digits tell any two float32 apart.
        return f"{side:.9g}" if value.agreement != "equal" else f"{side:.6g}"
    return "–" if side is None else str(side)


def _mark(agreement: str) -> str:
    return {"equal": "=", "different": "DIFFERENT"}.get(agreement, agreement)


def _distance(report: ReplayReport) -> str:
    if report.pixels.codec is None:
        return "–"
    from scanner.cutouts.store import CODECS

    unit = "σ" if CODECS[report.pixels.codec].largest_error is None else "half steps"
    return f"at most {report.pixels.largest_distance:.2g} {unit} off"


def _verdict(report: ReplayReport) -> str:
    bits = {
        "equal": "Equal, bit for bit.",
        "within tolerance": "Equal within the tolerance, not bit for bit",
        "different": "NOT equal",
    }[report.agreement]
    if report.agreement == "equal":
        return bits
    if report.same_machine:
        return f"{bits}, though this machine's bits should be the run's."
    return f"{bits}; this machine is not like the run's, so bits may differ but not results."


@click.command("rescore")
@click.argument("run_folder", metavar="RUN")
@click.option("--bundle", required=True, help="Bundle to score with: a folder, a URL, or one that was scored with before.")
@click.option("--who-moved", type=click.IntRange(0), default=10, show_default=True, help="Show so many of the best objects.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes [default: the run's].")
@click.option("--scheduler", help="Address of a standing Dask scheduler, e.g. tcp://host:8786 or tls://host:8786.")
@storage_options(of_run=True)
def rescore_(
    run_folder: str, bundle: str, who_moved: int, workers: int | None, scheduler: str | None, storage: StorageConfig
) -> None:
    """Score the stored cutouts of the finished run in RUN with another bundle, and make its results anew.

    The mosaics are not needed. who-moved.ecsv has the best objects before and after, with both ranks. The scores of before are
    kept: the same command with the bundle of before goes back to them at once. Objects without a stored cutout keep the scan's
    scores, with the flag NOT_RESCORED, and are no candidates.
    """
    given = None if storage == StorageConfig() else storage
    report = rescore(run_folder, bundle, workers=workers, scheduler=scheduler, storage=given, progress=True)
    table = Table("", "before", "after", "P before", "P after", box=None, pad_edge=False)
    for row in report.moved.slice(0, who_moved).to_pylist():
        ranks = (f"#{row[name]:,}" if row[name] else "–" for name in ("rank_before", "rank_after"))
        table.add_row(row["name"], *ranks, *(f"{row[name]:.3g}" for name in ("p_before", "p_after")))
    if who_moved:
        standard_output().print(table)
    click.echo(f"{report.n_rescored:,} objects scored by {report.after}, before by {report.before}; see who-moved.ecsv.")
    if report.n_kept:
        click.echo(f"{report.n_kept:,} have no stored cutout: they keep the scan's scores (flag NOT_RESCORED).", err=True)


@click.command()
@click.argument("path")
@click.option("--deep", is_flag=True, help="Read every byte: cutouts, and all versions of a survey, too.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@storage_options()
def verify(path: str, deep: bool, as_json: bool, storage: StorageConfig) -> int:
    """Compare the files in PATH with the checksums that were recorded when they were written: a path or s3://….

    PATH holds a run, a survey, a bundle, a store of bundles, a dataset or a cutout store. Nothing is changed; every file that
    is damaged or missing is named, with what makes it whole again. Exit codes: 0 whole, 66 nothing to verify, 78 damaged.
    """
    from scanner.interface.verify import IN_WORDS, verified

    found = verified(path, storage, deep=deep, progress=True)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return 0 if found.is_whole else ContentError.exit_code
    for problem in found.problems:
        click.echo(problem)
    for note in found.notes:
        click.echo(f"Note: {note}.")
    compared = f"{counted(found.n_files, 'file')} ({found.n_bytes / 1e6:,.1f} MB)"
    if not found.is_whole:
        problems = counted(len(found.problems), "problem")
        raise ContentError(f"{path}: {problems} in {IN_WORDS[found.kind]}, of which {compared} were compared.")
    deeper = "" if deep else "; --deep reads cutouts too"
    click.echo(f"{path}: {IN_WORDS[found.kind]}, whole: {compared} are what was written{deeper}.")
    return 0
