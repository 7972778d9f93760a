"""The scorer of a worker process, opened once, and how many objects it scores at a time.

In: a :class:`TileJob`; batches of cutouts. Out: a :class:`~scanner.ensemble.session.Scorer`; scores. Refused: a bundle that
cannot be loaded, a provider that is not here.
"""

from __future__ import annotations

from functools import lru_cache

from scanner.config import RunConfig, StorageConfig
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.records import CutoutBatch, Scores
from scanner.survey.messages import TileJob
from scanner.survey.scan.machine import cores


def parallel_scores(config: RunConfig, n_workers: int) -> int:
    """Objects that a worker process scores at a time: what the configuration says, else its share of this process's cores.

    Parameters
    ----------
    config
        Of the run.
    n_workers
        Worker processes on this machine that have the same cores.
    """
    share = cores() // (n_workers * config.scoring.threads)
    return config.engine.parallel_scores or max(share, 1)


def load_scorer(job: TileJob) -> Scorer:
    """The scorer of a run's tiles; it is opened when the first one comes.

    Raises
    ------
    ScannerError
        The bundle cannot be loaded, or the provider is not here.
    """
    config = job.config
    settings = (
        config.scoring.threads,
        config.scoring.beta,
        config.cutouts.max_bad_fraction,
        parallel_scores(config, 1),
    )
    return _scorer(job.bundle, job.provider, *settings, config.storage)


@lru_cache(maxsize=1)
def _scorer(
    bundle: str, provider: str, threads: int, beta: float | None, max_bad_fraction: float, parallel: int, storage: StorageConfig
) -> Scorer:
    return Scorer(bundles.load(bundle, storage), provider, threads, beta, max_bad_fraction, parallel)


def forget_scorer() -> None:
    """Let go of the scorer: its memory, its threads, its GPU."""
    _scorer.cache_clear()


def score_batch(scorer: Scorer, batch: CutoutBatch) -> Scores:
    """Score the cutouts of a batch, their missing pixels filled with noise."""
    vis, nisp = fill_bad_pixels(batch)
    return scorer.score(vis, nisp, batch.sky, batch.sigma, batch.bad_fraction, batch.flags)
