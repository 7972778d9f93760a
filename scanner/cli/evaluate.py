"""``scanner evaluate``: measure bundles on labelled sets and single images, side by side."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from scanner.cli.options import provider_option, threads_option
from scanner.ensemble import bundles as bundle_files
from scanner.ensemble.bundle import CARD_FILE
from scanner.errors import UsageError
from scanner.evaluation.biases import COLOURS
from scanner.evaluation.card import check_room, with_figures
from scanner.evaluation.compare import TURNED, Comparison, Scoring, compare_bundles
from scanner.evaluation.decisions import SKY_PREVALENCE
from scanner.evaluation.results import Evaluation
from scanner.evaluation.tables import ON_TERMINAL, Table, tables
from scanner.interface.progress import bar
from scanner.labelled_set import LabelledSet
from scanner.survey.scan.machine import cores

#: Objects, and lenses, of a look at biases alone.
MANY_TURNED, RECOLOURED = 1000, 300


def cache_folder() -> Path:
    """Where log-odds are kept unless another place is named."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "scanner" / "log-odds"


@click.command()
@click.argument("bundles", nargs=-1)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    help="Labelled set that no bundle was trained on, as of 'scanner simulate sets'; repeat for more.",
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Tile list; the centre of each tile is scored eight ways round."
)
@click.option("--known", type=click.Path(path_type=Path), help="List of known lenses with FITS images of any telescope.")
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
    default=TURNED,
    show_default=True,
    is_flag=False,
    flag_value=MANY_TURNED,
    help=f"Objects turned and mirrored, eight ways: do lenses or non-lenses move?  [without a number: {MANY_TURNED}]",
)
@click.option(
    "--source-colours",
    type=click.IntRange(0),
    default=0,
    is_flag=False,
    flag_value=RECOLOURED,
    help=f"Lenses drawn with sources from blue to red: are red rings found?  [default: none; without a number: {RECOLOURED}]",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Folder where log-odds are kept [default: the user's cache].")
@click.option("--no-cache", is_flag=True, help="Score everything, keep nothing.")
@provider_option
@threads_option
def evaluate(
    bundles: tuple[str, ...],
    data: tuple[Path, ...],
    images: Path | None,
    known: Path | None,
    out: Path | None,
    card: tuple[Path, str] | None,
    beta: float | None,
    prevalence: float,
    rotations: int,
    source_colours: int,
    cache: Path | None,
    no_cache: bool,
    provider: str,
    threads: int,
) -> None:
    """Measure BUNDLES (default: the one that ships with scanner) on labelled sets, the first against each of the others.

    Recall where few non-lenses pass, what inspecting a list would yield, decisions, calibration, and which lenses and
    non-lenses are mistaken, with 95% intervals. Networks run once: their log-odds are kept.
    """
    if beta is not None and not beta > 0:
        raise UsageError(f"--beta must be more than 0 (given: {beta:g}).")
    if not 0 < prevalence < 1:
        raise UsageError(f"--prevalence must lie between 0 and 1 (given: {prevalence:g}).")
    if card is not None:
        check_room(bundle_files.load(bundles[0] if bundles else None), card[1])
    folder = None if no_cache else cache or cache_folder()
    comparison = compared(
        bundles or (None,), data, images, known, beta, prevalence, rotations, source_colours, folder, provider, threads
    )
    print_evaluation(comparison.evaluation)
    if out is not None:
        from scanner.evaluation.page import write_evaluation

        written = write_evaluation(comparison, out)
        click.echo(f"{out}: {', '.join(path.name for path in written)}")
    if card is not None:
        written_to, version = card
        bundle = with_figures(comparison.bundles[0].bundle, comparison.evaluation, version, written_to)
        click.echo(f"{written_to}: {bundle.manifest.name} {version}, with these figures in its {CARD_FILE}")


def compared(
    bundles: Sequence[str | None],
    data: Sequence[Path],
    images: Path | None,
    known: Path | None,
    beta: float | None,
    prevalence: float,
    n_turned: int,
    n_recoloured: int,
    cache: Path | None,
    provider: str,
    threads: int,
) -> Comparison:
    """Evaluate with a progress bar on standard error."""
    datasets = [LabelledSet(path) for path in data]
    total = len(bundles) * (sum(map(len, datasets)) + 8 * n_turned + len(COLOURS) * n_recoloured)
    with bar("scoring") as move:
        done = 0

        def report(name: str, n: int) -> None:
            nonlocal done
            done += n
            move(done, total, name)

        return compare_bundles(
            bundles,
            datasets,
            images=images,
            known=known,
            beta=beta,
            prevalence=prevalence,
            n_turned=n_turned,
            n_recoloured=n_recoloured,
            scoring=Scoring(
                provider=provider, threads=threads, parallel=max(1, cores() // threads), cache=cache, report=report
            ),
        )


def print_evaluation(evaluation: Evaluation) -> None:
    """Print what was measured on, and the tables that matter most."""
    for found in evaluation.sets:
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
