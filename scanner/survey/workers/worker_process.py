"""A worker process of this machine's cluster: started, watched, started again where it died.

In: what :class:`~scanner.survey.workers.worker.SurveyWorker` takes. Out: Dask's nanny for it. Refused: nothing.
"""

from __future__ import annotations

from typing import Any

from distributed import Nanny
from distributed.core import Status

from scanner.survey.workers.cluster import CLOSE_SECONDS
from scanner.survey.workers.worker import SurveyWorker


class WorkerProcess(Nanny):
    """Dask's nanny, which ends its process quickly: a tile in hand would keep it for ever."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **settings | {"worker_class": SurveyWorker})

    async def kill(self, timeout: float = CLOSE_SECONDS, reason: str = "nanny-kill") -> None:
        """End the process, politely for ``CLOSE_SECONDS`` at most; one that is only being started has nothing to lose."""
        process: Any = self.process
        if process is not None and process.status == Status.starting and process.process is not None:
            await process.process.kill()
        await super().kill(timeout=min(timeout, CLOSE_SECONDS), reason=reason)
