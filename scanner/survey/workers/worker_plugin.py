"""What a driver does to each worker before it gets a tile, whenever it joins, and when the run is over.

In: a :class:`RunPlugin`, which Dask carries from the driver to every worker. Out: workers that have bundle and session loaded,
so that no tile pays for it. Refused: a worker with other versions than the driver's, or which cannot load the networks: it says
so in one line, to the driver too, takes no tile and leaves.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from distributed import WorkerPlugin
from distributed.core import Status

from scanner.errors import ContentError, ScannerError
from scanner.survey.messages import TileJob
from scanner.survey.scan.tile_work import GPU_PROVIDERS
from scanner.survey.workers import versions
from scanner.survey.workers.versions import Versions
from scanner.survey.workers.work import Work, in_scratch

#: One name for all runs: the plugin of a driver that was killed is replaced by that of the next.
NAME = "scanner"
#: How long tiles of an earlier run are waited for, which were cancelled and end at their next batch.
TEARDOWN_SECONDS = 20.0

logger = logging.getLogger(__name__)


class RunPlugin(WorkerPlugin):
    """One run, as its workers know it.

    Parameters
    ----------
    job_json
        Any job of the run: it names bundle, provider and settings.
    work
        The functions of the run.
    drivers
        Versions of the driver.
    topic
        Where the driver listens.
    """

    def __init__(self, job_json: str, work: Work, drivers: Versions, topic: str) -> None:
        self._job_json = job_json
        self._work = work
        self._drivers = drivers.model_dump_json()
        self._topic = topic

    async def setup(self, worker: Any) -> None:
        """Load what the run needs, compare versions; refuse the worker where they differ."""
        try:
            found = await asyncio.to_thread(self._prepare, worker)
        except ScannerError as error:
            self._refuse(worker, type(error)(f"worker {worker.name}: {error}"))
        except Exception as error:
            reason = f"worker {worker.name} cannot work for this run ({type(error).__name__}: {error})."
            self._refuse(worker, ContentError(reason))
        else:
            if found:
                reason = f"worker {worker.name} has {', '.join(found)}; it gets no tile: install the same, and start it again."
                self._refuse(worker, ContentError(reason))

    async def teardown(self, worker: Any) -> None:
        """Let go of what the run needed, once the tiles in hand have been given up; a worker that closes does not wait."""
        for _ in range(int(TEARDOWN_SECONDS / 0.05)):
            if worker.giving_up or not worker.state.executing:
                break
            await asyncio.sleep(0.05)
        await asyncio.to_thread(self._work.close, self._job(worker).config)

    def _job(self, worker: Any) -> TileJob:
        return in_scratch(TileJob.model_validate_json(self._job_json), worker.scratch)

    def _prepare(self, worker: Any) -> tuple[str, ...]:
        """What the worker has otherwise than the driver."""
        drivers = Versions.model_validate_json(self._drivers)
        # The libraries first: another version of scanner may not even read the bundle.
        if found := versions.differences(versions.current(drivers.bundle), drivers):
            return found
        job = self._job(worker)
        # One that only cuts needs no session, and may not be able to open it.
        only_cuts = job.config.engine.placement == "split" and job.provider in GPU_PROVIDERS
        scores = "GPU" in worker.state.total_resources or not only_cuts
        return versions.differences(versions.current(self._work.prepare(job, scores)), drivers)

    def _refuse(self, worker: Any, refusal: ScannerError) -> None:
        worker.refusal = refusal
        logger.error("%s", refusal)
        # Paused at once: Dask may have promised it tiles already.
        worker.status = Status.paused
        worker.log_event(self._topic, {"refused": str(refusal), "exit_code": refusal.exit_code})
        worker.loop.add_callback(worker.leave, 0.0)
