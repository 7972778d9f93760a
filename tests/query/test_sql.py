import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import UsageError
from scanner.query.database import DatabaseLimits, OutOfMemoryError, OutOfTimeError, open_database
from scanner.query.region import Cone
from scanner.query.sql import SqlLimits, parsed, run_sql


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ask(published, sql, **limits):
    return run_sql({"made": published.catalogue}, sql, SqlLimits(**limits))


def test_objects_and_candidates(published, assert_same):
    whole = ask(published, "SELECT * FROM objects ORDER BY rank")
    assert_same(whole, published.rows)
    named = ask(published, 'SELECT rank, ra AS "right" FROM made.candidates ORDER BY rank')
    assert named["rank"].to_pylist() == published.rows.filter(published.rows["is_candidate"])["rank"].to_pylist()
    assert named.schema.field("right").metadata[b"unit"] == b"deg"


def test_what_is_computed_is_not_described_as_a_column(published):
    for sql in (
        "SELECT 2 * ra AS ra FROM objects",
        "SELECT ra FROM (SELECT dec AS ra FROM objects)",
        "SELECT 1::DOUBLE AS ra",
    ):
        assert not ask(published, f"{sql} LIMIT 1").schema.field("ra").metadata


def test_what_is_not_known_is_null_and_nan_again(published):
    p = published.rows["p_calibrated"].to_numpy()
    counted = ask(
        published, "SELECT count(*) AS n, count(p_calibrated) AS known, max(p_calibrated) AS best FROM objects"
    ).to_pylist()
    assert counted == [{"n": len(p), "known": np.isfinite(p).sum(), "best": pytest.approx(np.nanmax(p))}]
    assert len(ask(published, "SELECT rank FROM objects WHERE p_calibrated > 0.5")) == (p > 0.5).sum()
    assert np.isnan(
        ask(published, "SELECT p_calibrated FROM objects WHERE p_calibrated IS NULL")["p_calibrated"].to_numpy()
    ).all()


def test_of_a_region_only_its_objects(published):
    cone = Cone(0, -30, 0.5)
    inside = cone.contains(published.ra, published.dec)
    for table in ("objects", "made.objects"):
        found = run_sql(
            {"made": published.catalogue}, f"SELECT count(*) AS n, max(known_separation) AS s FROM {table}", region=cone
        )
        assert found["n"].to_pylist() == [inside.sum()]
        assert found["s"].to_numpy()[0] == np.nanmax(published.rows["known_separation"].to_numpy()[inside])


def test_several_catalogues(published):
    two = {"first": published.catalogue, 'the "second"': published.catalogue}
    sql = 'SELECT count(*) AS n FROM objects JOIN "the ""second""".candidates AS b USING (rank)'
    assert run_sql(two, sql)["n"].to_pylist() == [published.rows["is_candidate"].to_numpy().sum()]


@pytest.mark.parametrize("name", ["main", "Main"])
def test_a_catalogue_may_be_called_as_the_first_ones_tables_are(published, name):
    found = run_sql({name: published.catalogue}, 'SELECT count(*) AS n FROM objects JOIN "main".candidates USING (rank)')
    assert found["n"].to_pylist() == [published.rows["is_candidate"].to_numpy().sum()]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "Give one SELECT"),
        ("SELECT 1; SELECT 2", "Give one SELECT"),
        ("DROP VIEW objects", "Give one SELECT"),
        ("CREATE TABLE x AS SELECT 1", "Give one SELECT"),
        ("ATTACH 'x.db'", "Give one SELECT"),
        ("SET memory_limit = '1TB'", "Give one SELECT"),
        ("INSTALL httpfs", "Give one SELECT"),
        ("COPY (SELECT 1) TO '{file}'", "Give one SELECT"),
        ("EXPLAIN ANALYZE SELECT 1", "Give one SELECT"),
        ("WITH a AS (COPY (SELECT 1) TO '{file}') SELECT * FROM a", "changes nothing"),
        ("(WITH a AS (COPY (SELECT 1) TO '{file}') SELECT * FROM a)", "changes nothing"),
        ("WITH a AS (INSERT INTO objects VALUES (1) RETURNING *) SELECT * FROM a", "changes nothing"),
        ("WITH a AS (DELETE FROM objects RETURNING *) SELECT * FROM a", "changes nothing"),
        ("SELECT * FROM json_execute_serialized_sql(json_serialize_sql('{hidden}'))", r"calls json_execute_serialized_sql\(\)"),
        ("SELECT * FROM query('SELECT 1')", r"calls query\(\)"),
        ("SELECT * FROM read_text('/etc/hostname')", r"calls read_text\(\)"),
        ("SELECT * FROM main.glob('*')", r"calls glob\(\)"),
        ("SELECT (SELECT content FROM read_blob('/etc/hostname'))", r"calls read_blob\(\)"),
        ("SELECT * FROM duckdb_settings()", r"calls duckdb_settings\(\)"),
        ("SELECT * FROM '/etc/hostname'", "cannot be answered"),
        ("SELECT * FROM '{other}'", "asks for a file; it can read objects and candidates"),
        ("SELEC 1", "is no SQL: syntax error"),
        ("SELECT colour FROM objects", 'cannot be answered: Referenced column "colour" not found'),
        ("SELECT * FROM objcts", 'Did you mean "objects"'),
        ("SELECT ?", "parameters"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "is no SQL"),
        ("SELECT 1 -- " + "x" * 100_000, "longer than 100,000 letters"),
        ("SELECT * FROM objects", "has more than 1,000 rows"),
    ],
)
def test_nothing_but_small_queries_over_the_tables(published, tmp_path, sql, message):
    before = contents(published.folder)
    inside, other = published.catalogue.dataset / "new.csv", tmp_path / "other.parquet"
    other.write_bytes(published.catalogue.files()[0].read_bytes())
    hidden = f"WITH a AS (COPY (SELECT 1) TO ''{inside}'') SELECT * FROM a"
    for place, text in (("{file}", str(inside)), ("{hidden}", hidden), ("{other}", str(other))):
        sql = sql.replace(place, text)
    with pytest.raises(UsageError, match=message) as refusal:
        ask(published, sql, rows=1000)
    assert "\n" not in str(refusal.value)
    assert contents(published.folder) == before


def test_limits(published):
    with pytest.raises(OutOfTimeError, match=r"longer than 0\.3 s"):
        ask(published, "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b", seconds=0.3)
    small = DatabaseLimits(memory_mb=30, threads=1)
    with pytest.raises(OutOfMemoryError, match="needs more memory than it may use"):
        ask(published, "SELECT count(*) FROM (SELECT range FROM range(9000000) GROUP BY range)", database=small)


WORDS = (
    "SELECT",
    "*",
    "FROM",
    "objects",
    "WITH",
    "a",
    "AS",
    "(",
    ")",
    "COPY",
    "TO",
    "'x'",
    "1",
    ";",
    "query",
    "WHERE",
    "INSERT",
)


@settings(max_examples=150)
@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_any_words_are_one_query_or_refused(words):
    try:
        query = parsed(DATABASE, " ".join(words))
    except UsageError:
        return
    assert "COPY_QUERY_NODE" not in str(query.tree)
    assert "INSERT_QUERY_NODE" not in str(query.tree)


DATABASE = open_database([])


def test_answers_become_plain(published):
    sql = """SELECT NULL AS nothing, 1::TINYINT AS small, 2::UBIGINT AS big, 18446744073709551615::UBIGINT AS bigger,
        3::HUGEINT AS huge,
        1.5::DECIMAL(5, 2) AS exact, [1, 2] AS list, DATE '2026-11-25' AS day, 'x' AS text, NULL::TEXT AS no_text, true AS yes,
        CASE WHEN false THEN 1 END AS unknown, 7 AS text"""
    answer = ask(published, sql)
    row = answer.to_pylist()[0]
    assert np.isnan([row.pop("nothing"), row.pop("unknown")]).all()
    assert row == {
        "small": 1, "big": 2, "bigger": 2.0**64, "huge": 3, "exact": 1.5, "list": "[1, 2]", "day": "2026-11-25", "text": "x",
        "no_text": "", "yes": True, "text_2": 7,
    }  # fmt: skip
    kinds = {pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string()}
    assert {field.type for field in answer.schema} <= kinds
    assert not any(field.nullable for field in answer.schema)
