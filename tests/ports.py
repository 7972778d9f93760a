"""Ports for servers that are started a moment later.

Not those that the system gives to whoever asks for any: one of these may be another connection's own end before the server is
there.
"""

import random
import socket
from contextlib import ExitStack

#: Below what Linux gives out (``net.ipv4.ip_local_port_range``).
FIRST, LAST = 10_000, 32_000


def free_ports(number: int) -> list[int]:
    """Ports in a row that nobody listens on."""
    while True:
        first = random.randrange(FIRST, LAST - number)
        ports = list(range(first, first + number))
        try:
            with ExitStack() as stack:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
        except OSError:
            continue
        return ports
