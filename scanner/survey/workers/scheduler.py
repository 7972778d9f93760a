"""A standing scheduler: workers and a driver meet there; it computes nothing.

In: where to listen, certificates. Out: nothing but log lines; returns when told to stop (SIGTERM, SIGINT). Refused: an address
that cannot be listened on.
"""

from __future__ import annotations

import asyncio
import logging
import signal

from scanner.errors import UsageError
from scanner.survey.workers.cluster import DASK_SETTINGS, private_folder, silence_dask
from scanner.survey.workers.transport import Certificates, security

logger = logging.getLogger(__name__)


def serve(host: str, port: int, certificates: Certificates | None) -> None:
    """Schedule until told to stop.

    Parameters
    ----------
    host, port
        Where to listen; ``0.0.0.0`` for all of this machine's addresses, port 0 for any free one.
    certificates
        With them, only ``tls://`` connections of their authority are let in.

    Raises
    ------
    UsageError
        The address is taken, or not this machine's.
    """
    import dask

    silence_dask()
    with private_folder(None) as folder, dask.config.set(DASK_SETTINGS | {"temporary-directory": folder}):
        asyncio.run(_serve(host, port, certificates))


async def _serve(host: str, port: int, certificates: Certificates | None) -> None:
    from distributed import Scheduler

    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    scheme = "tls" if certificates else "tcp"
    scheduler = Scheduler(
        host=f"{scheme}://{host}:{port}", security=security(certificates), dashboard_address="127.0.0.1:0", dashboard=False
    )
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
