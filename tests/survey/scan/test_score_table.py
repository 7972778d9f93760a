import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.catalogue import columns
from scanner.survey.scan.output import ROW_GROUP_ROWS, ScoreTableWriter, kept_fraction, kept_rows


def rows(n):
    """Rows of a score table; the numbers do not matter, but repeat and vary as real ones do."""
    random = np.random.default_rng(n)
    made = {}
    for field in columns.SCORE_SCHEMA:
        if pa.types.is_string(field.type):
            made[field.name] = pa.array(["900000001"] * n)
        else:
            made[field.name] = pa.array(random.integers(0, 50, n)).cast(field.type, safe=False)
    return pa.Table.from_pydict(made, schema=columns.SCORE_SCHEMA)


def written(table, sizes, folder, row_group_rows):
    path, start = folder / "scores.parquet", 0
    with ScoreTableWriter(path, row_group_rows) as writer:
        for size in sizes:
            writer.append(table.slice(start, size))
            start += size
        writer.append(table.slice(start))
    return path


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 150), max_size=12))
def test_bytes_do_not_depend_on_the_batches(tmp_path_factory, sizes):
    table, folder = rows(500), tmp_path_factory.mktemp("table")
    path = written(table, sizes, folder, 100)
    content = path.read_bytes()
    assert pq.read_table(path).equals(table)
    assert content == written(table, [], folder, 100).read_bytes()


@pytest.mark.parametrize("n", [0, 1, 99, 100, 101, 250])
def test_row_groups_are_full_but_for_the_last(tmp_path, n):
    path = written(rows(n), [n // 3, n // 2], tmp_path, 100)
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(index).num_rows for index in range(groups.num_row_groups)] == [100] * (n // 100) + [n % 100] * (
        n % 100 > 0
    )
    assert pq.read_schema(path).equals(columns.SCORE_SCHEMA, check_metadata=True)


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Ten full row groups in small batches: what Arrow holds stays that of a group or two."""
    table = rows(1024)
    with ScoreTableWriter(tmp_path / "scores.parquet") as writer:
        for _ in range(2 * ROW_GROUP_ROWS // 1024):
            writer.append(table)
        before = pa.total_allocated_bytes()
        for _ in range(8 * ROW_GROUP_ROWS // 1024):
            writer.append(table)
        assert pa.total_allocated_bytes() - before < ROW_GROUP_ROWS * table.nbytes / 1024
    assert pq.read_metadata(tmp_path / "scores.parquet").num_row_groups == 10


IDS = np.arange(-50_000, 50_000, dtype=np.int64)
NONE = np.zeros(len(IDS), bool)


@pytest.mark.parametrize(("keep", "expected"), [("all", 1.0), ("none", 0.0), ("sample:0.1", 0.1), ("sample:0.75", 0.75)])
def test_share_of_consecutive_ids(keep, expected):
    assert kept_rows(keep, IDS, NONE).mean() == pytest.approx(expected, abs=0.005)
    assert kept_fraction(keep) == expected


def test_a_sample_is_nested_and_holds_the_candidates():
    candidates = IDS % 1000 == 0
    small, large = kept_rows("sample:0.1", IDS, candidates), kept_rows("sample:0.2", IDS, candidates)
    assert (small <= large).all()
    assert small[candidates].all()


def test_candidates_only():
    candidates = IDS % 7 == 0
    np.testing.assert_array_equal(kept_rows("candidates", IDS, candidates), candidates)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1, max_size=50), st.randoms())
def test_a_sample_does_not_depend_on_the_order(ids, random):
    shuffled = ids.copy()
    random.shuffle(shuffled)
    chosen = {i for i, kept in zip(ids, kept_rows("sample:0.5", np.array(ids), np.zeros(len(ids), bool)), strict=True) if kept}
    again = {
        i
        for i, kept in zip(shuffled, kept_rows("sample:0.5", np.array(shuffled), np.zeros(len(ids), bool)), strict=True)
        if kept
    }
    assert chosen == again
