"""A standing scheduler: workers and a driver meet there; it computes nothing.

In: where to listen, certificates. Out: nothing but log lines; returns when told to stop (SIGTERM, SIGINT). Refused: an address
that cannot be listened on.

On request it answers an autoscaler over HTTP: ``/health``, and Dask's ``/api/v1``, of which the Dask operator for Kubernetes
uses ``adaptive_target`` and ``retire_workers``. Whoever reaches that port can send workers away.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import warnings
from typing import Any

from distributed import Scheduler

from scanner.errors import UsageError
from scanner.survey.workers.autoscale import wanted_by_run
from scanner.survey.workers.cluster import DASK_SETTINGS, private_folder, silence_dask
from scanner.survey.workers.transport import Certificates, security

#: What is answered over HTTP, and no more.
ROUTES = {"distributed.scheduler.http.routes": ["distributed.http.health", "distributed.http.scheduler.api"]}

logger = logging.getLogger(__name__)


class SurveyScheduler(Scheduler):
    """Dask's scheduler, which asks for as many workers as the run says that it could use."""

    def adaptive_target(self, target_duration: Any = None) -> int:
        """Workers that an autoscaler is to provide."""
        return wanted_by_run(self)


def serve(host: str, port: int, certificates: Certificates | None, http_port: int | None = None) -> None:
    """Schedule until told to stop.

    Parameters
    ----------
    host, port
        Where to listen; ``0.0.0.0`` for all of this machine's addresses, port 0 for any free one.
    certificates
        With them, only ``tls://`` connections of their authority are let in.
    http_port
        Port for autoscalers, at the same host, without encryption; None: they are not answered.

    Raises
    ------
    UsageError
        The address is taken, or not this machine's.
    """
    import dask

    silence_dask()
    with private_folder(None) as folder, dask.config.set(DASK_SETTINGS | ROUTES | {"temporary-directory": folder}):
        asyncio.run(_serve(host, port, certificates, http_port))


async def _serve(host: str, port: int, certificates: Certificates | None, http_port: int | None) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    scheme = "tls" if certificates else "tcp"
    with warnings.catch_warnings():
        # Dask would rather answer at another port than be refused this one.
        warnings.filterwarnings("ignore", "Port .* is already in use")
        scheduler = SurveyScheduler(
            host=f"{scheme}://{host}:{port}",
            security=security(certificates),
            dashboard_address="127.0.0.1:0" if http_port is None else f"{host}:{http_port}",
            dashboard=False,
        )
    if http_port is not None and scheduler.http_server.port != http_port:  # type: ignore[attr-defined]
        raise UsageError(f"{host}:{http_port}: cannot answer over HTTP there; choose another --http-port.")
    try:
        await scheduler
    except (OSError, ValueError, RuntimeError) as error:
        # Dask puts what happened behind a "failed to start".
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or cause
        raise UsageError(f"{scheme}://{host}:{port}: cannot listen there ({reason}); choose another host or port.") from None
    logger.info("scheduler listens on %s", scheduler.address)
    await told.wait()
    logger.info("told to stop; workers and driver lose it now, committed tiles stay")
    await scheduler.close(reason="told to stop")
