"""Signals as Ctrl-C, also while DuckDB works; processes that share work and end with their parent; how many cores there are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from scanner.errors import ScannerError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor

_hiding = threading.RLock()
_hidden: dict[str, Any] = {}
_n_hiding = 0


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt where the block is when SIGTERM comes; outside the main thread, which takes signals, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        # None: a handler that Python did not set, and cannot set again.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)


@contextmanager
def script_kept_from_children() -> Iterator[None]:
    """Start processes in this block that do not import the script which the user runs.

    A process that is spawned imports its parent's ``__main__``. A script that scans without ``if __name__ == "__main__"``
    would scan again in each of its workers, and start workers there. Ours call functions of scanner and need nothing of it.
    """
    global _n_hiding
    main = vars(sys.modules["__main__"])
    with _hiding:
        if _n_hiding == 0:
            _hidden.update({name: main[name] for name in ("__file__", "__spec__") if name in main})
            main.pop("__file__", None)
            main["__spec__"] = None
        _n_hiding += 1
    try:
        yield
    finally:
        with _hiding:
            _n_hiding -= 1
            if _n_hiding == 0:
                main.update(_hidden)
                _hidden.clear()


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that call functions, each a fresh interpreter; what they are at is given up when the block is interrupted.

    Forked children of a process with threads (BLAS, progress bars) can hang.
    """
    from concurrent.futures import ProcessPoolExecutor

    context = get_context("spawn")
    interrupted, interrupt = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(interrupted,))
    try:
        yield pool
    except (KeyboardInterrupt, GeneratorExit):
        interrupt.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        interrupt.close()
        interrupted.close()


def _begin_worker(interrupted: Connection) -> None:
    """First act of a worker process: leave Ctrl-C to the parent, and end when that is interrupted, or has ended.

    Workers of a pool wait for more work for ever when their parent is killed, as each holds the pipe's other end open.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(interrupted,), daemon=True).start()


def _end_with_parent(interrupted: Connection) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel, interrupted])
        os._exit(1)


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
    from concurrent.futures import as_completed
    from concurrent.futures.process import BrokenProcessPool

    try:
        with worker_pool(min(workers, len(calls))) as pool:
            with _one_thread_each():
                futures = [pool.submit(function, *arguments) for arguments in calls]
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                yield done
    except BrokenProcessPool:
        raise ScannerError(
            "a worker process was killed, for want of memory perhaps; give the same command again, or with fewer --workers."
        ) from None


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


@contextmanager
def ctrl_c_interrupts() -> Iterator[None]:
    """Let Ctrl-C end the block's queries as it ends Python code.

    DuckDB stops a query at a signal but swallows the ``KeyboardInterrupt`` and raises a ``RuntimeError``, known by its text.
    With several threads it may finish a step of the query before.

    Raises
    ------
    KeyboardInterrupt
        A signal that Python turns into it has interrupted a query.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def cores() -> int:
    """Processor cores that this process may use: its affinity, and the quota of its container."""
    from dask.system import cpu_count

    return int(cpu_count())
