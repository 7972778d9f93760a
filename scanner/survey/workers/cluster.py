"""The Dask cluster of a run, and everything that Dask is told about it.

In: a run's :class:`EngineConfig`. Out: a :class:`Cluster` with a connected client: worker processes of this machine, begun for
the run and ended with it, or a standing scheduler. Refused: a scheduler that does not answer or has another run
(:class:`UnavailableError`), bad certificates or addresses (:class:`UsageError`, :class:`InputMissingError`).
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from scanner.config import EngineConfig
from scanner.errors import ScannerError, UnavailableError, UsageError
from scanner.survey.scan.machine import cores
from scanner.survey.scan.tile_scratch import worker_scratch
from scanner.survey.workers import transport

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
    """``client``: Dask's, connected. ``address``: of the standing scheduler; None: worker processes of this machine."""

    client: Any
    address: str | None


def worker_count(config: EngineConfig, n_jobs: int) -> int:
    """Worker processes of a local run: one a core, never more than tiles."""
    return max(min(config.workers or cores(), n_jobs), 1)


def silence_dask() -> None:
    """Dask tells in many lines what we tell in one."""
    import distributed  # noqa: F401 - its loggers get their levels, and Dask its defaults, when it is imported

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


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
    with (
        private_folder(config.scratch) as folder,
        dask.config.set(DASK_SETTINGS | {"temporary-directory": folder}),
        _standing(config) if config.scheduler is not None else _local(config, n_jobs) as cluster,
    ):
        yield cluster


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


def _refuse_taken_ports(config: EngineConfig, n_workers: int) -> None:
    """A worker whose port of metrics is taken could only say that it does not start."""
    if not config.metrics_port:
        return
    address = config.metrics_address or "0.0.0.0"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for port in range(config.metrics_port + 1, config.metrics_port + 1 + n_workers):
        try:
            socket.create_server((address, port), family=family).close()
        except (OSError, OverflowError) as error:
            raise UsageError(
                f"{address}:{port}: a worker cannot serve its metrics there ({error}); choose a --metrics-port with "
                f"{n_workers} free ports after it."
            ) from None


@contextmanager
def _local(config: EngineConfig, n_jobs: int) -> Iterator[Cluster]:
    from distributed import Client, LocalCluster

    from scanner.survey.workers.worker_process import WorkerProcess

    n_workers = worker_count(config, n_jobs)
    _refuse_taken_ports(config, n_workers)
    with _interrupts_kept_from_children(), _told_why():
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
def _told_why() -> Iterator[None]:
    """What a worker process refused to start for, instead of Dask's saying that it did."""
    try:
        yield
    except (RuntimeError, OSError, TimeoutError) as error:
        reason: BaseException | None = error
        while reason is not None and not isinstance(reason, ScannerError):
            reason = reason.__cause__ or reason.__context__
        if reason is not None:
            raise reason from None
        raise UnavailableError(f"worker processes do not start on this machine ({error}).") from None


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


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Let Ctrl-C reach this process only, after the block: threads and processes that are begun in it never see it.

    Worker processes begun later, in place of one that died, are started by such a thread and do not see it either.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Python's tracker of shared resources unblocks the signal when it is started: so it is started before. It inherits our
    # warnings, and would warn at the end of what a killed worker's libraries had no time to give back.
    sys.warnoptions.append("ignore:resource_tracker:UserWarning")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
