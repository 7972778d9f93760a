"""Training runs as jobs, one member each, side by side in processes, and the events that they report."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import Field

from scanner.atomic_file import write_atomically
from scanner.config import StorageConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import MODEL_FILE
from scanner.errors import InputMissingError, ScannerError, UnavailableError, UsageError, error_with_code
from scanner.processes import cores
from scanner.records import MEMBERS, MemberName, Record
from scanner.storage.contract import held_in_turn
from scanner.storage.disk import LocalStore
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord, HistoryRow, Mirror, Standing, State, plot_history, write_history
from scanner.training.data import (
    DrawnSet,
    Labels,
    ScaledImages,
    Split,
    TrainingData,
    draw_missing,
    read_drawn,
    scale_data,
    split,
)
from scanner.training.export import read_members
from scanner.training.fit import FitRequest, Interruption, Reports, Start, fit
from scanner.training.presets import RESIDUAL, Preset, TrainedName, time_shares, training_order
from scanner.training.residual import ResidualNetwork, to_onnx
from scanner.training.trainer import usable_device

#: The residual network of a finished run, as 'scanner models add-member' takes it.
ONNX = "residual.onnx"
#: Seconds between two events of a run's progress.
PROGRESS_SECONDS = 5.0
logger = logging.getLogger(__name__)
#: Seconds between two checks whether a signal came, while jobs run.
POLL_SECONDS = 0.5


class TrainingJob(Record):
    """One member to be trained, on the datasets ``data`` or on what is ``drawn``.

    ``time_budget``: in seconds. ``bundle``: what its weights are taken from, if any. ``mirror``: location of the runs' mirror,
    if any, and ``storage``: how it is reached.
    """

    data: tuple[Path, ...] = ()
    drawn: DrawnSet | None = None
    out: Path
    member: TrainedName
    preset: Preset
    seed: int = Field(ge=0)
    time_budget: float | None = Field(None, gt=0)
    bundle: Path | None = None
    threads: int = Field(1, ge=1)
    device: str = "cpu"
    mirror: str | None = None
    storage: StorageConfig = StorageConfig()

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return self.out / self.member

    @property
    def source(self) -> MemberName | None:
        """The member that this one begins as a copy of."""
        return None if self.bundle is not None or self.member == RESIDUAL else self.preset.copies.get(self.member)

    @property
    def scaled(self) -> Path:
        """Where the scaled images are, for all members."""
        name = f"scaled-{self.preset.preprocessing}"
        return self.out / (name if self.preset.image_type == "float16" else f"{name}-{self.preset.image_type}")


class MemberStarted(Record):
    """A process begins to train a member, or resumes it."""

    member: TrainedName


class MemberProgress(Record):
    """A few seconds of training."""

    member: TrainedName
    share: float = Field(ge=0, le=1, description="share of the planned steps that are made, over all stages")
    passes: float = Field(ge=0, description="passes over the training rows, from the start of the run")
    n_objects: int = Field(ge=0, description="objects trained on since the event before")


class MemberValidated(Record):
    """A validation."""

    member: TrainedName
    row: HistoryRow


class MemberSaved(Record):
    """A checkpoint is on the disk."""

    member: TrainedName


class MemberMirrored(Record):
    """The checkpoint is on the mirror too, or could not be brought there."""

    member: TrainedName
    succeeded: bool


class MemberFinished(Record):
    """A member is trained."""

    member: TrainedName


TrainingEvent = MemberStarted | MemberProgress | MemberValidated | MemberSaved | MemberMirrored | MemberFinished


Listener = Callable[[TrainingEvent], None]


def ignore(event: TrainingEvent) -> None:
    """Listen to nothing."""


def run_job(job: TrainingJob, listen: Listener = ignore) -> FitRecord:
    """Train one member, or resume it; all members share the scaled images.

    A job that gets SIGTERM or Ctrl-C saves itself and stops. A mirror that does not answer is tried again after the next
    checkpoint; at the end of the run it stops the job.

    Parameters
    ----------
    job
        What to train.
    listen
        Called with each event.

    Raises
    ------
    InputMissingError
        The member begins as a copy of another, which has not been trained yet.
    UsageError
        The bundle that it is to begin with was made for other scaling.
    HeldError
        Another job trains this member, into the same folder or mirror.
    """
    # Refused, if so, before anything is scaled.
    job.preset.stages(job.member, "random" if job.bundle is None else "bundle")
    listen(MemberStarted(member=job.member))
    with held_in_turn(LocalStore(job.folder)), _mirrored(job) as mirror:
        images, labels, rows, fingerprint = _training_set(job)
        request = FitRequest(
            member=job.member,
            preset=job.preset,
            seed=job.seed,
            dataset_sha256=fingerprint,
            time_budget=job.time_budget,
            start=_start(job),
            threads=job.threads,
            device=job.device,
        )
        network, found = fit(images, labels, rows, request, job.folder, _reports(job, mirror, listen))
        if isinstance(network, ResidualNetwork):
            write_atomically(job.folder / ONNX, to_onnx(network))
        write_history(job.folder, found.history)
        plot_history(job.folder, found.history, job.member)
        if mirror is not None:
            mirror.push(job.folder, _standing(job.folder))
            listen(MemberMirrored(member=job.member, succeeded=True))
    listen(MemberFinished(member=job.member))
    return found


def _training_set(job: TrainingJob) -> tuple[ScaledImages, Labels, Split, str]:
    """What a job is trained on, scaled or drawn where it is not yet; with its fingerprint."""
    preset, scaling, kind = job.preset, job.preset.preprocessing, job.preset.image_type
    if job.drawn is None:
        data = TrainingData(job.data, preset.shares)
        return scale_data(data, job.scaled, scaling, image_type=kind), data.labels, data.split, data.fingerprint
    draw_missing(job.drawn, scaling, job.device, image_type=kind)
    images, labels = read_drawn(job.drawn, scaling, kind)
    return images, labels, split(len(labels), shares=preset.shares), job.drawn.fingerprint


def _start(job: TrainingJob) -> Start | None:
    if job.bundle is not None and job.member != RESIDUAL:
        bundle = bundles.load(job.bundle)
        if bundle.manifest.preprocessing != job.preset.preprocessing:
            raise UsageError(
                f"{bundle.path}: its networks see {bundle.manifest.preprocessing} images, but preset {job.preset.name} trains "
                f"on {job.preset.preprocessing} ones; choose another --preset or leave --from out."
            )
        network = read_members(bundle.path / MODEL_FILE)[job.member]
        return Start(bundle.fingerprint, network=network, trained_on=bundle.manifest.trained_on)
    source = job.source
    if source is None:
        return None
    if not (job.out / source / checkpoint.FIT).exists():
        raise InputMissingError(f"{job.out / source}: {job.member} begins as a copy of {source}; train that one first.")
    return Start(source, twin=(source, checkpoint.load(job.out / source).network))


@contextmanager
def _mirrored(job: TrainingJob) -> Iterator[Mirror | None]:
    """The job's mirror, held, after the run and what it is to begin as were brought to the mirror's state."""
    if job.mirror is None:
        yield None
        return
    if job.source is not None:
        source = job.out / job.source
        Mirror(job.mirror, job.source, job.storage).pull(source, _standing(source))
    mirror = Mirror(job.mirror, job.member, job.storage)
    with mirror.held():
        mirror.pull(job.folder, _standing(job.folder))
        yield mirror


def _reports(job: TrainingJob, mirror: Mirror | None, listen: Listener) -> Reports:
    """What a run calls: it sends events, writes the history and mirrors checkpoints."""
    reported, n_objects = time.monotonic(), 0

    def stepped(share: float, state: State, n: int) -> None:
        nonlocal reported, n_objects
        n_objects += n
        if time.monotonic() - reported > PROGRESS_SECONDS or share == 1.0:
            listen(MemberProgress(member=job.member, share=share, passes=state.passes, n_objects=n_objects))
            reported, n_objects = time.monotonic(), 0

    def saved(state: State) -> None:
        listen(MemberSaved(member=job.member))
        if mirror is None:
            return
        try:
            mirror.push(job.folder, Standing(stage=state.stage, step=state.step))
        except UnavailableError as error:
            logger.warning("%s; training goes on, the mirror holds an earlier checkpoint.", str(error).rstrip("."))
            listen(MemberMirrored(member=job.member, succeeded=False))
        else:
            listen(MemberMirrored(member=job.member, succeeded=True))

    def validated(rows: tuple[HistoryRow, ...]) -> None:
        write_history(job.folder, rows)
        listen(MemberValidated(member=job.member, row=rows[-1]))

    return Reports(stepped, saved, validated)


def _standing(folder: Path) -> Standing:
    state = checkpoint.load(folder)
    return Standing(stage=state.stage, step=state.step, finished=(folder / checkpoint.FIT).exists())


def pull_members(mirror: str, out: Path, storage: StorageConfig) -> None:
    """Bring the runs of all members to the state of a mirror, where that is further."""
    for member in MEMBERS:
        Mirror(mirror, member, storage).pull(out / member, _standing(out / member))


def all_jobs(first: TrainingJob, workers: int, members: Sequence[TrainedName] = MEMBERS) -> list[TrainingJob]:
    """The job for each member, dearest first; a time budget is meant for all of them together on ``workers`` processes."""
    copies = {} if first.bundle is not None else first.preset.copies
    shares = time_shares(members, copies, workers)
    budget = first.time_budget
    return [
        first.model_copy(update={"member": member, "time_budget": None if budget is None else budget * shares[member]})
        for member in training_order(members)
    ]


def run_jobs(jobs: Sequence[TrainingJob], workers: int, listen: Listener = ignore) -> Iterator[FitRecord]:
    """Train members in ``workers`` processes, copies after what they begin from; yields their records as they finish.

    With one worker they are trained in this process, one after the other. The images are scaled, or drawn, before the first
    process starts, so that no two do it. When this process gets SIGTERM or Ctrl-C, or a job fails, all jobs save themselves and
    stop.

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
    first = jobs[0]
    scaling, kind = first.preset.preprocessing, first.preset.image_type
    if first.drawn is None:
        scale_data(TrainingData(first.data), first.scaled, scaling, workers, kind)
    else:
        # A GPU waits for the processor, which lays the scenes out.
        ahead = 0 if first.device == "cpu" else cores()
        draw_missing(first.drawn, scaling, first.device, ahead, _log_drawn, kind)
    if workers == 1:
        for job in jobs:
            yield run_job(job, listen)
        return
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


def _log_drawn(done: int, total: int) -> None:
    logger.info("drew %s of %s objects", f"{done:,}", f"{total:,}")


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
            how = f"ended with exit code {code}" if code else "was stopped"
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


@dataclass
class _Running:
    """A job's process, and whether its record has come."""

    process: BaseProcess
    member: TrainedName
    finished: bool = False


class _Sending:
    """Sends messages to the parent process, from any thread of a job."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: FitRecord | TrainingEvent | logging.LogRecord | tuple[int, str]) -> None:
        with self._lock:
            self._connection.send(message)


class _LogToParent(logging.handlers.QueueHandler):
    """Hands log lines to the parent process, which formats them."""

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
