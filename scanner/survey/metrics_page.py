"""The page that Prometheus reads. A process that ends waits for its readers to read it once more."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from scanner.errors import UsageError

#: A reader that read within this time is expected to read again; Prometheus reads every 15 to 60 s.
RECENT_SECONDS = 120.0
#: What Kubernetes calls itself when it asks whether a container is alive: it reads no figure.
PROBE = "kube-probe/"
#: How soon a server notices that it is to end.
POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


@contextmanager
def served(registry: CollectorRegistry, port: int, address: str | None = None, linger_s: float = 0.0) -> Iterator[int]:
    """Serve a registry until the context ends; yields the port.

    Parameters
    ----------
    registry
        What to serve.
    port
        Port to listen on; 0: any free one.
    address
        Address to bind. None: all of them where a port was named, as processes in a cluster are scraped by the address of their
        pod; the loopback where it was not. Anyone who can reach the page can read it; it holds figures only.
    linger_s
        Longest time to wait at the end for those who read the page to read it once more, so that they see how it ended. In a
        pod of Kubernetes also the age that a page which nobody has read yet must reach: what fails at once would never be seen
        by a Prometheus that comes every 15 to 60 s. An interruption does not wait.

    Raises
    ------
    UsageError
        The port is taken or the address is not this machine's.
    """
    bound = address or ("0.0.0.0" if port else "127.0.0.1")
    try:
        page = MetricsPage(registry, bound, port)
    except OSError as error:
        raise UsageError(f"{bound}:{port}: cannot serve metrics there ({error.strerror}); choose another port.") from None
    logger.info("metrics at %s:%d", bound, page.port, extra={"metrics_port": page.port})
    try:
        yield page.port
    except (KeyboardInterrupt, SystemExit):
        linger_s = 0.0
        raise
    finally:
        with suppress(KeyboardInterrupt):
            page.await_readers(linger_s)
        page.close()


class MetricsPage:
    """Serves a registry from when it is made until :meth:`close`; ``port``: where."""

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        self._page = make_wsgi_app(registry)
        self._begun = time.monotonic()
        self._readers: dict[tuple[str, str], float] = {}
        self._read = threading.Condition()
        kind = _IPv6Server if ":" in address else ThreadingWSGIServer
        self._server: WSGIServer = make_server(address, port, self._respond, kind, handler_class=_Quiet)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), daemon=True)
        self._thread.start()

    def await_readers(self, longest_s: float) -> None:
        """Wait until everybody who has read the page of late has read it once more.

        Parameters
        ----------
        longest_s
            Longest time to wait, in seconds. Where nobody reads the page, not at all; but in a pod of Kubernetes a first reader
            is waited for until the page has been there for this time.
        """
        now = time.monotonic()
        with self._read:
            expected = {reader for reader, last in self._readers.items() if now - last < RECENT_SECONDS}
            if expected or "KUBERNETES_SERVICE_HOST" not in os.environ:
                self._read.wait_for(lambda: all(self._readers[reader] > now for reader in expected), longest_s)
            else:
                self._read.wait_for(lambda: bool(self._readers), max(0.0, self._begun + longest_s - now))

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # Two Prometheus servers that read the same processes are two readers.
        reader = (environ["REMOTE_ADDR"], environ.get("HTTP_USER_AGENT", ""))
        requested = time.monotonic()
        content: Iterable[bytes] = self._page(environ, start_response)
        if reader[1].startswith(PROBE):
            return content

        def sent() -> None:
            with self._read:
                self._readers[reader] = requested
                self._read.notify_all()

        return _Response(content, sent)


class _Response:
    """Content that says when it has been sent."""

    def __init__(self, content: Iterable[bytes], sent: Callable[[], None]) -> None:
        self._content = content
        self.close = sent

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._content)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are no news."""


class _IPv6Server(ThreadingWSGIServer):
    address_family = socket.AF_INET6
