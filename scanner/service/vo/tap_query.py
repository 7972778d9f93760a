"""One TAP query: what a client asks (TAP 1.1, section 2.7), and its answer, piece by piece."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

import pyarrow as pa
import pyarrow.csv

from scanner.query.adql.translate import Translation, answer_from, translate
from scanner.service.collections import Collection
from scanner.service.context import Parameters, is_whole_number
from scanner.service.errors import BadRequestError
from scanner.service.vo import votable
from scanner.service.vo.adql_tables import IVOA, TAP_SCHEMA, TapTable, by_name, collection_tables, field_of, obscore, tap_schema
from scanner.service.vo.datalink import cutout_descriptor, links_descriptor
from scanner.service.vo.votable import DocumentHeading, Encoding, Info, ServiceDescriptor

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
