"""A stage over the candidates of a finished run: those that it still lacks are dealt with on workers, some of a tile a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS

from scanner.config import RunConfig
from scanner.errors import ContentError, OutputError, ScannerError, ScratchFullError, UnavailableError
from scanner.records import Band, CommitRecord, CutoutBatch, FailedTile, Record, Tile
from scanner.storage import Store, open_store
from scanner.survey import metrics
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.messages import TileProgress
from scanner.survey.objects import tile_cutouts
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import OnProgress, Steps

#: Candidates of one job: what a killed worker loses, and what one tile is divided into for many workers.
CANDIDATES_PER_JOB = 8


class CandidatesJob(Record):
    """Candidates of one tile that a stage is to deal with."""

    run_folder: str
    tile: Tile
    config: RunConfig
    bundle_fingerprint: str
    target_ids: tuple[int, ...]


class CandidatesOutcome(Record):
    """Outcome of a job: how many candidates are done, why others are not.

    ``temporary``: to be tried again. ``fatal``: no other job could fare better, as where a disk is full.
    """

    tile_id: str
    n_done: int
    reason: str = ""
    temporary: bool = False
    fatal: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether all candidates are done."""
        return not self.reason

    @property
    def retry_reason(self) -> str | None:
        """Why it failed, where another attempt may fare better."""
        return self.reason if self.temporary else None

    @classmethod
    def given_up(cls, tile_id: str, reason: str) -> CandidatesOutcome:
        """The outcome of a job that is not tried any more."""
        return cls(tile_id=tile_id, n_done=0, reason=reason)


JobT = TypeVar("JobT", bound=CandidatesJob)


def missing(
    folder: RunFolder, wanted: Iterable[tuple[str, int]], is_done: Callable[[str, int, str | None], bool]
) -> dict[str, list[int]]:
    """Targets by tile that are not done yet.

    Parameters
    ----------
    folder
        The run.
    wanted
        Tile and target of each candidate.
    is_done
        Called with these and the fingerprint of the tile's input; None: the tile is not committed.
    """
    inputs: dict[str, str | None] = {}
    todo: dict[str, list[int]] = {}
    for tile_id, target_id in wanted:
        if tile_id not in inputs:
            commit = folder.commit_of(tile_id)
            inputs[tile_id] = None if commit is None else commit.input_fingerprint
        if not is_done(tile_id, target_id, inputs[tile_id]):
            todo.setdefault(tile_id, []).append(target_id)
    return todo


def in_jobs(todo: Mapping[str, list[int]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tile and targets of each job."""
    for tile_id, ids in sorted(todo.items()):
        for start in range(0, len(ids), CANDIDATES_PER_JOB):
            yield tile_id, tuple(ids[start : start + CANDIDATES_PER_JOB])


def run_jobs(
    jobs: Sequence[JobT],
    config: RunConfig,
    steps: Steps[JobT, CandidatesOutcome],
    on_done: Callable[[int], None],
    *,
    on_gpu: bool = False,
) -> tuple[int, tuple[FailedTile, ...]]:
    """Do the jobs on the workers: how many candidates are done then, and tiles that failed, with reasons.

    ``on_done``: called with the number of candidates done, after each job. ``on_gpu``: networks are asked, on a GPU.

    Raises
    ------
    OutputError
        What a worker made cannot be written.
    """
    n_done = 0
    failed: dict[str, FailedTile] = {}
    with closing(run_on_workers(jobs, len(jobs), config, steps, on_gpu=on_gpu)) as outcomes:
        for outcome in outcomes:
            n_done += outcome.n_done
            if outcome.fatal:
                raise OutputError(outcome.reason)
            if outcome.reason:
                failed[outcome.tile_id] = FailedTile(tile_id=outcome.tile_id, reason=outcome.reason)
            on_done(n_done)
    return n_done, tuple(failed[tile_id] for tile_id in sorted(failed))


def sweep(store: Store, written: str, record: str, todo: Iterable[str]) -> None:
    """Remove what killed workers left half-written of candidates, each a folder ``WRITTEN/TILE/TARGET`` with a ``record``.

    For the holder of the run folder ``store``; ``todo``: the tiles that were worked on.
    """
    for tile_id in todo:
        store.sweep(f"{written}/{tile_id}", record)


def outcome_of(
    job: CandidatesJob, written: Iterator[int], on_progress: OnProgress, stage: metrics.CandidateStage | None = None
) -> CandidatesOutcome:
    """Do a job on a worker; ``written`` does one candidate after the other and yields how many are written.

    ``stage``: by which name metrics count it.
    """
    n_done, n_targets = 0, len(job.target_ids)
    reason, temporary, fatal = "", False, False
    on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=0, n_targets=n_targets))
    began = time.perf_counter()
    try:
        for n_done in written:
            if stage is not None:
                metrics.candidate_done(stage, time.perf_counter() - began)
            began = time.perf_counter()
            on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=n_done, n_targets=n_targets))
    except ScannerError as error:
        reason, temporary = str(error), isinstance(error, UnavailableError | ScratchFullError)
        fatal = isinstance(error, OutputError) and not temporary
    return CandidatesOutcome(tile_id=job.tile.tile_id, n_done=n_done, reason=reason, temporary=temporary, fatal=fatal)


@dataclass(frozen=True)
class CandidatesAtHand:
    """What a job works on: the run, the tile's commit, the candidates' cutouts, and where there is room for files.

    ``objects``: the tile's whole table. ``wcs``: of its VIS mosaic. ``zero_points``: AB magnitude of one unit, where known.
    """

    folder: RunFolder
    commit: CommitRecord
    objects: pa.Table
    cutouts: CutoutBatch
    wcs: WCS
    zero_points: dict[Band, float]
    scratch: Path | None


def commit_at_hand(folder: RunFolder, tile_id: str) -> CommitRecord:
    """The commit record of a tile that was scanned.

    Raises
    ------
    ContentError
        It has gone.
    """
    commit = folder.commit_of(tile_id)
    if commit is None:
        raise ContentError(f"{folder.store.where(folder.tile(tile_id))}: its commit record has gone; run again.")
    return commit


def opened(job: CandidatesJob) -> CandidatesAtHand:
    """Open what a job works on.

    Raises
    ------
    ContentError
        The tile's commit record has gone, or its table holds none of the candidates.
    """
    folder, tile_id = RunFolder(open_store(job.run_folder, job.config.storage)), job.tile.tile_id
    commit = commit_at_hand(folder, tile_id)
    table = folder.scores(commit)
    rows = table.take(np.flatnonzero(np.isin(table["target_id"].to_numpy(), job.target_ids)))
    if not len(rows):
        raise ContentError(f"{folder.store.where(folder.tile(tile_id))}: its table holds none of the candidates; run again.")
    cut = tile_cutouts(rows, folder, job.tile, job.config)
    scratch = None if job.config.engine.scratch is None else Path(job.config.engine.scratch)
    return CandidatesAtHand(folder, commit, table, cut.batch, cut.wcs, cut.zero_points, scratch)
