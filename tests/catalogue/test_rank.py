import math
from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from scanner.catalogue import columns, rank

Row = tuple[str, int, float, float, bool, bool]
VALUES = st.one_of(st.just(math.nan), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
ROWS = st.lists(
    st.tuples(st.sampled_from(["10", "9", "a"]), st.integers(-3, 3), VALUES, VALUES, st.booleans(), st.booleans()),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[:2],
)


def compare(a: Row, b: Row) -> int:
    """The rule of the module's docstring, read aloud."""
    for first, second, high_is_better in ((a[5], b[5], True), (a[4], b[4], True), (a[3], b[3], True), (a[2], b[2], True)):
        first, second = float(first), float(second)
        if math.isnan(first) != math.isnan(second):
            return 1 if math.isnan(first) else -1
        if first != second and not math.isnan(first):
            return -1 if (first > second) == high_is_better else 1
    if a[1] != b[1]:
        return -1 if a[1] < b[1] else 1
    return -1 if a[0] < b[0] else 1


def table_of(make_rows: Callable[..., pa.Table], rows: list[Row]) -> pa.Table:
    tile, target, grid, calibrated, candidate, scored = zip(*rows, strict=True)
    return make_rows(
        tile_id=tile,
        target_id=target,
        grid_value=grid,
        p_calibrated=calibrated,
        is_candidate=candidate,
        **{"p_ou*": np.where(scored, 0.5, np.nan)},
    )


@given(data=st.data())
def test_against_a_plain_comparison(make_rows: Callable[..., pa.Table], data: st.DataObject) -> None:
    rows = data.draw(ROWS)
    expected = [row[:2] for row in sorted(rows, key=cmp_to_key(compare))]
    for shuffled in (rows, data.draw(st.permutations(rows))):
        ranked = rank.rank(table_of(make_rows, shuffled))
        assert list(zip(ranked["tile_id"].to_pylist(), ranked["target_id"].to_pylist(), strict=True)) == expected
        assert ranked["rank"].to_pylist() == list(range(1, len(rows) + 1))


def test_without_a_grid_the_probability_ranks(make_rows: Callable[..., pa.Table]) -> None:
    ranked = rank.rank(make_rows(grid_value=[np.nan] * 3, p_calibrated=[0.1, 0.9, 0.5]))
    assert ranked["target_id"].to_pylist() == [1, 2, 0]


def test_what_was_not_scored_comes_last(make_rows: Callable[..., pa.Table]) -> None:
    nothing: dict[str, Any] = {name: [np.nan, 0.2, 0.1] for name in ("grid_value", "p_calibrated", "p_ou*")}
    assert rank.rank(make_rows(target_id=[7, 8, 9], **nothing))["target_id"].to_pylist() == [8, 9, 7]


def test_no_rows() -> None:
    assert rank.rank(columns.empty_table()).column_names[0] == "rank"


def test_text_order_over_chunks() -> None:
    values = pa.chunked_array([["b", "a"], ["c", "a"], []])
    assert rank.text_order(values).tolist() == [1, 0, 2, 0]
