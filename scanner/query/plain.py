"""Tables of a database as tables that every format can hold.

In: a table of any types, with nulls. Out: one of booleans, 32 and 64 bit integers, floats and texts, without nulls, as
catalogues are (:mod:`scanner.catalogue.columns`): what is not known is NaN or an empty text; numbers that may be unknown become
floats, other things (dates, lists, structures) texts. Names that repeat get a number. Nothing is refused.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_KEPT = (pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string())


def plain(table: pa.Table) -> pa.Table:
    """Convert a table; see the module."""
    columns = [_plain(column) for column in table.columns]
    fields = [
        field.with_name(name).with_type(column.type).with_nullable(False)
        for name, field, column in zip(_distinct(table.column_names), table.schema, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind, unknown = column.type, column.null_count > 0
    if pa.types.is_decimal(kind) and kind.scale == 0 and not unknown and _fit_int64(column):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind) or (pa.types.is_integer(kind) and unknown):
        target = kind if kind in _KEPT and pa.types.is_floating(kind) else pa.float64()
        return column.cast(target, safe=False).fill_null(float("nan"))
    if pa.types.is_integer(kind):
        small = kind in (pa.int8(), pa.int16(), pa.uint8(), pa.uint16(), pa.int32())
        return column.cast(pa.int32() if small else pa.int64() if _fit_int64(column) else pa.float64(), safe=False)
    if pa.types.is_null(kind):
        return pa.chunked_array([np.full(len(column), np.nan)], pa.float64())
    if pa.types.is_boolean(kind) and not unknown:
        return column
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string()).fill_null("")
    return pa.chunked_array([["" if value is None else str(value) for value in column.to_pylist()]], pa.string())


def _fit_int64(column: pa.ChunkedArray) -> bool:
    extremes = pc.min_max(column).as_py()
    return len(column) == 0 or (extremes["min"] >= -(2**63) and extremes["max"] < 2**63)


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    taken, distinct = set(names), []
    for name in names:
        seen[name] += 1
        new = name
        while new in taken and seen[name] > 1:
            new = f"{name}_{seen[name]}"
            seen[name] += new in taken
        taken.add(new)
        distinct.append(new)
    return distinct
