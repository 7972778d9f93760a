"""``scanner query``: ask a catalogue, and see or keep the answer. ``scanner features``: what ``--like`` compares."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner import __version__
from scanner.atomic_file import write_atomically
from scanner.cli.output import in_sections, storage_options
from scanner.config import StorageConfig
from scanner.errors import UsageError
from scanner.query.formats import FILE_FORMATS, format_of, terminal_lines

if TYPE_CHECKING:
    import pyarrow as pa

    from scanner.catalogue.export import TableHeading
    from scanner.query.catalogue import Catalogue, Search
    from scanner.query.database import DatabaseLimits
    from scanner.query.region import Region

#: Rows that the terminal shows where no number is asked for.
PRINTED_ROWS = 20
#: What it shows of them where no columns are asked for; a narrow terminal leaves out the last ones.
PRINTED_COLUMNS = (
    "rank", "p_calibrated", "is_candidate", "name", "separation", "ra", "dec", "magnitude_vis", "grid_value",
    "known_name", "flags",
)  # fmt: skip
SECTIONS = {
    "What is asked": ("cone", "polygon", "moc", "name", "candidate_id", "candidates", "min_score", "like", "sql"),
    "The answer": ("top", "columns", "order", "format_", "out", "send_to"),
    "What it may take": ("max_rows", "seconds", "memory_gb"),
    "Where the catalogue lies": ("version", "cache", "config_file", "endpoint", "anonymous"),
}


@click.command("query", cls=in_sections(SECTIONS))
@click.argument("locations", metavar="OUT...", nargs=-1, required=True)
@click.option(
    "--cone", metavar="'RA DEC RADIUS'", help="Within RADIUS of a position: '150.1 2.2 10arcsec', '10:00:24 +2:12:00 1deg'."
)
@click.option("--polygon", metavar="'RA DEC, …'", help="Inside a polygon of great circles: '150 2, 151 2, 151 3'.")
@click.option("--moc", metavar="FILE", help="Inside a MOC: FITS, JSON or ASCII.")
@click.option("--name", help="Designation ('EUCL J…'), the beginning of one, or a known lens's name.")
@click.option("--id", "candidate_id", metavar="RUN/TILE/TARGET", help="One object.")
@click.option("--candidates", is_flag=True, help="Candidates only.")
@click.option("--min-score", type=click.FloatRange(0, 1), help="p_calibrated at least so much.")
@click.option(
    "--like",
    metavar="OBJECT",
    help="Most like an object ('#3', its name, tile/target_id) or a cutout.fits, by what 'scanner features' kept of a run.",
)
@click.option(
    "--sql", help="A SELECT in DuckDB's SQL over the tables objects and candidates (of the region only, if one is given)."
)
@click.option("--top", type=click.IntRange(0), help=f"Most rows [default: {PRINTED_ROWS} where they are printed, else all].")
@click.option("--columns", metavar="A,B,…", help="Columns [default: the main ones where they are printed, else all].")
@click.option("--order", metavar="[-]COLUMN", default="rank", show_default=True, help="Sort by it; with '-' from high to low.")
@click.option(
    "--format", "format_", type=click.Choice(["table", *FILE_FORMATS]), help="[default: what --out ends in, else table]"
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File to write [default: standard output].")
@click.option(
    "--send-to",
    metavar="PROGRAM",
    help="Have a running program load --out: topcat, aladin, …; all: any that can (SAMP).",
)
@click.option("--max-rows", type=click.IntRange(1), default=1_000_000, show_default=True, help="Refuse larger answers.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=300.0, show_default=True, help="Give up after so long."
)
@click.option("--memory-gb", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Memory of the database.")
@click.option("--version", type=int, help="Version of a survey [default: the current one].")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder that keeps fetched files [default: a temporary one].")
@storage_options()
def query(
    locations: tuple[str, ...],
    cone: str | None,
    polygon: str | None,
    moc: str | None,
    name: str | None,
    candidate_id: str | None,
    candidates: bool,
    min_score: float | None,
    like: str | None,
    sql: str | None,
    top: int | None,
    columns: str | None,
    order: str,
    format_: str | None,
    out: Path | None,
    send_to: str | None,
    max_rows: int,
    seconds: float,
    memory_gb: float,
    version: int | None,
    cache: Path | None,
    storage: StorageConfig,
) -> None:
    """Ask the catalogue in OUT: a run folder or a survey folder, a local path or s3://….

    A search by position reads only the files that hold this part of the sky. Without any question, the first of the ranking are
    shown. Several folders can be asked by --sql only, each as "name".objects; the first also without name. That nothing was
    found is an answer (exit code 0).
    """
    from scanner.query.catalogue import Search
    from scanner.query.database import DatabaseLimits, time_limit
    from scanner.query.sql import SqlLimits, run_sql

    asked = {"--cone": cone, "--polygon": polygon, "--moc": moc, "--name": name, "--id": candidate_id}
    asked |= {"--candidates": "" if candidates else None, "--min-score": None if min_score is None else f"{min_score:g}"}
    if send_to is not None and out is None:
        raise UsageError("--send-to has a program read a file that stays; give --out FILE.vot or FILE.fits too.")
    region = _region(cone, polygon, moc, storage)
    if cone is not None and cone.split()[-1].replace(".", "").isdigit():
        click.echo(f"The radius has no unit: {cone.split()[-1]} degrees.", err=True)
    written_as = format_ or ("table" if out is None else format_of(out.name))
    if written_as != "table" and FILE_FORMATS[written_as].is_binary and out is None and sys.stdout.isatty():
        raise UsageError(f"A terminal cannot show {written_as}; give --out FILE.")
    catalogues, titles = _open(locations, version, storage, cache, DatabaseLimits(memory_mb=round(memory_gb * 1000)))
    if sql is not None:
        _refuse_beside_sql(asked, {"--top": top, "--columns": columns, "--order": None if order == "rank" else order})
        limits = SqlLimits(max_rows, seconds, DatabaseLimits(memory_mb=round(memory_gb * 1000)))
        answer = run_sql(catalogues, sql, limits, region)
        n_found = len(answer)
    elif like is not None:
        others = [flag for flag, value in asked.items() if value is not None]
        if others or len(locations) > 1 or columns is not None or order != "rank":
            raise UsageError("--like takes one run, and of the other questions --top only.")
        from scanner.interface.opened import similar

        answer = similar(locations[0], like, top=top or PRINTED_ROWS, storage=None if storage == StorageConfig() else storage)
        n_found = len(answer)
    elif len(catalogues) > 1:
        raise UsageError(f"{len(catalogues)} folders were given; only --sql can ask several.")
    else:
        catalogue = next(iter(catalogues.values()))
        wanted = tuple(part.strip() for part in columns.split(",")) if columns is not None else None
        question = Search(
            region=region,
            min_score=min_score,
            top=top,
            name=name,
            candidate_id=candidate_id,
            candidates_only=candidates,
            columns=wanted,
            order=order,
        )
        with time_limit(seconds):
            n_found, answer = _answer(catalogue, question, max_rows, printed=written_as == "table" and out is None)
        if n_found == 0:
            click.echo(_why_nothing(catalogue, region), err=True)
    if written_as == "table" and out is None:
        _print(answer, n_found, more_by_top=sql is None)
        return
    heading = _heading(titles, {**asked, "--like": like, "--sql": sql})
    if written_as == "table":
        content = "\n".join([*terminal_lines(answer)[0], ""]).encode()
    else:
        content = FILE_FORMATS[written_as].write(answer, heading)
    if out is None:
        sys.stdout.buffer.write(content)
    else:
        write_atomically(out, content)
        click.echo(f"{out}: {len(answer):,} rows.", err=True)
        if send_to is not None:
            from scanner.query.formats import send_table

            click.echo(f"Sent to {', '.join(send_table(out, written_as, out.stem, send_to))}.", err=True)


@click.command("features")
@click.argument("run_folder", metavar="RUN")
@storage_options(of_run=True)
def features_(run_folder: str, storage: StorageConfig) -> None:
    """Keep a short vector of what a network sees in each stored cutout of the run in RUN, for 'scanner query --like'.

    The same command goes on where it was, and adds what is new.
    """
    from scanner.interface.opened import features

    n = features(run_folder, storage=None if storage == StorageConfig() else storage, progress=True)
    click.echo(f"{n:,} objects of {run_folder} have features; ask with: scanner query {run_folder} --like '#1'")


def _region(cone: str | None, polygon: str | None, moc: str | None, storage: StorageConfig) -> Region | None:
    if sum(one is not None for one in (cone, polygon, moc)) > 1:
        raise UsageError("Give one of --cone, --polygon and --moc.")
    from scanner.interface.objects import region_of

    return region_of(cone, polygon, moc, storage)


def _open(
    locations: tuple[str, ...], version: int | None, storage: StorageConfig, cache: Path | None, limits: DatabaseLimits
) -> tuple[dict[str, Catalogue], list[str]]:
    """The catalogues by their names in SQL, and their titles."""
    from scanner.interface.opened import Opened

    catalogues: dict[str, Catalogue] = {}
    titles = []
    for location in locations:
        opened = Opened(location, storage, version=version, cache=cache, limits=limits)
        published = opened.published
        if published.slug.lower() in [slug.lower() for slug in catalogues]:
            raise UsageError(f'{location}: another folder is named "{published.slug}" too; give each once, or rename one.')
        if published.slug.lower() == "main" and catalogues:
            raise UsageError(
                f"{location}: a folder of this name can only be the first, whose tables are main.objects; give it first."
            )
        catalogues[published.slug] = opened.catalogue
        titles.append(location if published.version is None else f"{location} version {published.version}")
    return catalogues, titles


def _refuse_beside_sql(*options: Mapping[str, object]) -> None:
    regions = {"--cone", "--polygon", "--moc"}
    given = [name for group in options for name, value in group.items() if value is not None and name not in regions]
    if given:
        raise UsageError(f"--sql says all but the region itself; leave out {', '.join(given)}.")


def _answer(catalogue: Catalogue, question: Search, max_rows: int, *, printed: bool) -> tuple[int, pa.Table]:
    """How many objects there are, and those that were asked for."""
    from scanner.query.catalogue import SEPARATION_COLUMN, count, search
    from scanner.query.region import Cone

    known = {*catalogue.schema.names, *([SEPARATION_COLUMN.name] if isinstance(question.region, Cone) else [])}
    if question.columns is None:
        names = PRINTED_COLUMNS if printed else (*catalogue.schema.names, SEPARATION_COLUMN.name)
        question = replace(question, columns=tuple(name for name in names if name in known))
    n_found = count(catalogue, question)
    if question.top is None and printed:
        question = replace(question, top=PRINTED_ROWS)
    if (n_found if question.top is None else min(n_found, question.top)) > max_rows:
        raise UsageError(f"{n_found:,} objects were found; ask for less, give --top, or raise --max-rows.")
    return n_found, search(catalogue, question)


def _why_nothing(catalogue: Catalogue, region: Region | None) -> str:
    from scanner.query.region import overlapping

    if catalogue.n_rows == 0:
        return "Nothing was found: the catalogue is empty."
    if region is not None and not overlapping(region.ranges(), *catalogue.bounds.T).any():
        return "Nothing was found: the catalogue has no objects in this part of the sky."
    return "Nothing was found."


def _print(answer: pa.Table, n_found: int, *, more_by_top: bool) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text, omitted = terminal_lines(answer, width)
    if len(answer):
        click.echo("\n".join(text))
    if omitted:
        click.echo(f"No place for {', '.join(omitted)}: choose --columns.", err=True)
    if n_found > len(answer) and more_by_top:
        click.echo(f"{len(answer):,} of {n_found:,} objects: --top shows more, --format or --out keeps all.", err=True)


def _heading(titles: list[str], asked: Mapping[str, str | None]) -> TableHeading:
    from scanner.catalogue.export import TableFact, TableHeading

    question = " ".join(f"{name} {shlex.quote(value)}" if value else name for name, value in asked.items() if value is not None)
    entries = (
        TableFact("software", "CREATOR", f"scanner {__version__}", "software that made this table"),
        TableFact("catalogue", "CATALOG", ", ".join(titles), "catalogue that was asked"),
        TableFact("query", "QUERY", " ".join(question.split()), "what it was asked"),
    )
    return TableHeading("objects", "Answer of a catalogue of strong lens candidates", entries)
