"""What is wrong with a query, and where.

In: a message and a place in the query's text. Out: an :class:`AdqlError` whose message is fit to be read by whoever asked.
Nothing is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from scanner.errors import UsageError


@dataclass(frozen=True, order=True)
class Place:
    """Line and column of a character, both from 1."""

    line: int
    column: int


class AdqlError(UsageError):
    """A query that cannot be answered; ``place`` is where it goes wrong, None where that cannot be said."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(message if place is None else f"line {place.line}, column {place.column}: {message}")
        self.place = place
