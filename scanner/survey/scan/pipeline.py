"""The stages of a tile: each in a thread of its own, and timed. While one batch is written, the next is being made."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from scanner.survey import metrics
from scanner.survey.messages import Stage


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


Item = TypeVar("Item")


class _Recorded:
    """Processor time of all stages of all tiles of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.core_seconds = 0.0


_recorded = _Recorded()


class Stopwatch:
    """Seconds spent in each stage of a tile, in whatever threads."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._core_seconds: dict[str, float] = defaultdict(float)
        self.begin()

    def begin(self) -> None:
        """From here on the process is at work on this tile: what no stage accounts for is the tile's too."""
        self._began = time.perf_counter()
        self._began_core = time.process_time() - _recorded.core_seconds

    @contextmanager
    def stage(self, name: Stage) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start, core_start = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - start, time.thread_time() - core_start)
        metrics.stage_seconds(name, time.perf_counter() - start)

    def each(self, name: Stage, items: Iterable[Item]) -> Iterator[Item]:
        """Go through items, adding the time that each takes to come to a stage."""
        iterator = iter(items)
        with suppress(StopIteration):
            while True:
                with self.stage(name):
                    item = next(iterator)
                yield item
                del item  # Held no longer than by the stage that took it.

    def add_core_seconds(self, name: Stage, seconds: float) -> None:
        """Add processor time that other threads spent for a stage."""
        self._add(name, 0.0, seconds)

    def add(self, seconds: Mapping[str, float], core_seconds: Mapping[str, float]) -> None:
        """Add what another process reported of its work on the same tile."""
        for name, value in seconds.items():
            self._seconds[name] += value
        for name, value in core_seconds.items():
            self._core_seconds[name] += value

    @property
    def elapsed(self) -> float:
        """Seconds on the clock since :meth:`begin`."""
        return time.perf_counter() - self._began

    @property
    def seconds(self) -> dict[str, float]:
        """On the clock, by stage, and as ``tile`` since :meth:`begin`; stages overlap."""
        return self._rounded(self._seconds, "tile", self.elapsed)

    @property
    def core_seconds(self) -> dict[str, float]:
        """Of processors, by stage; ``other``: since :meth:`begin`, in no stage: threads of libraries."""
        other = time.process_time() - _recorded.core_seconds - self._began_core
        return self._rounded(self._core_seconds, "other", max(other, 0.0))

    def _rounded(self, values: Mapping[str, float], name: str, value: float) -> dict[str, float]:
        return {key: round(number, 3) for key, number in {**values, name: values.get(name, 0.0) + value}.items()}

    def _add(self, name: Stage, seconds: float, core_seconds: float) -> None:
        with _recorded.lock:
            self._seconds[name] += seconds
            self._core_seconds[name] += core_seconds
            _recorded.core_seconds += core_seconds
