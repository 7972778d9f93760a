import asyncio
import threading
import time
from contextlib import closing

import duckdb
import pytest
from prometheus_client import CollectorRegistry
from waiting import LIMIT_S

from scanner.query import database
from scanner.query.database import OutOfTimeError
from scanner.service.context import SENT_BYTES, AnswerTooLongError, WorkThreads
from scanner.service.errors import BusyError, TimeLimitError
from scanner.service.security import ServiceInstruments
from scanner.service.settings import LimitsConfig

SLOW = "SELECT sum(sqrt(a.range * b.range)) FROM range(1000000) a, range(1000000) b"


def one_thread(seconds):
    return closing(WorkThreads(LimitsConfig(workers=1, queue=1, seconds=seconds), ServiceInstruments(CollectorRegistry())))


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


def test_the_first_piece_of_a_stream_comes_before_the_second_is_made(work):
    go_on = threading.Event()

    def pieces(n):
        for i in range(n):
            yield bytes([i])
            go_on.wait(LIMIT_S)

    async def ask():
        stream = await work.stream(pieces, 5)
        first = await anext(stream)
        go_on.set()
        return first + b"".join([piece async for piece in stream])

    assert asyncio.run(ask()) == b"\0\1\2\3\4"


def test_a_stream_is_admitted_once(work):
    """Each piece used to be admitted anew, so that answers were cut wherever others came in between."""
    go_on = threading.Event()

    def pieces():
        yield b"a"
        go_on.wait(LIMIT_S)
        yield from (b"b", b"c")

    async def ask():
        stream = await work.stream(pieces)
        others = [asyncio.create_task(work.run(time.sleep, 0.01))]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await work.run(lambda: "no room")
        go_on.set()
        assert b"".join([piece async for piece in stream]) == b"abc"
        await asyncio.gather(*others)

    asyncio.run(ask())


def test_a_client_that_does_not_read_keeps_no_thread(work):
    async def ask():
        streams = [await work.stream(lambda: iter([b"x" * 300_000] * 10)) for _ in range(3)]
        # The only thread.
        assert await work.run(lambda: "free") == "free"
        return [sum([len(piece) async for piece in stream]) for stream in streams]

    assert asyncio.run(ask()) == [3_000_000] * 3


def test_an_answer_is_no_longer_than_it_may_be():
    def pieces():
        try:
            while True:
                yield b"x" * 400_000
        except AnswerTooLongError as error:
            yield f"|{error}".encode()

    async def ask(work, function):
        return b"".join([piece async for piece in await work.stream(function)])

    limits = LimitsConfig(workers=1, queue=1, seconds=LIMIT_S, answer_mb=1)
    with closing(WorkThreads(limits, ServiceInstruments(CollectorRegistry()))) as work:
        whole = asyncio.run(ask(work, pieces))
        assert whole == b"x" * 1_200_000 + b"|The answer is longer than 1 MB; ask for fewer rows or columns."
        with pytest.raises(AnswerTooLongError):
            asyncio.run(ask(work, lambda: iter([b"x" * 400_000] * 9)))


def test_no_answer_is_begun_while_too_much_is_unread():
    limits = LimitsConfig(workers=1, queue=1, seconds=LIMIT_S, answer_mb=1)

    async def ask(work):
        streams = [await work.stream(lambda: iter([b"x" * 900_000])) for _ in range(5)]
        with pytest.raises(BusyError):
            await work.stream(lambda: iter([b"x"]))
        for stream in streams:
            assert len(b"".join([piece async for piece in stream])) == 900_000
        del streams, stream
        return b"".join([piece async for piece in await work.stream(lambda: iter([b"y"]))])

    with closing(WorkThreads(limits, ServiceInstruments(CollectorRegistry()))) as work:
        assert asyncio.run(ask(work)) == b"y"


def test_an_answer_that_meets_its_limit_ends_well(hasty):
    """What a process made of a query that is killed is an answer all the same, and says what ended it."""

    def pieces():
        yield b"rows"
        try:
            slow()
        except OutOfTimeError as error:
            yield f"|{error}".encode()

    async def ask():
        return b"".join([piece async for piece in await hasty.stream(pieces)])

    assert asyncio.run(ask()) == b"rows|the query took longer than 0.3 s; ask for less, or for a smaller part of the sky."


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


def test_a_streams_time_is_that_of_making_it_not_of_reading_it(work, hasty, monkeypatch):
    async def read_slowly():
        stream, got = await work.stream(lambda: iter([piece * SENT_BYTES for piece in (b"1", b"2", b"3")])), []
        async for piece in stream:
            got.append(piece[:1])
            # There is one thread: it is free again once the answer is made.
            await work.run(lambda: None)
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
    monkeypatch.setattr("scanner.service.context.END_S", 0)
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
