import pyarrow as pa

from scanner.catalogue.columns import column
from scanner.query.formats import terminal_lines

TABLE = pa.table(
    {
        "rank": pa.array([1, 12], pa.int64()),
        "name": ["EUCL J1", "x\x1b[31m" + "y" * 60],
        "ra": [10.123456789, float("nan")],
        "p_calibrated": pa.array([0.987654, 1e-7], pa.float32()),
        "is_candidate": [True, False],
    },
    schema=pa.schema([column(name).field() for name in ("rank", "name", "ra", "p_calibrated", "is_candidate")]),
)


def test_columns_are_set_out():
    text, omitted = terminal_lines(TABLE)
    assert text == [
        "rank  name                                       ra [deg]  p_calibrated  is_candidate",
        "   1  EUCL J1                                   10.123457        0.9877  yes",
        f"  12  x [31m{'y' * 33}…          –         1e-07  no",
    ]
    assert omitted == []


def test_what_does_not_fit_is_named():
    text, omitted = terminal_lines(TABLE.select(["rank", "ra", "p_calibrated", "is_candidate"]), width=16)
    assert text == ["rank   ra [deg]", "   1  10.123457", "  12          –"]
    assert omitted == ["p_calibrated", "is_candidate"]
    assert terminal_lines(TABLE.select(["ra"]), width=3)[1] == []


def test_flags_are_words():
    flags = pa.table({"flags": pa.array([0, 5], pa.int32())}, schema=pa.schema([column("flags").field()]))
    assert terminal_lines(flags)[0] == ["flags", "", "at the edge, not scored"]


def test_no_rows():
    assert terminal_lines(TABLE.slice(0, 0).select(["rank", "name"]))[0] == ["rank  name"]
