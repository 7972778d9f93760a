"""``scanner catalogue``: merge runs into the catalogue of a survey, list its versions, make a deposit of one."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table

from scanner import config as configuration
from scanner.cli.output import WholeSentences, standard_output
from scanner.interface.opened import Survey, merged_survey
from scanner.interface.progress import counted
from scanner.storage import join

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; [catalogue] and [storage] count."
)
endpoint_option = click.option("--endpoint", help="URL of an S3-compatible server [default: AWS, or AWS_ENDPOINT_URL].")
anonymous_option = click.option("--anonymous", is_flag=True, default=None, help="Do not sign requests to object stores.")


@click.group(cls=WholeSentences)
def catalogue() -> None:
    """Make one catalogue of many runs, every object once, in versions that never change."""


@catalogue.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", "-o", required=True, metavar="SURVEY", help="Survey folder; made, or given a new version.")
@click.option(
    "--prefer",
    "preferred",
    multiple=True,
    metavar="BUNDLE",
    help="Where runs have several bundles: which come first, in order.",
)
@click.option("--known-lenses", help="Table that known lenses are looked up in: lenscat, or a FITS, VOTable, ECSV or CSV file.")
@click.option("--scratch", help="Folder for what memory does not hold [default: the survey folder].")
@config_option
@endpoint_option
@anonymous_option
def merge(
    runs: tuple[str, ...],
    out: str,
    preferred: tuple[str, ...],
    known_lenses: str | None,
    scratch: str | None,
    config_file: Path | None,
    endpoint: str | None,
    anonymous: bool | None,
) -> None:
    """Merge the finished runs in the folders RUN... into a new version of the survey in the folder SURVEY.

    Every object is there once, whatever tiles and runs saw it, and ranked among all; the order of the runs does not count. The
    runs are only read. When the same runs are merged again, nothing is done.
    """
    merged = merged_survey(
        runs,
        out,
        preferred=preferred,
        known_lenses=known_lenses,
        scratch=scratch,
        config=config_file,
        endpoint=endpoint,
        anonymous=anonymous,
        progress=True,
    )
    from scanner.survey.published import results_key

    version = merged.version
    if not merged.is_new:
        click.echo(f"{out}: these runs were merged before, as version {version.number}; it is the current one.")
        return
    click.echo(
        f"{out}: version {version.number} of {counted(len(version.runs), 'run')} and {counted(version.n_tiles, 'tile')} "
        f"({version.n_failed:,} failed): {counted(version.n_targets, 'row')}, {counted(version.n_objects, 'object')}, "
        f"{counted(version.n_candidates, 'candidate')} in {version.sky_area_deg2:.4f} deg²."
    )
    click.echo(f"Tables: {join(out, f'{results_key(version)}/candidates.fits')} (.ecsv, .vot), all: "
               f"{join(out, f'{results_key(version)}/catalogue')}")  # fmt: skip


@catalogue.command("list")
@click.argument("survey")
@config_option
@endpoint_option
@anonymous_option
def list_(survey: str, config_file: Path | None, endpoint: str | None, anonymous: bool | None) -> None:
    """List the versions of the survey in the folder SURVEY, and the runs of the current one."""
    opened = Survey(survey, configuration.load_storage(config_file, endpoint, anonymous))
    known = opened.index
    console = standard_output()
    table = Table("", "version", "made", "runs", "tiles", "objects", "candidates", "deg²", box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    current = None
    for one, version in zip(known.versions, opened.versions, strict=True):
        current = version if one.number == known.current else current
        table.add_row(
            "*" if one.number == known.current else "",
            str(one.number),
            f"{one.created:%Y-%m-%d %H:%M}",
            f"{len(version.runs):,}",
            f"{version.n_tiles:,}",
            f"{version.n_objects:,}",
            f"{version.n_candidates:,}",
            f"{version.sky_area_deg2:.2f}",
        )
    console.print(table)
    if current is not None:
        console.print(f"\nRuns of version {current.number} (*, the current one):")
        for run in current.runs:
            failed = f", {run.n_failed:,} failed" if run.n_failed else ""
            console.print(f"  {run.run_id}  {counted(run.n_tiles, 'tile')}{failed}, bundle {run.bundle}: {run.location}")


@catalogue.command()
@click.argument("folder", metavar="FOLDER")
@click.option("--zenodo-layout", "out", required=True, type=click.Path(path_type=Path), help="Folder of flat files to make.")
@click.option("--title", required=True, help="Title of the catalogue.")
@click.option("--creator", "creators", multiple=True, required=True, help="'Family, Given'; repeat for more.")
@click.option("--licence", default="CC-BY-4.0", show_default=True, help="SPDX name of the licence.")
@click.option("--version", default="1", show_default=True, help="Version of the deposit.")
@click.option("--grades", type=click.Path(path_type=Path), help="Grades to publish, without names and comments.")
@click.option("--cutouts", type=click.IntRange(0), default=1000, show_default=True, help="Cutouts of so many candidates.")
@config_option
@endpoint_option
@anonymous_option
def publish(
    folder: str,
    out: Path,
    title: str,
    creators: tuple[str, ...],
    licence: str,
    version: str,
    grades: Path | None,
    cutouts: int,
    config_file: Path | None,
    endpoint: str | None,
    anonymous: bool | None,
) -> None:
    """Make a deposit of the run or survey in FOLDER, to be given a DOI: catalogue, cutouts, grades, provenance, checksums."""
    from scanner.grading.deposit import About, write_deposit
    from scanner.grading.store import GradeStore
    from scanner.survey.published import open_published

    published = open_published(folder, storage=configuration.load_storage(config_file, endpoint, anonymous))
    store = None if grades is None else GradeStore.existing(grades)
    sizes = write_deposit(published, out, About(title, creators, licence, version), store, cutouts)
    for name, size in sizes.items():
        click.echo(f"{size:14,}  {name}")
    click.echo(f"{out}: upload these files; zenodo.json has the metadata that Zenodo's API takes.")
