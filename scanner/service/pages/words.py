"""What the pages' scripts need of the registry of columns: names of the members and meanings of the flags.

In: nothing. Out: a :class:`Words`, which a page carries as JSON. Refused: nothing.
"""

from __future__ import annotations

from scanner.catalogue.columns import MEMBER_COLUMNS
from scanner.records import MEMBERS, Record
from scanner.report.card import FLAG_WORDS, member_kind, member_title


class MemberWords(Record):
    """One member: the ``column`` of its probability, its ``name``, what it sees (``title``), its colour (``kind``)."""

    column: str
    name: str
    title: str
    kind: str


class FlagWords(Record):
    """One flag: its ``bit``, a word, a sentence."""

    bit: int
    word: str
    explanation: str


class Words(Record):
    """All of them."""

    members: tuple[MemberWords, ...]
    flags: tuple[FlagWords, ...]


def words() -> Words:
    """The registry's words."""
    members = tuple(
        MemberWords(column=column.name, name=member, title=member_title(member), kind=member_kind(member))
        for member, column in zip(MEMBERS, MEMBER_COLUMNS, strict=True)
    )
    flags = tuple(FlagWords(bit=flag.value, word=word, explanation=text) for flag, (word, text) in FLAG_WORDS.items())
    return Words(members=members, flags=flags)
