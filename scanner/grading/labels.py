"""From grades to labels: one row an object, to be read by people and trained on, and its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from scanner.catalogue.columns import NAME_COLUMN, Column, column
from scanner.grading.grade import AGAINST_A_LENS, FOR_A_LENS, GRADES, Entry, Grade, Place
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
