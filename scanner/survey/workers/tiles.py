"""A run of tiles as the engine sees it: which functions it calls, on the workers and around them."""

from __future__ import annotations

from scanner.config import RunConfig
from scanner.ensemble import bundles
from scanner.sky.local_files import remote_files
from scanner.survey import metrics
from scanner.survey.messages import TileJob, TileOutcome
from scanner.survey.scan import scratch, tile
from scanner.survey.scan.tile import forget_scorer, load_scorer
from scanner.survey.workers.steps import Steps


def prepare(job: TileJob, scores: bool) -> str:
    """Load what a worker's tiles need, once; returns the bundle's fingerprint."""
    metrics.disk("scratch", scratch.scratch_root(job.config.engine))
    if not scores:
        return bundles.load(job.bundle, job.config.storage).fingerprint
    scorer = load_scorer(job)
    metrics.scores_with(scorer.provider, scorer.bundle.manifest.name, scorer.bundle.manifest.version)
    return scorer.bundle.fingerprint


def close(config: RunConfig) -> None:
    """Release what a run's tiles needed on a worker, which may wait for the next run."""
    scratch.worker_scratch(config.engine).forget_all()
    forget_scorer()


def remote(job: TileJob) -> bool:
    """Whether a tile has files to fetch."""
    return bool(remote_files(job.tile))


SCANNING = Steps(
    outcome=TileOutcome,
    doing="scanning",
    prepare=prepare,
    close=close,
    sweep=scratch.sweep_scratch,
    remote=remote,
    fetch=tile.prefetch_tile,
    whole=tile.scan_tile,
    cut=tile.cut_tile,
    score=tile.score_tile,
)
