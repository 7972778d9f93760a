"""Where a page of a list ended, as text that clients hand back unread.

In: the list's order, its last row's value and name, and the state of the collection. Out: the text; and the way back.
Refused: text that is none, of another order, or of a collection that has changed since: a list is of one state.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from dataclasses import dataclass

from scanner.service.collections import CandidateId
from scanner.service.errors import BadRequestError

#: Longer ones are none of ours: the longest ids of runs and tiles make 400 characters.
MAX_LENGTH = 800


@dataclass(frozen=True)
class Cursor:
    """The last row of a page.

    ``value``: of the column that orders the list, None where it is not known. ``rank``: None in lists that may not tell it.
    ``last``: which row it is.
    """

    value: float | None
    rank: int | None
    last: CandidateId

    def text(self, order: str, state: str) -> str:
        """As text; ``order``: how the list is ordered; ``state``: of the collection."""
        # Digits that give the same number again; JSON knows no NaN.
        value = None if self.value is None or not math.isfinite(self.value) else repr(self.value)
        rank = None if self.rank is None else str(self.rank)
        content = json.dumps([_stamp(order, state), value, rank, str(self.last)], separators=(",", ":"))
        return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, order: str, state: str) -> Cursor:
        """Read it.

        Raises
        ------
        BadRequestError
            It is not one of this list.
        """
        try:
            padded = text + "=" * (-len(text) % 4)
            stamp, value, rank, last = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            cursor = cls(None if value is None else _number(value), None if rank is None else _whole(rank), _row(last))
        except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BadRequestError("after: not the 'next' of a page; begin with the first page.") from None
        if stamp != _stamp(order, state):
            raise BadRequestError("after: belongs to another order or state of the list; begin with the first page.")
        return cursor


def _number(text: str) -> float:
    """A number; HEALPix indices are whole numbers of more bits than a float has."""
    return _whole(text) if text.removeprefix("-").isdigit() else float(text)


def _whole(text: str) -> int:
    """A whole number of 64 bits."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _row(text: str) -> CandidateId:
    """The name of a row."""
    row = CandidateId.parse(text)
    if row is None:
        raise ValueError(text)
    return row


def _stamp(order: str, state: str) -> str:
    return hashlib.sha256(f"{order}\0{state}".encode()).hexdigest()[:12]
