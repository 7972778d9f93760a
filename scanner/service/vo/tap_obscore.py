"""``ivoa.obscore``: what can be fetched of the candidates and tiles, as observations.

In: the open collections and the service's root. Out: one row for each candidate, whose access is the DataLink of its cutouts,
and one for each scanned tile, whose mosaics are not served. Refused: nothing.

Source: ObsCore 1.1, https://www.ivoa.net/documents/ObsCore/20170509/, tables 1 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from scanner.catalogue.columns import HEALPIX_COLUMN
from scanner.query.adql.answer import Relation
from scanner.query.adql.tables import TableDescription
from scanner.records import VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Int64
from scanner.service.collections import CANDIDATES, Collection
from scanner.service.collections.identifiers import IDENTIFIER_SQL
from scanner.service.vo.tap_tables import CHARSET, IVOA, TapTable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

OBSCORE = f"{IVOA}.obscore"
_DATALINK = "application/x-votable+xml;content=datalink"
#: From the blue edge of VIS to the red edge of H, in metres (Euclid Collaboration: Mellier et al. 2025, table 1).
_EM_MIN, _EM_MAX = 5.3e-7, 2.02e-6
_BANDS = 4
_SIDE_DEG = VIS_CUTOUT_PIXELS * VIS_PIXEL_SCALE_ARCSEC / 3600


@dataclass(frozen=True)
class _Column:
    """One column of the standard: ``candidates`` and ``tiles`` are SQL of its values there, empty where they are not known."""

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    utype: str
    description: str
    candidates: str = ""
    tiles: str = ""
    xtype: str = ""

    def field(self) -> pa.Field:
        """The column as queries see it."""
        metadata = {
            "unit": self.unit, "ucd": self.ucd, "utype": f"obscore:{self.utype}", "description": self.description,
            "xtype": self.xtype, CHARSET: "ascii",
        }  # fmt: skip
        return pa.field(self.name, self.type, metadata=metadata)


_SQL_TYPES = {pa.string(): "VARCHAR", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float64(): "DOUBLE"}
_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_COLUMNS: tuple[_Column, ...] = (
    _Column("dataproduct_type", _TEXT, "", "meta.code.class", "ObsDataset.dataProductType", "Kind of data",
     "'image'", "'image'"),
    _Column("calib_level", pa.int32(), "", "meta.code;obs.calib", "ObsDataset.calibLevel", "Calibration level, 0 to 4",
     "3", "3"),
    _Column("obs_collection", _TEXT, "", "meta.id", "DataID.collection", "Name of the collection",
     "collection", "collection"),
    _Column("obs_id", _TEXT, "", "meta.id", "DataID.observationID", "Tile that the data are of",
     "run || '/' || tile_id", "run || '/' || tile_id"),
    _Column("obs_publisher_did", _TEXT, "", "meta.ref.ivoid", "Curation.publisherDID", "Id by which DataLink knows the data",
     IDENTIFIER_SQL, "run || '/' || tile_id"),
    _Column("access_url", _TEXT, "", "meta.ref.url", "Access.reference", "Where the data can be had",
     "base_url || '/datalink?ID=' || url_encode(" + IDENTIFIER_SQL + ")", ""),
    _Column("access_format", _TEXT, "", "meta.code.mime", "Access.format", "Media type of what is there",
     f"'{_DATALINK}'", ""),
    _Column("access_estsize", _WHOLE, "kbyte", "phys.size;meta.file", "Access.size", "Estimated size"),
    _Column("target_name", _TEXT, "", "meta.id;src", "Target.name", "Name of the object", "name", ""),
    _Column("s_ra", _REAL, "deg", "pos.eq.ra", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1",
     "Right ascension of the centre (ICRS)", "ra", "ra"),
    _Column("s_dec", _REAL, "deg", "pos.eq.dec", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2",
     "Declination of the centre (ICRS)", "dec", "dec"),
    _Column("s_fov", _REAL, "deg", "phys.angSize;instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent.diameter",
     "Size of the field", f"{_SIDE_DEG!r}", "sqrt(sky_area_deg2)"),
    _Column("s_region", _TEXT, "", "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area", "Outline (STC-S)",
     f"'CIRCLE ICRS ' || ra::VARCHAR || ' ' || dec::VARCHAR || ' {_SIDE_DEG / 2!r}'", "s_region"),
    _Column("s_resolution", _REAL, "arcsec", "pos.angResolution", "Char.SpatialAxis.Resolution.Refval.value",
     "Spatial resolution"),
    _Column("s_xel1", _WHOLE, "", "meta.number", "Char.SpatialAxis.numBins1", "Pixels along the first axis (VIS)",
     f"{VIS_CUTOUT_PIXELS}", ""),
    _Column("s_xel2", _WHOLE, "", "meta.number", "Char.SpatialAxis.numBins2", "Pixels along the second axis (VIS)",
     f"{VIS_CUTOUT_PIXELS}", ""),
    _Column("t_min", _REAL, "d", "time.start;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StartTime", "Start (MJD)"),
    _Column("t_max", _REAL, "d", "time.end;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StopTime", "End (MJD)"),
    _Column("t_exptime", _REAL, "s", "time.duration;obs.exposure", "Char.TimeAxis.Coverage.Support.Extent", "Exposure time"),
    _Column("t_resolution", _REAL, "s", "time.resolution", "Char.TimeAxis.Resolution.Refval.value", "Temporal resolution"),
    _Column("t_xel", _WHOLE, "", "meta.number", "Char.TimeAxis.numBins", "Samples in time"),
    _Column("em_min", _REAL, "m", "em.wl;stat.min", "Char.SpectralAxis.Coverage.Bounds.Limits.LoLimit", "Shortest wavelength",
     f"{_EM_MIN!r}", f"{_EM_MIN!r}"),
    _Column("em_max", _REAL, "m", "em.wl;stat.max", "Char.SpectralAxis.Coverage.Bounds.Limits.HiLimit", "Longest wavelength",
     f"{_EM_MAX!r}", f"{_EM_MAX!r}"),
    _Column("em_res_power", _REAL, "", "spect.resolution", "Char.SpectralAxis.Resolution.ResolPower.refVal", "Resolving power"),
    _Column("em_xel", _WHOLE, "", "meta.number", "Char.SpectralAxis.numBins", "Bands", f"{_BANDS}", f"{_BANDS}"),
    _Column("o_ucd", _TEXT, "", "meta.ucd", "Char.ObservableAxis.ucd", "What a pixel is of",
     "'phot.flux.density'", "'phot.flux.density'"),
    _Column("pol_states", _TEXT, "", "meta.code;phys.polarization", "Char.PolarizationAxis.stateList", "Polarization states"),
    _Column("pol_xel", _WHOLE, "", "meta.number", "Char.PolarizationAxis.numBins", "Polarization states"),
    _Column("facility_name", _TEXT, "", "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name", "Telescope",
     "'Euclid'", "'Euclid'"),
    _Column("instrument_name", _TEXT, "", "meta.id;instr", "Provenance.ObsConfig.Instrument.name", "Instruments",
     "'VIS, NISP'", "'VIS, NISP'"),
)  # fmt: skip


def obscore(collections: Sequence[Collection], base_url: str) -> TapTable:
    """The table; its rows are gathered when it is asked, the candidates of the asked part of the sky only."""

    def relation(ranges: Int64 | None) -> Relation:
        candidates = pa.concat_tables([_candidates(collection, ranges) for collection in collections])
        tiles = pa.concat_tables([_tiles(collection) for collection in collections])
        of_candidates = _selected([column.candidates for column in _COLUMNS], "candidates")
        of_tiles = _selected([column.tiles for column in _COLUMNS], "tiles")
        tables = {"candidates": candidates, "tiles": tiles}
        return Relation(f"{of_candidates} UNION ALL {of_tiles}", (base_url, base_url), tables)

    def database() -> AbstractContextManager[DuckDBPyConnection]:
        return closing(collections[0].catalogue.connection())

    schema = pa.schema([column.field() for column in _COLUMNS])
    about = TableDescription(schema, "Cutouts of the candidates, and the tiles that were scanned", ("s_ra", "s_dec"))
    return TapTable(OBSCORE, about, relation, database, "ivo://ivoa.net/std/ObsCore#core-1.1")


def _selected(values: Sequence[str], rows: str) -> str:
    columns = ", ".join(
        f"({value or 'NULL'})::{_SQL_TYPES[column.type]} AS {column.name}"
        for column, value in zip(_COLUMNS, values, strict=True)
    )
    return f"SELECT {columns} FROM (SELECT *, ?::VARCHAR AS base_url FROM {rows})"


def _candidates(collection: Collection, ranges: Int64 | None) -> pa.Table:
    """What is needed of the candidates in some part of the sky."""
    condition, values = "true", []
    if ranges is not None:
        condition = f"{HEALPIX_COLUMN.name} >= ? AND {HEALPIX_COLUMN.name} < ?"
        values = [int(ranges[0, 0]), int(ranges[-1, 1])] if len(ranges) else [0, 0]
    sql = f"SELECT ?::VARCHAR AS collection, run, tile_id, target_id, name, ra, dec FROM {CANDIDATES} WHERE {condition}"
    return collection.query(sql, [collection.slug, *values])


def _tiles(collection: Collection) -> pa.Table:
    """What is needed of the tiles that were scanned."""
    tiles = collection.tiles
    done = tiles.filter(pc.equal(tiles["state"], "done")).select(["run", "tile_id", "ra", "dec", "s_region", "sky_area_deg2"])
    return done.append_column("collection", pa.repeat(collection.slug, len(done)))
