"""The HTTP server round the application.

In: what the service is made of. Out: a uvicorn server that has not started. Nothing that clients send of themselves is believed
but what comes from the proxies that the settings name. Refused: nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn

from scanner.service.app import create_app
from scanner.service.context import Context

#: Longest time that answers under way are waited for when the service is told to stop.
GRACE_S = 5


class Server(uvicorn.Server):
    """Uvicorn's, which leaves a connection open if it was made while the server was stopping."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, and then cut what is left."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # The loop closes their sockets in its next turn, and must have one.
        await asyncio.sleep(0)


def server_of(context: Context) -> uvicorn.Server:
    """Make the server."""
    http = context.config.http
    for library in ("uvicorn", "python_multipart"):
        # What they have to say of clients is said by the answers.
        logging.getLogger(library).setLevel(logging.ERROR)
    return Server(
        uvicorn.Config(
            create_app(context),
            host=http.host.strip("[]"),
            port=http.port,
            log_config=None,
            access_log=False,
            # A name, as the VO asks for one, and no version, which only attackers do.
            server_header=False,
            headers=[("Server", "scanner")],
            ws="none",
            proxy_headers=bool(http.proxies),
            forwarded_allow_ips=list(http.proxies),
            timeout_graceful_shutdown=GRACE_S,
        )
    )
