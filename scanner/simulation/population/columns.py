"""Columns of truth tables, with units and meanings: as fields of dataclasses, and as Arrow schemas.

In: dataclasses whose fields are made by :func:`column`. Out: :class:`Column`, and schemas whose fields carry ``unit`` and
``description`` in their metadata. Nothing is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

#: Type of a column by the type of its field.
_ARROW_TYPES = {"int": "int64", "bool": "bool", "str": "string", "float": "float32"}


@dataclass(frozen=True)
class Column:
    """A column; ``dtype``: Arrow's name of its type. There are no nulls: what does not apply is NaN, zero or False."""

    name: str
    dtype: str
    unit: str
    description: str


def column(description: str, unit: str = "", default: Any = MISSING) -> Any:
    """A field of a dataclass that is a column of a table."""
    return field(metadata={"description": description, "unit": unit}, default=default)


def nan_column(description: str, unit: str = "") -> Any:
    """A field that is a column, and NaN where nothing else is said."""
    return column(description, unit, default=math.nan)


def part(rows: type, suffix: str = "") -> Any:
    """A field that holds another dataclass of columns: they stand in its place, their names with ``suffix``."""
    return field(metadata={"part": rows, "suffix": suffix})


def columns_of(rows: type) -> tuple[Column, ...]:
    """Columns of a dataclass of rows, those of its parts among them; fields that are made otherwise are none."""
    return tuple(item for _, item in _walk(rows))


def getters_of(rows: type) -> tuple[Callable[[Any], Any], ...]:
    """What takes each of :func:`columns_of` out of a row."""
    return tuple(attrgetter(path) for path, _ in _walk(rows))


def _walk(rows: type, path: str = "", suffix: str = "") -> Iterator[tuple[str, Column]]:
    for item in fields(rows):
        if "part" in item.metadata:
            yield from _walk(item.metadata["part"], f"{path}{item.name}.", suffix + item.metadata["suffix"])
        elif item.metadata:
            text = item.metadata["unit"], item.metadata["description"]
            yield path + item.name, Column(item.name + suffix, _ARROW_TYPES[str(item.type)], *text)


def schema(columns: Sequence[Column]) -> pyarrow.Schema:
    """Schema of a table of these columns."""
    import pyarrow as pa

    return pa.schema(
        pa.field(
            column.name,
            pa.type_for_alias(column.dtype),
            nullable=False,
            metadata={"unit": column.unit, "description": column.description},
        )
        for column in columns
    )
