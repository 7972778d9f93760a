"""Signals as Ctrl-C, also while DuckDB works; worker processes that end with their parent and do not run its script again."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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


def begin_worker() -> None:
    """First act of a worker process: leave Ctrl-C to the parent, and end when the parent has ended.

    Workers of a pool wait for more work for ever when their parent is killed, as each holds the pipe's other end open.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
