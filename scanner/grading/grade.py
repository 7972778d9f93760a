"""The words of grading: grades, who gives them, what they are given to, and one entry of the history."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from scanner.errors import UsageError
from scanner.records import Record

Grade = Literal["A", "B", "C", "X"]
GRADES: tuple[Grade, ...] = get_args(Grade)
#: What a grade says, from the best to the worst; agreement counts how far apart two graders are in this order.
MEANINGS: dict[Grade, str] = {
    "A": "a lens: arcs or counter-images that nothing else explains",
    "B": "probably a lens: better images or a spectrum would settle it",
    "C": "perhaps: there is something, and it can be explained without a lens",
    "X": "no lens",
}
#: Grades that speak for a lens, and against one; the others speak for neither.
FOR_A_LENS, AGAINST_A_LENS = frozenset({"A", "B"}), frozenset({"X"})
#: Probability above which an object is a lens for good, and below which it is none: that of an average object of the sky.
SETTLED_ABOVE, SETTLED_BELOW = 0.95, 1e-4
MAX_COMMENT = 2000
Tag = Literal["arc", "ring", "quad", "spiral", "merger", "artefact"]
#: What a grader saw, or what misled: words that can be counted, beside the comment.
TAGS: tuple[Tag, ...] = get_args(Tag)
#: Name of a grader, and of a token's owner.
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,38}[A-Za-z0-9])?")
#: ``lead``: reads everything, and begins, pauses, resumes and closes campaigns; does not grade.
Role = Literal["read", "grade", "lead"]


@dataclass(frozen=True)
class Viewer:
    """A person at the service, and what they may do; ``name`` is None for an anonymous reader."""

    name: str | None
    role: Role
    is_named_by_token: bool

    @property
    def leads(self) -> bool:
        """Whether they lead campaigns: by a token of that role, or at the service's own machine, where there are none."""
        return self.role == "lead" or (self.role == "grade" and not self.is_named_by_token)


@dataclass(frozen=True)
class Place:
    """A row of a catalogue that can be graded: ``candidate_id`` is ``run/tile_id/target_id``; ``ra``, ``dec`` in degrees."""

    candidate_id: str
    name: str
    ra: float
    dec: float

    @property
    def tile(self) -> str:
        """``run/tile_id/``, which rows of one tile of one run share."""
        return self.candidate_id[: self.candidate_id.rfind("/") + 1]

    @property
    def target_id(self) -> str:
        """The last part of the id."""
        return self.candidate_id.rpartition("/")[2]


class Entry(Record):
    """One line of the history, never changed: a grade with its comment, or the withdrawal of an earlier one.

    ``number`` grows with time. ``object``: what was graded, as the row ``candidate_id``. ``catalogue``: collection and version
    that the grader saw. ``blind``: scores and others' grades were withheld. ``undoes``: the number of the entry that is
    withdrawn; such an entry has no grade.
    """

    number: int
    object: int
    candidate_id: str
    grader: str
    grade: Grade | None
    comment: str = Field(max_length=MAX_COMMENT)
    given: datetime
    catalogue: str
    blind: bool
    undoes: int | None = None
    tags: tuple[Tag, ...] = ()

    @field_validator("tags", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """The file keeps them as one text."""
        return tuple(value.split()) if isinstance(value, str) else value


class NewGrade(Record):
    """A grade that somebody gives; the comment is plain text.

    ``key``: chosen by the sender; a grade sent twice under the same key, because its answer was lost, is kept once.
    ``grader``: who gave it, where it may be sent when somebody else has sat down at the machine.
    """

    grade: Grade
    comment: str = Field("", max_length=MAX_COMMENT)
    tags: tuple[Tag, ...] = Field((), max_length=len(TAGS))
    key: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{8,64}$")
    grader: str | None = Field(None, max_length=40)


def grader_name(text: str) -> str:
    """Check a grader's name, and strip and join its spaces.

    Raises
    ------
    UsageError
        No token could have this name.
    """
    name = " ".join(text.split())
    if not NAME.fullmatch(name):
        raise UsageError(
            "A name has up to 40 of the letters A to Z, digits, spaces and . _ -, the first and last of them a letter or digit."
        )
    return name


def checked_comment(text: str) -> str:
    """A comment without control characters other than the line break, and without space around it.

    Raises
    ------
    UsageError
        It has more than :data:`MAX_COMMENT` characters.
    """
    comment = "".join(letter for letter in text if letter == "\n" or (letter.isprintable() or letter == " ")).strip()
    if len(comment) > MAX_COMMENT:
        raise UsageError(f"A comment has at most {MAX_COMMENT:,} characters, this one {len(comment):,}; shorten it.")
    return comment
