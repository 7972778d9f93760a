"""Hostile queries of up to 4 kB, as deep and as wide as ADQL allows: none outlives its limits or leaves anything running.

The suite asks a few, always the same; ``make attack`` thousands, and there no query may take a second more than its limit.
"""

import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st
from made_catalogue import files_of, made_rows

from scanner.catalogue import export
from scanner.catalogue.hats import write_hats
from scanner.query.adql.grammar import AdqlError
from scanner.query.catalogue import Catalogue
from scanner.query.database import OutOfMemoryError, OutOfTimeError, time_limit
from scanner.query.processes import QueryProcesses
from scanner.service.collections import serve
from scanner.service.settings import LimitsConfig
from scanner.service.vo.tap_query import TapService, read_query
from scanner.survey.published import Published

LETTERS = 4096
IS_ATTACK = settings.get_current_profile_name() == "attack"
N_EXAMPLES = int(os.environ.get("SCANNER_ATTACKS", "3000")) if IS_ATTACK else 30
LIMITS = LimitsConfig(seconds=3 if IS_ATTACK else 1, memory_mb=64, workers=1, threads=1, rows=2000)

COLUMNS = ("ra", "dec", "p_calibrated", "magnitude_vis", "known_separation", "flags", "target_id")
#: ``@`` is what is nested. Some name it twice: in ADQL's own text this doubles too, until the letters are used up.
ONE = (
    "ABS(@)", "CEILING(@)", "FLOOR(@)", "TRUNCATE(@)", "SQRT(@)", "EXP(@)", "LOG(@)", "LOG10(@)", "DEGREES(@)", "SIN(@)",
    "COT(@)", "ASIN(@)", "ATAN(@)", "CAST(CAST(@ AS VARCHAR) AS DOUBLE PRECISION)",
    "POWER(@,2)", "POWER(2,@)", "MOD(@,7)", "MOD(7,@)", "ATAN2(@,ra)", "ROUND(@,3)", "COALESCE(NULL,@)", "(@/3.0)", "(3/(@))",
    "-(@)", "(@*@)", "(@||@)", "CAST(@ AS VARCHAR)", "CAST(@ AS DOUBLE PRECISION)",
    "DISTANCE(ra,@,ra,dec)", "DISTANCE(POINT(@,@),POINT(ra,dec))", "DISTANCE(POINT(ra,dec),POINT(@,1))", "RAND(@)",
    "CONTAINS(POINT(@,dec),CIRCLE(1,2,3))", "CONTAINS(POINT(ra,@),POLYGON(0,0,90,0,50,60))", "COORD1(POINT(@,@))",
    "CONTAINS(POINT(ra,dec),CIRCLE(ra,@,@))", "IVO_HEALPIX_INDEX(8,ra,dec)", "LOWER(CAST(@ AS VARCHAR))",
)  # fmt: skip
CONDITIONS = (
    "@>@", "@ BETWEEN @ AND @", "@ IN (@,@,1)", "CAST(@ AS VARCHAR) LIKE '%1%2%3%4%5%6%7%8%9%'", "@ IS NULL",
    "1=CONTAINS(POINT(ra,dec),CIRCLE(1,2,3))", "1=INTERSECTS(POINT(ra,dec),BOX(10,10,150,150))",
    "0=CONTAINS(POINT(ra,dec),POLYGON(0,0,90,0,50,60,20,70))", "DISTANCE(ra,dec,@,@)<@",
)  # fmt: skip


@st.composite
def numbers(draw, letters):
    """A value of up to so many letters."""
    value = draw(st.sampled_from(COLUMNS))
    same = draw(st.sampled_from(ONE)) if draw(st.booleans()) else None
    for _ in range(draw(st.integers(0, 20))):
        deeper = (same or draw(st.sampled_from(ONE))).replace("@", value)
        if len(deeper) > letters:
            break
        value = deeper
    return value


@st.composite
def queries(draw):
    """A query of up to :data:`LETTERS` letters."""
    shape = draw(st.sampled_from(("wide", "deep", "grouped", "ordered", "conditions")))
    letters = LETTERS // draw(st.sampled_from((1, 2, 4, 16)))
    value = draw(numbers(letters - 200 if letters == LETTERS else letters))
    n = max((LETTERS - 200) // (len(value) + 1), 1)
    table = draw(st.sampled_from(("objects", "candidates")))
    match shape:
        case "wide":
            return f"SELECT {','.join([value] * min(n, draw(st.sampled_from((2, 30, 1000)))))} FROM {table}"
        case "grouped":
            return f"SELECT COUNT(DISTINCT {value}),SUM(ra) FROM {table} GROUP BY {','.join([value] * (n // 2 or 1))}"[:LETTERS]
        case "ordered":
            return f"SELECT DISTINCT {value} AS x,* FROM {table} ORDER BY x DESC"
        case "conditions":
            condition = draw(st.sampled_from(CONDITIONS)).replace("@", value)
            n = min((LETTERS - 100) // (len(condition) + 8), draw(st.sampled_from((1, 40, 1000)))) or 1
            joined = draw(st.sampled_from((" OR ", " AND ", " OR NOT "))).join([condition] * n)
            return f"SELECT * FROM {table} WHERE {joined}"
        case _:
            return f"SELECT {value} FROM {table}"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    random, n = np.random.default_rng(4), 20_000
    rows = made_rows(random.uniform(0, 360, n), np.degrees(np.arcsin(random.uniform(-1, 1, n))), seed=4)
    write_hats(rows, folder / "catalogue", "made", 5000)
    published = Published(
        str(folder), "made", "made", files_of(folder), None, ("made 1",), {"made-0123abcd": None}, {"made-0123abcd": 1e-4}, 0.0
    )
    processes = QueryProcesses(LIMITS.memory_mb_each)
    yield serve(published, Catalogue.open(files_of(folder)), export.tile_table([]), LIMITS, processes)
    processes.close()


@settings(max_examples=N_EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None, phases=[Phase.generate])
@given(queries())
def test_no_query_outlives_its_limits(attacked, query):
    assume(len(query) <= LETTERS)
    processes = attacked.database.processes
    begun = time.monotonic()
    try:
        with time_limit(LIMITS.seconds):
            service = TapService((attacked,), "http://here")
            n_bytes = sum(map(len, service.answered(read_query({"QUERY": query}, LIMITS.rows, LIMITS.rows))))
            assert n_bytes
        event("answered")
    except (AdqlError, OutOfTimeError, OutOfMemoryError) as refused:
        event(type(refused).__name__)
    took = time.monotonic() - begun
    assert processes.n_busy == 0
    if IS_ATTACK:
        assert took < LIMITS.seconds + 1, query
    # Whatever process there is waits for the next question, and has given back what the last one took.
    assert processes.call(abs, -7) == 7
