"""Who is there to work for a run: counted as workers come and go.

In: a connected :class:`~scanner.survey.workers.cluster.Cluster`. Out: the number of workers that can be given tiles; a line in
the log where nobody can for a while. Refused: a scheduler that went away (:class:`UnavailableError`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from scanner.errors import UnavailableError
from scanner.survey import metrics
from scanner.survey.workers.cluster import Cluster

#: How often the workers are counted.
COUNT_SECONDS = 1.0
#: Without a worker for so long, the run says so, once, and goes on waiting.
PATIENCE_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Workforce:
    """The workers of a run.

    Parameters
    ----------
    connected
        Their cluster.
    beginning, scoring
        What a worker has to offer to be given a tile, and to score one.
    """

    def __init__(self, connected: Cluster, beginning: Mapping[str, int], scoring: Mapping[str, int]) -> None:
        self._client, self._address = connected.client, connected.address
        self._beginning, self._scoring = beginning, scoring
        self._n_workers = self._n_usable = 0
        self._counted = float("-inf")
        self._idle_since: float | None = None
        self._complained = False

    def count(self) -> int:
        """Workers that can be given a tile, as of a second ago."""
        now = time.monotonic()
        if now - self._counted < COUNT_SECONDS:
            return self._n_usable
        self._counted = now
        if self._client.status != "running":
            raise self.lost()
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        ready = [worker["resources"] for worker in workers if worker["status"] == "running" and worker["resources"].get("SCAN")]
        if len(ready) < self._n_workers:
            metrics.worker_lost()
        if len(ready) != self._n_workers:
            metrics.workers(len(ready))
        self._n_workers = len(ready)
        self._n_usable = sum(all(offered.get(name) for name in self._beginning) for offered in ready)
        n_scoring = sum(all(offered.get(name) for name in self._scoring) for offered in ready)
        self._complain(now, nobody=not ready, no_gpu=not n_scoring)
        return self._n_usable

    def lost(self) -> UnavailableError:
        """The scheduler went away."""
        return UnavailableError(
            f"{self._address or 'the scheduler'}: the Dask scheduler went away; committed tiles stay: "
            "give the same command again once it is back."
        )

    def _complain(self, now: float, *, nobody: bool, no_gpu: bool) -> None:
        if not no_gpu and not nobody:
            self._idle_since, self._complained = None, False
            return
        self._idle_since = self._idle_since or now
        if now - self._idle_since < PATIENCE_SECONDS or self._complained:
            return
        self._complained = True
        if self._address is None:
            logger.warning("no worker process runs, though each is started again; waiting for one")
        elif nobody:
            logger.warning("no worker is connected to %s; waiting for one ('scanner worker %s')", self._address, self._address)
        else:
            logger.warning("no worker of %s offers a GPU; waiting for one ('scanner worker --gpu')", self._address)
