import threading
from contextlib import nullcontext

import duckdb
import pytest
from waiting import LIMIT_S, wait_for

from scanner.query import database
from scanner.query.database import Deadline, OutOfMemoryError, OutOfTimeError, time_limit

#: Takes minutes; DuckDB sees interrupts all the while.
SLOW = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"


@pytest.fixture
def connection():
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("ask", [lambda c: c.execute(SLOW).fetchall(), lambda c: c.sql(SLOW).to_arrow_table()])
def test_a_query_is_interrupted_when_its_time_is_up(connection, ask):
    with pytest.raises(OutOfTimeError, match=r"longer than 0\.2 s"), time_limit(0.2), database.interruptible(connection):
        ask(connection)
    assert connection.execute("SELECT 42").fetchall() == [(42,)]


def test_a_query_in_time_is_left_alone_and_so_is_the_next(connection):
    with time_limit(LIMIT_S) as limit, database.interruptible(connection):
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
    limit.end()
    assert connection.execute("SELECT count(*) FROM range(1000000)").fetchall() == [(1_000_000,)]
    wait_for("its timer", lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))


def test_nothing_begins_after_the_end(connection):
    limit = Deadline(5)
    limit.end()
    with pytest.raises(OutOfTimeError), limit.entered(), database.interruptible(connection):
        connection.execute("SELECT 1")


def test_a_deadline_is_that_of_its_thread_only(connection):
    limit, answers = Deadline(5), []

    def elsewhere():
        with database.interruptible(connection):
            answers.extend(connection.execute("SELECT 1").fetchall())

    limit.end()
    with limit.entered():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert answers == [(1,)]


def test_another_thread_ends_it(connection):
    limit = Deadline(60)
    threading.Timer(0.2, limit.end).start()
    with pytest.raises(OutOfTimeError), limit.entered(), database.interruptible(connection):
        connection.execute(SLOW).fetchall()


def test_an_end_that_comes_before_the_query_is_not_forgotten(connection):
    """DuckDB forgets it: such a query went on to its end."""
    limit = Deadline(60)

    def query():
        with limit.entered(), database.interruptible(connection):
            limit.end()
            connection.execute("SELECT sum(sqrt(a.range * b.range)) FROM range(60000) a, range(60000) b").fetchall()

    with pytest.raises(OutOfTimeError):
        query()


@pytest.mark.parametrize("within", [nullcontext, lambda: time_limit(60)])
def test_a_query_that_needs_too_much_memory_says_so(within):
    with duckdb.connect(config={"memory_limit": "30MB", "temp_directory": "", "threads": 1}) as connection:
        with pytest.raises(OutOfMemoryError, match="ask for less"), within(), database.interruptible(connection):
            connection.execute("SELECT range FROM range(20_000_000) ORDER BY hash(range)").fetchmany(1)
        assert connection.execute("SELECT 42").fetchall() == [(42,)]
