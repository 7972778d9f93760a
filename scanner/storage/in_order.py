"""Waiting for a disk or an object store in a few threads; results come in the order of the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """Apply a function to items, at most ``2 * threads`` ahead; what it raises is raised at the item's turn.

    Parameters
    ----------
    work
        Called in other threads.
    items
        Taken in this thread, as places become free.
    threads
        Calls at a time.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Nobody waits for the rest: neither after an error nor when the reader has left.
            for future in waiting:
                future.cancel()
