"""Members trained side by side, one process each.

In: :class:`~scanner.training.jobs.TrainingJob`. Out: a :class:`~scanner.training.checkpoint.FitRecord` each, as they finish.
Refused: what a job refuses. All jobs are told to stop, save themselves and stop, when this process is told to (SIGTERM, Ctrl-C)
or when one of them fails.
"""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from scanner.errors import ScannerError, error_with_code
from scanner.records import MemberName
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord
from scanner.training.data import TrainingData, scale_data
from scanner.training.device import usable_device
from scanner.training.events import Listener, TrainingEvent, nobody
from scanner.training.interruption import Interruption
from scanner.training.jobs import TrainingJob, run_job

#: Seconds between two looks at whether a signal came, while jobs run.
POLL_SECONDS = 0.5


def run_jobs(jobs: Sequence[TrainingJob], workers: int, listen: Listener = nobody) -> Iterator[FitRecord]:
    """Train members in ``workers`` processes, copies after what they begin from; yields their records as they finish.

    The images are scaled before the first process starts, so that no two do it.

    Parameters
    ----------
    jobs
        Of one folder and one dataset, in the order of preference.
    workers
        Processes at a time.
    listen
        Called in this process with each event of any member.

    Raises
    ------
    KeyboardInterrupt
        SIGTERM or SIGINT came; all jobs have saved themselves.
    """
    usable_device(jobs[0].device)
    scale_data(TrainingData(jobs[0].data), jobs[0].scaled, jobs[0].preset.preprocessing, workers)
    pending = list(jobs)
    running: dict[Connection, _Running] = {}
    # A forked process would inherit torch's thread pool in an unknown state.
    context = multiprocessing.get_context("spawn")
    with Interruption() as interruption:
        try:
            while pending or running:
                unfinished = {job.member for job in jobs if not (job.folder / checkpoint.FIT).exists()}
                able = [job for job in pending if job.source not in unfinished]
                for job in able[: workers - len(running)]:
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_run, args=(job, there), daemon=False)
                    process.start()
                    there.close()
                    running[here] = _Running(process, job.member)
                    pending.remove(job)
                for connection in wait(list(running), POLL_SECONDS):
                    assert isinstance(connection, Connection)
                    yield from _receive(connection, running, interruption, listen)
                if interruption.asked:
                    raise KeyboardInterrupt
        finally:
            for started in running.values():
                started.process.terminate()
            for started in running.values():
                started.process.join()


@dataclass
class _Running:
    """A job's process, and whether its record has come."""

    process: BaseProcess
    member: MemberName
    finished: bool = False


class _Sending:
    """The way to the parent, for all threads of a job's process."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: FitRecord | TrainingEvent | logging.LogRecord | tuple[int, str]) -> None:
        with self._lock:
            self._connection.send(message)


class _LogToParent(logging.handlers.QueueHandler):
    """Hands log lines to the process that was asked to train, which knows how they are to look."""

    def __init__(self, parent: _Sending) -> None:
        super().__init__(queue.Queue())
        self._parent = parent

    def enqueue(self, record: logging.LogRecord) -> None:
        self._parent.send(record)


@contextmanager
def _logging_to(parent: _Sending) -> Iterator[None]:
    handler, log = _LogToParent(parent), logging.getLogger("scanner")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _run(job: TrainingJob, connection: Connection) -> None:
    """Run a job in a process of its own; its events, log lines, its record or its error go through ``connection``."""
    # Before and after the training proper there is nothing to save, but there are folders to let go of.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = _Sending(connection)
    with _logging_to(parent), suppress(KeyboardInterrupt):
        try:
            parent.send(run_job(job, parent.send))
        except ScannerError as error:
            parent.send((error.exit_code, str(error)))
    connection.close()


def _receive(
    connection: Connection, running: dict[Connection, _Running], interruption: Interruption, listen: Listener
) -> Iterator[FitRecord]:
    try:
        message: Any = connection.recv()
    except EOFError:
        ended = running.pop(connection)
        ended.process.join()
        if not ended.finished and not interruption.asked:
            code = ended.process.exitcode
            how = f"ended with exit code {code}" if code else "was told to stop"
            raise ScannerError(
                f"the process that trained {ended.member} {how}; give the same command again and it goes on."
            ) from None
        return
    if isinstance(message, FitRecord):
        running[connection].finished = True
        yield message
    elif isinstance(message, logging.LogRecord):
        logging.getLogger(message.name).handle(message)
    elif isinstance(message, tuple):
        raise error_with_code(*message)
    else:
        listen(message)
