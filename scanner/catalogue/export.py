"""The candidate list as FITS, ECSV and VOTable, and the list of failed tiles.

In: a table whose columns are in the registry, and where it comes from. Out: ``candidates.fits`` (binary table; descriptions in
TCOMMn, UCDs in TUCDn, as TOPCAT reads them), ``candidates.ecsv`` and ``candidates.vot`` (VOTable 1.4), each with the same rows,
units, descriptions, UCDs and provenance; ``failed-tiles.ecsv``. No dates: the same rows give the same bytes. A file is replaced
when the new one is complete. Refused: columns that the registry does not know.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.io import fits, votable
from astropy.io.votable.tree import CooSys, Info
from astropy.table import Column as AstropyColumn
from astropy.table import Table

from scanner.atomic_file import write_atomically
from scanner.catalogue import columns
from scanner.records import FailedTile, Record

_FITS_FORMATS: dict[columns.ColumnType, str] = {"bool": "L", "int32": "J", "int64": "K", "float32": "E", "float64": "D"}
_NUMPY_TYPES: dict[columns.ColumnType, str] = {
    "bool": "?", "int32": "i4", "int64": "i8", "float32": "f4", "float64": "f8", "string": "U",
}  # fmt: skip


class Provenance(Record):
    """Where a candidate list comes from: enough to make it again."""

    software: str
    config_fingerprint: str
    bundle: str
    bundle_fingerprint: str


#: Keyword and comment of each provenance entry, in FITS headers and VOTable INFO elements.
_PROVENANCE_KEYWORDS: dict[str, tuple[str, str]] = {
    "software": ("CREATOR", "software that made this table"),
    "config_fingerprint": ("CONFIGID", "fingerprint of the run's settings"),
    "bundle": ("BUNDLE", "name and version of the networks' bundle"),
    "bundle_fingerprint": ("BUNDLEID", "SHA-256 of the bundle's manifest"),
}


def write_candidates(table: pa.Table, stem: Path, provenance: Provenance) -> tuple[Path, Path, Path]:
    """Write ``<stem>.fits``, ``<stem>.ecsv`` and ``<stem>.vot``.

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
        The three files.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    fits_path, ecsv_path, vot_path = (stem.with_name(f"{stem.name}.{suffix}") for suffix in ("fits", "ecsv", "vot"))
    rows = to_astropy(table)
    write_atomically(fits_path, _fits(rows, provenance))
    write_atomically(ecsv_path, _ecsv(rows, provenance))
    write_atomically(vot_path, _votable(rows, provenance))
    return fits_path, ecsv_path, vot_path


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
    write_atomically(path, _ecsv_bytes(Table([tile_ids, reasons])))


def to_astropy(table: pa.Table) -> Table:
    """A table of the registry's columns as an astropy table with units, descriptions and UCDs (``column.meta["ucd"]``).

    Raises
    ------
    KeyError
        A column is not in the registry.
    """
    rows = Table()
    for name in table.column_names:
        column = columns.column(name)
        values = np.asarray(table[name].to_pylist() if column.dtype == "string" else table[name].to_numpy())
        rows[name] = AstropyColumn(
            values.astype(_NUMPY_TYPES[column.dtype]),
            unit=column.unit or None,
            description=column.description,
            meta={"ucd": column.ucd},
        )
    return rows


def _fits(rows: Table, provenance: Provenance) -> bytes:
    fits_columns = []
    for name in rows.colnames:
        registered = columns.column(name)
        values = rows[name].data
        format_ = _FITS_FORMATS.get(registered.dtype) or f"{max(1, values.dtype.itemsize // 4)}A"
        fits_columns.append(fits.Column(name=name, format=format_, unit=registered.unit or None, array=values))
    hdu = fits.BinTableHDU.from_columns(fits_columns, name="CANDIDATES")
    for number, name in enumerate(rows.colnames, start=1):
        registered = columns.column(name)
        hdu.header.set(f"TUCD{number}", registered.ucd, after=f"TFORM{number}")
        hdu.header.set(f"TCOMM{number}", registered.description, after=f"TFORM{number}")
    hdu.header["RADESYS"] = ("ICRS", "frame of ra and dec")
    for field, (keyword, comment) in _PROVENANCE_KEYWORDS.items():
        hdu.header[keyword] = getattr(provenance, field)
        # A value as long as a hash leaves no room for a comment on its card.
        hdu.header.add_comment(f"{keyword}: {comment}")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()


def _ecsv(rows: Table, provenance: Provenance) -> bytes:
    rows = rows.copy(copy_data=False)
    rows.meta.update(provenance.model_dump())
    return _ecsv_bytes(rows)


def _ecsv_bytes(rows: Table) -> bytes:
    buffer = io.StringIO()
    rows.write(buffer, format="ascii.ecsv")
    return buffer.getvalue().encode()


def _votable(rows: Table, provenance: Provenance) -> bytes:
    document = votable.from_table(rows)
    (resource,) = document.resources
    (table,) = resource.tables
    table.name = "candidates"
    table.description = "Strong lens candidates, best first"
    resource.coordinate_systems.append(CooSys(ID="sky", system="ICRS"))
    for field in table.fields:
        if field.name in ("ra", "dec"):
            field.ref = "sky"
    for entry, (keyword, comment) in _PROVENANCE_KEYWORDS.items():
        info = Info(name=keyword, value=getattr(provenance, entry))
        info.content = comment
        resource.infos.append(info)
    buffer = io.BytesIO()
    document.to_xml(buffer, tabledata_format="tabledata")
    return buffer.getvalue()
