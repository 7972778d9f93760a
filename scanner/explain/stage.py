"""Explains the candidates of a finished run: a stage of Dask tasks, one for some candidates of a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from scanner import __version__
from scanner.catalogue.rank import leaders
from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.errors import ContentError, pip_install
from scanner.records import FailedTile, MemberName
from scanner.report import explanations
from scanner.report.explanations import EXPLANATIONS, RECORD, Explanation
from scanner.sky import tile_list
from scanner.storage import Store, open_store
from scanner.survey.candidate_stage import (
    CandidatesJob,
    CandidatesOutcome,
    in_jobs,
    missing,
    opened,
    outcome_of,
    run_jobs,
    sweep,
)
from scanner.survey.finish import summary_of, write_sheet
from scanner.survey.folder.ledger import RunFolder, RunRecord
from scanner.survey.scan.scratch import sweep_scratch
from scanner.survey.status import RunReport
from scanner.survey.workers.steps import OnProgress, Steps

if TYPE_CHECKING:
    from torch import nn

    from scanner.config import StorageConfig
    from scanner.ensemble.bundle import Bundle


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
        wanted = zip(candidates["tile_id"].to_pylist(), candidates["target_id"].to_pylist(), strict=True)
        todo = missing(folder, wanted, lambda *place: _is_current(folder.store, record, *place))
        n_before = len(candidates) - sum(map(len, todo.values()))
        on_progress(n_before, len(candidates))
        jobs = [
            ExplainJob(
                run_folder=folder.location,
                tile=tiles[tile_id],
                config=config,
                bundle=bundle.location,
                bundle_fingerprint=record.bundle_fingerprint,
                target_ids=target_ids,
            )
            for tile_id, target_ids in in_jobs(todo)
        ]
        n_done, failed = run_jobs(jobs, config, EXPLAINING, lambda done: on_progress(n_before + done, len(candidates)))
        sweep(folder.store, EXPLANATIONS, RECORD, todo)
        if len(candidates):
            with folder.staged_results(record, config.engine.scratch) as staging:
                summary = summary_of(record, bundle, report)
                strips = explanations.strips(folder.store, record.bundle_fingerprint, shown)
                write_sheet(staging / "candidates.html", folder, tiles, config, shown, summary, strips)
    return ExplainReport(len(candidates), n_before, n_done, failed)


def _is_current(store: Store, record: RunRecord, tile_id: str, target_id: int, input_fingerprint: str | None) -> bool:
    """Whether an object has an explanation, of these input files and by the run's bundle."""
    known = explanations.read(store, tile_id, target_id)
    current = (input_fingerprint, record.bundle_fingerprint)
    return known is not None and (known.input_fingerprint, known.bundle_fingerprint) == current


class ExplainJob(CandidatesJob):
    """Candidates of one tile that are to be explained, by the networks of a bundle."""

    bundle: str


def explain_tile(job: ExplainJob, on_progress: OnProgress) -> CandidatesOutcome:
    """Explain the candidates of a job on a worker, those that are explained already too."""
    try:
        return outcome_of(job, _explain(job), on_progress, "explaining")
    except ModuleNotFoundError as error:
        reason = f"a worker lacks {error.name}, which explanations need; there, {pip_install('train')}"
        return CandidatesOutcome(tile_id=job.tile.tile_id, n_done=0, reason=reason)


def _explain(job: ExplainJob) -> Iterator[int]:
    """Explain one candidate after the other; yields how many are written."""
    import torch

    from scanner.explain.candidate import METHODS, explained, write_files

    # One thread: sums of several threads differ in their last bits from run to run.
    torch.set_num_threads(1)
    at_hand = opened(job)
    bundle, networks = _networks(job.bundle, job.bundle_fingerprint, job.config.storage)
    for number, candidate in enumerate(explained(bundle, networks, at_hand.cutouts), start=1):
        target_id = int(candidate.cutout.targets.target_id[0])
        with explanations.staged(at_hand.folder.store, job.tile.tile_id, target_id, at_hand.scratch) as staging:
            write_files(candidate, staging.path)
            record = Explanation(
                tile_id=job.tile.tile_id,
                target_id=target_id,
                input_fingerprint=at_hand.commit.input_fingerprint,
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
    outcome=CandidatesOutcome, doing="explaining", prepare=_prepare, whole=explain_tile, close=_close, sweep=sweep_scratch
)
