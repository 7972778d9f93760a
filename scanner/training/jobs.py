"""Training runs as jobs: one member each, one process each.

In: :class:`TrainingJob`. Out: the folder ``<out>/<member>`` and its :class:`~scanner.training.checkpoint.FitRecord`. Refused:
what datasets and runs refuse. A job that is told to stop (SIGTERM, Ctrl-C) saves itself and stops; all of its siblings are
told too.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import Field

from scanner.ensemble import bundle as bundles
from scanner.ensemble.manifest import MODEL_FILE
from scanner.errors import InputMissingError, ScannerError, UsageError, error_with_code
from scanner.records import MEMBERS, MemberName, Record
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord
from scanner.training.data import TrainingData, scale_data
from scanner.training.export import read_members
from scanner.training.fit import FitRequest, Start, fit
from scanner.training.history import HistoryRow, plot_history, write_history
from scanner.training.interruption import Interruption
from scanner.training.presets import Preset
from scanner.training.schedule import time_shares, training_order

Report = Callable[[MemberName, HistoryRow], None]
#: Seconds between two looks at whether a signal came, while jobs run.
POLL_SECONDS = 0.5


class TrainingJob(Record):
    """One member to be trained; ``time_budget`` in seconds, ``bundle``: what its weights are taken from, if any."""

    data: tuple[Path, ...] = Field(min_length=1)
    out: Path
    member: MemberName
    preset: Preset
    seed: int = Field(ge=0)
    time_budget: float | None = Field(None, gt=0)
    bundle: Path | None = None
    threads: int = Field(1, ge=1)
    device: str = "cpu"

    @property
    def source(self) -> MemberName | None:
        """The member that this one begins as a copy of."""
        return None if self.bundle is not None else self.preset.copies.get(self.member)

    @property
    def scaled(self) -> Path:
        """Where the scaled images are, for all members."""
        return self.out / f"scaled-{self.preset.preprocessing}"


def run_job(job: TrainingJob, report: Report = lambda member, row: None) -> FitRecord:
    """Train one member, or go on with it. The scaled images are shared by all members.

    Raises
    ------
    InputMissingError
        The member begins as a copy of another, which has not been trained yet.
    UsageError
        The bundle that it is to begin with was made for other scaling.
    """
    data = TrainingData(job.data)
    request = FitRequest(
        member=job.member,
        preset=job.preset,
        seed=job.seed,
        dataset_sha256=data.fingerprint,
        time_budget=job.time_budget,
        start=_start(job),
        threads=job.threads,
        device=job.device,
    )
    folder = job.out / job.member

    def record(rows: tuple[HistoryRow, ...]) -> None:
        write_history(folder, rows)
        report(job.member, rows[-1])

    images = scale_data(data, job.scaled, job.preset.preprocessing)
    _, found = fit(images, data.labels, data.split, request, folder, record)
    write_history(folder, found.history)
    plot_history(folder, found.history, job.member)
    return found


def _start(job: TrainingJob) -> Start | None:
    if job.bundle is not None:
        bundle = bundles.load(job.bundle)
        if bundle.manifest.preprocessing != job.preset.preprocessing:
            raise UsageError(
                f"{bundle.path}: its networks see {bundle.manifest.preprocessing} images, but preset {job.preset.name} trains "
                f"on {job.preset.preprocessing} ones; choose another --preset or leave --from out."
            )
        return Start(bundle.fingerprint, network=read_members(bundle.path / MODEL_FILE)[job.member])
    source = job.source
    if source is None:
        return None
    if not (job.out / source / checkpoint.FIT).exists():
        raise InputMissingError(f"{job.out / source}: {job.member} begins as a copy of {source}; train that one first.")
    return Start(source, twin=(source, checkpoint.load(job.out / source).network))


def all_jobs(first: TrainingJob, workers: int, members: Sequence[MemberName] = MEMBERS) -> list[TrainingJob]:
    """The job for each member, dearest first; a time budget is meant for all of them together on ``workers`` processes."""
    copies = {} if first.bundle is not None else first.preset.copies
    shares = time_shares(members, copies, workers)
    budget = first.time_budget
    return [
        first.model_copy(update={"member": member, "time_budget": None if budget is None else budget * shares[member]})
        for member in training_order(members)
    ]


def run_jobs(jobs: Sequence[TrainingJob], workers: int, report: Report = lambda member, row: None) -> Iterator[FitRecord]:
    """Train members in ``workers`` processes, copies after what they begin from; yields their records as they finish.

    The images are scaled before the first process starts, so that no two do it.

    Parameters
    ----------
    jobs
        Of one folder and one dataset, in the order of preference.
    workers
        Processes at a time.
    report
        Called in this process after every validation of any member.

    Raises
    ------
    KeyboardInterrupt
        SIGTERM or SIGINT came; all jobs have saved themselves.
    """
    scale_data(TrainingData(jobs[0].data), jobs[0].scaled, jobs[0].preset.preprocessing, workers)
    pending = list(jobs)
    running: dict[Connection, BaseProcess] = {}
    # A forked process would inherit torch's thread pool in an unknown state.
    context = multiprocessing.get_context("spawn")
    with Interruption() as interruption:
        try:
            while pending or running:
                unfinished = {job.member for job in jobs if not (job.out / job.member / checkpoint.FIT).exists()}
                able = [job for job in pending if job.source not in unfinished]
                for job in able[: workers - len(running)]:
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_run, args=(job, there), daemon=False)
                    process.start()
                    there.close()
                    running[here] = process
                    pending.remove(job)
                for connection in wait(list(running), POLL_SECONDS):
                    assert isinstance(connection, Connection)
                    yield from _receive(connection, running, report)
                if interruption.asked:
                    raise KeyboardInterrupt
        finally:
            for started in running.values():
                started.terminate()
            for started in running.values():
                started.join()


def _run(job: TrainingJob, connection: Connection) -> None:
    """Run a job in a process of its own; what it reports, its record or its error go through ``connection``."""
    try:
        connection.send(run_job(job, lambda member, row: connection.send((member, row))))
    except ScannerError as error:
        connection.send((error.exit_code, str(error)))
    except KeyboardInterrupt:
        pass
    finally:
        connection.close()


def _receive(connection: Connection, running: dict[Connection, BaseProcess], report: Report) -> Iterator[FitRecord]:
    try:
        message: Any = connection.recv()
    except EOFError:
        process = running.pop(connection)
        process.join()
        if process.exitcode:
            raise ScannerError(
                f"a training process ended with exit code {process.exitcode}; give the same command again and it goes on."
            ) from None
        return
    if isinstance(message, FitRecord):
        yield message
    elif isinstance(message[1], HistoryRow):
        report(*message)
    else:
        raise error_with_code(*message)
