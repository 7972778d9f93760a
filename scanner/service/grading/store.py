"""Grades, as they were given and as they stand.

In: grades of named graders for rows of catalogues. Out: :class:`~scanner.service.grading.grade.Entry`: the history of an
object, the grades that stand. An entry is never changed: a grader who thinks again gives another grade, and taking a grade back
is an entry too, after which the grader's grade before it stands. Refused: see :mod:`scanner.service.grading.database`.

Any number of threads and processes may use one file; every call opens it for itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from scanner.errors import InputMissingError, UsageError
from scanner.service.grading.database import reading, writing
from scanner.service.grading.grade import Entry, Grade, Place, checked_comment, grader_name
from scanner.service.grading.same_object import object_of

_FIELDS = tuple(Entry.model_fields)
_COLUMNS = ", ".join(_FIELDS)
_OF_OBJECT = "AND object = ?"
_OF_GRADER = "AND object = ? AND grader = ?"


def _standing(condition: str = "") -> str:
    """The grades that stand: the last of each grader for each object that was not taken back.

    SQLite takes the other columns of a group from the row that ``max`` chose.
    """
    others = ", ".join(_FIELDS[1:])
    taken_back = "SELECT 1 FROM entries AS later WHERE later.undoes = entry.number"
    return (
        f"SELECT max(number) AS number, {others} FROM entries AS entry"
        f" WHERE undoes IS NULL AND NOT EXISTS ({taken_back}) {condition} GROUP BY object, grader"
    )


class GradeStore:
    """The grades in one SQLite file, which is made when the first is given.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ContentError, OutputError, UnavailableError
        See :mod:`scanner.service.grading.database`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with reading(self.path):
            pass

    @classmethod
    def existing(cls, path: str | Path) -> GradeStore:
        """Open a file that must be there.

        Raises
        ------
        InputMissingError
            It is not.
        """
        if not Path(path).is_file():
            raise InputMissingError(f"{path}: no such file of grades; give the one that 'scanner serve' writes.")
        return cls(path)

    def give(
        self, place: Place, grader: str, grade: Grade, comment: str = "", *, catalogue: str = "", blind: bool = False
    ) -> Entry:
        """Add a grade; it takes the place of the grader's earlier one of the same object, which stays in the history.

        Parameters
        ----------
        place
            The row that was looked at.
        grader, grade, comment
            Who says what of it; the comment is text, whatever it looks like.
        catalogue
            Collection and version that the grader saw.
        blind
            Whether scores and others' grades are withheld from those who have not graded; recorded for first grades only.

        Raises
        ------
        UsageError
            The name or comment is refused.
        """
        name, text = grader_name(grader), checked_comment(comment)
        with writing(self.path) as opened:
            number = object_of(place, opened)
            if number is None:
                number = opened.execute("INSERT INTO objects (ra, dec) VALUES (?, ?)", (place.ra, place.dec)).lastrowid
            opened.execute(
                "INSERT INTO sightings VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (place.candidate_id, number, place.name, place.ra, place.dec),
            )
            # Who has said something of it once has seen all there is to see.
            unseen = opened.execute("SELECT NOT EXISTS (SELECT 1 FROM entries WHERE object = ? AND grader = ?)", (number, name))
            blind = blind and bool(unseen.fetchone()[0])
            return _append(opened, (number, place.candidate_id, name, grade, text, catalogue, blind, None))

    def undo(self, place: Place, grader: str, *, catalogue: str = "") -> Entry:
        """Take a grader's grade of an object back; the one before it stands again, if there was one.

        Raises
        ------
        UsageError
            No grade of this grader stands.
        """
        with writing(self.path) as opened:
            number = object_of(place, opened)
            last = next(_entries(opened.execute(_standing(_OF_GRADER), (number, grader))), None)
            if last is None:
                raise UsageError(f"{grader} has no grade of {place.candidate_id} that could be taken back.")
            return _append(opened, (number, last.candidate_id, grader, None, "", catalogue, False, last.number))

    def history(self, place: Place) -> tuple[Entry, ...]:
        """Everything that was said of the object that a row stands for, oldest first."""
        with reading(self.path) as opened:
            found = opened.execute(
                f"SELECT {_COLUMNS} FROM entries WHERE object = ? ORDER BY number", (object_of(place, opened),)
            )
            return tuple(_entries(found))

    def standing(self) -> tuple[Entry, ...]:
        """The grade of each grader for each object that was neither taken back nor given anew, by object and grader."""
        with reading(self.path) as opened:
            return tuple(_entries(opened.execute(_standing())))

    def standing_of(self, place: Place) -> tuple[Entry, ...]:
        """The grades that stand of the object that a row stands for, by grader."""
        with reading(self.path) as opened:
            return tuple(_entries(opened.execute(_standing(_OF_OBJECT), (object_of(place, opened),))))

    def grades_of(self, grader: str, places: Iterable[Place]) -> Mapping[str, Grade]:
        """The grades of one grader that stand for some rows, by ``candidate_id``; rows without one are left out."""
        with reading(self.path) as opened:
            found: dict[str, Grade] = {}
            for place in places:
                number = object_of(place, opened)
                for entry in _entries(opened.execute(_standing(_OF_GRADER), (number, grader))):
                    if entry.grade is not None:
                        found[place.candidate_id] = entry.grade
            return found

    def places(self) -> Mapping[int, tuple[Place, ...]]:
        """The rows that were graded, by object; the last graded first."""
        with reading(self.path) as opened:
            rows = opened.execute(
                "SELECT object, candidate_id, name, ra, dec FROM sightings"
                " JOIN (SELECT candidate_id, max(number) AS last FROM entries GROUP BY candidate_id) USING (candidate_id)"
                " ORDER BY object, last DESC"
            )
            found: dict[int, tuple[Place, ...]] = {}
            for number, *values in rows:
                found[number] = (*found.get(number, ()), Place(*values))
            return found


def _append(opened: sqlite3.Connection, values: Sequence[object]) -> Entry:
    object_, candidate_id, grader, grade, comment, catalogue, blind, undoes = values
    given = datetime.now(UTC).isoformat(timespec="milliseconds")
    row = (object_, candidate_id, grader, grade, comment, given, catalogue, blind, undoes)
    marks = ", ".join("?" * len(row))
    number = opened.execute(f"INSERT INTO entries ({', '.join(_FIELDS[1:])}) VALUES ({marks})", row).lastrowid
    return next(_entries(opened.execute(f"SELECT {_COLUMNS} FROM entries WHERE number = ?", (number,))))


def _entries(rows: Iterable[Sequence[object]]) -> Iterator[Entry]:
    for row in rows:
        yield Entry.model_validate(dict(zip(_FIELDS, row, strict=True)))
