"""Answers as people read them in a terminal.

In: a table, and the width that there is, if it is limited. Out: lines of text; columns that do not fit are left out and named.
Nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from rich.cells import cell_len

from scanner.catalogue.export import described

#: Digits behind the point, by unit: as many as mean something.
_DECIMALS = {"deg": 6, "arcsec": 2, "mag": 2, "pixel": 1}
_LONGEST_TEXT = 40
_GAP = "  "


def lines(table: pa.Table, width: int | None = None) -> tuple[list[str], list[str]]:
    """Set an answer out in columns.

    Parameters
    ----------
    table
        The answer.
    width
        Letters in a line; None: as many as it needs.

    Returns
    -------
    tuple
        The lines, a heading first, and the names of the columns that had no place.
    """
    columns = [_column(field, values) for field, values in zip(table.schema, table.columns, strict=True)]
    fitting, used = 0, 0
    for column in columns:
        used += cell_len(column[0]) + (len(_GAP) if fitting else 0)
        if width is not None and used > width and fitting:
            break
        fitting += 1
    rows = zip(*columns[:fitting], strict=True)
    return [_GAP.join(row).rstrip() for row in rows], table.column_names[fitting:]


def _column(field: pa.Field, values: pa.ChunkedArray) -> list[str]:
    """Heading and values of a column, padded to one width: numbers to the right, texts to the left."""
    unit = described(field, "unit")
    texts = [f"{field.name} [{unit}]" if unit else field.name, *(_text(value, unit) for value in values.to_pylist())]
    return _padded(texts, to_the_right=pa.types.is_integer(field.type) or pa.types.is_floating(field.type))


def _padded(texts: Sequence[str], *, to_the_right: bool) -> list[str]:
    widest = max(map(cell_len, texts))
    spaces = [" " * (widest - cell_len(text)) for text in texts]
    return [space + text if to_the_right else text + space for space, text in zip(spaces, texts, strict=True)]


def _text(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if not math.isfinite(value):
            return "–" if math.isnan(value) else str(value)
        return f"{value:.{_DECIMALS[unit]}f}" if unit in _DECIMALS else f"{value:.4g}"
    # Nothing that a catalogue holds may steer a terminal.
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
