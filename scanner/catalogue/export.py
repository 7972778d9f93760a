"""Tables as FITS, ECSV and VOTable with units, descriptions, UCDs and provenance: candidates, failed tiles, tiles, footprint.

No dates: the same rows give the same bytes. A file is replaced when the new one is complete. Tiles name no folder.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from astropy.io import fits, votable
from astropy.io.votable.tree import CooSys, Info
from astropy.table import Column as AstropyColumn
from astropy.table import Table

from scanner.atomic_file import write_atomically
from scanner.catalogue import columns
from scanner.catalogue.columns import TILE_SCHEMA
from scanner.errors import ContentError
from scanner.records import FailedTile, Float64, Record
from scanner.sphere import unit_vectors

if TYPE_CHECKING:
    from mocpy import MOC

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


#: Cells of 13", which a tile of half a degree fills with 0.4% to spare on all sides.
FOOTPRINT_ORDER = 14

_FOLDERS = re.compile(r"(?<![\w./])(?:[a-z0-9]+:/)?/(?:[^\s/:;,\"'\[\]]+/)*")


@dataclass(frozen=True)
class TileRow:
    """One tile: the columns of ``tiles.parquet`` without the centre, ``files`` as a mapping."""

    tile_id: str
    run: str
    bundle: str
    state: Literal["done", "failed"]
    files: Mapping[str, str]
    reason: str = ""
    s_region: str = ""
    sky_area_deg2: float = 0.0
    n_targets: int = 0
    n_scored: int = 0
    n_candidates: int = 0


def tile_table(rows: Iterable[TileRow]) -> pa.Table:
    """The table of tiles, by run and tile id.

    Raises
    ------
    ContentError
        An outline is no polygon.
    """
    ordered = sorted(rows, key=lambda row: (row.run, row.tile_id))
    return pa.Table.from_pylist([_cells(row) for row in ordered], schema=TILE_SCHEMA)


@dataclass(frozen=True)
class CoveredSky:
    """What the tiles that are done cover: ``footprint``; ``area_deg2`` of good VIS pixels, overlaps counted once."""

    footprint: MOC
    area_deg2: float


def covered_sky(tiles: pa.Table) -> CoveredSky:
    """The sky that the tiles of a table cover, to :data:`FOOTPRINT_ORDER`; empty outlines count for nothing.

    Parameters
    ----------
    tiles
        Of :data:`~scanner.catalogue.columns.TILE_SCHEMA`.

    Raises
    ------
    ContentError
        An outline is no polygon.
    """
    import astropy.units as u
    from mocpy import MOC

    done = [row for row in tiles.select(["state", "s_region", "sky_area_deg2"]).to_pylist() if row["state"] == "done"]
    parts: dict[str, MOC] = {}
    for region in sorted({row["s_region"] for row in done if row["s_region"]}):
        ra, dec = vertices(region)
        parts[region] = MOC.from_polygon(ra * u.deg, dec * u.deg, max_depth=FOOTPRINT_ORDER)
    covered = MOC.new_empty(FOOTPRINT_ORDER)
    area = sum(row["sky_area_deg2"] for row in done)
    if not parts:
        return CoveredSky(covered, area)
    covered = covered.union(*parts.values())
    # Cells at the edges are counted whole in both, and cancel.
    together = sum(parts[row["s_region"]].sky_fraction for row in done if row["s_region"])
    return CoveredSky(covered, round(area * covered.sky_fraction / together, 10))


def vertices(region: str) -> tuple[Float64, Float64]:
    """Right ascension and declination of the corners of ``POLYGON ICRS ra dec …``, each (N,) in degrees.

    Raises
    ------
    ContentError
        It is no such polygon.
    """
    words = region.split()
    try:
        numbers = np.asarray(words[2:], dtype=np.float64)
    except ValueError:
        numbers = np.empty(0)
    if words[:2] != ["POLYGON", "ICRS"] or len(numbers) < 6 or len(numbers) % 2:
        raise ContentError(f"{region!r} is no outline of a tile; it should be 'POLYGON ICRS ra dec ra dec ra dec …'.")
    return numbers[0::2], numbers[1::2]


def _cells(row: TileRow) -> dict[str, Any]:
    ra, dec = _centre(row.s_region)
    names = {role: re.split(r"[/\\]", file)[-1] for role, file in sorted(row.files.items())}
    known = {"ra": ra, "dec": dec, "files": json.dumps(names, ensure_ascii=False), "reason": without_folders(row.reason)}
    # The last digits of an area depend on where in memory its numbers lie.
    return asdict(row) | known | {"sky_area_deg2": round(row.sky_area_deg2, 10)}


def without_folders(text: str) -> str:
    """A message in which only the last names of paths and URLs are left."""
    return _FOLDERS.sub("", text)


def _centre(region: str) -> tuple[float, float]:
    if not region:
        return np.nan, np.nan
    x, y, z = unit_vectors(*vertices(region)).sum(axis=0)
    ra, dec = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, np.hypot(x, y)))
    return round(float(ra) % 360.0, 8) % 360.0, round(float(dec), 8)
