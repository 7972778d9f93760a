"""The candidate list as FITS, ECSV and VOTable, and the list of failed tiles.

In: a table whose columns are in the registry, and where it comes from. Out: ``candidates.fits`` (binary table; descriptions in
TCOMMn, UCDs in TUCDn, as TOPCAT reads them), ``candidates.ecsv`` and ``candidates.vot`` (VOTable 1.4), each with the same rows,
units, descriptions, UCDs and provenance; ``failed-tiles.ecsv``. No dates: the same rows give the same bytes. A file is replaced
when the new one is complete. Refused: columns that the registry does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
from astropy.table import Column as AstropyColumn
from astropy.table import Table

from scanner.atomic_file import write_atomically
from scanner.catalogue import columns
from scanner.catalogue.table_files import Heading, HeadingEntry, ecsv_bytes, fits_bytes, to_astropy, votable_bytes
from scanner.records import FailedTile, Record


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
    table = table.cast(pa.schema([columns.column(name).field() for name in table.column_names]))
    entries = [
        HeadingEntry(name, keyword, getattr(provenance, name), comment)
        for name, (keyword, comment) in _PROVENANCE_KEYWORDS.items()
    ]
    rows, heading = to_astropy(table), Heading("candidates", "Strong lens candidates, best first", tuple(entries))
    write_atomically(fits_path, fits_bytes(table, heading))
    write_atomically(ecsv_path, ecsv_bytes(rows, heading))
    write_atomically(vot_path, votable_bytes(rows, heading))
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
    write_atomically(path, ecsv_bytes(Table([tile_ids, reasons])))
