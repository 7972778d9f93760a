"""One TAP query: the tables it may ask, what a client asks (TAP 1.1, section 2.7), and its answer, piece by piece."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.csv

from scanner.catalogue.columns import HEALPIX_COLUMN
from scanner.query.adql.functions import TableDescription
from scanner.query.adql.grammar import RESERVED
from scanner.query.adql.translate import Relation, Translation, answer_from, translate
from scanner.query.catalogue import CANDIDATE_ID_SQL
from scanner.query.processes import ProcessDatabase
from scanner.records import VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Int64
from scanner.service.collections import CANDIDATES, COMPLETENESS, SERVED, TILES, Collection
from scanner.service.context import Parameters, is_whole_number
from scanner.service.errors import BadRequestError
from scanner.service.vo import votable
from scanner.service.vo.datalink import cutout_descriptor, links_descriptor
from scanner.service.vo.votable import LINKS_MEDIA_TYPE, DocumentHeading, Encoding, Field, Info, ServiceDescriptor

#: Schemas of the protocol's own; no collection may be called so.
TAP_SCHEMA, IVOA = "tap_schema", "ivoa"
#: Metadata key of columns whose texts are ASCII.
CHARSET = "charset"
_ASCII_COLUMNS = ("name", "tile_id", "state", "cut", "axis", "axis_2")
_MAIN_IDENTIFIER = "meta.id;meta.main"
_POSITION = ("ra", "dec")
_IDENTIFIER = pa.field(
    "candidate_id",
    pa.string(),
    metadata={"ucd": _MAIN_IDENTIFIER, "description": "Name in this service: run/tile_id/target_id"},
)


@dataclass(frozen=True)
class ForeignKey:
    """A column whose values are those of another table's."""

    column: str
    target_table: str
    target_column: str


@dataclass(frozen=True)
class TapTable:
    """One table: ``name`` with its schema; ``relation``: its rows in some HEALPix ranges; ``database``: what can read them."""

    name: str
    description: TableDescription
    relation: Callable[[Int64 | None], Relation]
    database: ProcessDatabase
    utype: str = ""
    keys: tuple[ForeignKey, ...] = ()

    @property
    def schema(self) -> str:
        """The schema's name."""
        return self.name.partition(".")[0]


def collection_tables(collections: Iterable[Collection]) -> Iterator[tuple[str, Collection, tuple[TapTable, ...]]]:
    """The tables of every collection, with their schema's name."""
    taken = {TAP_SCHEMA, IVOA}
    for collection in collections:
        schema = _schema_name(collection.slug, taken)
        taken.add(schema)
        yield schema, collection, tuple(_tables(schema, collection))


def by_name(tables: Iterable[TapTable], default_schema: str) -> Mapping[str, TapTable]:
    """The tables by the names that a query may call them by."""
    named = {table.name: table for table in tables}
    short = {table.name.partition(".")[2]: table for table in named.values() if table.schema == default_schema}
    return named | short


def described(schema: pa.Schema) -> pa.Schema:
    """Columns of a stored table as TAP offers them: one main identifier, and which texts are ASCII."""
    return pa.schema([_as_offered(field) for field in schema])


def _tables(schema: str, collection: Collection) -> Iterator[TapTable]:
    catalogue = collection.catalogue
    columns = pa.schema([_IDENTIFIER, *described(collection.catalogue.schema)])
    healpix, database = HEALPIX_COLUMN.name, collection.database

    def objects(ranges: Int64 | None) -> Relation:
        source = catalogue.source(ranges)
        sql = f"SELECT {CANDIDATE_ID_SQL} AS candidate_id, * FROM {source.relation.sql} WHERE {source.within.sql}"
        return Relation(sql, (*source.relation.parameters, *source.within.parameters))

    def candidates(_: Int64 | None) -> Relation:
        return Relation(f"SELECT {CANDIDATE_ID_SQL} AS candidate_id, * FROM {CANDIDATES}")

    def tiles(_: Int64 | None) -> Relation:
        return Relation(f"SELECT * FROM {TILES}")

    def completeness(_: Int64 | None) -> Relation:
        return Relation(f"SELECT * FROM {COMPLETENESS}")

    about = TableDescription(columns, f"Every object of {collection.title}, once", _POSITION, healpix)
    yield TapTable(f"{schema}.objects", about, objects, database)
    about = TableDescription(
        columns, f"Lens candidates of {collection.title}: the objects that were decided for", _POSITION, healpix
    )
    yield TapTable(f"{schema}.candidates", about, candidates, database)
    about = TableDescription(described(collection.tiles.schema), f"Tiles of {collection.title}, scanned and failed")
    yield TapTable(f"{schema}.tiles", about, tiles, database)
    if collection.recoveries:
        about = TableDescription(
            described(collection.recoveries[0].completeness.schema),
            f"Share of lenses painted into {collection.title} that it finds, by what they are and where they lie",
        )
        yield TapTable(f"{schema}.completeness", about, completeness, database)


def _as_offered(field: pa.Field) -> pa.Field:
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if metadata.get("ucd") == _MAIN_IDENTIFIER and field.name == "target_id":
        metadata["ucd"] = "meta.id"
    if field.name in _ASCII_COLUMNS:
        metadata[CHARSET] = "ascii"
    return pa.field(field.name, field.type, metadata=metadata)


def _schema_name(slug: str, taken: set[str]) -> str:
    name = re.sub(r"[^a-z0-9_]+", "_", slug.lower()).strip("_")
    if not name[:1].isalpha() or name.upper() in RESERVED:
        name = f"c_{name}"
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


_PRINCIPAL = ("candidate_id", "ra", "dec", "name", "rank", "p_calibrated", "is_candidate", "tile_id", "state", "s_ra", "s_dec")
_DESCRIPTIONS = {
    "schemas": "Schemas of this service",
    "tables": "Tables of this service",
    "columns": "Columns of these tables",
    "keys": "Which tables refer to which",
    "key_columns": "By which columns they do",
}


def _columns(**columns: tuple[pa.DataType, str]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, type_, metadata={"description": said, CHARSET: "ascii"}) for name, (type_, said) in columns.items()]
    )


_TEXT, _NUMBER = pa.string(), pa.int32()
_SCHEMAS: dict[str, pa.Schema] = {
    "schemas": _columns(
        schema_name=(_TEXT, "Name"), utype=(_TEXT, "Utype"), description=(_TEXT, "What it holds"),
        schema_index=(_NUMBER, "Place in lists"),
    ),
    "tables": _columns(
        schema_name=(_TEXT, "Schema"), table_name=(_TEXT, "Name as queries write it"), table_type=(_TEXT, "table or view"),
        utype=(_TEXT, "Utype"), description=(_TEXT, "What it holds"), table_index=(_NUMBER, "Place in lists"),
    ),
    "columns": _columns(
        table_name=(_TEXT, "Table"), column_name=(_TEXT, "Name as queries write it"), utype=(_TEXT, "Utype"),
        ucd=(_TEXT, "UCD"),
        unit=(_TEXT, "Unit"), description=(_TEXT, "What it is"), datatype=(_TEXT, "Type, as in VOTable"),
        arraysize=(_TEXT, "Array size, as in VOTable"), xtype=(_TEXT, "Extended type, as in VOTable"),
        size=(_NUMBER, "Deprecated: length of texts"), principal=(_NUMBER, "1: among the first to look at"),
        indexed=(_NUMBER, "1: conditions on it are fast"), std=(_NUMBER, "1: of a standard"),
        column_index=(_NUMBER, "Place in lists"),
    ),
    "keys": _columns(
        key_id=(_TEXT, "Id"), from_table=(_TEXT, "Table that refers"), target_table=(_TEXT, "Table that is referred to"),
        utype=(_TEXT, "Utype"), description=(_TEXT, "What it means"),
    ),
    "key_columns": _columns(
        key_id=(_TEXT, "Id of the key"), from_column=(_TEXT, "Column that refers"), target_column=(_TEXT, "Column referred to"),
    ),
}  # fmt: skip


_TO_TABLES = f"{TAP_SCHEMA}.tables"
_KEYS = {
    "tables": (ForeignKey("schema_name", f"{TAP_SCHEMA}.schemas", "schema_name"),),
    "columns": (ForeignKey("table_name", _TO_TABLES, "table_name"),),
    "keys": (ForeignKey("from_table", _TO_TABLES, "table_name"), ForeignKey("target_table", _TO_TABLES, "table_name")),
    "key_columns": (ForeignKey("key_id", f"{TAP_SCHEMA}.keys", "key_id"),),
}


def tap_schema(offered: Sequence[TapTable], schemas: Mapping[str, str], database: ProcessDatabase) -> tuple[TapTable, ...]:
    """The five tables.

    Parameters
    ----------
    offered
        All others.
    schemas
        Description of each schema, TAP_SCHEMA included.
    database
        Any: they come with each query.
    """

    @cache
    def contents() -> dict[str, pa.Table]:
        return _contents((*offered, *own), schemas)

    def table(name: str, schema: pa.Schema) -> TapTable:
        def relation(_: Int64 | None) -> Relation:
            return Relation(f"SELECT * FROM told_{name}", tables={f"told_{name}": contents()[name]})

        about = TableDescription(schema, _DESCRIPTIONS[name])
        return TapTable(f"{TAP_SCHEMA}.{name}", about, relation, database, keys=_KEYS.get(name, ()))

    own = tuple(table(name, schema) for name, schema in _SCHEMAS.items())
    return own


def written(name: str) -> str:
    """A column's name as queries write it: in quotes where it needs them."""
    return name if name[:1].isalpha() and name.upper() not in (*RESERVED, "SIZE") else f'"{name}"'


def field_of(column: pa.Field) -> Field:
    """A column as answers describe it."""
    metadata = column.metadata or {}
    return Field.of(column, ascii=metadata.get(CHARSET.encode()) == b"ascii")


def _contents(tables: Sequence[TapTable], schemas: Mapping[str, str]) -> dict[str, pa.Table]:
    rows: dict[str, list[dict[str, Any]]] = {
        "schemas": [
            {"schema_name": name, "description": said, "schema_index": place}
            for place, (name, said) in enumerate(schemas.items(), 1)
        ],
        "tables": [
            {"schema_name": table.schema, "table_name": table.name, "table_type": "table", "utype": table.utype or None,
             "description": table.description.description, "table_index": place}
            for place, table in enumerate(tables, 1)
        ],
        "columns": [row for table in tables for row in _column_rows(table)],
        "keys": [
            {"key_id": _key_id(table, key), "from_table": table.name, "target_table": key.target_table}
            for table in tables
            for key in table.keys
        ],
        "key_columns": [
            {"key_id": _key_id(table, key), "from_column": key.column, "target_column": key.target_column}
            for table in tables
            for key in table.keys
        ],
    }  # fmt: skip
    return {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in _SCHEMAS.items()}


def _key_id(table: TapTable, key: ForeignKey) -> str:
    return f"{table.name}.{key.column}"


def _column_rows(table: TapTable) -> list[dict[str, Any]]:
    about = table.description
    indexed = {about.healpix, *(about.position or ())}
    rows = []
    for place, column in enumerate(about.schema, 1):
        field = field_of(column)
        datatype, arraysize = field.datatype
        rows.append({
            "table_name": table.name, "column_name": written(field.name), "utype": field.utype or None,
            "ucd": field.ucd or None, "unit": field.unit or None, "description": field.description or None,
            "datatype": datatype,
            "arraysize": arraysize or None, "xtype": field.xtype or None, "principal": int(field.name in _PRINCIPAL),
            "indexed": int(column.name in indexed), "std": int(table.schema in (IVOA, TAP_SCHEMA)), "column_index": place,
        })  # fmt: skip
    return rows


OBSCORE = f"{IVOA}.obscore"
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
_STRING, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_COLUMNS: tuple[_Column, ...] = (
    _Column("dataproduct_type", _STRING, "", "meta.code.class", "ObsDataset.dataProductType", "Kind of data",
     "'image'", "'image'"),
    _Column("calib_level", pa.int32(), "", "meta.code;obs.calib", "ObsDataset.calibLevel", "Calibration level, 0 to 4",
     "3", "3"),
    _Column("obs_collection", _STRING, "", "meta.id", "DataID.collection", "Name of the collection",
     "collection", "collection"),
    _Column("obs_id", _STRING, "", "meta.id", "DataID.observationID", "Tile that the data are of",
     "run || '/' || tile_id", "run || '/' || tile_id"),
    _Column("obs_publisher_did", _STRING, "", "meta.ref.ivoid", "Curation.publisherDID", "Id by which DataLink knows the data",
     CANDIDATE_ID_SQL, "run || '/' || tile_id"),
    _Column("access_url", _STRING, "", "meta.ref.url", "Access.reference", "Where the data can be had",
     "base_url || '/datalink?ID=' || url_encode(" + CANDIDATE_ID_SQL + ")", ""),
    _Column("access_format", _STRING, "", "meta.code.mime", "Access.format", "Media type of what is there",
     f"'{LINKS_MEDIA_TYPE}'", ""),
    _Column("access_estsize", _WHOLE, "kbyte", "phys.size;meta.file", "Access.size", "Estimated size"),
    _Column("target_name", _STRING, "", "meta.id;src", "Target.name", "Name of the object", "name", ""),
    _Column("s_ra", _REAL, "deg", "pos.eq.ra", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1",
     "Right ascension of the centre (ICRS)", "ra", "ra"),
    _Column("s_dec", _REAL, "deg", "pos.eq.dec", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2",
     "Declination of the centre (ICRS)", "dec", "dec"),
    _Column("s_fov", _REAL, "deg", "phys.angSize;instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent.diameter",
     "Size of the field", f"{_SIDE_DEG!r}", "sqrt(sky_area_deg2)"),
    _Column("s_region", _STRING, "", "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area", "Outline (STC-S)",
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
    _Column("o_ucd", _STRING, "", "meta.ucd", "Char.ObservableAxis.ucd", "What a pixel is of",
     "'phot.flux.density'", "'phot.flux.density'"),
    _Column("pol_states", _STRING, "", "meta.code;phys.polarization", "Char.PolarizationAxis.stateList", "Polarization states"),
    _Column("pol_xel", _WHOLE, "", "meta.number", "Char.PolarizationAxis.numBins", "Polarization states"),
    _Column("facility_name", _STRING, "", "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name", "Telescope",
     "'Euclid'", "'Euclid'"),
    _Column("instrument_name", _STRING, "", "meta.id;instr", "Provenance.ObsConfig.Instrument.name", "Instruments",
     "'VIS, NISP'", "'VIS, NISP'"),
)  # fmt: skip


def obscore(collections: Sequence[Collection], base_url: str) -> TapTable:
    """The table: candidates of all collections, then their tiles."""
    databases = [collection.database for collection in collections]
    files = databases[0].files
    served = [SERVED]
    if len(collections) > 1:
        served = [f"{SERVED}_{number}" for number in range(len(collections))]
        attached = tuple((name, dict(one.files.attached)[SERVED]) for name, one in zip(served, databases, strict=True))
        files = replace(files, paths=(), attached=attached, state="")

    def relation(ranges: Int64 | None) -> Relation:
        near = "true"
        bounds: tuple[int, ...] = ()
        if ranges is not None:
            near = f"{HEALPIX_COLUMN.name} >= ? AND {HEALPIX_COLUMN.name} < ?"
            bounds = (int(ranges[0, 0]), int(ranges[-1, 1])) if len(ranges) else (0, 0)
        parts, parameters = [], []
        for rows, values, condition, limits in (
            (CANDIDATES, [column.candidates for column in _COLUMNS], near, bounds),
            (TILES, [column.tiles for column in _COLUMNS], "state = 'done'", ()),
        ):
            for name, collection in zip(served, collections, strict=True):
                parts.append(_selected(values, rows.replace(SERVED, name), condition))
                parameters += [base_url, collection.slug, *limits]
        return Relation(" UNION ALL ".join(parts), tuple(parameters))

    schema = pa.schema([column.field() for column in _COLUMNS])
    about = TableDescription(schema, "Cutouts of the candidates, and the tiles that were scanned", ("s_ra", "s_dec"))
    database = ProcessDatabase(files, databases[0].processes)
    return TapTable(OBSCORE, about, relation, database, "ivo://ivoa.net/std/ObsCore#core-1.1")


def _selected(values: Sequence[str], rows: str, condition: str) -> str:
    columns = ", ".join(
        f"({value or 'NULL'})::{_SQL_TYPES[column.type]} AS {column.name}"
        for column, value in zip(_COLUMNS, values, strict=True)
    )
    return f"SELECT {columns} FROM (SELECT *, ?::VARCHAR AS base_url, ?::VARCHAR AS collection FROM {rows} WHERE {condition})"


_REGISTERED = "ivo://ivoa.net/std/TAPRegExt#output-votable-"


@dataclass(frozen=True)
class TapFormat:
    """One format: its media type, short names, how a VOTable's rows are written, what separates values of one that is none."""

    media_type: str
    names: tuple[str, ...]
    identifier: str = ""
    encoding: Encoding = "binary2"
    separator: str = ""


#: The first is that of clients that do not care.
FORMATS: tuple[TapFormat, ...] = (
    TapFormat(votable.MEDIA_TYPE, ("votable", "text/xml", "application/xml", "votable/b2")),
    TapFormat(f"{votable.MEDIA_TYPE};serialization=binary2", (), f"{_REGISTERED}binary2"),
    TapFormat(f"{votable.MEDIA_TYPE};serialization=tabledata", ("votable/td",), f"{_REGISTERED}td", encoding="tabledata"),
    TapFormat("text/csv", ("csv", "text/csv;header=present"), separator=","),
    TapFormat("text/tab-separated-values", ("tsv",), separator="\t"),
)


def format_named(value: str | None) -> TapFormat:
    """The format that RESPONSEFORMAT (or FORMAT) names; None: the first.

    Raises
    ------
    BadRequestError
        There is none of this name.
    """
    if value is None:
        return FORMATS[0]
    wanted = value.lower().replace(" ", "")
    for one in FORMATS:
        if wanted in (one.media_type, *one.names):
            return one
    raise BadRequestError(
        f"RESPONSEFORMAT={value} is not offered; ask for one of {', '.join(one.media_type for one in FORMATS)}."
    )


#: What a job keeps; with the names that TAP 1.0 had for some.
NAMES: tuple[tuple[str, ...], ...] = (
    ("REQUEST",),
    ("LANG",),
    ("QUERY",),
    ("MAXREC",),
    ("RESPONSEFORMAT", "FORMAT"),
)
_LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")
_IDENTIFIERS = ("candidate_id", "obs_publisher_did")


@dataclass(frozen=True)
class TapQuery:
    """A TAP query: ADQL, most rows, and the format of the answer."""

    adql: str
    max_rows: int
    format: TapFormat


def kept(parameters: Parameters) -> dict[str, str]:
    """The parameters of a query, those that were given.

    Raises
    ------
    BadRequestError
        One was given twice, or tables were to be uploaded.
    """
    if parameters.all("UPLOAD"):
        raise BadRequestError("UPLOAD is not supported by this service: it answers queries about its own tables only.")
    values = {names[0]: parameters.one(*names) for names in NAMES}
    return {name: value for name, value in values.items() if value is not None}


def read_query(values: Mapping[str, str], default_rows: int, most_rows: int) -> TapQuery:
    """What is asked.

    Parameters
    ----------
    values
        As :func:`kept` gives them.
    default_rows, most_rows
        Rows where MAXREC is not given, and where it is larger.

    Raises
    ------
    BadRequestError
        Another request than doQuery, another language than ADQL, a MAXREC that is no number of rows, a format that is not
        offered, no query.
    """
    request, language = values.get("REQUEST", "doQuery"), values.get("LANG", _LANGUAGES[0])
    if request.lower() != "doquery":
        raise BadRequestError(f"REQUEST={request} is not known; the only request is doQuery.")
    if language.upper() not in _LANGUAGES:
        raise BadRequestError(f"LANG={language} is not understood; ask in {', '.join(_LANGUAGES)}.")
    if "QUERY" not in values:
        raise BadRequestError("QUERY is missing; give a query in ADQL.")
    limit = values.get("MAXREC", str(default_rows))
    if not is_whole_number(limit, 19):
        raise BadRequestError(f"MAXREC={limit} is no number of rows.")
    return TapQuery(values["QUERY"], min(int(limit), most_rows), format_named(values.get("RESPONSEFORMAT")))


@dataclass(frozen=True)
class _Offer:
    """Description of every schema; every table, each once; and by the names that a query may call them by."""

    schemas: Mapping[str, str]
    tables: tuple[TapTable, ...]
    by_name: Mapping[str, TapTable]


class TapService:
    """What can be asked of some collections, the default one first; ``base_url``: the service's root, no slash behind."""

    def __init__(self, collections: Sequence[Collection], base_url: str) -> None:
        self._collections, self._base_url = tuple(collections), base_url

    @cached_property
    def _offer(self) -> _Offer:
        found = list(collection_tables(self._collections))
        schemas = {schema: collection.title for schema, collection, _ in found}
        schemas |= {IVOA: "Data as the Virtual Observatory's ObsCore describes them", TAP_SCHEMA: "What this service offers"}
        observations = obscore(self._collections, self._base_url)
        offered = (*(table for _, _, tables in found for table in tables), observations)
        tables = (*offered, *tap_schema(offered, schemas, observations.database))
        return _Offer(schemas, tables, by_name(tables, default_schema=found[0][0]))

    @property
    def schemas(self) -> Mapping[str, str]:
        """Description of every schema."""
        return self._offer.schemas

    @property
    def tables(self) -> tuple[TapTable, ...]:
        """Every table, each once."""
        return self._offer.tables

    def answered(self, query: TapQuery, *, reports_errors: bool = True) -> Iterator[bytes]:
        """Answer a query; ``reports_errors``: errors after the first rows are reported in the document, else raised.

        Raises
        ------
        AdqlError
            It cannot be answered.
        OutOfTimeError
            It takes too long.
        """
        tables = self._offer.by_name
        described = {name: table.description for name, table in tables.items()}
        translation = self._collections[0].database.processes.call(translate, query.adql, described)
        rows = _begun(self._rows(tables[translation.table], translation, query.max_rows))
        if query.format.separator:
            return self._csv(translation, rows, query)
        return self._votable(translation, rows, query, reports_errors=reports_errors)

    def _rows(self, table: TapTable, translation: Translation, max_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows, one more than may be shown."""
        files, processes = table.database.files, table.database.processes
        yield from processes.stream(answer_from, files, translation.limited(max_rows + 1), table.relation(translation.ranges))

    def _votable(
        self, translation: Translation, rows: Iterator[pa.RecordBatch], query: TapQuery, *, reports_errors: bool
    ) -> Iterator[bytes]:
        heading = DocumentHeading(
            table=translation.table,
            infos=(Info("QUERY", query.adql), Info("standardID", "ivo://ivoa.net/std/TAP#sync-1.1")),
            services=self._descriptors(translation.columns),
        )
        fields = [field_of(column) for column in translation.columns]
        yield from votable.document(
            fields, rows, heading, encoding=query.format.encoding, max_rows=query.max_rows, reports_errors=reports_errors
        )

    def _csv(self, translation: Translation, rows: Iterator[pa.RecordBatch], query: TapQuery) -> Iterator[bytes]:
        options = pa.csv.WriteOptions(delimiter=query.format.separator)
        left = query.max_rows
        yield _written(translation.columns.empty_table(), options)
        for batch in rows:
            shown = batch.slice(0, left)
            left -= len(shown)
            yield _written(shown, pa.csv.WriteOptions(include_header=False, delimiter=query.format.separator))

    def _descriptors(self, columns: pa.Schema) -> tuple[ServiceDescriptor, ...]:
        """The services that take rows with a candidate's id."""
        named = next((name for name in _IDENTIFIERS if name in columns.names), None)
        return () if named is None else (links_descriptor(self._base_url, named), cutout_descriptor(self._base_url, named))


def _begun(rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, the first fetched now, so that what fails until then is an error and not a part of the answer."""
    return chain(list(islice(rows, 1)), rows)


def _written(rows: pa.Table | pa.RecordBatch, options: pa.csv.WriteOptions) -> bytes:
    stream = io.BytesIO()
    pa.csv.write_csv(rows, stream, options)
    return stream.getvalue()
