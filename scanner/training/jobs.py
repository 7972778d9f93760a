"""Training runs as jobs: one member each, one process each.

In: :class:`TrainingJob`. Out: the folder ``<out>/<member>`` and its :class:`~scanner.training.checkpoint.FitRecord`. Refused:
what datasets and runs refuse.

Two members trained side by side with one thread each take less time than one after the other with two.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from pydantic import Field

from scanner.errors import InputMissingError
from scanner.evaluation.labelled_data import Dataset
from scanner.records import MEMBERS, MemberName, Record
from scanner.training import checkpoint
from scanner.training.checkpoint import FitRecord, HistoryRow
from scanner.training.fit import fit
from scanner.training.presets import PRESETS, PresetName
from scanner.training.scaled import scale_dataset
from scanner.training.split import split_dataset

#: Share of a common time budget: members that see VIS at full resolution see the arcs, and cost most.
BUDGET_SHARE: dict[MemberName, float] = {
    "OU-VIS": 0.33,
    "OU-200": 0.25,
    "OU-66": 0.20,
    "OU-JYH": 0.07,
    "OU-J": 0.05,
    "OU-Y": 0.05,
    "OU-H": 0.05,
}


class TrainingJob(Record):
    """One member to be trained; ``time_budget`` in seconds."""

    data: Path
    out: Path
    member: MemberName
    preset: PresetName
    seed: int = Field(ge=0)
    time_budget: float | None = Field(None, gt=0)
    threads: int = Field(1, ge=1)


def run_job(job: TrainingJob, report: Callable[[HistoryRow], None] = lambda row: None) -> FitRecord:
    """Train one member, or go on with it. The scaled images in ``<out>/scaled-…`` are shared by all members.

    Raises
    ------
    InputMissingError
        The member begins as a copy of another, which has not been trained yet.
    """
    dataset = Dataset(job.data)
    preset = PRESETS[job.preset]
    source, start = preset.start_from.get(job.member), None
    if source is not None:
        if not (job.out / source / checkpoint.FIT).exists():
            raise InputMissingError(f"{job.out / source}: {job.member} begins as a copy of {source}; train that one first.")
        start = source, checkpoint.load(job.out / source).network
    images = scale_dataset(dataset, job.out / f"scaled-{preset.preprocessing}", preset.preprocessing)
    _, record = fit(
        images,
        dataset.truth,
        split_dataset(dataset),
        member=job.member,
        preset=preset,
        seed=job.seed,
        folder=job.out / job.member,
        dataset_sha256=dataset.fingerprint,
        time_budget=job.time_budget,
        start=start,
        threads=job.threads,
        report=report,
    )
    return record


def all_members(job: TrainingJob, workers: int) -> list[TrainingJob]:
    """The job for each member, dearest first; a time budget is meant for all of them on ``workers`` processes."""
    jobs = []
    for member in sorted(MEMBERS, key=lambda member: -BUDGET_SHARE[member]):
        budget = None if job.time_budget is None else job.time_budget * workers * BUDGET_SHARE[member]
        jobs.append(job.model_copy(update={"member": member, "time_budget": budget}))
    return jobs


def run_jobs(jobs: Sequence[TrainingJob], workers: int) -> Iterator[FitRecord]:
    """Train members in ``workers`` processes, copies after what they begin from; yields their records as they finish.

    The images are scaled before the first process starts, so that no two do it.
    """
    for preprocessing in {PRESETS[job.preset].preprocessing for job in jobs}:
        scale_dataset(Dataset(jobs[0].data), jobs[0].out / f"scaled-{preprocessing}", preprocessing)
    pending = list(jobs)
    running: set[Future[FitRecord]] = set()
    trained = {job.member for job in jobs if (job.out / job.member / checkpoint.FIT).exists()}
    # A forked process would inherit torch's thread pool in an unknown state.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while pending or running:
            for job in list(pending):
                source = PRESETS[job.preset].start_from.get(job.member)
                if source is None or source in trained or all(source != other.member for other in jobs):
                    running.add(pool.submit(run_job, job))
                    pending.remove(job)
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                record = future.result()
                trained.add(record.plan.member)
                yield record
