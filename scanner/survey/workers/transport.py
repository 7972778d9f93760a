"""How the processes of a run connect: Dask's settings, TLS, and a check that the scheduler answers."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from scanner.config import EngineConfig
from scanner.errors import InputMissingError, UnavailableError, UsageError
from scanner.survey.scan.scratch import worker_scratch

CONNECT_SECONDS = 30.0
#: A running worker process that is to end has this long to give its tile up and clean, then it is killed.
CLOSE_SECONDS = 2.0
#: One thread of a worker scans, the other fetches the tile after.
THREADS = 2
#: What each worker offers: one tile at a time to scan, one to fetch. ``GPU`` comes to it where there is one.
OFFERED = {"SCAN": 1, "FETCH": 1}
#: Folder of Dask's own files among the scratch folders of tiles, whose names never start with a dot.
DASK_FOLDER = ".dask"

#: Of a connection, each with its certificate.
ROLES = ("client", "scheduler", "worker")

#: In scheduler, workers and driver alike.
DASK_SETTINGS: dict[str, Any] = {
    # Each death of a worker is reported at once: the engine counts them and pauses between attempts.
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
    # Dask has workers give freed memory back at once: the arrays of every batch then are new pages, a quarter of a scan's time.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # Dask's processes answer nothing over HTTP, which no certificate protects: our metrics have a port of their own.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}

#: Pause between two tries to reach a scheduler: a tenth of the time for which it has been looked for, within these limits.
RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 3.0
#: A scheduler greets every connection; one that expects TLS waits for the other side to speak.
GREETING_SECONDS = 10.0


def silence_dask() -> None:
    """Keep Dask from logging in many lines what we log in one, and from calling a client that leaves critical."""
    import distributed  # noqa: F401 - its loggers get their levels, and Dask its defaults, when it is imported

    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


@contextmanager
def private_folder(scratch: str | None) -> Iterator[str]:
    """Where Dask puts its files in this process."""
    with worker_scratch(EngineConfig(scratch=scratch)).scanning(DASK_FOLDER) as folder:
        yield str(folder)


@dataclass(frozen=True)
class Certificates:
    """PEM files: the authority's certificate, this process's own, and its private key."""

    ca: str
    cert: str
    key: str


def certificates(ca: str | None, cert: str | None, key: str | None) -> Certificates | None:
    """The three files together, or None where none is named.

    Raises
    ------
    UsageError
        Some are named and some are not.
    """
    if ca and cert and key:
        return Certificates(ca, cert, key)
    if ca or cert or key:
        raise UsageError("TLS needs all three of tls_ca, tls_cert and tls_key (--tls-ca, --tls-cert, --tls-key).")
    return None


def of_config(config: EngineConfig) -> Certificates | None:
    """The certificates that a run's configuration names."""
    return certificates(config.tls_ca, config.tls_cert, config.tls_key)


def security(files: Certificates | None) -> Any:
    """Dask's settings for encrypted connections both ways; plain ones without certificates.

    Raises
    ------
    InputMissingError
        A file cannot be read.
    UsageError
        A file is no certificate, or the key belongs to another one.
    """
    from distributed.security import Security

    if files is None:
        return Security()
    for name in (files.ca, files.cert, files.key):
        try:
            with open(name, "rb"):  # noqa: PTH123 - only whether it can be read
                pass
        except OSError as error:
            raise InputMissingError(f"{name}: cannot read this certificate or key ({error.strerror}).") from None
    roles = {f"tls_{role}_{part}": value for role in ROLES for part, value in _own(files).items()}
    made = Security(require_encryption=True, tls_ca_file=files.ca, **roles)
    try:
        made.get_connection_args("client")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{files.cert}: not a certificate with its key in {files.key} and its CA in {files.ca} ({error})."
        ) from None
    return made


def parse(address: str, files: Certificates | None) -> tuple[str, str, int]:
    """Scheme (``tcp`` or ``tls``), host and port of an address.

    Raises
    ------
    UsageError
        It is none, or ``tls://`` without certificates.
    """
    from distributed.comm.addressing import get_address_host_port

    scheme = address.partition("://")[0]
    if scheme not in ("tcp", "tls"):
        raise UsageError(f"{address}: not a scheduler's address; it looks like tcp://host:8786 or tls://host:8786.")
    try:
        host, port = get_address_host_port(address, strict=True)
    except ValueError:
        raise UsageError(f"{address}: not a scheduler's address; it looks like {scheme}://host:8786.") from None
    if scheme == "tls" and files is None:
        raise UsageError(f"{address}: a tls:// scheduler needs --tls-ca, --tls-cert and --tls-key.")
    return scheme, str(host), int(port)


def stays_here(host: str) -> bool:
    """Whether what listens at a host is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def refuse_open_door(host: str, files: Certificates | None, insecure: bool) -> None:
    """Refuse to listen without TLS where other machines can connect.

    Dask runs what it is sent: anyone who reaches an unencrypted scheduler or worker runs code as its user.

    Parameters
    ----------
    host
        Where a process listens, or that of its scheduler.
    files
        Certificates, where it has them.
    insecure
        Whether the user said that the network is private.

    Raises
    ------
    UsageError
        There are no certificates, the host is not this machine alone, and the user has not said so.
    """
    if files is None and not stays_here(host) and not insecure:
        raise UsageError(
            f"{host or '0.0.0.0'}: without TLS, whoever reaches this port runs code as you; give --tls-ca, --tls-cert and "
            "--tls-key (tls://…), stay on 127.0.0.1, or say --insecure where the network is your own."
        )


@cache
def own_security() -> Any:
    """Dask's settings for a cluster on this machine: encrypted with a key that only this process and its workers have.

    Without it, every account of a login node could connect to scheduler and workers and run code as their user. The key is
    made anew for each process and never lies in a file that others can read; workers get it over the pipe by which they are
    started. The certificate is valid at any date, whatever the clock does.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from distributed.security import Security

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "scanner-run")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert = certificate.public_bytes(serialization.Encoding.PEM).decode()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    roles = {f"tls_{role}_{part}": value for role in ROLES for part, value in (("cert", cert), ("key", secret))}
    return Security(require_encryption=True, tls_ca_file=cert, tls_min_version=ssl.TLSVersion.TLSv1_3, **roles)


def await_scheduler(
    address: str, files: Certificates | None, timeout_s: float | None, stop: threading.Event | None = None
) -> None:
    """Return as soon as a scheduler greets at an address.

    The TLS handshake is tried here, because Dask retries a bad certificate until its time is up and then reports a time-out.

    Parameters
    ----------
    address
        ``tcp://host:port`` or ``tls://host:port``.
    files
        Certificates, needed for ``tls://``.
    timeout_s
        How long it may take until one is there; None: for ever.
    stop
        Once it is set, nobody waits any more.

    Raises
    ------
    UsageError
        The address is none, or the two sides do not accept each other's certificates.
    UnavailableError
        Nobody greets there.
    """
    scheme, host, port = parse(address, files)
    context = security(files).get_connection_args("client")["ssl_context"] if scheme == "tls" else None
    stop = stop or threading.Event()
    began = time.monotonic()
    deadline = float("inf") if timeout_s is None else began + timeout_s
    while not stop.is_set():
        try:
            _greet(host, port, context, max(min(deadline - time.monotonic(), GREETING_SECONDS), 0.1))
            return
        except OSError as error:
            # One that ends in the middle of a handshake is no longer there; others do not like it.
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
                reason = error.reason or error.args[-1]
                raise UsageError(
                    f"{address}: the TLS handshake fails ({reason}); scheduler, workers and driver need certificates of one "
                    f"authority (here {files.ca if files else 'none'}), and a tls:// scheduler."
                ) from None
            now = time.monotonic()
            pause = min(max((now - began) / 10, RETRY_SECONDS), LONGEST_RETRY_SECONDS)
            if now + pause > deadline:
                raise UnavailableError(
                    f"{address}: no Dask scheduler answers there ({error.strerror or error}); start one with "
                    "'scanner scheduler', or check the address and whether it is tcp:// or tls://."
                ) from None
            stop.wait(pause)


def _own(files: Certificates) -> dict[str, str]:
    return {"cert": files.cert, "key": files.key}


def _greet(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> None:
    with socket.create_connection((host, port), timeout=timeout_s) as plain:
        # With TLS 1.3 a server tells that it does not like our certificate only after its own handshake: hence the read.
        stream = context.wrap_socket(plain) if context else plain
        with stream:
            if not stream.recv(1):
                raise ConnectionError("it closes the connection at once")
