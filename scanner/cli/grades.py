"""``scanner grades``: what graders said, as labels, as a labelled dataset, and how far they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from scanner import config as configuration
from scanner.cli.output import WholeSentences, in_sections
from scanner.errors import InputMissingError, UsageError
from scanner.grading.grade import GRADES, SETTLED_ABOVE, SETTLED_BELOW
from scanner.grading.queue import DEFAULT_MIX, REASONS, Mix

if TYPE_CHECKING:
    from scanner.grading.campaign import Campaign, Order
    from scanner.grading.campaign import State as CampaignState
    from scanner.grading.crowd import Agreement, Crowd, Pair
    from scanner.interval import Interval

CREATE_SECTIONS = {
    "Which objects": ("top", "cone", "sql", "names", "control", "order", "weights", "seed"),
    "Who grades, and how": ("graders", "votes", "blind", "until"),
    "Known answers": ("known", "salt", "rate", "feedback"),
}

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


@click.group(cls=WholeSentences)
def grades() -> None:
    """What graders said in the pages of 'scanner serve'."""


@grades.command()
@_file
@click.argument("out", type=click.Path(path_type=Path))
@_least
@click.option(
    "--layout",
    type=click.Choice(["labels", "zooniverse", "slde"]),
    default="labels",
    show_default=True,
    help="zooniverse: a row a vote, as its projects export classifications; slde: as Euclid's experts publish grades.",
)
def export(file: Path, out: Path, least_graders: int, layout: str) -> None:
    """Write OUT, one row a graded object: votes, median grade, proposed label; .csv, .ecsv, .fits, .vot or .parquet.

    The other layouts are CSV; 'scanner grades import' reads zooniverse's, 'scanner labels import --preset' both.
    """
    from scanner.atomic_file import write_atomically
    from scanner.grading.labels import LABEL_FORMATS, LABELS, classifications, expert_grades, label_bytes, label_table
    from scanner.grading.store import GradeStore
    from scanner.query.formats import FILE_FORMATS

    formats = {suffix: name for name in LABEL_FORMATS for suffix in FILE_FORMATS[name].suffixes}
    if layout != "labels":
        store = GradeStore.existing(file)
        content = (
            classifications(store.standing(), store.places()) if layout == "zooniverse" else expert_grades(store, least_graders)
        )
        write_atomically(out, content)
        click.echo(f"{out}: {len(content.splitlines()) - 1:,} rows")
        return
    if out.suffix.lower() not in formats:
        raise UsageError(f"{out}: no known kind of table; end its name with {', '.join(formats)}.")
    store = GradeStore.existing(file)
    table = label_table(store.standing(), store.places(), least_graders)
    write_atomically(out, label_bytes(table, formats[out.suffix.lower()]))
    given = table["label"].to_pylist()
    counts = ", ".join(f"{given.count(label):,} {label}" for label in LABELS)
    click.echo(f"{out}: {len(given):,} graded objects: {counts}")


@grades.command("import")
@_file
@click.argument("classifications", type=click.Path(path_type=Path))
def import_(file: Path, classifications: Path) -> None:
    """Add the votes in CLASSIFICATIONS, which 'scanner grades export --layout zooniverse' wrote; each once."""
    from scanner.grading.labels import import_classifications
    from scanner.grading.store import GradeStore

    found = import_classifications(classifications, GradeStore(file))
    click.echo(f"{file}: {found.n_new:,} of {found.n_votes:,} votes are new")


@grades.command()
@_file
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def agreement(file: Path, as_json: bool) -> None:
    """Say how far graders agree: kappas with 95% intervals, tables of every two."""
    from scanner.grading.crowd import agreement as compare
    from scanner.grading.store import GradeStore

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

    FOLDERS are the runs or surveys that were graded: the networks' probability comes from there. Skill comes from the known
    answers of campaigns and of --known; without any, all graders count alike.
    """
    from scanner.atomic_file import write_atomically
    from scanner.catalogue.export import TableHeading
    from scanner.grading.campaign import Campaigns
    from scanner.grading.crowd import crowd, known_answers
    from scanner.grading.labels import LABEL_FORMATS
    from scanner.grading.store import GradeStore
    from scanner.grading.training_set import finder_probabilities, graded_rows
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
    campaigns = Campaigns(store)
    salted = campaigns.salted_ids()
    on_the_sky = {number: found for number, found in places.items() if found[0].candidate_id not in salted}
    answers = {} if known is None else known_answers(on_the_sky, read_labels(known).rows)
    if known is not None and not answers:
        raise UsageError(f"{known}: none of its objects has been graded; give the answers of objects that were.")
    answers |= campaigns.known_answers()
    rows = graded_rows(on_the_sky, [open_published(folder, storage=storage) for folder in folders])
    finder = finder_probabilities(rows)
    record, table = crowd(store.standing(salted=True), places, finder, answers, settled_above, settled_below)
    table = table.filter([one not in salted for one in table["candidate_id"].to_pylist()])
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
    from scanner.grading.store import GradeStore
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


@grades.group()
def campaign() -> None:
    """Who grades which objects, how often, and with which known answers mixed in; graders find it at /campaigns."""


@campaign.command(cls=in_sections(CREATE_SECTIONS))
@_file
@click.argument("name")
@click.argument("folder")
@click.option("--top", type=click.IntRange(1), help="The best objects by rank.")
@click.option("--cone", metavar="'RA DEC RADIUS'", help="In this part of the sky: '150.1 2.2 1deg'.")
@click.option(
    "--sql", help="What a SELECT over the table objects finds, e.g. 'SELECT * FROM objects WHERE magnitude_vis < 21'."
)
@click.option("--names", type=click.Path(path_type=Path), help="Names or ids in a file, one a line.")
@click.option("--control", type=click.IntRange(0), default=0, help="So many more, drawn from all objects by chance.")
@click.option(
    "--order", type=click.Choice(["given", "random", "queue"]), help="[default: random with --blind or --control, else given]"
)
@click.option(
    "--weights",
    nargs=len(REASONS),
    type=click.FloatRange(0),
    default=DEFAULT_MIX.weights,
    show_default=True,
    metavar="P U D R",
    help="Of --order queue: probable, uncertain, different and random ones.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of chance; keep it from graders [default: drawn].")
@click.option("--grader", "graders", multiple=True, help="Who may take part; may be repeated [default: all graders].")
@click.option("--votes", type=click.IntRange(1, 100), default=3, show_default=True, help="Wanted of each object.")
@click.option("--blind", is_flag=True, help="Close the catalogue to these graders as long as the campaign is open.")
@click.option("--until", type=click.DateTime(), help="Hand nothing out after this time, UTC.")
@click.option("--known", type=click.Path(path_type=Path), help="Known answers (RA, Dec, label) to mix in unseen.")
@click.option(
    "--salt", "salt", multiple=True, help="Run of painted mosaics that --known speaks of, not FOLDER; may be repeated."
)
@click.option("--rate", type=click.FloatRange(0, 0.5), default=0.1, show_default=True, help="Share of known answers.")
@click.option("--feedback", is_flag=True, help="Tell graders the known answer once they have voted.")
@_config
def create(
    file: Path,
    name: str,
    folder: str,
    top: int | None,
    cone: str | None,
    sql: str | None,
    names: Path | None,
    control: int,
    order: Order | None,
    weights: tuple[float, ...],
    seed: int | None,
    graders: tuple[str, ...],
    votes: int,
    blind: bool,
    until: datetime | None,
    known: Path | None,
    salt: tuple[str, ...],
    rate: float,
    feedback: bool,
    config_file: Path | None,
) -> None:
    """Begin the campaign NAME over objects of the run or survey in FOLDER, which 'scanner serve' shows."""
    from scanner.grading.campaign import NewCampaign, begin
    from scanner.grading.store import GradeStore
    from scanner.labels.table import read_labels
    from scanner.survey.published import open_published

    if salt and known is None:
        raise UsageError("--salt names a run, and --known which of its objects are lenses; give both.")
    storage = configuration.load(config_file).storage
    try:
        lines = [] if names is None else names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputMissingError(f"{names}: no list of names that can be read; give a text file with one a line.") from None
    try:
        wanted = NewCampaign(
            name=name,
            graders=graders,
            votes=votes,
            blind=blind,
            rate=rate,
            feedback=feedback,
            until=None if until is None else until.replace(tzinfo=UTC),
            order=order,
            seed=seed,
            top=top,
            cone=cone,
            sql=sql,
            names=None if names is None else tuple(line.strip() for line in lines if line.strip()),
            control=control,
            mix=Mix(**dict(zip(REASONS, weights, strict=True))),
        )
    except ValidationError as error:
        wrong = error.errors()[0]
        remedy = "choose a name of letters, digits and . _ -" if wrong["loc"] == ("name",) else "give other values"
        raise UsageError(f"{name}: {wrong['msg']}; {remedy}.") from None
    answers = [] if known is None else read_labels(known).rows
    painted = [open_published(location, storage=storage) for location in salt]
    click.echo(_campaign_lines(begin(GradeStore(file), open_published(folder, storage=storage), wanted, answers, painted)))


@campaign.command()
@_file
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print all as JSON.")
def status(file: Path, name: str | None, as_json: bool) -> None:
    """Say how far a campaign is, or all of them, and each grader."""
    from scanner.grading.campaign import Campaigns
    from scanner.grading.store import GradeStore

    campaigns = Campaigns(GradeStore.existing(file))
    found = campaigns.all() if name is None else (campaigns.get(name),)
    if as_json:
        click.echo(f"[{','.join(one.model_dump_json(indent=2) for one in found)}]")
        return
    click.echo("\n".join(map(_campaign_lines, found)) or "There is no campaign.")


def _state_command(verb: str, state: CampaignState, does: str) -> None:
    @campaign.command(verb, help=does)
    @_file
    @click.argument("name")
    def command(file: Path, name: str) -> None:
        from scanner.grading.campaign import Campaigns
        from scanner.grading.store import GradeStore

        click.echo(_campaign_lines(Campaigns(GradeStore.existing(file)).set_state(name, state)))


_state_command("pause", "paused", "Hand nothing out for a while; votes on what graders have in hand are kept.")
_state_command("resume", "running", "Hand objects out again.")
_state_command("close", "closed", "End a campaign for good, and open the catalogue to its graders again.")


def _campaign_lines(one: Campaign) -> str:
    plan = one.plan
    state = "over" if one.is_over and one.state == "running" else one.state
    kind = ", blind" if plan.blind else ""
    known = f", {one.n_known:,} known answers at a rate of {plan.rate:g}" if plan.rate else ""
    lines = [
        f"{plan.name}: {state}{kind}; {one.n_done:,} of {one.n_objects:,} objects have {plan.votes} votes{known}",
        f"  {plan.selection}; in {plan.order} order" + (f"; until {plan.until:%Y-%m-%d %H:%M} UTC" if plan.until else ""),
    ]
    for progress in one.graders:
        last = f", last {progress.last:%Y-%m-%d %H:%M}" if progress.last else ""
        of_known = f", {progress.n_known:,} of them on known answers" if plan.rate else ""
        lines.append(f"  {progress.grader}: {progress.n_votes:,} votes{of_known}{last}")
    return "\n".join(lines)


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
        if skill.fresh is not None and skill.tired is not None:
            yield f"  right in the first half hour of a sitting {_share(skill.fresh)}, later {_share(skill.tired)}"
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
