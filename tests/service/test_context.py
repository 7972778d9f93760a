import asyncio
import threading
import time
from contextlib import closing

import duckdb
import pytest
from prometheus_client import CollectorRegistry
from waiting import LIMIT_S

from scanner.query import database
from scanner.service.context import WorkThreads
from scanner.service.errors import BusyError, TimeLimitError
from scanner.service.instruments import ServiceInstruments

SLOW = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"


def one_thread(seconds):
    return closing(WorkThreads(1, 1, seconds, ServiceInstruments(CollectorRegistry())))


@pytest.fixture
def work():
    with one_thread(LIMIT_S) as work:
        yield work


@pytest.fixture
def hasty():
    """Work that may take no time at all."""
    with one_thread(0.3) as work:
        yield work


def slow(started=None):
    with duckdb.connect() as connection, database.interruptible(connection):
        if started is not None:
            started.set()
        return connection.execute(SLOW).fetchall()


def test_results_and_errors_come_back(work):
    assert asyncio.run(work.run(lambda a, b: a + b, 1, 2)) == 3
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work.run(lambda: 1 / 0))


def test_slow_work_is_interrupted_and_its_thread_is_free_again(hasty):
    async def ask():
        with pytest.raises(TimeLimitError, match=r"0\.3 s"):
            await hasty.run(slow)
        # The only thread.
        return await hasty.run(lambda: "free", seconds=LIMIT_S)

    assert asyncio.run(ask()) == "free"


def test_no_more_waits_than_there_is_room_for(work):
    async def ask():
        hold = threading.Event()
        waiting = [asyncio.create_task(work.run(hold.wait)) for _ in range(2)]
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
        task = asyncio.create_task(work.run(slow, started))
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await work.run(lambda: "free")

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


class SkippingLoop(asyncio.SelectorEventLoop):
    """Its clock can be put forward."""

    skipped = 0.0

    def time(self):
        return super().time() + self.skipped


def test_a_streams_time_is_that_of_making_it_not_of_reading_it(work, hasty):
    async def read_slowly():
        stream, got = await work.stream(lambda: iter((b"1", b"2", b"3"))), []
        async for piece in stream:
            got.append(piece)
            asyncio.get_running_loop().skipped += LIMIT_S
        return got

    def ever_slower():
        for i in range(20):
            time.sleep(0.05)
            yield bytes([i])

    async def read_all():
        return [piece async for piece in await hasty.stream(ever_slower)]

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert runner.run(read_slowly()) == [b"1", b"2", b"3"]
    with pytest.raises(TimeLimitError):
        asyncio.run(read_all())


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
    assert closed.wait(LIMIT_S)
