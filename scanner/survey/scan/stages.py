"""How long the stages of a tile take, on the clock and of processors.

In: blocks of work, in any thread, each under the name of its stage. Out: seconds by stage. Stages overlap, so their seconds on
the clock add up to more than the tile took; their processor seconds add up to what the process spent on it. Refused: nothing.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

from scanner.survey import metrics
from scanner.survey.messages import Stage

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
                del item  # Held no longer than by whoever took it.

    def add_core_seconds(self, name: Stage, seconds: float) -> None:
        """Add processor time that other threads spent for a stage."""
        self._add(name, 0.0, seconds)

    def add(self, seconds: Mapping[str, float], core_seconds: Mapping[str, float]) -> None:
        """Add what another process told of its work on the same tile."""
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
