"""``scanner grades``: what graders said, as labels, as a labelled dataset, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner import config as configuration
from scanner.errors import UsageError
from scanner.grading.agreement import Agreement, Pair
from scanner.grading.grade import GRADES, SETTLED_ABOVE, SETTLED_BELOW
from scanner.grading.store import GradeStore
from scanner.interval import Interval

if TYPE_CHECKING:
    from scanner.grading.crowd import Crowd

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

_config = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; [storage] counts here."
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
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("folders", nargs=-1)
@click.option(
    "--known",
    type=click.Path(path_type=Path),
    help="Objects whose answer is known (RA, Dec, label): painted or confirmed lenses, and others that are none.",
)
@click.option(
    "--settled-above",
    type=click.FloatRange(0, 1),
    default=SETTLED_ABOVE,
    show_default=True,
    help="Probability from which an object is a lens, and needs no more votes.",
)
@click.option(
    "--settled-below",
    type=click.FloatRange(0, 1),
    default=SETTLED_BELOW,
    show_default=True,
    help="Probability up to which it is none.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what is known of the graders as JSON.")
@_config
def posterior(
    file: Path,
    out: Path,
    folders: tuple[str, ...],
    known: Path | None,
    settled_above: float,
    settled_below: float,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Write OUT, one row a graded object: its probability from the networks and from votes weighted by each grader's skill.

    FOLDERS are the runs or surveys that were graded: the networks' probability comes from there. Skill comes from --known;
    without, all graders count alike.
    """
    from scanner.atomic_file import write_atomically
    from scanner.catalogue.export import TableHeading
    from scanner.grading.crowd import crowd, known_answers
    from scanner.grading.labels import LABEL_FORMATS
    from scanner.grading.training_set import graded_rows
    from scanner.labels.table import read_labels
    from scanner.query.formats import FILE_FORMATS, format_of
    from scanner.survey.published import open_published

    if settled_below >= settled_above:
        raise UsageError("--settled-below must be less than --settled-above.")
    if (format_ := format_of(out.name)) not in LABEL_FORMATS:
        raise UsageError(f"{out}: is no table of grades; end its name in .csv, .ecsv, .fits, .vot or .parquet.")
    storage = configuration.load(config_file).storage
    store = GradeStore.existing(file)
    places = store.places()
    answers = {} if known is None else known_answers(places, read_labels(known).rows)
    if known is not None and not answers:
        raise UsageError(f"{known}: none of its objects has been graded; give the answers of objects that were.")
    rows = graded_rows(places, [open_published(folder, storage=storage) for folder in folders])
    finder = {one.object: float(one.row["p_calibrated"][0].as_py()) for one in rows}
    finder = {number: value for number, value in finder.items() if math.isfinite(value)}
    record, table = crowd(store.standing(), places, finder, answers, settled_above, settled_below)
    heading = TableHeading("graded", "Probabilities of graded objects, from the networks and from votes weighted by skill")
    write_atomically(out, FILE_FORMATS[format_].write(table, heading))
    if as_json:
        click.echo(record.model_dump_json(indent=2))
        return
    for line in _crowd_lines(record):
        click.echo(line)
    click.echo(f"{out}: {record.n_objects:,} graded objects, {len(finder):,} of them with a probability of the networks")


@grades.command()
@_file
@click.argument("folders", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the dataset; must not be there.")
@_least
@_config
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


def _crowd_lines(found: Crowd) -> Iterator[str]:
    for skill in sorted(found.skills, key=lambda one: -one.bits):
        n_known = sum(skill.of_lenses), sum(skill.of_others)
        yield f"{skill.grader}: {skill.n_votes:,} votes of {skill.bits:.2f} bits"
        yield f"  known lenses: {n_known[0]:,}, A or B given to {_share(skill.finds)}"
        yield f"  known others: {n_known[1]:,}, X given to {_share(skill.rejects)}"
        if skill.early is not None and skill.late is not None:
            yield f"  right of the first half {_share(skill.early)}, of the second {_share(skill.late)}"
    if found.reliability:
        yield f"Of {found.n_known:,} known objects, as if they had not been known:"
    for one in found.reliability:
        yield f"  probability {one.low:g} to {one.high:g}: {one.n:,}, mean {one.predicted:.2f}; lenses {_share(one.lenses)}"
    settled = found.settled
    yield (
        f"Settled: {settled['lens']:,} lenses, {settled['other']:,} others; {settled['open']:,} open. "
        f"{found.n_late:,} of {found.n_votes:,} votes came after that"
    )


def _share(found: Interval) -> str:
    return "none" if math.isnan(found.value) else _two_digits(found)


def _two_digits(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


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
    return "undefined" if found is None else _two_digits(found)
