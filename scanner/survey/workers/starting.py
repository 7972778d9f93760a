"""What can go wrong while the worker processes of this machine are started.

In: the settings, the number of processes. Out: contexts to start them in. Refused: ports of metrics that are taken
(:class:`UsageError`), what a process refused to start for, processes that do not start (:class:`UnavailableError`).
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

from scanner.config import EngineConfig
from scanner.errors import ScannerError, UnavailableError, UsageError


def refuse_taken_ports(config: EngineConfig, n_workers: int) -> None:
    """A worker whose port of metrics is taken could only say that it does not start."""
    if not config.metrics_port:
        return
    address = config.metrics_address or "0.0.0.0"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(config.metrics_port + 1, config.metrics_port + 1 + n_workers):
        try:
            socket.create_server((address, port), family=family).close()
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"{address}:{port}: a worker cannot serve its metrics there ({error}); choose a --metrics-port with "
                f"{n_workers} free ports after it."
            ) from None


@contextmanager
def told_why() -> Iterator[None]:
    """What a worker process refused to start for, instead of Dask's saying that it did."""
    try:
        yield
    except (RuntimeError, OSError, TimeoutError) as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, ScannerError):
            reason = reason.__cause__ or reason.__context__
        if reason is not None:
            raise reason from None
        raise UnavailableError(f"worker processes do not start on this machine ({error}).") from None


@contextmanager
def interrupts_kept_from_children() -> Iterator[None]:
    """Let Ctrl-C reach this process only, after the block: threads and processes that are begun in it never see it.

    Worker processes begun later, in place of one that died, are started by such a thread and do not see it either.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Python's tracker of shared resources unblocks the signal when it is started: so it is started before. It inherits our
    # warnings, and would warn at the end of what a killed worker's libraries had no time to give back.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
