"""The Dask cluster of a run, and everything that Dask is told about it.

In: a run's :class:`EngineConfig`. Out: a :class:`Cluster` with a connected client: worker processes of this machine, begun for
the run and ended with it; a scheduler in this process that workers come to; or a standing scheduler. Refused: a scheduler that
does not answer or has another run (:class:`UnavailableError`), bad certificates or addresses (:class:`UsageError`,
:class:`InputMissingError`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from scanner.config import EngineConfig
from scanner.errors import UnavailableError
from scanner.survey.scan.machine import cores
from scanner.survey.scan.tile_scratch import worker_scratch
from scanner.survey.workers import transport
from scanner.survey.workers.autoscale import report_wanted, workers_requested, workers_wanted
from scanner.survey.workers.listening import listening
from scanner.survey.workers.starting import interrupts_kept_from_children, refuse_taken_ports, told_why

CONNECT_SECONDS = 30.0
#: Longer than TCP needs to notice that the machine of an earlier driver has died.
TURN_SECONDS = 60.0
#: A running worker process that is to end has this long to give its tile up and clean, then it is killed.
CLOSE_SECONDS = 2.0
#: One thread of a worker scans, the other fetches the tile after.
THREADS = 2
#: What each worker offers: one tile at a time to scan, one to fetch. ``GPU`` comes to it where there is one.
OFFERED = {"SCAN": 1, "FETCH": 1}
#: Folder of Dask's own files among the scratch folders of tiles, whose names never start with a dot.
DASK_FOLDER = ".dask"
CLIENT_NAME = "scanner-run"

#: In scheduler, workers and driver alike.
DASK_SETTINGS: dict[str, Any] = {
    # Each death of a worker is told at once: the engine counts them and pauses between attempts.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.no-workers-timeout": None,
    # Scoring holds the GIL for seconds; a starved heartbeat must not look like a death. Broken connections are seen by TCP.
    "distributed.scheduler.worker-ttl": "15 minutes",
    "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS:.0f}s",
    # Dask counts pages of memory-mapped mosaics as a worker's memory: 6 GB for a tile that needs one. Workers watch their own.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    # How late its event loop is, Dask asks fifty times a second otherwise: 2 % of a core in each process.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.cycle": "10s",
    # Of every connection and topic Dask keeps the last messages, for its developers: 27 kB a tile, for a thousand tiles.
    "distributed.admin.low-level-log-length": 20,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """``client``: Dask's, connected. ``address``: where workers come to; None: worker processes of this machine."""

    client: Any
    address: str | None


def worker_count(config: EngineConfig, n_jobs: int) -> int:
    """Worker processes of a local run: one a core, never more than tiles."""
    return max(min(config.workers or cores(), n_jobs), 1)


def silence_dask() -> None:
    """Dask tells in many lines what we tell in one, and calls it critical if a client leaves while it is written to."""
    import distributed  # noqa: F401 - its loggers get their levels, and Dask its defaults, when it is imported

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def connected(config: EngineConfig, n_jobs: int) -> Iterator[Cluster]:
    """A cluster for a run until the context ends.

    Raises
    ------
    ScannerError
        See the module's docstring.
    """
    import dask

    silence_dask()
    n_wanted = workers_wanted(config, n_jobs)
    with (
        private_folder(config.scratch) as folder,
        dask.config.set(DASK_SETTINGS | {"temporary-directory": folder}),
        workers_requested(config, n_wanted),
        _cluster(config, n_jobs) as cluster,
    ):
        if config.scheduler is not None:
            report_wanted(cluster.client, n_wanted)
        yield cluster


def _cluster(config: EngineConfig, n_jobs: int) -> AbstractContextManager[Cluster]:
    if config.scheduler is not None:
        return _standing(config)
    return _local(config, n_jobs) if config.listen is None else _listening(config)


@contextmanager
def private_folder(scratch: str | None) -> Iterator[str]:
    """Where Dask puts its files in this process."""
    with worker_scratch(EngineConfig(scratch=scratch)).scanning(DASK_FOLDER) as folder:
        yield str(folder)


@contextmanager
def _standing(config: EngineConfig) -> Iterator[Cluster]:
    from distributed import Client

    address = str(config.scheduler)
    certificates = transport.of_config(config)
    transport.await_scheduler(address, certificates, CONNECT_SECONDS)
    try:
        client = Client(
            address, timeout=CONNECT_SECONDS, name=CLIENT_NAME, security=transport.security(certificates), set_as_default=False
        )
    except (OSError, TimeoutError, ValueError, ImportError) as error:
        raise UnavailableError(f"{address}: no Dask scheduler answers there ({error}).") from None
    with _closed_quickly(client):
        _await_turn(client, address)
        yield Cluster(client, address)


@contextmanager
def _listening(config: EngineConfig) -> Iterator[Cluster]:
    from distributed import Client

    with (
        listening(str(config.listen), transport.of_config(config)) as cluster,
        _closed_quickly(Client(cluster, name=CLIENT_NAME, set_as_default=False)) as client,
    ):
        yield Cluster(client, cluster.scheduler_address)


@contextmanager
def _local(config: EngineConfig, n_jobs: int) -> Iterator[Cluster]:
    from distributed import Client, LocalCluster

    from scanner.survey.workers.worker_process import WorkerProcess

    n_workers = worker_count(config, n_jobs)
    refuse_taken_ports(config, n_workers)
    with interrupts_kept_from_children(), told_why():
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=THREADS,
            # The machine's GPU, where it has one, is shared by its workers.
            resources=OFFERED | {"GPU": 1},
            memory_limit=f"{config.memory_limit_gb}GB",
            # Not None, which is port 8787 and a warning where that is taken.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            worker_class=WorkerProcess,
            scratch=config.scratch,
            metrics_port=config.metrics_port,
            metrics_address=config.metrics_address,
            silence_logs=logging.CRITICAL,
        )
    with cluster, _closed_quickly(Client(cluster, name=CLIENT_NAME, set_as_default=False)) as client:
        client.forward_logging("scanner", logging.WARNING)
        yield Cluster(client, None)


@contextmanager
def _closed_quickly(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close(timeout=CLOSE_SECONDS)


def _await_turn(client: Any, address: str) -> None:
    """One run at a time: two would give the same workers different networks. A run that was killed is gone in a moment."""
    deadline = time.monotonic() + TURN_SECONDS
    while client.run_on_scheduler(_other_runs, client.id):
        if time.monotonic() > deadline:
            raise UnavailableError(f"{address}: another run is using this scheduler; wait for its end, or start another one.")
        time.sleep(0.2)


def _other_runs(own: str, dask_scheduler: Any) -> bool:
    """Whether another run's client was there first; they are kept in the order in which they came."""
    return bool(next(known for known in dask_scheduler.clients if f"-{CLIENT_NAME}-" in known) != own)
