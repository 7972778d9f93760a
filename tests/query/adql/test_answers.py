"""Answers are those that numpy gives for the same rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.query.adql.grammar import AdqlError
from scanner.query.adql.translate import translate
from scanner.query.region import Cone, Polygon, overlapping
from scanner.sphere import unit_vectors


def separation(rows, ra, dec):
    between = unit_vectors(rows["ra"].to_numpy(), rows["dec"].to_numpy()) - unit_vectors(np.float64(ra), np.float64(dec))
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(between, axis=1) / 2, 0, 1)))


def ids(table):
    return sorted(table["target_id"].to_pylist())


POSITIONS = st.tuples(st.floats(0, 360), st.floats(-90, 90)) | st.sampled_from(
    [(0.0, 0.0), (360.0, 0.0), (359.999, 0.01), (12.0, 90.0), (0.0, -90.0), (180.0, 45.0)]
)


@settings(max_examples=40)
@given(POSITIONS, st.sampled_from([0.005, 0.3, 5, 60, 100, 179]), st.booleans(), st.booleans())
def test_cones(ask, rows, tables, position, radius, turned, frame) -> None:
    ra, dec = position
    first = "'ICRS', " if frame else ""
    point, circle = f"POINT({first}ra, dec)", f"CIRCLE({first}{ra!r}, {dec!r}, {radius})"
    if turned:
        point, circle = f"POINT({first}{ra!r}, {dec!r})", f"CIRCLE({first}ra, dec, {radius})"
    query = f"SELECT target_id FROM objects WHERE 1 = CONTAINS({point}, {circle})"
    expected = Cone(ra, dec, radius).contains(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    assert ids(ask(query)) == sorted(rows["target_id"].to_numpy()[expected].tolist())
    # No row of the answer lies in a part of the sky that need not be read.
    ranges = translate(query, tables).ranges
    index = rows["_healpix_29"].to_numpy()
    assert overlapping(ranges, index[expected], index[expected] + 1).all()
    assert ids(ask(query.replace("1 =", "0 ="))) == sorted(rows["target_id"].to_numpy()[~expected].tolist())


@settings(max_examples=25)
@given(POSITIONS, st.sampled_from([0.01, 2, 50]))
def test_distances(ask, rows, tables, position, radius) -> None:
    ra, dec = position
    query = f"SELECT target_id, DISTANCE(POINT(ra, dec), POINT({ra!r}, {dec!r})) AS d FROM objects"
    expected = separation(rows, ra, dec)
    found = ask(query)
    np.testing.assert_array_equal(found["target_id"].to_numpy(), rows["target_id"].to_numpy())
    np.testing.assert_allclose(found["d"].to_numpy(), expected, atol=2e-6)
    near = f"{query} WHERE DISTANCE(ra, dec, {ra!r}, {dec!r}) < {radius} ORDER BY d"
    sure = ask(near)
    closest = found.filter(pa.array(found["d"].to_numpy() < radius)).sort_by("d")
    assert sure["target_id"].to_pylist() == closest["target_id"].to_pylist()
    assert overlapping(translate(near, tables).ranges, *_intervals(rows, expected < radius - 1e-5)).all()


def _intervals(rows, chosen):
    index = rows["_healpix_29"].to_numpy()[chosen]
    return index, index + 1


def test_hexadecimal_numbers(ask, rows) -> None:
    found = ask("SELECT TOP 1 0x1F AS a, 0X0 AS b, 1e0 AS c FROM objects")
    assert [found[name].to_pylist() for name in ("a", "b", "c")] == [[31], [0], [1.0]]
    flags = rows["flags"].to_numpy()
    assert ids(ask("SELECT target_id FROM objects WHERE flags = 0x2")) == sorted(
        rows["target_id"].to_numpy()[flags == 2].tolist()
    )
    with pytest.raises(AdqlError, match="larger than any whole number"):
        ask("SELECT 0xFFFFFFFFFFFFFFFF FROM objects")


@settings(max_examples=25)
@given(POSITIONS, st.floats(0.5, 120), st.floats(0.5, 80))
def test_boxes(ask, rows, position, width, height) -> None:
    ra, dec = position[0], float(np.clip(position[1], height / 2 - 89.9, 89.9 - height / 2))
    query = f"SELECT target_id FROM objects WHERE CONTAINS(POINT(ra, dec), BOX('', {ra!r}, {dec!r}, {width!r}, {height!r})) = 1"
    e, w, n, s = ra + width / 2, ra - width / 2, dec + height / 2, dec - height / 2
    e, w = e % 360, w % 360
    inside = Polygon([(e, n), (w, n), (w, s), (e, s)]).contains(rows["ra"].to_numpy(), rows["dec"].to_numpy())
    assert ids(ask(query)) == sorted(rows["target_id"].to_numpy()[inside].tolist())


COLUMNS = ("p_calibrated", "grid_value", "magnitude_vis", "flags", "target_id", "known_separation", "dec")
NUMBERS = st.integers(-3, 40).map(str) | st.sampled_from(["0.1", ".5", "2e1", "1.5E-1", "-0.25", "1000.0"])


@st.composite
def conditions(draw, depth=2):
    """A condition as ADQL, and as a function of the rows: (is true, is known)."""
    kind = draw(st.sampled_from(["compare", "between", "in", "null", "truth", "like"] + ["and", "or", "not"] * (depth > 0)))
    if kind in ("and", "or", "not"):
        (a, f), (b, g) = draw(conditions(depth - 1)), draw(conditions(depth - 1))
        if kind == "not":
            return f"NOT ({a})", lambda rows: (~f(rows)[0] & f(rows)[1], f(rows)[1])
        return f"({a} {kind} {b})", lambda rows: _joined(kind, f(rows), g(rows))
    column = draw(st.sampled_from(COLUMNS))
    if kind == "null":
        return f"{column} IS NULL", lambda rows: (~_known(rows, column), np.ones(len(rows), bool))
    if kind == "truth":
        value = draw(st.sampled_from(["TRUE", "1", "'true'"]))
        return f"is_candidate = {value}", lambda rows: (rows["is_candidate"].to_numpy(), np.ones(len(rows), bool))
    if kind == "like":
        part = draw(st.sampled_from(["102018211", "%212", "1020%", "x''x", ""]))

        def liked(rows):  # fmt: skip
            wanted = [{"102018211": t == "102018211", "%212": t.endswith("212"), "1020%": True}.get(part, False)
                      for t in rows["tile_id"].to_pylist()]  # fmt: skip
            return np.array(wanted), np.ones(len(rows), bool)

        return f"tile_id LIKE '{part}'", liked
    numbers = sorted(draw(st.lists(NUMBERS, min_size=2, max_size=3)), key=float)
    values = [float(number) for number in numbers]
    known = lambda rows: _known(rows, column)  # noqa: E731
    if kind == "between":
        return (f"{column} BETWEEN {numbers[0]} AND {numbers[1]}",
                lambda rows: ((_of(rows, column) >= values[0]) & (_of(rows, column) <= values[1]), known(rows)))  # fmt: skip
    if kind == "in":
        return f"{column} IN ({', '.join(numbers)})", lambda rows: (np.isin(_of(rows, column), values), known(rows))
    operator = draw(st.sampled_from(["=", "<>", "!=", "<", ">", "<=", ">="]))
    compare = {"=": np.equal, "<>": np.not_equal, "!=": np.not_equal, "<": np.less, ">": np.greater, "<=": np.less_equal,
               ">=": np.greater_equal}[operator]  # fmt: skip
    return (f"{column} {operator} {numbers[0]}",
            lambda rows: (compare(_of(rows, column), values[0]) & known(rows), known(rows)))  # fmt: skip


def _of(rows, column):
    return rows[column].to_numpy().astype(np.float64)


def _known(rows, column):
    return ~np.isnan(_of(rows, column))


def _joined(kind, first, second):
    (a, a_known), (b, b_known) = first, second
    if kind == "and":
        return a & b, (a_known & b_known) | (~a & a_known) | (~b & b_known)
    return a | b, (a_known & b_known) | (a & a_known) | (b & b_known)


@settings(max_examples=120)
@given(conditions())
def test_conditions(ask, rows, condition) -> None:
    text, holds = condition
    expected = rows["target_id"].to_numpy()[holds(rows)[0]]
    assert ids(ask(f"SELECT target_id FROM objects WHERE {text}")) == sorted(expected.tolist())


@settings(max_examples=60)
@given(conditions(1), st.sampled_from(["tile_id", "flags", "floor(magnitude_vis)", "MOD(target_id, 4)"]))
def test_groups(ask, rows, condition, key) -> None:
    text, holds = condition
    query = (f"SELECT {key} AS k, COUNT(*) AS n, COUNT(p_calibrated) AS known, AVG(p_calibrated) AS mean, MIN(dec), MAX(dec), "
             f"SUM(target_id) AS s FROM objects WHERE {text} GROUP BY k HAVING COUNT(*) > 1 ORDER BY {key}")  # fmt: skip
    kept = rows.filter(pa.array(holds(rows)[0]))
    keys = {
        "tile_id": kept["tile_id"].to_numpy(zero_copy_only=False),
        "flags": kept["flags"].to_numpy(),
        "floor(magnitude_vis)": np.floor(_of(kept, "magnitude_vis")),
        "MOD(target_id, 4)": kept["target_id"].to_numpy() % 4,
    }[key]
    found = ask(query).to_pylist()
    counted = [(k, keys == k) for k in sorted(set(keys.tolist())) if (keys == k).sum() > 1]
    assert [row["k"] for row in found] == [k for k, _ in counted]
    p, dec, target = _of(kept, "p_calibrated"), _of(kept, "dec"), kept["target_id"].to_numpy()
    for row, (_, mask) in zip(found, counted, strict=True):
        assert (row["n"], row["known"]) == (mask.sum(), np.isfinite(p[mask]).sum())
        assert (row["min"], row["max"], row["s"]) == (dec[mask].min(), dec[mask].max(), target[mask].sum())
        if row["known"]:
            assert row["mean"] == pytest.approx(np.nanmean(p[mask]))
        else:
            assert row["mean"] is None


def test_order_top_and_offset(ask, rows) -> None:
    p = _of(rows, "p_calibrated")
    best = np.argsort(-np.nan_to_num(p, nan=-1), kind="stable")
    found = ask("SELECT TOP 5 target_id, p_calibrated FROM objects ORDER BY p_calibrated DESC OFFSET 2")
    np.testing.assert_array_equal(found["p_calibrated"].to_numpy(), p[best[2:7]].astype(np.float32))
    assert len(ask("SELECT TOP 10 ra FROM objects", most=3)) == 3
    assert len(ask("SELECT TOP 2 ra FROM objects", most=3)) == 2
    assert len(ask("SELECT TOP 0 ra FROM objects")) == 0
    for nothing in ("NULL", "'a'", "1.5 + 1"):
        assert ask(f"SELECT TOP 1 rank FROM objects ORDER BY {nothing}, rank")["rank"].to_pylist() == [1]
    assert ask("SELECT DISTINCT tile_id AS t FROM objects ORDER BY t DESC")["t"].to_pylist() == ["102018212", "102018211"]


def test_answers_are_cut_at_the_same_rows_whatever_the_size_of_a_page(ask, rows) -> None:
    """Half of the rows are equal in what they are ordered by; what names an object decides, or what is selected."""
    name = [(row["is_candidate"], row["run"], row["tile_id"], row["target_id"]) for row in rows.to_pylist()]
    ordered = [target for _, _, _, target in sorted(name)]
    query = "SELECT TOP {} target_id FROM objects ORDER BY is_candidate OFFSET {}"
    for size in (250, 1200):
        pages = [ask(query.format(size, start))["target_id"].to_pylist() for start in range(0, len(rows), size)]
        assert [target for page in pages for target in page] == ordered
    for distinct, group in (("DISTINCT", ""), ("", "GROUP BY flags, tile_id")):
        query = f"SELECT {distinct} TOP 3 flags, tile_id FROM objects {group} ORDER BY tile_id OFFSET "
        pages = [ask(f"{query}{start}") for start in range(0, 8, 3)]
        found = [(row["tile_id"], row["flags"]) for row in pa.concat_tables(pages).to_pylist()]
        assert found == sorted({(row["tile_id"], row["flags"]) for row in rows.to_pylist()})


def test_columns_keep_what_is_known_of_them(ask, rows) -> None:
    found = ask('SELECT TOP 3 *, RA AS "My Position", o.rank, dec, ra/2 FROM made.objects AS o')
    assert found.column_names == [*rows.column_names, "My Position", "rank_2", "dec_2", "value"]
    for field in rows.schema:
        assert (found.schema.field(field.name).type, found.schema.field(field.name).metadata) == (field.type, field.metadata)
    assert found.schema.field("My Position").metadata == rows.schema.field("ra").metadata
    assert found.schema.field("value").metadata is None
    np.testing.assert_array_equal(found["value"].to_numpy(), rows["ra"].to_numpy()[:3] / 2)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 7", 1), ("target_id / target_id", 1), ("MOD(-7, 3)", -1), ("5.0 / 2", 2.5), ("1 / 0", None), ("SQRT(-1)", None),
        ("LOG(EXP(1))", 1.0), ("LOG10(1000)", 3.0), ("POWER(2, 10)", 1024.0), ("CEILING(1.2)", 2.0), ("FLOOR(-1.2)", -2.0),
        ("ROUND(2.345, 1)", 2.3), ("TRUNCATE(2.39, 1)", 2.3), ("ABS(-3)", 3), ("ABS(-2.5)", 2.5), ("DEGREES(PI())", 180.0),
        ("ATAN2(1, 1)", np.pi / 4), ("COORD2(POINT('ICRS', 1, 2))", 2), ("COORDSYS(POINT(1, 2))", "ICRS"),
        ("'it''s' || ' ok'", "it's ok"), ("LOG(0)", None),
        ("LOWER('ABC')", "abc"), ("UPPER('é')", "É"), ("COALESCE(NULL, 2, 3)", 2), ("COALESCE(NULL, 2.5)", 2.5),
        ("CAST('12' AS INTEGER) + 1", 13), ("CAST(2 AS DOUBLE PRECISION) / 4", 0.5), ("CAST(12 AS VARCHAR(8)) || ''", "12"),
        ("-(-2.5) + 2", 4.5), ("2 + 3 * 4 - 1", 13), ("(2 + 3) * 4", 20), ("10 - 4 - 3", 3), ("8 / 4 / 2", 1),
        ("INTERSECTS(CIRCLE(1, 1, 1), POINT(1, 1.5))", 1), ("CONTAINS(POINT(1, 1), POLYGON(0, 0, 4, 0, 4, 4, 0, 4))", 1),
        ("CONTAINS(POINT(9, 9), POLYGON(POINT(0, 0), POINT(4, 0), POINT(4, 4)))", 0), ("9007199254740993", 9007199254740993),
        ("DISTANCE(0, 0, 0, 90)", 90.0), ("0.1", 0.1), ("1e-300", 1e-300), ("NULL", None), ("TRUE", True),
    ],
)  # fmt: skip
def test_expressions(ask, expression, value) -> None:
    (found,) = ask(f"SELECT TOP 1 {expression} AS v FROM objects")["v"].to_pylist()
    assert found == (pytest.approx(value, rel=1e-14) if isinstance(value, float) else value)
    assert type(found) is type(value)


def test_functions_without_a_value_are_null(ask, rows) -> None:
    dec = rows["dec"].to_numpy()
    (found,) = ask(
        "SELECT COUNT(SQRT(dec)) AS roots, COUNT(LOG(dec)) AS logs, COUNT(ASIN(dec / 45)) AS arcs FROM objects"
    ).to_pylist()
    assert found == {"roots": (dec >= 0).sum(), "logs": (dec > 0).sum(), "arcs": (abs(dec) <= 45).sum()}
    assert ids(ask("SELECT target_id FROM objects WHERE SQRT(dec) > 9")) == sorted(
        rows["target_id"].to_numpy()[dec > 81].tolist()
    )


def test_healpix_cells(ask, rows) -> None:
    found = ask("SELECT ivo_healpix_index(4, ra, dec) AS cell, COUNT(*) AS n FROM objects GROUP BY cell ORDER BY cell")
    cells, counts = np.unique(rows["_healpix_29"].to_numpy() >> 50, return_counts=True)
    np.testing.assert_array_equal(found["cell"].to_numpy(), cells)
    np.testing.assert_array_equal(found["n"].to_numpy(), counts)


def test_regions_are_read_no_further_than_asked(tables) -> None:
    def part(condition):
        ranges = translate(f"SELECT ra FROM objects WHERE {condition}", tables).ranges
        return None if ranges is None else int((ranges[:, 1] - ranges[:, 0]).sum()) / (12 * 4**29)

    one = "CONTAINS(POINT(ra, dec), CIRCLE(10, 10, 1)) = 1"
    other = "1 = INTERSECTS(CIRCLE(200, 10, 1), POINT(ra, dec))"
    cone = (1 - np.cos(np.radians(1))) / 2
    assert cone < part(one) < 1.5 * cone
    assert part(f"{one} AND p_calibrated > 0.5") == part(one)
    assert part(f"{one} AND {other}") == 0
    assert part(f"{one} OR {other}") == pytest.approx(part(one) + part(other))
    assert part(f"({one} OR p_calibrated > 0.5)") is None
    assert part(f"NOT {one}") is None
    assert part("CONTAINS(POINT(ra, dec), CIRCLE(10, 10, 1)) = 0") is None
    assert part("CONTAINS(POINT(dec, ra), CIRCLE(10, 10, 1)) = 1") is None
