import os
import signal
import threading

import duckdb
import pytest

from scanner.catalogue.interrupts import ctrl_c_interrupts

#: Hours of work.
ENDLESS = "SELECT count(*) AS n FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3"


@pytest.fixture
def ctrl_c():
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    yield
    timer.cancel()
    signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize("ask", [lambda c: c.execute(ENDLESS), lambda c: c.sql(ENDLESS).to_arrow_table()])
@pytest.mark.usefixtures("ctrl_c")
def test_a_query_ends_as_python_code_does(ask):
    with duckdb.connect() as connection, pytest.raises(KeyboardInterrupt), ctrl_c_interrupts():
        ask(connection)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="something else"), ctrl_c_interrupts():
        raise RuntimeError("something else")
