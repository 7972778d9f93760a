"""Answers as files (FITS, VOTable, ECSV, CSV, Parquet, DS9 regions) and as text for a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from scanner.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from scanner.catalogue.export import TableHeading


@dataclass(frozen=True)
class FileFormat:
    """A format: endings of its files' names, what makes a file of a table; ``is_binary``: a terminal cannot show it.

    The same table gives the same bytes. All but CSV and DS9 carry units, descriptions and UCDs.
    """

    suffixes: tuple[str, ...]
    media_type: str
    write: Callable[[pa.Table, TableHeading], bytes]
    is_binary: bool = False


def format_of(name: str) -> str:
    """The format in :data:`FILE_FORMATS` that a file's name ends in.

    Raises
    ------
    UsageError
        It ends in none of them.
    """
    by_suffix = {suffix: known for known, one in FILE_FORMATS.items() for suffix in one.suffixes}
    suffix = PurePath(name).suffix.lower()
    if suffix not in by_suffix:
        raise UsageError(f"{name}: its name tells no format; give --format, or end it in {', '.join(by_suffix)}.")
    return by_suffix[suffix]


# Libraries of tables take a second to import, which neither --help nor a service that is being started should wait for.
def _fits(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import fits_bytes

    return fits_bytes(table, heading)


def _votable(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import to_astropy, votable_bytes

    return votable_bytes(to_astropy(table), heading)


def _ecsv(table: pa.Table, heading: TableHeading) -> bytes:
    from scanner.catalogue.export import ecsv_bytes, to_astropy

    return ecsv_bytes(to_astropy(table), heading)


def _csv(table: pa.Table, heading: TableHeading) -> bytes:
    """Comma-separated values; what is not known is left empty."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv

    known = [
        pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column for column in table.columns
    ]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(table.column_names, known, strict=True))), buffer)
    return buffer.getvalue()


def _parquet(table: pa.Table, heading: TableHeading) -> bytes:
    import pyarrow.parquet as pq

    facts = {entry.name: entry.value for entry in heading.entries}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), buffer, compression="zstd")
    return buffer.getvalue()


def _ds9(table: pa.Table, heading: TableHeading) -> bytes:
    import pyarrow as pa

    if not {"ra", "dec"} <= set(table.column_names):
        raise UsageError("Regions for DS9 need the columns ra and dec; ask for them too.")
    if not all(pa.types.is_floating(table.schema.field(name).type) for name in ("ra", "dec")):
        raise UsageError("Regions for DS9 need ra and dec in degrees, as numbers; ask for the columns themselves.")
    from scanner.catalogue.export import ds9_bytes

    return ds9_bytes(table)


FILE_FORMATS: dict[str, FileFormat] = {
    "fits": FileFormat((".fits", ".fit"), "application/fits", _fits, is_binary=True),
    "votable": FileFormat((".vot", ".votable", ".xml"), "application/x-votable+xml", _votable),
    "ecsv": FileFormat((".ecsv",), "text/plain; charset=utf-8", _ecsv),
    "csv": FileFormat((".csv",), "text/csv; charset=utf-8", _csv),
    "parquet": FileFormat((".parquet",), "application/vnd.apache.parquet", _parquet, is_binary=True),
    "ds9": FileFormat((".reg",), "text/plain; charset=utf-8", _ds9),
}

#: Digits behind the point, by unit: as many as mean something.
_DECIMALS = {"deg": 6, "arcsec": 2, "mag": 2, "pixel": 1}
_LONGEST_TEXT = 40
_GAP = "  "


def terminal_lines(table: pa.Table, width: int | None = None) -> tuple[list[str], list[str]]:
    """Set a table out in columns.

    Parameters
    ----------
    table
        The answer.
    width
        Letters in a line; None: as many as it needs.

    Returns
    -------
    tuple
        The lines, a heading first, and the names of the columns that did not fit.
    """
    from rich.cells import cell_len

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
    import pyarrow as pa

    from scanner.catalogue.columns import flag_words

    unit = (field.metadata or {}).get(b"unit", b"").decode()
    are_flags = field.name == "flags" and pa.types.is_integer(field.type)
    shown = [", ".join(flag_words(value or 0)) if are_flags else _text(value, unit) for value in values.to_pylist()]
    texts = [f"{field.name} [{unit}]" if unit else field.name, *shown]
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    return _padded(texts, to_the_right=is_number and not are_flags)


def _padded(texts: Sequence[str], *, to_the_right: bool) -> list[str]:
    from rich.cells import cell_len

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
    # Control characters in a catalogue must not reach the terminal.
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
