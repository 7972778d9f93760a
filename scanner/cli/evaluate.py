"""``scanner evaluate``: measure bundles on labelled sets and single images, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from scanner.cli.output import provider_option, threads_option
from scanner.errors import UsageError
from scanner.evaluation.results import SKY_PREVALENCE, TURNED, BenchmarkName, Evaluation
from scanner.interface import bundle as interface

if TYPE_CHECKING:
    from scanner.evaluation.tables import Table

#: Objects, and lenses, of a look at biases alone.
MANY_TURNED, RECOLOURED = 1000, 300


@click.command()
@click.argument("bundles", nargs=-1)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Labelled set that no bundle was trained on, as of 'scanner simulate sets'; repeat for more.",
)
@click.option(
    "--benchmark",
    type=(click.Choice(get_args(BenchmarkName)), click.Path(path_type=Path)),
    metavar="NAME FOLDER",
    help=f"Public benchmark ({', '.join(get_args(BenchmarkName))}) and its files: the benchmark's own measures beside ours.",
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Tile list; the centre of each tile is scored eight ways round."
)
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses with FITS images of any telescope.")
@click.option(
    "--real",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Labelled set of real cutouts: what of it passes where simulated non-lenses rarely do; repeat for more.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for page, plots and JSON [default: none written].")
@click.option(
    "--card",
    type=(click.Path(path_type=Path), str),
    metavar="FOLDER VERSION",
    help="Write the first bundle there, as another version of itself, with these figures in its card and manifest.",
)
@click.option("--beta", type=float, help="β of the F-beta threshold [default: the bundle's].")
@click.option("--prevalence", type=float, default=SKY_PREVALENCE, show_default=True, help="Share of lenses on the sky.")
@click.option(
    "--rotations",
    type=click.IntRange(0),
    is_flag=False,
    flag_value=MANY_TURNED,
    help="Objects turned and mirrored, eight ways: do lenses or non-lenses move?  "
    f"[default: {TURNED}; with --paper none; without a number: {MANY_TURNED}]",
)
@click.option(
    "--source-colours",
    type=click.IntRange(0),
    default=0,
    is_flag=False,
    flag_value=RECOLOURED,
    help=f"Lenses drawn with sources from blue to red: are red rings found?  [default: none; without a number: {RECOLOURED}]",
)
@click.option("--paper", is_flag=True, help="Print Tables 5, 6 and 7 of Wilde et al. (2022), ours beside theirs.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder where log-odds are kept [default: the user's cache].")
@click.option("--no-cache", is_flag=True, help="Score everything, keep nothing.")
@provider_option
@threads_option
def evaluate(
    bundles: tuple[str, ...],
    data: tuple[Path, ...],
    benchmark: tuple[BenchmarkName, Path] | None,
    images: Path | None,
    known: Path | None,
    real: tuple[Path, ...],
    out: Path | None,
    card: tuple[Path, str] | None,
    beta: float | None,
    prevalence: float,
    rotations: int | None,
    source_colours: int,
    paper: bool,
    cache: Path | None,
    no_cache: bool,
    provider: str,
    threads: int,
) -> None:
    """Measure BUNDLES (default: the one that ships with scanner) on labelled sets, the first against each of the others.

    Recall where few non-lenses pass, what inspecting a list would yield, decisions, calibration, and which lenses and
    non-lenses are mistaken, with 95% intervals. Networks run once: their log-odds are kept.
    """
    interface.refuse_nonsense(beta, prevalence, "--")
    if not data and benchmark is None:
        raise UsageError("give labelled sets as --data, or a public benchmark as --benchmark NAME FOLDER.")
    if not data and (card or images or known or real or paper):
        raise UsageError("--card, --images, --known, --real and --paper compare with simulated sets; give them as --data.")
    if benchmark is not None:
        from scanner.evaluation.benchmark import RESULT_FILE, benchmark_tables

        result = interface.evaluate_benchmark(
            bundles or (None,), *benchmark, out, beta=beta, provider=provider, threads=threads, progress=True
        )
        for table in benchmark_tables(result):
            click.echo("\n".join((*plain(table), "")))
        if out is not None:
            click.echo(f"{out}: {RESULT_FILE}")
        if not data:
            return
    if card is not None:
        from scanner.evaluation.promotion import check_room

        check_room(interface.load_bundle(bundles[0] if bundles else None), card[1])
    measured = interface.evaluate(
        bundles or None,
        data,
        images=images,
        known=known,
        real=real,
        beta=beta,
        prevalence=prevalence,
        rotations=0 if paper and rotations is None else rotations,
        source_colours=source_colours,
        cache=False if no_cache else cache,
        provider=provider,
        threads=threads,
        progress=True,
    )
    if paper:
        for table in measured.paper_tables(provider, threads):
            click.echo("\n".join((*plain(table), "")))
    else:
        print_evaluation(measured.record)
    if out is not None:
        click.echo(f"{out}: {', '.join(path.name for path in measured.write(out))}")
    if card is not None:
        from scanner.ensemble.bundle import CARD_FILE

        folder, version = card
        bundle = measured.write_bundle(folder, version)
        click.echo(f"{folder}: {bundle.manifest.name} {version}, with these figures in its {CARD_FILE}")


def print_evaluation(evaluation: Evaluation) -> None:
    """Print what was measured on, and the tables that matter most."""
    from scanner.evaluation.tables import ON_TERMINAL, tables

    for found in (*evaluation.real_sets, *evaluation.sets):
        trained = f"; {', '.join(found.trained_on)} was trained on it" if found.trained_on else ""
        click.echo(
            f"{found.name}: {found.n_objects:,} objects, {found.n_lenses:,} lenses ({found.n_visible:,} visible){trained}"
        )
    for table in tables(evaluation):
        if table.name in ON_TERMINAL:
            click.echo("\n" + "\n".join(plain(table)))


def plain(table: Table) -> Iterator[str]:
    """The lines of a table: columns side by side, never folded, as numbers that are torn apart cannot be read."""
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    yield click.style(table.title, bold=True)
    yield from textwrap.wrap(table.note, 120)
    for row in (table.header, *table.rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
