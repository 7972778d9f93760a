"""Where a page of a list ended, as text that clients hand back unread.

In: the list's order, its last row's value and tie-breaker, and the state of the collection. Out: the text; and the way back.
Refused: text that is none, of another order, or of a collection that has changed since: a list is of one state.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from dataclasses import dataclass

from scanner.service.errors import BadRequestError

#: Longer ones are none of ours.
MAX_LENGTH = 400


@dataclass(frozen=True)
class Cursor:
    """The last row of a page.

    ``value``: of the column that orders the list, None where it is not known. ``tie``: what decides where values are equal.
    """

    value: float | int | None
    tie: int

    def text(self, order: str, state: str) -> str:
        """As text; ``order``: how the list is ordered; ``state``: of the collection."""
        # Digits that give the same number again; JSON knows no NaN.
        value = None if self.value is None or not math.isfinite(self.value) else repr(self.value)
        content = json.dumps([_stamp(order, state), value, str(self.tie)], separators=(",", ":"))
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
            stamp, value, tie = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            cursor = cls(None if value is None else _number(value), int(tie))
        except (binascii.Error, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BadRequestError("after: not the 'next' of a page; begin with the first page.") from None
        if stamp != _stamp(order, state) or not -(2**63) <= cursor.tie < 2**63:
            raise BadRequestError("after: belongs to another order or state of the list; begin with the first page.")
        return cursor


def _number(text: str) -> float | int:
    """A number of 64 bits; those of HEALPix indices are more than a float has."""
    if not text.removeprefix("-").isdigit():
        return float(text)
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def _stamp(order: str, state: str) -> str:
    return hashlib.sha256(f"{order}\0{state}".encode()).hexdigest()[:12]
