"""Tables as FITS, ECSV and VOTable with units, descriptions, UCDs and provenance; the candidate list and the failed tiles.

No dates: the same rows give the same bytes. A file is replaced when the new one is complete.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits, votable
from astropy.io.votable.tree import CooSys, Info
from astropy.table import Column as AstropyColumn
from astropy.table import Table

from scanner.atomic_file import write_atomically
from scanner.catalogue import columns
from scanner.records import FailedTile, Record

_FITS_FORMATS = {"bool": "L", "int32": "J", "int64": "K", "float": "E", "double": "D"}
_NUMPY_TYPES = {"bool": "?", "int32": "i4", "int64": "i8", "float": "f4", "double": "f8", "string": "U"}
#: Keyword and comment of each provenance entry, in FITS headers and VOTable INFO elements.
_PROVENANCE_KEYWORDS: dict[str, tuple[str, str]] = {
    "software": ("CREATOR", "software that made this table"),
    "config_fingerprint": ("CONFIGID", "fingerprint of the run's settings"),
    "bundle": ("BUNDLE", "name and version of the networks' bundle"),
    "bundle_fingerprint": ("BUNDLEID", "SHA-256 of the bundle's manifest"),
}


_DS9_RADIUS_ARCSEC = 2.0
_NO_BRACES = str.maketrans("{}", "()")


class Provenance(Record):
    """Where a candidate list comes from: enough to make it again."""

    software: str
    config_fingerprint: str
    bundle: str
    bundle_fingerprint: str


def write_candidates(table: pa.Table, stem: Path, provenance: Provenance) -> tuple[Path, ...]:
    """Write ``<stem>.fits``, ``<stem>.ecsv``, ``<stem>.vot``, and ``<stem>.reg`` for DS9.

    Parameters
    ----------
    table
        Rows in the order in which they are written.
    stem
        Path without the suffix.
    provenance
        Goes into every header.

    Returns
    -------
    tuple of Path
        The four files.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    paths = tuple(stem.with_name(f"{stem.name}.{suffix}") for suffix in ("fits", "ecsv", "vot", "reg"))
    fits_path, ecsv_path, vot_path, reg_path = paths
    table = table.cast(pa.schema([columns.column(name).field() for name in table.column_names]))
    entries = [
        TableFact(name, keyword, getattr(provenance, name), comment)
        for name, (keyword, comment) in _PROVENANCE_KEYWORDS.items()
    ]
    rows, heading = (
        to_astropy(table),
        TableHeading("candidates", "The best objects by rank; is_candidate: at or above the threshold", tuple(entries)),
    )
    write_atomically(fits_path, fits_bytes(table, heading))
    write_atomically(ecsv_path, ecsv_bytes(rows, heading))
    write_atomically(vot_path, votable_bytes(rows, heading))
    write_atomically(reg_path, ds9_bytes(table))
    return paths


def ds9_bytes(table: pa.Table) -> bytes:
    """The rows as regions for DS9: circles, named where the table has names; candidates green, others yellow."""
    rows = table.select([name for name in ("ra", "dec", "name", "is_candidate") if name in table.column_names]).to_pylist()
    lines = ["# Region file format: DS9 version 4.1", "global color=yellow", "icrs"]
    for row in rows:
        properties = ["color=green"] if row.get("is_candidate") else []
        if row.get("name"):
            properties.append(f"text={{{str(row['name']).translate(_NO_BRACES)}}}")
        comment = f" # {' '.join(properties)}" if properties else ""
        lines.append(f'circle({row["ra"]:.7f},{row["dec"]:.7f},{_DS9_RADIUS_ARCSEC:g}"){comment}')
    return ("\n".join(lines) + "\n").encode()


def write_failed(failed: Sequence[FailedTile], path: Path) -> None:
    """Write ``failed-tiles.ecsv``: one row a tile, by tile id; no rows where all went well.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    ordered = sorted(failed, key=lambda tile: (tile.tile_id, tile.reason))
    tile_ids = AstropyColumn([tile.tile_id for tile in ordered], name="tile_id", dtype="U", description="Tile that failed")
    reasons = AstropyColumn([tile.reason for tile in ordered], name="reason", dtype="U", description="What went wrong")
    write_atomically(path, ecsv_bytes(Table([tile_ids, reasons])))


@dataclass(frozen=True)
class TableFact:
    """One fact about a table: its name in ECSV, its keyword in FITS and VOTable, the fact, and what it is."""

    name: str
    keyword: str
    value: str
    comment: str


@dataclass(frozen=True)
class TableHeading:
    """What stands above a table: its name (a word), what it is, and facts."""

    name: str
    description: str
    entries: tuple[TableFact, ...] = ()


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


def fits_bytes(table: pa.Table, heading: TableHeading) -> bytes:
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


def ecsv_bytes(rows: Table, heading: TableHeading | None = None) -> bytes:
    """An astropy table as ECSV; what the heading tells goes into its ``meta``."""
    if heading is not None:
        rows = rows.copy(copy_data=False)
        rows.meta.update({entry.name: entry.value for entry in heading.entries})
    buffer = io.StringIO()
    rows.write(buffer, format="ascii.ecsv")
    return buffer.getvalue().encode()


def votable_bytes(rows: Table, heading: TableHeading) -> bytes:
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
