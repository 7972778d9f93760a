"""Explains the candidates of a finished run: a stage of Dask tasks, one for some candidates of a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from scanner import __version__
from scanner.catalogue.rank import leaders
from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError, ScannerError, UnavailableError, pip_install
from scanner.records import FailedTile, MemberName, Tile
from scanner.report import explanations
from scanner.report.explanations import RECORD, ExplainJob, ExplainOutcome, Explanation
from scanner.sky import tile_list
from scanner.storage import open_store
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.finish import summary_of, write_sheet
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.messages import TileProgress
from scanner.survey.scan.scratch import sweep_scratch
from scanner.survey.status import RunReport
from scanner.survey.workers.engine import run_on_workers
from scanner.survey.workers.steps import OnProgress, Steps

if TYPE_CHECKING:
    from torch import nn

    from scanner.config import StorageConfig
    from scanner.ensemble.bundle import Bundle

#: Candidates of one task: what a killed worker loses, and what one tile is divided into for many workers.
CANDIDATES_PER_JOB = 8


@dataclass(frozen=True)
class ExplainReport:
    """``n_before`` of the ``n_candidates`` were explained already, ``n_done`` by this call; ``failed``: tiles with reasons."""

    n_candidates: int
    n_before: int
    n_done: int
    failed: tuple[FailedTile, ...]


def explain_run(out: str, config: RunConfig, report: RunReport, on_progress: Callable[[int, int], None]) -> ExplainReport:
    """Explain the candidates of a run that are drawn on its contact sheet; what is explained already is not done again.

    Parameters
    ----------
    out, config, report
        The run folder, as it was run and what came of it.
    on_progress
        Called with the number of candidates explained and their number, before the first and after each task.

    Raises
    ------
    ScannerError
        The scheduler does not answer, or the run folder cannot be written.
    """
    folder = RunFolder(open_store(out, config.storage))
    record = folder.record()
    tiles = tile_list.read(record.tile_list, config.storage).tiles
    bundle = bundles.load(config.scoring.bundle, config.storage)
    shown = leaders(report.listed).slice(0, config.catalogue.sheet_candidates)
    candidates = shown.filter(shown["is_candidate"])
    with folder.store.held():
        todo = _unexplained(folder, record, candidates)
        n_done, n_before = 0, len(candidates) - sum(map(len, todo.values()))
        on_progress(n_before, len(candidates))
        failed: dict[str, FailedTile] = {}
        jobs = _jobs(folder, record, bundle, tiles, todo, config)
        with closing(run_on_workers(jobs, len(jobs), config, EXPLAINING)) as outcomes:
            for outcome in outcomes:
                n_done += outcome.n_done
                if outcome.reason:
                    failed[outcome.tile_id] = FailedTile(tile_id=outcome.tile_id, reason=outcome.reason)
                on_progress(n_before + n_done, len(candidates))
        if len(candidates):
            with folder.staged_results(record, config.engine.scratch) as staging:
                summary = summary_of(record, bundle, report)
                strips = explanations.strips(folder.store, record.bundle_fingerprint, shown)
                write_sheet(staging / "candidates.html", folder, tiles, config, shown, summary, strips)
    return ExplainReport(len(candidates), n_before, n_done, tuple(failed[tile_id] for tile_id in sorted(failed)))


def _unexplained(folder: RunFolder, record: RunRecord, shown: pa.Table) -> dict[str, list[int]]:
    """Targets by tile that have no explanation, or one of other input files or another bundle."""
    inputs: dict[str, str | None] = {}
    todo: dict[str, list[int]] = {}
    for tile_id, target_id in zip(shown["tile_id"].to_pylist(), shown["target_id"].to_pylist(), strict=True):
        if tile_id not in inputs:
            commit = folder.commit_of(tile_id)
            inputs[tile_id] = None if commit is None else commit.input_fingerprint
        known = explanations.read(folder.store, tile_id, target_id)
        current = (inputs[tile_id], record.bundle_fingerprint)
        if known is None or (known.input_fingerprint, known.bundle_fingerprint) != current:
            todo.setdefault(tile_id, []).append(target_id)
    return todo


def _jobs(
    folder: RunFolder,
    record: RunRecord,
    bundle: Bundle,
    tiles: Mapping[str, Tile],
    todo: Mapping[str, list[int]],
    config: RunConfig,
) -> list[ExplainJob]:
    return [
        ExplainJob(
            run_folder=folder.location,
            tile=tiles[tile_id],
            config=config,
            bundle=bundle.location,
            bundle_fingerprint=record.bundle_fingerprint,
            target_ids=tuple(ids[start : start + CANDIDATES_PER_JOB]),
        )
        for tile_id, ids in sorted(todo.items())
        for start in range(0, len(ids), CANDIDATES_PER_JOB)
    ]


def explain_tile(job: ExplainJob, on_progress: OnProgress) -> ExplainOutcome:
    """Explain the candidates of a job on a worker, those that are explained already too."""
    n_done, n_targets = 0, len(job.target_ids)
    reason, temporary = "", False
    on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=0, n_targets=n_targets))
    try:
        for n_done in _explain(job):
            on_progress(TileProgress(tile_id=job.tile.tile_id, n_done=n_done, n_targets=n_targets))
    except ModuleNotFoundError as error:
        reason = f"a worker lacks {error.name}, which explanations need; there, {pip_install('train')}"
    except ScannerError as error:
        reason, temporary = str(error), isinstance(error, UnavailableError)
    return ExplainOutcome(tile_id=job.tile.tile_id, n_done=n_done, reason=reason, temporary=temporary)


def _explain(job: ExplainJob) -> Iterator[int]:
    """Explain one candidate after the other; yields how many are written."""
    import torch

    from scanner.explain.candidate import METHODS, explained, write_files

    # One thread: sums of several threads differ in their last bits from run to run.
    torch.set_num_threads(1)
    folder = RunFolder(open_store(job.run_folder, job.config.storage))
    commit = folder.commit_of(job.tile.tile_id)
    if commit is None:
        raise ContentError(f"{folder.store.where(folder.tile(job.tile.tile_id))}: its commit record has gone; run again.")
    bundle, networks = _networks(job.bundle, job.bundle_fingerprint, job.config.storage)
    table = folder.scores(commit)
    rows = table.take(np.flatnonzero(np.isin(table["target_id"].to_numpy(), job.target_ids)))
    cutouts = candidate_cutouts(rows, folder, {job.tile.tile_id: job.tile}, job.config)
    scratch = None if job.config.engine.scratch is None else Path(job.config.engine.scratch)
    for number, candidate in enumerate(() if cutouts is None else explained(bundle, networks, cutouts), start=1):
        target_id = int(candidate.cutout.targets.target_id[0])
        with explanations.staged(folder.store, job.tile.tile_id, target_id, scratch) as staging:
            write_files(candidate, staging.path)
            record = Explanation(
                tile_id=job.tile.tile_id,
                target_id=target_id,
                input_fingerprint=commit.input_fingerprint,
                bundle_fingerprint=job.bundle_fingerprint,
                scanner_version=__version__,
                probabilities=tuple(candidate.votes.probabilities[0].tolist()),
                votes=int(candidate.votes.votes[0]),
                spread=float(candidate.votes.spread[0]),
                disagreement_bits=float(candidate.votes.disagreement_bits[0]),
                methods=METHODS,
                place=staging.place,
            )
            (staging.path / RECORD).write_bytes(record.to_bytes())
        yield number


@lru_cache(maxsize=1)
def _networks(location: str, fingerprint: str, storage: StorageConfig) -> tuple[Bundle, Mapping[MemberName, nn.Sequential]]:
    from scanner.explain.networks import restore

    bundle = bundles.load(location, storage)
    if bundle.fingerprint != fingerprint:
        raise ContentError(f"{location}: not the bundle of this run (fingerprint {bundle.fingerprint[:12]}); run again.")
    return bundle, restore(bundle)


def _prepare(job: ExplainJob, scores: bool) -> str:
    return bundles.load(job.bundle, job.config.storage).fingerprint


def _close(config: RunConfig) -> None:
    _networks.cache_clear()


EXPLAINING = Steps(
    outcome=ExplainOutcome, doing="explaining", prepare=_prepare, whole=explain_tile, close=_close, sweep=sweep_scratch
)
