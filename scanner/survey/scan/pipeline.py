"""Stages that work at the same time, each in a thread of its own: while one item is written, the next is being made.

In: an iterable and functions. Out: the results, in order. Every queue between two stages holds ``depth`` items at most, so a
slow stage holds back those before it and memory does not depend on the number of items. What a stage raises ends all stages
after the item they are at, and is raised as it was where the results are asked for. Refused: nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any


@contextmanager
def pipeline(
    source: Iterable[Any],
    *stages: Callable[[Any], Any],
    depth: int = 1,
    on_queue: Callable[[int, int], None] = lambda line, length: None,
) -> Iterator[Iterator[Any]]:
    """Iterate over ``stages[-1](… stages[0](item))`` for the items of a source.

    The source and each stage have a thread; none of these is left when the block ends, however it ends.

    Parameters
    ----------
    source
        Iterated, and closed if it is a generator, in one thread.
    stages
        One argument, one result.
    depth
        Items that wait before each stage, and before the block, at most.
    on_queue
        Called with the number of a queue, from 0 after the source, and its new length.

    Yields
    ------
    Iterator
        The results. It raises what the source or a stage raised, without waiting for the results before it.
    """
    run = _Run()
    lines = [_Line(run, depth, partial(on_queue, number)) for number in range(len(stages) + 1)]
    sources = [iter(source), *(_applied(stage, line) for stage, line in zip(stages, lines, strict=False))]
    threads = [
        # A second interruption must not wait for them at the end of the process.
        threading.Thread(target=_feed, args=(run, made, line), name=f"pipeline-{number}", daemon=True)
        for number, (made, line) in enumerate(zip(sources, lines, strict=True))
    ]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        yield _results(run, lines[-1])
    finally:
        run.stop(None)
        for thread in started:
            thread.join()


class _Stopped(BaseException):
    """The pipeline is being ended."""


class _Ended(BaseException):
    """Nothing more comes along a line."""


class _Run:
    """What the stages of one pipeline share: whether they go on, and the first thing that went wrong."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.stopped = False
        self.error: BaseException | None = None

    def stop(self, error: BaseException | None) -> None:
        with self.changed:
            if not self.stopped:
                self.stopped, self.error = True, error
            self.changed.notify_all()

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait, holding ``changed``, until something is so or the pipeline is stopped."""
        self.changed.wait_for(lambda: self.stopped or ready())
        if self.stopped:
            raise _Stopped


class _Line:
    """A queue between two stages."""

    def __init__(self, run: _Run, depth: int, on_length: Callable[[int], None]) -> None:
        self._run, self._depth, self._on_length = run, depth, on_length
        self._items: deque[Any] = deque()
        self._ended = False

    def put(self, item: Any) -> None:
        with self._run.changed:
            self._run.wait_for(lambda: len(self._items) < self._depth)
            self._items.append(item)
            self._on_length(len(self._items))
            self._run.changed.notify_all()

    def end(self) -> None:
        with self._run.changed:
            self._ended = True
            self._run.changed.notify_all()

    def take(self) -> Any:
        with self._run.changed:
            self._run.wait_for(lambda: bool(self._items) or self._ended)
            if not self._items:
                raise _Ended
            item = self._items.popleft()
            self._on_length(len(self._items))
            self._run.changed.notify_all()
            return item


# The loops below name no item: the name would keep a batch of cutouts alive until the next one comes.


def _applied(stage: Callable[[Any], Any], line: _Line) -> Iterator[Any]:
    with suppress(_Ended):
        while True:
            yield stage(line.take())


def _feed(run: _Run, source: Iterator[Any], line: _Line) -> None:
    try:
        try:
            with suppress(StopIteration):
                while True:
                    line.put(next(source))
        finally:
            if isinstance(source, Generator):
                source.close()
        line.end()
    except _Stopped:
        pass
    except BaseException as error:
        run.stop(error)


def _results(run: _Run, line: _Line) -> Iterator[Any]:
    try:
        while True:
            yield line.take()
    except _Ended:
        return
    except _Stopped:
        pass
    if run.error is not None:
        raise run.error
