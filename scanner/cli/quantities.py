"""Quantities as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever gives a small number."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 tile``, ``2,000 tiles``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
