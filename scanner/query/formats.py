"""Answers as files: FITS, VOTable, ECSV, CSV, Parquet, regions for DS9.

In: a table as :func:`~scanner.query.search.search` and :func:`~scanner.query.sql.run_sql` give it, and what was asked. Out: the
bytes of a file; all but CSV and DS9's carry units, descriptions and UCDs as :mod:`scanner.catalogue.export` says, Parquet
in the metadata of its fields. The same answer gives the same bytes. Refused (:class:`~scanner.errors.UsageError`): names of
files that tell no format; regions of answers without ``ra`` and ``dec``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import PurePath
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from scanner.catalogue.export import Heading, ecsv_bytes, fits_bytes, to_astropy, votable_bytes
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


def file_bytes(table: pa.Table, format_: FileFormat, heading: Heading) -> bytes:
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


def _parquet(table: pa.Table, heading: Heading) -> bytes:
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
