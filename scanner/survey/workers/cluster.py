"""The Dask cluster of a run: worker processes here, a scheduler that workers come to, or a standing one; how many it wants."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http.client import HTTPException
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from scanner.config import EngineConfig
from scanner.errors import ScannerError, UnavailableError, UsageError
from scanner.processes import cores
from scanner.survey import metrics
from scanner.survey.workers import transport
from scanner.survey.workers.transport import (
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    DASK_SETTINGS,
    OFFERED,
    THREADS,
    private_folder,
    silence_dask,
)

logger = logging.getLogger(__name__)

#: Place of (client, number) among the scheduler's metadata: of the last run that said so; one run at a time uses it.
METADATA_KEY = "scanner-workers-wanted"
#: Where Kubernetes puts ``token``, ``ca.crt`` and ``namespace`` of a pod's service account.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS = 10.0
#: Pause before the second try; doubled each time.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
#: Applying the Deployment's manifest in the middle of a run (a rollback, a GitOps tool) takes its pods away for so long.
REPEAT_SECONDS = 60.0
#: So long it is tried to let the pods go at the end, well within the 120 s that a pod is given to end.
PARTING_SECONDS = 30.0
#: Names of Kubernetes: of a namespace and of a Deployment.
KUBERNETES_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
BUSY = 429


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
def workers_requested(config: EngineConfig, n_workers: int) -> Iterator[None]:
    """Ask for workers until the context ends, and for none from then on.

    The number stays the same although the tiles become fewer: an autoscaler does not know which workers are busy,
    and a tile that is begun again costs more than a worker that waits for the last tiles.

    Raises
    ------
    UsageError
        A Deployment is to be scaled, and this process is not in a pod that may.
    """
    with scaled_deployment(config.scale_deployment, n_workers) if config.scale_deployment else nullcontext():
        metrics.workers_wanted(n_workers)
        try:
            yield
        finally:
            metrics.workers_wanted(0)


def report_wanted(client: Any, n_workers: int) -> None:
    """Say on a standing scheduler that the run of a client could use so many workers; 0: it needs none any more.

    Dask's own estimate counts the tasks that wait. A run never hands out more tiles than its workers take, so that the estimate
    would stay where it is: at no worker for ever, where there is none.
    """
    with suppress(OSError, TimeoutError):
        client.set_metadata([METADATA_KEY], [client.id, n_workers])


def wanted_by_run(scheduler: Any) -> int:
    """Workers that the connected run could use; 0 without a run."""
    client, n_workers = scheduler.task_metadata.get(METADATA_KEY, (None, 0))
    return int(n_workers) if client in scheduler.clients else 0


@dataclass(frozen=True)
class Deployment:
    """One Deployment; ``server``: host and port of its cluster's API."""

    namespace: str
    name: str
    server: str

    def __str__(self) -> str:
        return f"Deployment {self.namespace}/{self.name}"


class _RefusedError(Exception):
    """The API server did not do it; ``temporary``: it may do so soon; ``pause_s``: not before."""

    def __init__(self, reason: str, *, temporary: bool, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.temporary, self.pause_s = temporary, pause_s


@contextmanager
def scaled_deployment(name: str, replicas: int) -> Iterator[None]:
    """Have so many pods of a Deployment until the context ends, and none from then on.

    The number of replicas is set through the scale subresource: the one right that the service account needs is ``patch`` on
    ``deployments/scale``. An API server that is busy, away or forbids it is asked again, and a line says so: a run may get
    workers in another way, and goes on.

    Parameters
    ----------
    name
        ``name``, in this pod's namespace, or ``namespace/name``.
    replicas
        Pods wanted.

    Raises
    ------
    UsageError
        This process is in no pod with a service account, or the name is no Deployment's.
    """
    deployment = find_deployment(name)
    over = threading.Event()
    # The process does not end before it: told to stop twice, a driver is at its end at once, but still lets the pods go.
    scaling = threading.Thread(target=_scale, args=(deployment, replicas, over))
    try:
        scaling.start()
        yield
    finally:
        over.set()
        scaling.join()


def find_deployment(name: str) -> Deployment:
    """The Deployment of a name, and the API server to ask.

    Raises
    ------
    UsageError
        This process is in no pod with a service account, or the name is no Deployment's.
    """
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        own_namespace = (SERVICE_ACCOUNT / "namespace").read_text(encoding="ascii").strip()
    except (KeyError, OSError):
        raise UsageError(
            f"--scale-deployment {name}: this process is not in a Kubernetes pod with a mounted service account; "
            "run it in one (automountServiceAccountToken: true), or start the workers yourself."
        ) from None
    namespace, own_name = name.split("/", 1) if "/" in name else (own_namespace, name)
    if not (KUBERNETES_NAME.fullmatch(namespace) and KUBERNETES_NAME.fullmatch(own_name)):
        raise UsageError(f"--scale-deployment {name}: not a Deployment's name; it looks like workers or surveys/workers.")
    return Deployment(namespace, own_name, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _scale(deployment: Deployment, replicas: int, over: threading.Event) -> None:
    # One after the other: a request that is on its way must not overtake the one that lets the pods go.
    _keep_asking(deployment, replicas, over)
    _let_go(deployment)


def _keep_asking(deployment: Deployment, replicas: int, over: threading.Event) -> None:
    """Ask for pods, and again and again until nobody wants them any more."""
    pause, warned, taken = FIRST_PAUSE_SECONDS, "", False
    while not over.is_set():
        try:
            _set_replicas(deployment, replicas)
        except _RefusedError as refused:
            if str(refused) != warned:
                warned = str(refused)
                logger.warning("%s cannot be scaled to %d (%s); it is tried again", deployment, replicas, refused)
            taken = False
            over.wait(max(pause, refused.pause_s) if refused.temporary else LONGEST_PAUSE_SECONDS)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            if not taken:
                logger.info("%s is scaled to %d", deployment, replicas)
            pause, warned, taken = FIRST_PAUSE_SECONDS, "", True
            over.wait(REPEAT_SECONDS)


def _let_go(deployment: Deployment) -> None:
    pause, deadline = FIRST_PAUSE_SECONDS, time.monotonic() + PARTING_SECONDS
    while True:
        try:
            _set_replicas(deployment, 0)
        except _RefusedError as refused:
            pause = max(pause, refused.pause_s)
            if not refused.temporary or time.monotonic() + pause > deadline:
                by_hand = f"kubectl --namespace {deployment.namespace} scale deployment {deployment.name} --replicas 0"
                logger.warning("%s could not be scaled to 0 (%s); do it by hand: %s", deployment, refused, by_hand)
                return
            time.sleep(pause)
            pause *= 2
        else:
            logger.info("%s is scaled to 0", deployment)
            return


def _set_replicas(deployment: Deployment, replicas: int) -> None:
    place = f"namespaces/{deployment.namespace}/deployments/{deployment.name}/scale"
    try:
        # Both are renewed while the pod runs.
        token = (SERVICE_ACCOUNT / "token").read_text(encoding="ascii").strip()
        context = ssl.create_default_context(cafile=str(SERVICE_ACCOUNT / "ca.crt"))
        request = Request(
            f"https://{deployment.server}/apis/apps/v1/{place}",
            data=json.dumps({"spec": {"replicas": replicas}}).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/merge-patch+json",
                "Accept": "application/json",
            },
            method="PATCH",
        )
        # The API server is never behind the proxy that leads out of the cluster.
        with build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(request, timeout=REQUEST_SECONDS) as answer:
            answer.read()
    except HTTPError as error:
        raise _refusal(error) from None
    except URLError as error:
        raise _RefusedError(f"https://{deployment.server}: {error.reason}", temporary=True) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _RefusedError(f"https://{deployment.server}: {error}", temporary=True) from None


def _refusal(error: HTTPError) -> _RefusedError:
    reason = error.reason
    with error, suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
        reason = json.loads(error.read())["message"]
    pause_s = 0.0
    with suppress(ValueError):
        pause_s = min(float(error.headers.get("Retry-After", 0)), LONGEST_PAUSE_SECONDS)
    return _RefusedError(f"{error.code}: {reason}", temporary=error.code == BUSY or error.code >= 500, pause_s=pause_s)


#: Longer than TCP needs to notice that the machine of an earlier driver has died.
TURN_SECONDS = 60.0
CLIENT_NAME = "scanner-run"


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
