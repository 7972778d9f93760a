import threading
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import LIMIT_S

from scanner.survey.scan.pipeline import pipeline


class StumbleError(Exception):
    """Told by its place."""


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("pipeline-")}


@given(st.integers(0, 12), st.integers(0, 4), st.integers(1, 3))
def test_all_results_in_order(n, n_stages, depth):
    stages = [lambda item, added=10**number: item + added for number in range(n_stages)]
    with pipeline(range(n), *stages, depth=depth) as results:
        assert list(results) == [item + sum(10**number for number in range(n_stages)) for item in range(n)]
    assert not threads()


@settings(max_examples=200)
@given(st.data(), st.integers(1, 12), st.integers(1, 4), st.integers(1, 3))
def test_whatever_fails_ends_all_and_arrives_as_it_was(data, n, n_stages, depth):
    """The source, any stage or the block fails at any item, with any kind of exception."""
    place = data.draw(st.integers(-1, n_stages), "place: source, stages, block")
    at = data.draw(st.integers(0, n - 1), "item")
    error = data.draw(st.sampled_from([StumbleError("here"), KeyboardInterrupt(), SystemExit(3), OSError(28, "full")]))
    closed, received = [], []

    def fail(here, item):
        if (here, item) == (place, at):
            raise error
        return item

    def source():
        try:
            for item in range(n):
                yield fail(-1, item)
        finally:
            closed.append(True)

    stages = [lambda item, here=here: fail(here, item) for here in range(n_stages)]

    def drain():
        with pipeline(source(), *stages, depth=depth) as results:
            received.extend(fail(n_stages, item) for item in results)

    with pytest.raises(type(error)) as caught:
        drain()
    assert caught.value is error
    assert received == list(range(len(received)))
    assert len(received) <= at
    assert not threads()
    assert closed == [True]


@given(st.integers(0, 8), st.integers(0, 3), st.integers(1, 3))
def test_a_block_that_leaves_early_ends_the_stages(taken, n_stages, depth):
    with pipeline(iter(int, 1), *[lambda item: item] * n_stages, depth=depth) as results:
        for _ in range(taken):
            next(results)
    assert not threads()
    assert list(results) == []


@given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 30))
def test_a_slow_block_holds_the_stages_back(n_stages, depth, n):
    """One item in each thread, ``depth`` in each queue: no more are alive, however many there are."""
    begun, lengths = [0], []

    def source():
        for item in range(n):
            begun[0] += 1
            yield item

    stages = [lambda item: item] * n_stages
    with pipeline(source(), *stages, depth=depth, on_queue=lambda line, length: lengths.append((line, length))) as results:
        for taken, _ in enumerate(results, start=1):
            assert begun[0] <= taken + (n_stages + 1) * (depth + 1)
    assert {line for line, _ in lengths} == set(range(n_stages + 1))
    assert max(length for _, length in lengths) <= depth


def test_stages_work_at_the_same_time():
    """Each stage waits for the others to be at work too: with fewer threads than stages this would never end."""
    together = threading.Barrier(3, timeout=LIMIT_S)

    def source():
        for item in range(6):
            if item >= 4:
                together.wait()
            yield item

    def stage(item):
        if item in (2, 3):
            together.wait()
        return item

    with pipeline(source(), stage) as results:
        for item in results:
            if item in (0, 1):
                together.wait()


def test_a_stage_that_ends_an_iteration_by_mistake_does_not_cut_the_results_short():
    with pytest.raises(RuntimeError), pipeline(range(3), lambda _: next(iter(()))) as results:
        list(results)


def test_a_batch_is_let_go_when_it_is_through():
    class Batch:
        pass

    made = []

    def source():
        for _ in range(5):
            batch = Batch()
            made.append(weakref.ref(batch))
            yield batch
            del batch

    with pipeline(source(), lambda batch: batch) as results:
        for number in range(5):
            batch = next(results)
            assert made[number]() is batch
            del batch
            assert made[number]() is None


def test_an_error_while_the_source_is_closed_is_told():
    def source():
        yield 1
        try:
            yield 2
        finally:
            raise StumbleError("closing")

    with pytest.raises(StumbleError, match="closing"), pipeline(source()) as results:
        list(results)


def test_a_thread_that_cannot_be_started_leaves_none_behind(monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "pipeline-1":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="start new thread"), pipeline(iter(int, 1), str):
        pass
    assert not threads()
