"""From grades to labels, one row an object; and to other software and back: votes as Zooniverse exports them, SLDE's table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from scanner.catalogue.columns import NAME_COLUMN, Column, column
from scanner.errors import ContentError, InputMissingError
from scanner.grading.grade import (
    AGAINST_A_LENS,
    FOR_A_LENS,
    GRADES,
    Entry,
    Grade,
    NewGrade,
    Place,
    checked_comment,
    grader_name,
)
from scanner.grading.store import GradeStore
from scanner.query.formats import FILE_FORMATS

Label = Literal["lens", "other", "unclear"]
LABELS: tuple[Label, ...] = get_args(Label)
#: Formats of label tables, of :data:`scanner.query.formats.FILE_FORMATS`.
LabelFormat = Literal["ecsv", "csv", "fits", "votable", "parquet"]
LABEL_FORMATS: tuple[LabelFormat, ...] = get_args(LabelFormat)
LABEL_COLUMNS: tuple[Column, ...] = (
    Column("candidate_id", "string", "", "Row that was graded last: run/tile_id/target_id", "meta.id;meta.main"),
    NAME_COLUMN,
    column("ra"),
    column("dec"),
    Column("label", "string", "", "lens, other or unclear, by the rule of docs/grading.md", "meta.code.class"),
    Column("grade", "string", "", "Median grade, the worse of two", "meta.code.class"),
    Column("n_graders", "int32", "", "Graders whose grade stands", "meta.number"),
    *(Column(f"votes_{g.lower()}", "int32", "", f"Graders who gave {g}", "meta.number") for g in GRADES),
    Column("n_blind", "int32", "", "Graders who did not see scores or others' grades", "meta.number"),
    Column("graders", "string", "", "Who they are and what each gave, as 'Ann: A; Bob: C'", "meta.note"),
    Column("comments", "string", "", "What they wrote, as 'Ann: an arc; Bob: dust'", "meta.note"),
    Column("tags", "string", "", "What they saw and how many did, as 'arc 2, ring 1'", "meta.note"),
    Column("graded", "string", "", "Time of the last grade, UTC", "time;meta.curation"),
    Column("other_ids", "string", "", "Further rows that were graded as this object", "meta.id"),
)
#: Fewest lenses, and others, that ``scanner train from-grades`` fits to, and fewest that judge what came of it.
FEWEST, FEWEST_JUDGES = 20, 10
LABEL_SCHEMA: pa.Schema = pa.schema([one.field() for one in LABEL_COLUMNS])


def median_grade(grades: Sequence[Grade]) -> Grade:
    """The median of one or more grades; the worse one where it lies between two."""
    return GRADES[sorted(GRADES.index(grade) for grade in grades)[len(grades) // 2]]


def proposed_label(grades: Sequence[Grade], least_graders: int = 1) -> Label:
    """The label that grades speak for, by the module's rule."""
    if least_graders < 1:
        raise ValueError("a label needs a grader")
    if len(grades) < least_graders:
        return "unclear"
    if 2 * sum(grade in FOR_A_LENS for grade in grades) > len(grades):
        return "lens"
    return "other" if 2 * sum(grade in AGAINST_A_LENS for grade in grades) > len(grades) else "unclear"


def label_rows(
    entries: Iterable[Entry], places: Mapping[int, Sequence[Place]], least_graders: int = 1
) -> dict[int, dict[str, Any]]:
    """Label objects.

    The *grade* of an object is the median of its graders' grades in the order A, B, C, X; between two, the worse one. Its
    *label* is ``lens`` where more than half of its graders gave A or B, ``other`` where more than half gave X, and ``unclear``
    otherwise, or where fewer graders than asked for have seen it: such objects are not trained on.

    Parameters
    ----------
    entries
        The grades that stand, at most one of a grader for an object.
    places
        The rows that were graded, by object, the last graded first.
    least_graders
        Objects that fewer graders have seen are unclear.

    Returns
    -------
    dict
        The values of :data:`LABEL_COLUMNS` of each object with a grade, by object.
    """
    by_object: dict[int, list[Entry]] = {}
    for entry in entries:
        by_object.setdefault(entry.object, []).append(entry)
    return {number: _row(places[number], said, least_graders) for number, said in by_object.items()}


def label_table(entries: Iterable[Entry], places: Mapping[int, Sequence[Place]], least_graders: int = 1) -> pa.Table:
    """The same as a table of :data:`LABEL_SCHEMA`, a row an object, by right ascension."""
    table = pa.Table.from_pylist(list(label_rows(entries, places, least_graders).values()), schema=LABEL_SCHEMA)
    return table.take(pa.array(np.argsort(table["ra"].to_numpy(), kind="stable")))


def _row(places: Sequence[Place], said: Sequence[Entry], least_graders: int) -> dict[str, Any]:
    said = sorted(said, key=lambda entry: entry.grader)
    grades = [entry.grade for entry in said if entry.grade is not None]
    place = places[0]
    return {
        "candidate_id": place.candidate_id,
        "name": place.name,
        "ra": place.ra,
        "dec": place.dec,
        "label": proposed_label(grades, least_graders),
        "grade": median_grade(grades),
        "n_graders": len(grades),
        **{f"votes_{grade.lower()}": grades.count(grade) for grade in GRADES},
        "n_blind": sum(entry.blind for entry in said),
        "graders": "; ".join(f"{entry.grader}: {entry.grade}" for entry in said),
        "comments": "; ".join(f"{entry.grader}: {' '.join(entry.comment.split())}" for entry in said if entry.comment),
        "tags": ", ".join(f"{tag} {n}" for tag, n in Counter(tag for entry in said for tag in entry.tags).most_common()),
        "graded": max(entry.given for entry in said).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "other_ids": " ".join(other.candidate_id for other in places[1:]),
    }


def label_bytes(table: pa.Table, format_: LabelFormat) -> bytes:
    """A label table as a file; FITS knows ASCII only, so other letters of comments become question marks there."""
    # astropy's tables would make everybody wait who starts a service.
    from scanner.catalogue.export import TableHeading

    if format_ == "fits":
        place = table.column_names.index("comments")
        plain = [text.encode("ascii", "replace").decode() for text in table["comments"].to_pylist()]
        table = table.set_column(place, table.schema.field(place), pa.array(plain, pa.string()))
    heading = TableHeading("labels", "What graders made of candidates for strong lenses, and the labels that this speaks for")
    return FILE_FORMATS[format_].write(table, heading)


#: What a vote says in the words of Zooniverse's exports: those for a lens begin as such answers do.
ANSWERS: dict[Grade, str] = {"A": "Definite lens", "B": "Probable lens", "C": "Unclear", "X": "No lens"}
TASK = "Is this a lens?"
_FIELDS = (
    "classification_id", "user_name", "workflow_name", "workflow_version", "created_at", "metadata", "annotations",
    "subject_data", "subject_ids",
)  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """``n_votes`` of a file, ``n_new`` of which the grades did not have yet."""

    n_votes: int
    n_new: int


def classifications(entries: Iterable[Entry], places: Mapping[int, Sequence[Place]]) -> bytes:
    """The grades that stand, a vote a row, in the layout of Zooniverse's export of classifications (CSV).

    Grade, comment and tags stand in ``annotations``; the object's id, name and place in ``subject_data``; ``metadata`` says
    whether the grader was blind, and what catalogue the grader saw. :func:`import_classifications` reads it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        if entry.grade is None:
            continue
        place = next(one for one in places[entry.object] if one.candidate_id == entry.candidate_id)
        subject = {"id": place.candidate_id, "name": place.name, "ra": place.ra, "dec": place.dec}
        said: list[dict[str, Any]] = [{"task": "T0", "task_label": TASK, "value": ANSWERS[entry.grade]}]
        said.append({"task": "T1", "task_label": "Comment", "value": {"text": entry.comment, "tags": list(entry.tags)}})
        writer.writerow(
            {
                "classification_id": _key(entry),
                "user_name": entry.grader,
                "workflow_name": "scanner",
                "workflow_version": "1",
                "created_at": entry.given.strftime("%Y-%m-%d %H:%M:%S UTC"),
                "metadata": json.dumps({"blind": entry.blind, "catalogue": entry.catalogue}),
                "annotations": json.dumps(said, ensure_ascii=False),
                "subject_data": json.dumps({str(entry.object): subject}, ensure_ascii=False),
                "subject_ids": str(entry.object),
            }
        )
    return text.getvalue().encode()


def expert_grades(store: GradeStore, least_graders: int = 1) -> bytes:
    """A row a graded object, with the columns of the grade table of Euclid's Strong Lensing Discovery Engine (CSV)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id_str", "right_ascension", "declination", "grade", "expert_votes"])
    rows = label_rows(store.standing(), store.places(), least_graders).values()
    for row in sorted(rows, key=lambda row: (row["ra"], row["candidate_id"])):
        if row["n_graders"] >= least_graders:
            writer.writerow([row["candidate_id"], repr(row["ra"]), repr(row["dec"]), row["grade"], row["n_graders"]])
    return text.getvalue().encode()


def import_classifications(path: Path, store: GradeStore) -> Imported:
    """Add the votes of a file of :func:`classifications`; what was imported before is not added again.

    Times are those of the import, as the history only grows; the file keeps the others. An object is known again by its id, or
    by its place on the sky.

    Raises
    ------
    InputMissingError, ContentError
        There is no such file, or a row of it is no vote of scanner's; nothing is added then.
    """
    votes = list(_votes(path))
    before = {(entry.object, entry.grader): entry.number for entry in store.standing()}
    for place, grader, vote, meta in votes:
        catalogue, blind = str(meta.get("catalogue", "")), bool(meta.get("blind", False))
        store.give(place, grader, vote.grade, vote.comment, tags=vote.tags, catalogue=catalogue, blind=blind, key=vote.key)
    after = {(entry.object, entry.grader): entry.number for entry in store.standing()}
    return Imported(len(votes), sum(number != before.get(who) for who, number in after.items()))


def _votes(path: Path) -> list[tuple[Place, str, NewGrade, dict[str, Any]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    found, grade_of = [], {answer: grade for grade, answer in ANSWERS.items()}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    said, more = json.loads(row["annotations"])
                    ((_, subject),) = json.loads(row["subject_data"]).items()
                    place = Place(str(subject["id"]), str(subject["name"]), float(subject["ra"]), float(subject["dec"]))
                    vote = NewGrade(
                        grade=grade_of[said["value"]],
                        comment=checked_comment(str(more["value"]["text"])),
                        tags=tuple(more["value"]["tags"]),
                        key=row["classification_id"],
                    )
                    found.append((place, grader_name(row["user_name"]), vote, dict(json.loads(row["metadata"]))))
                except (KeyError, ValueError, TypeError, AttributeError):
                    raise ContentError(
                        f"{path}: line {number} is no vote of 'scanner grades export --layout zooniverse'; for other projects "
                        "use 'scanner labels import --preset zooniverse'."
                    ) from None
    except FileNotFoundError:
        raise InputMissingError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ContentError(f"{path}: is no table of classifications ({error}).") from None
    return found


def _key(entry: Entry) -> str:
    """The same for the same vote wherever it is kept, so that it is imported once."""
    said = (entry.candidate_id, entry.grader, entry.grade, entry.comment, " ".join(entry.tags))
    return hashlib.sha256("\n".join(map(str, said)).encode()).hexdigest()[:32]
