"""Tables as FITS, ECSV and VOTable, with what each column's field says of it.

In: a table of booleans, integers, floats and texts without nulls, whose fields may have ``unit``, ``description`` and ``ucd``
in their metadata; a heading. Out: an astropy table, or the bytes of a file: FITS binary table (descriptions in TCOMMn, UCDs in
TUCDn, as TOPCAT reads them), ECSV, VOTable 1.4. The same rows give the same bytes. Refused, as ``KeyError``: columns of other
types.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits, votable
from astropy.io.votable.tree import CooSys, Info
from astropy.table import Column as AstropyColumn
from astropy.table import Table

_FITS_FORMATS = {"bool": "L", "int32": "J", "int64": "K", "float": "E", "double": "D"}
_NUMPY_TYPES = {"bool": "?", "int32": "i4", "int64": "i8", "float": "f4", "double": "f8", "string": "U"}


@dataclass(frozen=True)
class HeadingEntry:
    """One fact about a table: its name in ECSV, its keyword in FITS and VOTable, the fact, and what it is."""

    name: str
    keyword: str
    value: str
    comment: str


@dataclass(frozen=True)
class Heading:
    """What stands above a table: its name (a word), what it is, and facts."""

    name: str
    description: str
    entries: tuple[HeadingEntry, ...] = ()


def described(field: pa.Field, key: Literal["unit", "description", "ucd"]) -> str:
    """What a field's metadata says; empty where it says nothing."""
    return str((field.metadata or {}).get(key.encode(), b"").decode())


def to_astropy(table: pa.Table) -> Table:
    """A table as an astropy table with units, descriptions and UCDs (``column.meta["ucd"]``).

    Raises
    ------
    KeyError
        A column is of another type.
    """
    rows = Table()
    for field in table.schema:
        type_ = str(field.type)
        values = np.asarray(table[field.name].to_pylist() if type_ == "string" else table[field.name].to_numpy())
        ucd = described(field, "ucd")
        rows[field.name] = AstropyColumn(
            values.astype(_NUMPY_TYPES[type_]),
            unit=described(field, "unit") or None,
            description=described(field, "description") or None,
            meta={"ucd": ucd} if ucd else None,
        )
    return rows


def fits_bytes(table: pa.Table, heading: Heading) -> bytes:
    """The table as a FITS file: an empty primary HDU and one binary table."""
    rows = to_astropy(table)
    fits_columns = []
    for field in table.schema:
        values = rows[field.name].data
        if values.dtype.kind == "U":
            # FITS has no other letters.
            values = np.char.encode(values, "ascii", "replace")
        format_ = _FITS_FORMATS.get(str(field.type)) or f"{max(1, values.dtype.itemsize)}A"
        fits_columns.append(fits.Column(name=field.name, format=format_, unit=described(field, "unit") or None, array=values))
    hdu = fits.BinTableHDU.from_columns(fits_columns, name=heading.name.upper())
    for number, field in enumerate(table.schema, start=1):
        for keyword, value in (("TUCD", described(field, "ucd")), ("TCOMM", described(field, "description"))):
            if value:
                hdu.header.set(f"{keyword}{number}", value, after=f"TFORM{number}")
    hdu.header["RADESYS"] = ("ICRS", "frame of ra and dec")
    for entry in heading.entries:
        hdu.header[entry.keyword] = entry.value.encode("ascii", "replace").decode()
        # A value as long as a hash leaves no room for a comment on its card.
        hdu.header.add_comment(f"{entry.keyword}: {entry.comment}")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def ecsv_bytes(rows: Table, heading: Heading | None = None) -> bytes:
    """An astropy table as ECSV; what the heading tells goes into its ``meta``."""
    if heading is not None:
        rows = rows.copy(copy_data=False)
        rows.meta.update({entry.name: entry.value for entry in heading.entries})
    buffer = io.StringIO()
    rows.write(buffer, format="ascii.ecsv")
    return buffer.getvalue().encode()


def votable_bytes(rows: Table, heading: Heading) -> bytes:
    """An astropy table as VOTable 1.4."""
    document = votable.from_table(rows)
    (resource,) = document.resources
    (table,) = resource.tables
    table.name = heading.name
    table.description = heading.description
    resource.coordinate_systems.append(CooSys(ID="sky", system="ICRS"))
    for field in table.fields:
        if field.name in ("ra", "dec"):
            field.ref = "sky"
    for entry in heading.entries:
        info = Info(name=entry.keyword, value=entry.value)
        info.content = entry.comment
        resource.infos.append(info)
    buffer = io.BytesIO()
    document.to_xml(buffer, tabledata_format="tabledata")
    return buffer.getvalue()
