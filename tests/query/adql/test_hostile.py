"""Whatever is asked, it is answered or refused in words; and nothing but the catalogue is read."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.query.adql.grammar import AdqlError, QueryPlace
from scanner.query.adql.translate import translate

_WORDS = """
SELECT FROM WHERE GROUP BY HAVING ORDER TOP OFFSET DISTINCT ALL AS AND OR NOT BETWEEN IN LIKE ILIKE IS NULL TRUE FALSE CAST
COUNT SUM MIN MAX AVG CONTAINS POINT CIRCLE BOX POLYGON DISTANCE INTERSECTS COORD1 ABS MOD ROUND POWER LOG COALESCE LOWER
IVO_HEALPIX_INDEX ra dec p_calibrated tile_id target_id is_candidate objects made.objects 'ICRS' 'a' '' "ra" 1 0 2 -3 0.5 1e5
90 360 ( ) , . * + - / || = <> < > <= >= ; -- INTEGER VARCHAR JOIN UNION read_csv read_parquet glob COPY ATTACH PRAGMA SET
INSTALL relation t c0 getenv current_setting duckdb_settings '/etc/passwd' /* */ [ ] { } $1 ? @ # : \\ \x00 é
"""
WORDS = tuple(_WORDS.split())
VALID = (
    "SELECT TOP 5 ra, dec AS d, p_calibrated * 2 + 1 FROM objects WHERE p_calibrated > 0.5 AND NOT tile_id = 'a' ORDER BY d",
    "SELECT tile_id, COUNT(*) n, AVG(dec) FROM made.objects AS o WHERE o.ra BETWEEN 1 AND 200 GROUP BY tile_id HAVING MAX(x)>0",
    "SELECT * FROM objects WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 1, 2, 5)) OR is_candidate = TRUE OFFSET 3",
    "SELECT COUNT(DISTINCT tile_id), MAX(DISTANCE(POINT(ra, dec), POINT(0, 90))) FROM objects WHERE target_id IN (1, 2, 3)",
    "SELECT FLOOR(ra / 9) AS b, MIN(name) FROM objects WHERE CONTAINS(POINT(ra, dec), POLYGON(0,0,9,0,5,6)) = 1 GROUP BY b",
    "SELECT DISTINCT LOWER(tile_id) || CAST(MOD(flags, 3) AS VARCHAR) AS x FROM objects WHERE known_separation IS NOT NULL",
    "SELECT ivo_healpix_index(3, ra, dec) h, SUM(x) FROM objects WHERE CONTAINS(POINT(ra, dec), BOX(1,1,2,2)) = 1 GROUP BY h",
)
TOKENS = re.compile(r"'[^']*'|\"[^\"]*\"|[A-Za-z_0-9.]+|\s+|.", re.DOTALL)
SOUP = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


@st.composite
def mutants(draw):
    """A query in which some words were left out, doubled, swapped or replaced."""
    words = TOKENS.findall(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at, other = draw(st.integers(0, len(words) - 1)), draw(st.integers(0, len(words) - 1))
        change = draw(st.integers(0, 3))
        if change == 0:
            words[at] = ""
        elif change == 1:
            words[at] += f" {words[other]}"
        elif change == 2:
            words[at], words[other] = words[other], words[at]
        else:
            words[at] = f" {draw(st.sampled_from(WORDS))} "
    return "".join(words)


def answered_or_refused(ask, query) -> bool:
    try:
        ask(query, most=20)
    except AdqlError as error:
        said = str(error)
    else:
        return True
    assert not re.search(r"\n|/dataset|Error:", said)
    return False
    return True


@pytest.mark.parametrize("query", VALID)
def test_valid_queries_are_answered(ask, query) -> None:
    assert answered_or_refused(ask, query)


@settings(max_examples=200)
@given(st.sampled_from(["{}", "SELECT {} FROM objects", "SELECT ra FROM objects WHERE {}"]), SOUP)
def test_soup(ask, frame, soup) -> None:
    answered_or_refused(ask, frame.replace("{}", soup))


@settings(max_examples=250)
@given(mutants())
def test_mutants(ask, query) -> None:
    answered_or_refused(ask, query)


@settings(max_examples=100)
@given(st.sampled_from(["{}", "SELECT '{}', \"{}\" FROM objects WHERE name = '{}"]), st.text(max_size=40))
def test_any_text(ask, frame, text) -> None:
    answered_or_refused(ask, frame.replace("{}", text))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        'SELECT * FROM "/etc/passwd"',
        "SELECT * FROM glob('*')",
        "SELECT read_text('/etc/passwd') FROM objects",
        "SELECT getenv('HOME') FROM objects",
        "SELECT current_setting('memory_limit') FROM objects",
        "SELECT ra FROM objects; DROP TABLE objects",
        "SELECT ra FROM objects WHERE ra = (SELECT 1)",
        "SELECT ra FROM objects UNION SELECT 1 FROM objects",
        "COPY objects TO '/tmp/x'",
        "ATTACH '/tmp/x'",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "SELECT * FROM duckdb_settings",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM relation",
        "SELECT t.ra FROM objects",
        'SELECT "group 0" FROM objects',
        "SELECT c0 FROM objects",
        "SELECT ra FROM objects WHERE name = 'a' OR x'00' = 1",
        'SELECT ra AS "a"" FROM \'/etc/passwd\'" FROM nothing',
        "INSERT INTO objects VALUES (1)",
        "SELECT ra INTO x FROM objects",
        "EXPLAIN SELECT ra FROM objects",
    ],
)
def test_other_files_and_statements(tables, query) -> None:
    with pytest.raises(AdqlError):
        translate(query, tables)


def test_texts_and_labels_never_become_sql(ask, tables) -> None:
    evil = "x'') UNION SELECT * FROM read_text(''/etc/passwd'') --"
    query = (
        f"SELECT TOP 1 '{evil}' AS \"a\"\"; DROP TABLE b\" FROM objects WHERE name <> '{evil}' AND tile_id NOT LIKE '{evil}'"
    )
    assert "passwd" not in translate(query, tables).sql
    assert "DROP" not in translate(query, tables).sql
    assert ask(query).to_pylist() == [{'a"; DROP TABLE b': evil.replace("''", "'")}]


@pytest.mark.parametrize(
    ("query", "place", "says"),
    [
        ("", (1, 1), "empty"),
        ("SELECT ra\nFROM objects\nWHERE  dek > 1", (3, 8), "no column dek"),
        ("SELECT ra FROM nothing", (1, 16), "no table nothing"),
        ("SELECT ra FROM objects WHERE ra >", (1, 34), "the end of the query"),
        ("SELECT ra FROM objects WHERE 'a", (1, 30), "without its closing '"),
        ("SELECT ra, FROM objects", (1, 12), 'write "FROM"'),
        ("SELECT foo(ra) FROM objects", (1, 8), "no function FOO"),
        ("SELECT ra -- a comment\n , dec $ FROM objects", (2, 8), "“$” means nothing"),
        ("SELECT ra FROM objects WHERE name > 1", (1, 30), "cannot be compared"),
        ("SELECT ra FROM objects WHERE ra", (1, 30), "a condition is expected"),
        ("SELECT ra FROM objects LIMIT 5", (1, 24), "SELECT TOP n"),
        ("SELECT ra FROM objects JOIN objects", (1, 24), "joined"),
        ("SELECT ra, COUNT(*) FROM objects", (1, 8), "a group has many ra"),
        ("SELECT ra FROM objects WHERE COUNT(*) > 1", (1, 30), "many rows"),
        ("SELECT ra FROM objects ORDER BY 3", (1, 33), "no column 3"),
        ("SELECT TOP 1.5 ra FROM objects", (1, 12), "whole number"),
        ("SELECT 1e999 FROM objects", (1, 8), "larger"),
        ("SELECT ra FROM objects WHERE 1=CONTAINS(POINT('GALACTIC', ra, dec), CIRCLE(1, 2, 3))", (1, 47), "ICRS"),
        ("SELECT ra FROM objects WHERE 1=CONTAINS(POINT(ra, dec), CIRCLE(1, 95, 3))", (1, 32), "declination"),
        ("SELECT ra FROM objects WHERE 1=CONTAINS(POINT(ra, dec), CIRCLE(1, 5, 5/3600))", (1, 70), "5/3600.0"),
        ("SELECT POINT(ra, dec) FROM objects", (1, 8), "can stand in"),
        (f"SELECT {'(' * 60}1{')' * 60} FROM objects", (1, 40), "brackets"),
        (f"SELECT 1{'+1' * 500} FROM objects", (1, 209), "operators"),
    ],
)
def test_messages_say_where(tables, query, place, says) -> None:
    with pytest.raises(AdqlError) as error:
        translate(query, tables)
    assert says in str(error.value)
    assert error.value.place == QueryPlace(*place)
    assert str(error.value).startswith(f"line {place[0]}, column {place[1]}: ")


DEPTH = 14


def nested(function, value):
    for _ in range(DEPTH):
        value = function.replace("@", value)
    return value


def distance_from_the_origin(ra, dec):
    return np.degrees(np.arccos(np.cos(np.radians(ra)) * np.cos(np.radians(dec))))


@pytest.mark.parametrize(
    ("function", "column", "step"),
    [
        ("DISTANCE(ra, @ / 2, ra, dec / 2)", "dec", lambda x, row: abs(x - row["dec"]) / 2),
        ("DISTANCE(POINT(0, 0), POINT(ra, @ / 2))", "dec", lambda x, row: distance_from_the_origin(row["ra"], x / 2)),
        ("POWER(@, 0.5)", "ra", lambda x, row: x**0.5),
        ("MOD(@, 7.5)", "ra", lambda x, row: x % 7.5),
        ("MOD(@, 7)", "flags", lambda x, row: x % 7),
        ("ATAN2(@, ra)", "ra", lambda x, row: np.arctan2(x, row["ra"])),
        ("EXP(-@)", "ra", lambda x, row: np.exp(-x)),
        ("1 / (1 + @)", "ra", lambda x, row: 1 / (1 + x)),
    ],
)
def test_what_is_nested_is_evaluated_once(ask, tables, rows, function, column, step) -> None:
    """Each level doubled what was planned: 2^14 times, in gigabytes."""
    query = f"SELECT {nested(function, column)} AS x FROM objects ORDER BY rank"
    assert len(translate(query, tables).sql) < 500 * DEPTH
    row = {name: rows.sort_by("rank")[name].to_numpy() for name in ("ra", "dec", "flags")}
    expected = row[column]
    for _ in range(DEPTH):
        expected = step(expected, row)
    np.testing.assert_allclose(ask(query)["x"].to_numpy(), expected, rtol=1e-9, atol=2e-6)


def test_a_position_that_is_reckoned_is_evaluated_once(ask, tables, rows) -> None:
    deep = nested("(ABS(@) / 1.0)", "dec")
    for region in ("CIRCLE(180, 30, 40)", "POLYGON(100, 1, 250, 1, 180, 70)"):
        query = f"SELECT target_id FROM objects WHERE 1 = CONTAINS(POINT(ra, {deep}), {region})"
        assert len(translate(query, tables).sql) < 4000
        plain = f"SELECT target_id FROM objects WHERE 1 = CONTAINS(POINT(ra, dec), {region})"
        north = ask(f"{plain} AND dec >= 0")["target_id"].to_pylist()
        mirrored = ask(f"{plain.replace('dec)', '-dec)')} AND dec < 0")["target_id"].to_pylist()
        assert sorted(ask(query)["target_id"].to_pylist()) == sorted(north + mirrored)
        assert mirrored


def test_distances_to_nowhere(ask) -> None:
    query = "SELECT TOP 3 DISTANCE(POINT({}), POINT({})) AS d FROM objects"
    for first, second in (("ra, NULL", "1, 2"), ("NULL, dec", "1, 2"), ("1, 2", "ra, SQRT(-1.0)"), ("1, 2", "1, NULL")):
        assert ask(query.format(first, second))["d"].to_pylist() == [None] * 3
    assert ask("SELECT ra FROM objects WHERE DISTANCE(ra, dec, 0, 1/0) <= 180").num_rows == 0


def test_as_many_columns_as_there_may_be(tables) -> None:
    columns = translate(f"SELECT {', '.join(['ra'] * 998)}, dec AS ra_7 FROM objects", tables).columns
    assert columns.names == ["ra", *(f"ra_{number}" for number in range(2, 999)), "ra_7_2"]
    with pytest.raises(AdqlError, match="more than 1000 columns"):
        translate(f"SELECT {', '.join(['ra'] * 1001)} FROM objects", tables)


def test_a_query_that_is_too_long(tables) -> None:
    far = f"DISTANCE({', '.join(['known_separation'] * 4)}) > 1"
    with pytest.raises(AdqlError, match="too long"):
        translate(f"SELECT ra FROM objects WHERE {' OR '.join([far] * 1500)}", tables)


def test_long_conditions(ask) -> None:
    many = " OR ".join(f"target_id = {number}" for number in range(2000))
    assert len(ask(f"SELECT ra FROM objects WHERE {many}")) == 1999
    assert len(ask(f"SELECT ra FROM objects WHERE target_id IN ({', '.join(map(str, range(2000)))})")) == 1999
    with pytest.raises(AdqlError, match="words"):
        ask(f"SELECT ra FROM objects WHERE {' OR '.join(['1 = 1'] * 10000)}")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT 9223372036854775807 + flags FROM objects WHERE flags > 0", "larger than a column can hold"),
        ("SELECT CAST(name AS INTEGER) FROM objects", "cannot be cast"),
        ("SELECT -(9223372036854775807 * 3) FROM objects", "larger than a column can hold"),
    ],
)
def test_what_only_rows_can_tell(ask, query, says) -> None:
    with pytest.raises(AdqlError, match=says):
        ask(query)


def test_constants_that_no_column_can_hold(ask, tables) -> None:
    huge = " * ".join(["9223372036854775807"] * 40)
    with pytest.raises(AdqlError, match="larger than a column can hold"):
        ask(f"SELECT {huge} FROM objects")
    with pytest.raises(AdqlError):
        ask(f"SELECT ra FROM objects WHERE 1 = CONTAINS(POINT(ra, dec), CIRCLE(0, 0, {huge}))")
    assert ask("SELECT -(1e300 * 1e300) AS k, COUNT(*) AS n FROM objects GROUP BY k").to_pylist() == [
        {"k": -math.inf, "n": 3000}
    ]
    assert ask("SELECT TOP 1 1e300 / 1e-300 AS k FROM objects").to_pylist() == [{"k": math.inf}]


def test_names(ask) -> None:
    assert ask('select Ra, "dec" from MADE.Objects where OBJECTS.rank=1').column_names == ["ra", "dec"]
    assert ask("SELECT o.ra FROM objects o WHERE o.rank = 1 -- done").num_rows == 1
    assert ask('SELECT "_healpix_29", _healpix_29 AS b FROM objects WHERE rank = 1;').column_names == ["_healpix_29", "b"]


@pytest.mark.parametrize(
    "query",
    ['SELECT "RA" FROM objects', 'SELECT ra FROM "OBJECTS"', "SELECT objects.ra FROM objects AS o", "SELECT x.ra FROM objects"],
)
def test_names_of_nothing(ask, query) -> None:
    with pytest.raises(AdqlError, match=r"no column RA|no table"):
        ask(query)
