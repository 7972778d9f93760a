"""A run's own scheduler, in the driver's process: workers from elsewhere come to it, and it ends with the run.

In: the address to listen at, certificates. Out: Dask's cluster without workers, and its client. Refused (:class:`UsageError`):
an address that is none, is taken or not this machine's; certificates for an address that is not encrypted.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scanner.errors import UsageError
from scanner.survey.workers import transport
from scanner.survey.workers.transport import Certificates

logger = logging.getLogger(__name__)


@contextmanager
def listening(address: str, certificates: Certificates | None) -> Iterator[Any]:
    """Dask's cluster of the workers that come to an address, until the context ends; they are told that it does.

    Parameters
    ----------
    address
        ``tcp://0.0.0.0:8786``: all addresses of this machine; ``tls://…`` with certificates. Port 0: any free one.
    certificates
        With them, only connections of their authority are let in.

    Raises
    ------
    UsageError
        See the module's docstring.
    """
    from distributed import LocalCluster

    scheme, host, port = transport.parse(address, certificates)
    if scheme == "tcp" and certificates is not None:
        raise UsageError(
            f"{address}: certificates are for encrypted connections; listen at tls://{host}:{port}, or leave them."
        )
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
    with cluster:
        logger.info("waiting for workers at %s ('scanner worker %s')", cluster.scheduler_address, cluster.scheduler_address)
        yield cluster
