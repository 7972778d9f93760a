"""Independent pieces of drawing, spread over processes.

In: a module-level function and the arguments of every call. Out: how many calls have finished, as they finish. An interrupt
or an error stops the calls that have not begun and is raised once the running ones have ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from scanner.errors import ScannerError

#: What numerical libraries read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_all(function: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int) -> Iterator[int]:
    """Call ``function`` with every tuple of arguments; yields 1, 2, 3 ... as calls finish, in any order.

    Parameters
    ----------
    function
        Must be importable, and its arguments picklable, if ``workers`` is above 1.
    calls
        Positional arguments of each call.
    workers
        Processes; with one, everything runs in this process.

    Raises
    ------
    ScannerError
        A process was killed from outside.
    """
    if workers <= 1 or len(calls) <= 1:
        for done, arguments in enumerate(calls, start=1):
            function(*arguments)
            yield done
        return
    # Fresh interpreters: forked children of a process with threads (BLAS, progress bars) can hang.
    pool = ProcessPoolExecutor(
        min(workers, len(calls)), mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent
    )
    try:
        with _one_thread_each():
            futures = [pool.submit(function, *arguments) for arguments in calls]
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            yield done
    except BrokenProcessPool:
        raise ScannerError(
            "a worker process was killed, for want of memory perhaps; give the same command again, or with fewer --workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """For the processes that start meanwhile: their numerical libraries would fight for the cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
