from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scanner.catalogue import columns

Maker = Callable[..., pa.Table]


def make_rows(**given: Any) -> pa.Table:
    """Rows with the values given and plain ones elsewhere; columns that end in "*" stand for all that begin so."""
    n = len(next(iter(given.values())))
    values: dict[str, Any] = {}
    for column in (*columns.SCORE_COLUMNS, columns.RUN_COLUMN, columns.BUNDLE_COLUMN):
        match column.dtype:
            case "string":
                values[column.name] = ["1"] * n
            case "bool":
                values[column.name] = np.zeros(n, bool)
            case "int32" | "int64":
                values[column.name] = np.arange(n)
            case _:
                values[column.name] = np.full(n, 0.25)
    for key, sequence in given.items():
        names = [name for name in values if name.startswith(key[:-1])] if key.endswith("*") else [key]
        for name in names:
            values[name] = sequence
    arrays = [pa.array(values[field.name], type=field.type, from_pandas=False) for field in columns.SOURCE_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=columns.SOURCE_SCHEMA)


@pytest.fixture(name="make_rows", scope="session")
def make_rows_fixture() -> Maker:
    return make_rows


def random_rows(n: int, seed: int = 1, n_tiles: int = 3) -> pa.Table:
    """Rows scattered over half a degree around RA 0."""
    generator = np.random.default_rng(seed)
    grid = generator.random(n).round(2)
    grid[:: max(n // 10, 1)] = np.nan
    return make_rows(
        target_id=generator.permutation(n),
        tile_id=[f"tile-{i}" for i in generator.integers(0, n_tiles, n)],
        ra=(generator.uniform(-0.25, 0.25, n)) % 360.0,
        dec=generator.uniform(-0.25, 0.25, n),
        grid_value=grid,
        p_calibrated=generator.random(n),
        is_candidate=np.nan_to_num(grid) > 0.9,
        magnitude_vis=np.where(generator.random(n) < 0.1, np.nan, generator.uniform(18, 23, n)),
    )


@pytest.fixture(name="random_rows", scope="session")
def random_rows_fixture() -> Maker:
    return random_rows
