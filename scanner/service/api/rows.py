"""Rows of a catalogue as JSON: every column, what is not known as null.

In: a :class:`pyarrow.Table` with the catalogue's columns. Out: dictionaries, and their JSON Schema with units and meanings from
the registry of columns. Refused: nothing.

Ids of 64 bits are text, as JavaScript's numbers have 53. Numbers of single precision have as many digits as they mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import WithJsonSchema

from scanner.catalogue.columns import CATALOGUE_COLUMNS, HEALPIX_COLUMN, Column
from scanner.catalogue.tiles import TILE_COLUMNS
from scanner.service.collections import CandidateId

#: Columns whose numbers need all their 64 bits.
TEXT_IDS = frozenset({"target_id", HEALPIX_COLUMN.name})
_TYPES = {
    "bool": "boolean",
    "int32": "integer",
    "int64": "integer",
    "float32": "number",
    "float64": "number",
    "string": "string",
}


def items_of(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON shows them, with their ``id`` where they have what it is made of."""
    columns = {name: _values(name, rows.column(name)) for name in rows.column_names}
    items = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if {"run", "tile_id", "target_id"} <= columns.keys():
        items = [{"id": str(CandidateId.of(item)), **item} for item in items]
    return items


def number(value: float | None) -> float | None:
    """A number as JSON shows it: NaN and infinities are null."""
    return None if value is None or not math.isfinite(value) else value


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if name in TEXT_IDS:
        return [None if value is None else str(value) for value in values]
    if pa.types.is_float32(column.type):
        # The shortest digits that mean this number, not those of its neighbour in double precision.
        return [None if value is None else number(float(str(np.float32(value)))) for value in values]
    if pa.types.is_float64(column.type):
        return [number(value) for value in values]
    return values


def _schema(columns: Sequence[Column], more: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    properties: dict[str, Any] = dict(more)
    for column in columns:
        kind = "string" if column.name in TEXT_IDS else _TYPES[column.dtype]
        described = f"{column.description} [{column.unit}]" if column.unit else column.description
        properties[column.name] = {"type": [kind, "null"], "description": described}
    return {"type": "object", "properties": properties, "required": [*required, *(column.name for column in columns)]}


_ID = {"type": "string", "description": "run/tile_id/target_id: unique wherever objects of several runs meet"}
_GRADE = {"type": ["string", "null"], "description": "The grade that whoever asks has given it"}
_WITHHELD = {"type": "boolean", "description": "Whether its scores are null because grading is blind"}

#: One object.
Item = Annotated[
    dict[str, Any],
    WithJsonSchema(
        _schema(CATALOGUE_COLUMNS, {"id": _ID, "grade": _GRADE, "withheld": _WITHHELD}, ("id", "grade", "withheld"))
    ),
]
#: One object near another one in the embedding.
Neighbour = Annotated[
    dict[str, Any],
    WithJsonSchema(
        _schema(
            CATALOGUE_COLUMNS,
            {
                "id": _ID,
                "grade": _GRADE,
                "withheld": _WITHHELD,
                "distance": {"type": "number", "description": "Distance in the t-SNE map"},
            },
            ("id", "grade", "withheld", "distance"),
        )
    ),
]
#: One tile.
TileItem = Annotated[dict[str, Any], WithJsonSchema(_schema(TILE_COLUMNS, {}, ()))]
