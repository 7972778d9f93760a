"""The Dask cluster of a run: worker processes of this machine, a scheduler that workers come to, or a standing one."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from scanner.config import EngineConfig
from scanner.errors import ScannerError, UnavailableError, UsageError
from scanner.survey.scan.machine import cores
from scanner.survey.workers import transport
from scanner.survey.workers.autoscale import report_wanted, workers_requested, workers_wanted
from scanner.survey.workers.transport import (
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    DASK_SETTINGS,
    OFFERED,
    THREADS,
    private_folder,
    silence_dask,
)

#: Longer than TCP needs to notice that the machine of an earlier driver has died.
TURN_SECONDS = 60.0
CLIENT_NAME = "scanner-run"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """``client``: Dask's, connected. ``address``: where workers come to; None: worker processes of this machine."""

    client: Any
    address: str | None


def worker_count(config: EngineConfig, n_jobs: int) -> int:
    """Worker processes of a local run: one a core, never more than tiles."""
    return max(min(config.workers or cores(), n_jobs), 1)


@contextmanager
def connected(config: EngineConfig, n_jobs: int) -> Iterator[Cluster]:
    """A cluster for a run until the context ends.

    Raises
    ------
    UnavailableError
        The scheduler does not answer, or another run is using it; the worker processes do not start.
    UsageError, InputMissingError
        Bad addresses, ports or certificates.
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
def _standing(config: EngineConfig) -> Iterator[Cluster]:
    """The scheduler of somebody else, with its workers, for one run at a time."""
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
    """A scheduler in this process, to whose address workers come; they learn that it ends."""
    from distributed import Client, LocalCluster

    address, certificates = str(config.listen), transport.of_config(config)
    scheme, host, port = transport.parse(address, certificates)
    if scheme == "tcp" and certificates is not None:
        raise UsageError(
            f"{address}: certificates are for encrypted connections; listen at tls://{host}:{port}, or leave them."
        )
    transport.refuse_open_door(host, certificates, config.insecure)
    # Before Dask tries: it would say only that its cluster failed to start.
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{address}: cannot listen there ({reason}); choose another --listen.") from None
    cluster = LocalCluster(
        n_workers=0,
        host=host,
        scheduler_port=port,
        protocol=f"{scheme}://",
        security=transport.security(certificates),
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )
    with cluster, _closed_quickly(Client(cluster, name=CLIENT_NAME, set_as_default=False)) as client:
        logger.info("waiting for workers at %s ('scanner worker %s')", cluster.scheduler_address, cluster.scheduler_address)
        yield Cluster(client, cluster.scheduler_address)


@contextmanager
def _local(config: EngineConfig, n_jobs: int) -> Iterator[Cluster]:
    """Worker processes of this machine, begun for the run and ended with it."""
    from distributed import Client, LocalCluster

    from scanner.survey.workers.worker import WorkerProcess

    n_workers = worker_count(config, n_jobs)
    _refuse_taken_ports(config, n_workers)
    with _interrupts_kept_from_children(), _start_failures_explained():
        cluster = LocalCluster(
            n_workers=n_workers,
            threads_per_worker=THREADS,
            # The machine's GPU, where it has one, is shared by its workers.
            resources=OFFERED | {"GPU": 1},
            protocol="tls://",
            security=transport.own_security(),
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


def _refuse_taken_ports(config: EngineConfig, n_workers: int) -> None:
    """Say so before Dask starts them: a worker whose metrics port is taken could only say that it does not start."""
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
def _start_failures_explained() -> Iterator[None]:
    """Raise the reason why a worker process did not start, where Dask only says that it did not."""
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
