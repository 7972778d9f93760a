"""Training runs as jobs: one member each.

In: :class:`TrainingJob`. Out: the folder ``<out>/<member>``, its copy on the mirror where there is one, and its
:class:`~scanner.training.checkpoint.FitRecord`. Refused: what datasets, runs and mirrors refuse; a folder that another job
trains into. A job that is told to stop (SIGTERM, Ctrl-C) saves itself and stops. A mirror that does not answer while training
goes on is told and tried again after the next checkpoint; at the end of the run it stops the job.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from scanner.config import StorageConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import MODEL_FILE
from scanner.errors import InputMissingError, UnavailableError, UsageError
from scanner.records import MEMBERS, MemberName, Record
from scanner.storage.holding import held
from scanner.storage.local import LocalStore
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord, State
from scanner.training.data import TrainingData, scale_data
from scanner.training.events import (
    Listener,
    MemberFinished,
    MemberMirrored,
    MemberProgress,
    MemberSaved,
    MemberStarted,
    MemberValidated,
    nobody,
)
from scanner.training.export import read_members
from scanner.training.fit import FitRequest, Start, fit
from scanner.training.history import HistoryRow, plot_history, write_history
from scanner.training.mirror import Mirror, Standing
from scanner.training.presets import Preset
from scanner.training.schedule import time_shares, training_order
from scanner.training.stage_run import Reports

#: Seconds between two words on how far a run is.
PROGRESS_SECONDS = 5.0

logger = logging.getLogger(__name__)


class TrainingJob(Record):
    """One member to be trained.

    ``time_budget``: in seconds. ``bundle``: what its weights are taken from, if any. ``mirror``: location of the runs' mirror,
    if any, and ``storage``: how it is reached.
    """

    data: tuple[Path, ...] = Field(min_length=1)
    out: Path
    member: MemberName
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
        return None if self.bundle is not None else self.preset.copies.get(self.member)

    @property
    def scaled(self) -> Path:
        """Where the scaled images are, for all members."""
        return self.out / f"scaled-{self.preset.preprocessing}"


def run_job(job: TrainingJob, listen: Listener = nobody) -> FitRecord:
    """Train one member, or go on with it. The scaled images are shared by all members.

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
    listen(MemberStarted(member=job.member))
    with held(LocalStore(job.folder)), _mirrored(job) as mirror:
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
        images = scale_data(data, job.scaled, job.preset.preprocessing)
        _, found = fit(images, data.labels, data.split, request, job.folder, _reports(job, mirror, listen))
        write_history(job.folder, found.history)
        plot_history(job.folder, found.history, job.member)
        if mirror is not None:
            mirror.push(job.folder, _standing(job.folder))
            listen(MemberMirrored(member=job.member, succeeded=True))
    listen(MemberFinished(member=job.member))
    return found


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


def pull_members(mirror: str, out: Path, storage: StorageConfig) -> None:
    """Bring the runs of all members to the state of a mirror, where that is further."""
    for member in MEMBERS:
        Mirror(mirror, member, storage).pull(out / member, _standing(out / member))


def _standing(folder: Path) -> Standing:
    state = checkpoint.load(folder)
    return Standing(stage=state.stage, step=state.step, finished=(folder / checkpoint.FIT).exists())


def _reports(job: TrainingJob, mirror: Mirror | None, listen: Listener) -> Reports:
    """What a run is to call: events, the table of its history, copies of its checkpoints."""
    told, n_objects = time.monotonic(), 0

    def stepped(share: float, state: State, n: int) -> None:
        nonlocal told, n_objects
        n_objects += n
        if time.monotonic() - told > PROGRESS_SECONDS or share == 1.0:
            listen(MemberProgress(member=job.member, share=share, passes=state.passes, n_objects=n_objects))
            told, n_objects = time.monotonic(), 0

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


def _start(job: TrainingJob) -> Start | None:
    if job.bundle is not None:
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


def all_jobs(first: TrainingJob, workers: int, members: Sequence[MemberName] = MEMBERS) -> list[TrainingJob]:
    """The job for each member, dearest first; a time budget is meant for all of them together on ``workers`` processes."""
    copies = {} if first.bundle is not None else first.preset.copies
    shares = time_shares(members, copies, workers)
    budget = first.time_budget
    return [
        first.model_copy(update={"member": member, "time_budget": None if budget is None else budget * shares[member]})
        for member in training_order(members)
    ]
