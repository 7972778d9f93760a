"""The tables of a TAP service as they stand, and answers to queries about them.

In: the open collections, the service's root. Out: a :class:`TapService` that answers one :class:`TapQuery` after another, piece
by piece. Refused: queries that :mod:`scanner.query.adql` refuses (:class:`~scanner.query.adql.AdqlError`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice

import pyarrow as pa
import pyarrow.csv

from scanner.query.adql.answer import answer
from scanner.query.adql.translate import Translation, translate
from scanner.service.collections import Collection
from scanner.service.vo import votable
from scanner.service.vo.descriptors import cutout_descriptor, links_descriptor
from scanner.service.vo.tap_formats import Format
from scanner.service.vo.tap_obscore import obscore
from scanner.service.vo.tap_schema import field_of, tap_schema
from scanner.service.vo.tap_tables import IVOA, TAP_SCHEMA, TapTable, by_name, collection_tables
from scanner.service.vo.votable import Heading, Info, ServiceDescriptor

_IDENTIFIERS = ("candidate_id", "obs_publisher_did")


@dataclass(frozen=True)
class TapQuery:
    """What is asked: ADQL, most rows, and how they are written."""

    adql: str
    max_rows: int
    format: Format


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

    def answered(self, query: TapQuery, *, tells_errors: bool = True) -> Iterator[bytes]:
        """Answer a query; ``tells_errors``: errors after the first rows are told in the document, else raised.

        Raises
        ------
        AdqlError
            It cannot be answered.
        OutOfTimeError
            It takes too long.
        """
        tables = self._offer.by_name
        translation = translate(query.adql, {name: table.description for name, table in tables.items()})
        rows = _begun(self._rows(tables[translation.table], translation, query.max_rows))
        if query.format.separator:
            return self._csv(translation, rows, query)
        return self._votable(translation, rows, query, tells_errors=tells_errors)

    def _rows(self, table: TapTable, translation: Translation, max_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows, one more than may be shown."""
        with table.database() as connection:
            yield from answer(connection, translation.limited(max_rows + 1), table.relation(translation.ranges))

    def _votable(
        self, translation: Translation, rows: Iterator[pa.RecordBatch], query: TapQuery, *, tells_errors: bool
    ) -> Iterator[bytes]:
        heading = Heading(
            table=translation.table,
            infos=(Info("QUERY", query.adql), Info("standardID", "ivo://ivoa.net/std/TAP#sync-1.1")),
            services=self._descriptors(translation.columns),
        )
        fields = [field_of(column) for column in translation.columns]
        yield from votable.document(
            fields, rows, heading, encoding=query.format.encoding, max_rows=query.max_rows, tells_errors=tells_errors
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
    """The same rows, the first of them at hand: what goes wrong until then is said as an error, not within the answer."""
    return chain(list(islice(rows, 1)), rows)


def _written(rows: pa.Table | pa.RecordBatch, options: pa.csv.WriteOptions) -> bytes:
    stream = io.BytesIO()
    pa.csv.write_csv(rows, stream, options)
    return stream.getvalue()
