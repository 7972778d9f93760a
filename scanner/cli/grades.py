"""``scanner grades``: what graders said, as labels, as a labelled dataset, and how far they agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from scanner import config as configuration
from scanner.errors import UsageError
from scanner.grading.agreement import Agreement, Pair
from scanner.grading.grade import GRADES
from scanner.grading.store import GradeStore
from scanner.interval import Interval

_file = click.option(
    "--grades",
    "file",
    type=click.Path(path_type=Path),
    default="grades.sqlite",
    show_default=True,
    help="File that 'scanner serve' keeps grades in.",
)
_least = click.option(
    "--least-graders",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Objects that fewer have graded are left unclear.",
)


@click.group()
def grades() -> None:
    """What graders said in the pages of 'scanner serve'."""


@grades.command()
@_file
@click.argument("out", type=click.Path(path_type=Path))
@_least
def export(file: Path, out: Path, least_graders: int) -> None:
    """Write OUT, one row a graded object: votes, median grade, proposed label; .csv, .ecsv, .fits, .vot or .parquet."""
    from scanner.atomic_file import write_atomically
    from scanner.grading.labels import LABEL_FORMATS, LABELS, label_bytes, label_table
    from scanner.query.formats import FILE_FORMATS

    formats = {suffix: name for name in LABEL_FORMATS for suffix in FILE_FORMATS[name].suffixes}
    if out.suffix.lower() not in formats:
        raise UsageError(f"{out}: no known kind of table; end its name with {', '.join(formats)}.")
    store = GradeStore.existing(file)
    table = label_table(store.standing(), store.places(), least_graders)
    write_atomically(out, label_bytes(table, formats[out.suffix.lower()]))
    given = table["label"].to_pylist()
    counts = ", ".join(f"{given.count(label):,} {label}" for label in LABELS)
    click.echo(f"{out}: {len(given):,} graded objects: {counts}")


@grades.command()
@_file
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def agreement(file: Path, as_json: bool) -> None:
    """Say how far graders agree: kappas with 95% intervals, tables of every two."""
    from scanner.grading.agreement import agreement as compare

    found = compare(GradeStore.existing(file).standing())
    if as_json:
        click.echo(found.model_dump_json(indent=2))
        return
    for line in _lines(found):
        click.echo(line)


@grades.command()
@_file
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the dataset; must not be there.")
@_least
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; [storage] counts here."
)
def dataset(file: Path, folders: tuple[str, ...], out: Path, least_graders: int, config_file: Path | None) -> None:
    """Make a labelled dataset for 'scanner train' and 'scanner evaluate' of the graded objects of some runs or surveys."""
    from scanner.grading.labels import label_rows
    from scanner.grading.training_set import graded_rows, write_training_set
    from scanner.survey.published import open_published

    storage = configuration.load(config_file).storage
    store = GradeStore.existing(file)
    places = store.places()
    labels = label_rows(store.standing(), places, least_graders)
    graded = {number: places[number] for number in labels}
    rows = graded_rows(graded, [open_published(folder, storage=storage) for folder in folders])
    record = write_training_set(labels, rows, least_graders, out)
    click.echo(
        f"{out}: {record.n_objects:,} objects, {record.n_lenses:,} of them lenses; left out: {record.n_unclear:,} unclear, "
        f"{record.n_missing:,} that these folders do not have"
    )


def _lines(found: Agreement) -> Iterator[str]:
    yield f"Graded objects: {found.n_objects:,}; by two or more: {found.n_shared:,}"
    for name, number in found.graders.items():
        yield f"  {name}: {number:,}"
    if found.complete is not None:
        yield f"All graders agree on {found.complete:.0%} of the shared ones; Fleiss' kappa {_kappa(found.kappa)}"
    for pair in found.pairs:
        if pair.n:
            yield from _pair(pair)


def _pair(pair: Pair) -> Iterator[str]:
    yield ""
    yield f"{pair.first} and {pair.second}: {pair.n:,} objects, {pair.same:.0%} alike"
    yield f"  Cohen's kappa {_kappa(pair.kappa)}, with linear weights {_kappa(pair.weighted)}"
    yield f"  rows {pair.first}, columns {pair.second}:"
    width = 2 + max(len(str(count)) for row in pair.table for count in row)
    yield "   " + "".join(grade.rjust(width) for grade in GRADES)
    for grade, row in zip(GRADES, pair.table, strict=True):
        yield f"  {grade}" + "".join(str(count).rjust(width) for count in row)


def _kappa(found: Interval | None) -> str:
    return "undefined" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
