import os
import signal
import threading

import duckdb
import pytest

from scanner.processes import ctrl_c_interrupts

#: Minutes of work.
ENDLESS = "SELECT count(*) AS n FROM range(200000000000) WHERE (range * range) % 7 = 3"


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
    # Of several threads one may have taken all of a step, which the others wait for.
    one_thread = {"threads": 1}
    with duckdb.connect(config=one_thread) as connection, pytest.raises(KeyboardInterrupt), ctrl_c_interrupts():
        ask(connection)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="something else"), ctrl_c_interrupts():
        raise RuntimeError("something else")
