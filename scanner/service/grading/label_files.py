"""Label tables as files.

In: a table of labels and a format. Out: its bytes, with units, descriptions and UCDs of the columns. The same labels give the
same bytes. FITS knows ASCII only: there, other letters of comments become question marks. Nothing is refused.
"""

from __future__ import annotations

from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

LabelFormat = Literal["ecsv", "fits", "votable", "parquet"]
MEDIA_TYPES: dict[LabelFormat, str] = {
    "ecsv": "text/plain; charset=utf-8",
    "fits": "application/fits",
    "votable": "application/x-votable+xml",
    "parquet": "application/vnd.apache.parquet",
}
#: By the ending of a file's name.
ENDINGS: dict[str, LabelFormat] = {".ecsv": "ecsv", ".fits": "fits", ".vot": "votable", ".parquet": "parquet"}
_DESCRIPTION = "What graders made of candidates for strong lenses, and the labels that this speaks for"


def label_bytes(table: pa.Table, format_: LabelFormat) -> bytes:
    """The table as a file of some format."""
    if format_ == "parquet":
        return _parquet(table)
    # astropy's tables would make everybody wait who starts a service.
    from scanner.catalogue.export import Heading, ecsv_bytes, fits_bytes, to_astropy, votable_bytes

    heading = Heading("labels", _DESCRIPTION)
    match format_:
        case "fits":
            return fits_bytes(_plain(table), heading)
        case "ecsv":
            return ecsv_bytes(to_astropy(table), heading)
        case "votable":
            return votable_bytes(to_astropy(table), heading)


def _plain(table: pa.Table) -> pa.Table:
    """The table with comments in ASCII."""
    place = table.column_names.index("comments")
    plain = [text.encode("ascii", "replace").decode() for text in table["comments"].to_pylist()]
    return table.set_column(place, table.schema.field(place), pa.array(plain, pa.string()))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
