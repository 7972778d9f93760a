"""Columns of a dataset's tables, with units and meanings, as Arrow schemas.

In: columns. Out: a schema whose fields carry ``unit`` and ``description`` in their metadata. Nothing is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Column:
    """A column; ``dtype``: Arrow's name of its type. There are no nulls: what does not apply is NaN, zero or False."""

    name: str
    dtype: str
    unit: str
    description: str


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
