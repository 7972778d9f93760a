"""Answers as files (FITS, VOTable, ECSV, CSV, Parquet, DS9 regions) and as text for a terminal."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from rich.cells import cell_len

from scanner.catalogue.export import (
    TableHeading,
    described,
    ecsv_bytes,
    fits_bytes,
    to_astropy,
    votable_bytes,
)
from scanner.errors import UsageError

FileFormat = Literal["fits", "votable", "ecsv", "csv", "parquet", "ds9"]
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
#: Formats that a terminal cannot show.
BINARY_FORMATS = frozenset({"fits", "parquet"})
_SUFFIXES: dict[str, FileFormat] = {
    ".fits": "fits", ".fit": "fits", ".vot": "votable", ".votable": "votable", ".xml": "votable", ".ecsv": "ecsv",
    ".csv": "csv", ".parquet": "parquet", ".reg": "ds9",
}  # fmt: skip
_DS9_RADIUS_ARCSEC = 2.0
_NO_BRACES = str.maketrans("{}", "()")


def format_of(name: str) -> FileFormat:
    """The format that a file's name tells.

    Raises
    ------
    UsageError
        It tells none.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise UsageError(f"{name}: its name tells no format; give --format, or end it in {', '.join(_SUFFIXES)}.")
    return _SUFFIXES[suffix]


def file_bytes(table: pa.Table, format_: FileFormat, heading: TableHeading) -> bytes:
    """An answer as a file.

    Raises
    ------
    UsageError
        The format needs columns that the answer has not.
    """
    writers: dict[FileFormat, Callable[[], bytes]] = {
        "fits": lambda: fits_bytes(table, heading),
        "votable": lambda: votable_bytes(to_astropy(table), heading),
        "ecsv": lambda: ecsv_bytes(to_astropy(table), heading),
        "csv": lambda: _csv(table),
        "parquet": lambda: _parquet(table, heading),
        "ds9": lambda: _ds9(table),
    }
    return writers[format_]()


def _csv(table: pa.Table) -> bytes:
    """Comma-separated values; what is not known is left empty."""
    known = [
        pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column for column in table.columns
    ]
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(dict(zip(table.column_names, known, strict=True))), buffer)
    return buffer.getvalue()


def _parquet(table: pa.Table, heading: TableHeading) -> bytes:
    facts = {entry.name: entry.value for entry in heading.entries}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), buffer, compression="zstd")
    return buffer.getvalue()


def _ds9(table: pa.Table) -> bytes:
    """Circles, named where the answer has names; candidates green, others yellow."""
    if not {"ra", "dec"} <= set(table.column_names):
        raise UsageError("Regions for DS9 need the columns ra and dec; ask for them too.")
    if not all(pa.types.is_floating(table.schema.field(name).type) for name in ("ra", "dec")):
        raise UsageError("Regions for DS9 need ra and dec in degrees, as numbers; ask for the columns themselves.")
    rows = table.select([name for name in ("ra", "dec", "name", "is_candidate") if name in table.column_names]).to_pylist()
    lines = ["# Region file format: DS9 version 4.1", "global color=yellow", "icrs"]
    for row in rows:
        properties = ["color=green"] if row.get("is_candidate") else []
        if row.get("name"):
            properties.append(f"text={{{str(row['name']).translate(_NO_BRACES)}}}")
        comment = f" # {' '.join(properties)}" if properties else ""
        lines.append(f'circle({row["ra"]:.7f},{row["dec"]:.7f},{_DS9_RADIUS_ARCSEC:g}"){comment}')
    return ("\n".join(lines) + "\n").encode()


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
