"""Grades for other software and back: a row a vote, as Zooniverse exports them, or a row an object, as SLDE's table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scanner.errors import ContentError, InputMissingError
from scanner.grading.grade import Entry, Grade, NewGrade, Place, checked_comment, grader_name
from scanner.grading.labels import label_rows
from scanner.grading.store import GradeStore

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
