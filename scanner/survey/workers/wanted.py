"""How many workers a run wants, told to whoever brings them: Prometheus, a Dask autoscaler, Kubernetes.

In: the settings, the tiles that are left. Out: the number, told until the run needs no more workers, then 0. It stays the same
meanwhile although the tiles become fewer: whoever takes workers away does not know which of them are busy, and a tile that is
begun again costs more than a worker that waits for the last tiles. Refused: see
:mod:`scanner.survey.workers.kubernetes_scale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from scanner.config import EngineConfig
from scanner.survey.scan.machine import cores
from scanner.survey.watch import metrics
from scanner.survey.workers.kubernetes_scale import scaled


def workers_wanted(config: EngineConfig, n_jobs: int) -> int:
    """Workers that a run can keep busy: one a tile, not more than the settings allow.

    Parameters
    ----------
    config
        ``workers``; without, those of this machine are one a core, and those from elsewhere as many as there are tiles.
    n_jobs
        Tiles that are left.
    """
    most = config.workers or (cores() if config.starts_workers else n_jobs)
    return max(min(most, n_jobs), 1)


@contextmanager
def wanted(config: EngineConfig, n_workers: int) -> Iterator[None]:
    """Ask for workers, until the context ends.

    Raises
    ------
    UsageError
        A Deployment is to be scaled, and this process is not in a pod that may.
    """
    with scaled(config.scale_deployment, n_workers) if config.scale_deployment else nullcontext():
        metrics.workers_wanted(n_workers)
        try:
            yield
        finally:
            metrics.workers_wanted(0)
