"""Ports for servers that are started a moment later.

Not those that the system gives to whoever asks for any: one of these may be another connection's own end before the server is
there. Test processes that run side by side have a range each: what one has looked up and not yet bound, another may not take.
"""

import os
import random
import socket
from contextlib import ExitStack

#: Below what Linux gives out (``net.ipv4.ip_local_port_range``).
FIRST, LAST = 10_000, 32_000


def _own_range() -> range:
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    width = (LAST - FIRST) // processes
    return range(FIRST + number * width, FIRST + (number + 1) * width)


def free_ports(number: int) -> list[int]:
    """Ports in a row that nobody listens on."""
    own = _own_range()
    while True:
        first = random.choice(own[:-number])
        ports = list(range(first, first + number))
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports
