import asyncio
import threading
import time

import duckdb
import pytest
from prometheus_client import CollectorRegistry

from scanner.query import database
from scanner.service.context import Work
from scanner.service.errors import BusyError, TimeLimitError
from scanner.service.instruments import ServiceInstruments

SLOW = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"


@pytest.fixture
def work():
    work = Work(1, 1, 0.3, ServiceInstruments(CollectorRegistry()))
    yield work
    work.close()


def slow(started=None):
    with duckdb.connect() as connection, database.watching(connection):
        if started is not None:
            started.set()
        return connection.execute(SLOW).fetchall()


def test_results_and_errors_come_back(work):
    assert asyncio.run(work.run(lambda a, b: a + b, 1, 2)) == 3
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work.run(lambda: 1 / 0))


def test_slow_work_is_interrupted_and_its_thread_is_free_again(work):
    async def ask():
        start = time.monotonic()
        with pytest.raises(TimeLimitError, match=r"0\.3 s"):
            await work.run(slow)
        # The only thread.
        assert await work.run(lambda: "free", seconds=10) == "free"
        return time.monotonic() - start

    assert asyncio.run(ask()) < 5


def test_no_more_waits_than_there_is_room_for(work):
    async def ask():
        hold = threading.Event()
        waiting = [asyncio.create_task(work.run(hold.wait, seconds=20)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as refused:
            await work.run(hold.wait)
        hold.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await work.run(lambda: "room") == "room"
        return refused.value

    refused = asyncio.run(ask())
    assert (refused.status, refused.headers) == (503, {"Retry-After": "2"})


def test_work_that_is_cancelled_is_interrupted(work):
    async def ask():
        started = threading.Event()
        task = asyncio.create_task(work.run(slow, started, seconds=60))
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await work.run(lambda: "free", seconds=10)

    assert asyncio.run(ask()) == "free"


def test_streams_come_piece_by_piece(work):
    made = []

    def pieces(n):
        for i in range(n):
            made.append(i)
            yield bytes([i])

    async def ask():
        stream = await work.stream(pieces, 5)
        assert made == [0]
        return [piece async for piece in stream]

    assert asyncio.run(ask()) == [b"\0", b"\1", b"\2", b"\3", b"\4"]
    assert made == [0, 1, 2, 3, 4]


def test_a_stream_that_fails_at_once_fails_before_it_begins(work):
    def pieces():
        raise ValueError("no")
        yield b""

    with pytest.raises(ValueError, match="no"):
        asyncio.run(work.stream(pieces))


def test_a_streams_time_is_that_of_making_it_not_of_reading_it(work):
    async def read(pieces, pause):
        stream, got = await work.stream(pieces), []
        async for piece in stream:
            got.append(piece)
            await asyncio.sleep(pause)
        return got

    def quick():
        yield from (b"1", b"2", b"3")

    def ever_slower():
        for i in range(20):
            time.sleep(0.05)
            yield bytes([i])

    assert asyncio.run(read(quick, 0.2)) == [b"1", b"2", b"3"]
    with pytest.raises(TimeLimitError):
        asyncio.run(read(ever_slower, 0))


def test_a_stream_that_nobody_reads_on_is_closed(work):
    closed = threading.Event()

    def pieces():
        try:
            while True:
                yield b"x"
        finally:
            closed.set()

    async def ask():
        stream = await work.stream(pieces)
        await anext(stream)
        await stream.aclose()

    asyncio.run(ask())
    assert closed.wait(5)
