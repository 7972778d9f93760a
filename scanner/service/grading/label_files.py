"""Label tables as files.

In: a table of labels and a format. Out: its bytes, with units, descriptions and UCDs of the columns. The same labels give the
same bytes. FITS knows ASCII only: there, other letters of comments become question marks. Refused (KeyError): other formats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from scanner.catalogue.table_files import Heading, ecsv_bytes, fits_bytes, to_astropy, votable_bytes

LabelFormat = Literal["ecsv", "fits", "votable", "parquet"]
MEDIA_TYPES: dict[LabelFormat, str] = {
    "ecsv": "text/plain; charset=utf-8",
    "fits": "application/fits",
    "votable": "application/x-votable+xml",
    "parquet": "application/vnd.apache.parquet",
}
#: By the ending of a file's name.
ENDINGS: dict[str, LabelFormat] = {".ecsv": "ecsv", ".fits": "fits", ".vot": "votable", ".parquet": "parquet"}
_HEADING = Heading("labels", "What graders made of candidates for strong lenses, and the labels that this speaks for")


def label_bytes(table: pa.Table, format_: LabelFormat) -> bytes:
    """The table as a file of some format."""
    return _WRITERS[format_](table)


def _fits(table: pa.Table) -> bytes:
    place = table.column_names.index("comments")
    plain = [text.encode("ascii", "replace").decode() for text in table["comments"].to_pylist()]
    return fits_bytes(table.set_column(place, table.schema.field(place), pa.array(plain, pa.string())), _HEADING)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


_WRITERS: dict[LabelFormat, Callable[[pa.Table], bytes]] = {
    "ecsv": lambda table: ecsv_bytes(to_astropy(table), _HEADING),
    "fits": _fits,
    "votable": lambda table: votable_bytes(to_astropy(table), _HEADING),
    "parquet": _parquet,
}
