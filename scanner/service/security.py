"""What every request goes through: who asks, log line and metrics, errors as answers, limits, hosts and origins, headers.

Metrics' labels come from fixed sets (routes, methods, statuses, reasons, collections), so clients cannot add series.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hashlib
import logging
import math
import os
import platform
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scanner import __version__
from scanner.errors import ContentError, InputMissingError, ScannerError
from scanner.grading.grade import NAME, Role, Viewer
from scanner.service.errors import (
    Forms,
    NotAllowedError,
    ServiceError,
    TimeLimitError,
    TooLargeError,
    TooManyRequestsError,
    UnknownViewerError,
    WrongHostError,
    audience_of,
    is_below,
    route_path,
)
from scanner.service.settings import HttpConfig, ServiceConfig, host_name, is_loopback

VARIABLE = "SCANNER_SERVE_TOKENS"
_LINE = re.compile(rf"(?P<name>{NAME.pattern})\s+(?P<role>{'|'.join(get_args(Role))})\s+sha256:(?P<digest>[0-9a-f]{{64}})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenLine:
    """Whose token it is, what it allows, and its hash in hexadecimal digits."""

    name: str
    role: Role
    digest: str

    def __str__(self) -> str:
        return f"{self.name} {self.role} sha256:{self.digest}"


def new_token(name: str, role: Role) -> tuple[str, TokenLine]:
    """Make a token: its text, which is for its owner alone, and its line."""
    token = f"scn_{secrets.token_urlsafe(32)}"
    return token, TokenLine(name, role, _digest(token))


def parse(text: str, where: str) -> tuple[TokenLine, ...]:
    """Read lines; ``where``: what they come from, for messages.

    Raises
    ------
    ContentError
        A line is not of this form, or two have the same token.
    """
    lines: list[TokenLine] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ContentError(
                f"{where}: line {number} is not 'name read|grade sha256:…'; 'scanner tokens add' writes such lines."
            )
        role: Role = next(one for one in get_args(Role) if one == match["role"])
        lines.append(TokenLine(match["name"], role, match["digest"]))
    if len({line.digest for line in lines}) < len(lines):
        raise ContentError(f"{where}: two lines have the same token; make each its own with 'scanner tokens add'.")
    return tuple(lines)


class TokenBook:
    """The tokens that a service knows; false where it knows none and asks for none.

    A token is 256 random bits, not a password, so one round of SHA-256 is enough. A reader of the file of hashes cannot use
    them. The file is read again when it changes, so a token that is removed from it ends at once.
    """

    def __init__(self, file: str | None, environment: Mapping[str, str] | None = None) -> None:
        self._file = None if file is None else Path(file)
        text = (os.environ if environment is None else environment).get(VARIABLE, "")
        self._fixed = parse(text.replace(";", "\n"), VARIABLE)
        self._lock = threading.Lock()
        self._version: tuple[int, ...] | None = None
        self._lines: dict[str, TokenLine] = {}
        self._read()
        if self._file is not None and not self._lines:
            raise ContentError(f"{self._file}: no token in it; make one with 'scanner tokens add NAME --file {self._file}'.")

    def __bool__(self) -> bool:
        # A file that has become empty locks everybody out; it does not open the door.
        return self._file is not None or bool(self._fixed)

    def find(self, token: str) -> TokenLine | None:
        """The line of a token; None where it is not known."""
        if self._changed():
            try:
                self._read()
            except ScannerError as error:
                logger.error("%s The tokens that were in it before still count.", error)
        return self._lines.get(_digest(token))

    def _changed(self) -> bool:
        return self._file is not None and _version(self._file) != self._version

    def _read(self) -> None:
        with self._lock:
            lines = self._fixed
            if self._file is not None:
                version = _version(self._file)
                self._version = version
                try:
                    lines += parse(self._file.read_text(encoding="utf-8"), str(self._file))
                except (OSError, UnicodeDecodeError) as error:
                    raise InputMissingError(f"{self._file}: cannot read the tokens ({error}).") from None
            self._lines = {line.digest: line for line in lines}


def _version(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # Who may read it changes neither its content nor its time.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


Reason = Literal["busy", "time", "memory", "rate", "token", "host", "origin", "size", "blind"]
#: From an answer out of memory to one that meets the time limit.
SECONDS_BUCKETS = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class ServiceInstruments:
    """Counters and gauges of one service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        build = Gauge(
            "scanner_build_info",
            "Always 1; the labels tell what runs in this process.",
            ("version", "python"),
            registry=registry,
        )
        build.labels(__version__, platform.python_version()).set(1)
        self.requests = Counter(
            "scanner_service_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self.seconds = Histogram(
            "scanner_service_request_seconds",
            "Seconds on the clock from a request's first byte to its answer's last.",
            ("route",),
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "scanner_service_requests_in_progress", "Requests that are being answered now.", registry=registry
        )
        self.sent_bytes = Counter("scanner_service_sent_bytes", "Bytes of answers' bodies.", registry=registry)
        self.refused = Counter("scanner_service_refused", "Requests refused, by reason.", ("reason",), registry=registry)
        self.work_pending = Gauge(
            "scanner_service_work_pending", "Pieces of blocking work that run or wait for a thread.", registry=registry
        )
        self.ready = Gauge("scanner_service_ready", "1 when every collection is open, else 0.", registry=registry)
        self.objects = Gauge("scanner_service_objects", "Objects of a collection.", ("collection",), registry=registry)
        self.candidates = Gauge("scanner_service_candidates", "Candidates of a collection.", ("collection",), registry=registry)
        self.renewals = Counter(
            "scanner_service_renewals", "Times that a collection was opened again as it had changed.", registry=registry
        )
        for reason in get_args(Reason):
            self.refused.labels(reason)


TOKEN_COOKIE = "scanner_token"
#: Name of a grader at this machine, where no tokens are configured.
NAME_COOKIE = "scanner_grader"
_STATE = "viewer"


def viewer(request: Request) -> Viewer:
    """Who makes a request.

    A token comes as ``Authorization: Bearer …``, as the password of HTTP Basic authentication (what pyvo, TOPCAT and stilts can
    send), or as the cookie that ``POST /login`` sets.
    """
    known = request.scope["state"][_STATE]
    assert isinstance(known, Viewer)
    return known


def grader(request: Request) -> Viewer:
    """Who makes a request that only graders may make.

    Raises
    ------
    NotAllowedError
        They may only read.
    """
    known = viewer(request)
    if known.role != "grade":
        raise NotAllowedError("You may read here, not grade: your token has not the role 'grade', or nobody may grade here.")
    return known


class IdentifyViewer:
    """Finds out who makes a request, before anything else is done with it."""

    def __init__(self, app: ASGIApp, tokens: TokenBook, config: ServiceConfig, instruments: ServiceInstruments) -> None:
        self._app, self._tokens, self._instruments = app, tokens, instruments
        self._grading = config.grading.enabled
        #: What those may do who need no token.
        self._open_role: Role = "grade" if config.is_local and self._grading else "read"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            known = self._viewer(scope)
            if isinstance(known, RedirectResponse):
                await known(scope, receive, send)
                return
            scope.setdefault("state", {})[_STATE] = known
        await self._app(scope, receive, send)

    def _viewer(self, scope: Scope) -> Viewer | RedirectResponse:
        headers, path = Headers(scope=scope), route_path(scope)
        cookies = cookie_parser(headers.get("cookie", ""))
        if not self._tokens:
            name = cookies.get(NAME_COOKIE, "").replace("+", " ")
            return Viewer(name if NAME.fullmatch(name) else None, self._open_role, False)
        sent = [token for token in (_token(headers), cookies.get(TOKEN_COOKIE)) if token]
        line = self._tokens.find(sent[0]) if sent else None
        if line is not None:
            return Viewer(line.name, line.role if self._grading else "read", True)
        audience = audience_of(path)
        if audience == "open":
            return Viewer(None, "read", False)
        self._instruments.refused.labels("token").inc()
        if audience == "page" and scope["method"] in ("GET", "HEAD"):
            wanted = "?".join(filter(None, (path, scope["query_string"].decode("latin-1"))))
            return RedirectResponse(f"{scope.get('root_path', '')}/login?next={quote(wanted)}", 303)
        # Browsers answer a Basic challenge with a window of their own, even to a script's request.
        scheme = 'Basic realm="scanner", charset="UTF-8"' if audience == "vo" else "Bearer"
        raise UnknownViewerError(
            "This token is not known." if sent else "A token is needed: send it as 'Authorization: Bearer …' or as a password.",
            {"WWW-Authenticate": scheme},
        )


def _token(headers: Headers) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return value
    return None


access = logging.getLogger("scanner.service.access")
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        # The second is where a SAMP hub listens: TOPCAT or Aladin on the reader's own machine.
        "connect-src 'self' http://localhost:21012",
        "frame-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
#: Aladin Lite runs in a frame without an origin of its own: it may load from the CDS and from wherever images of the sky are,
#: and can read nothing of this service.
ALADIN_POLICY = "; ".join(
    (
        "sandbox allow-scripts",
        "default-src 'none'",
        "script-src 'self' https://aladin.cds.unistra.fr 'wasm-unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src * data: blob:",
        "connect-src * data: blob:",
        "font-src * data:",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
#: The page of a recovery is a file of its own, with its style and pictures inside.
RECOVERY_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    # What one viewer may see is nothing for a cache that serves others.
    "Cache-Control": "private, no-cache",
}
#: What pages are made of, and what is worth compressing of it: pictures are small as they are, and tables of the Virtual
#: Observatory are streamed, mostly to programs on the same machine or in the same network.
COMPRESSED = ("application/json", "text/html", "text/css", "text/javascript", "image/svg+xml")
#: Shorter answers fit into one packet as they are, in bytes.
LEAST_COMPRESSED = 1000
#: Of gzip's nine: half the time of its default, for a fortieth more bytes.
COMPRESSION_LEVEL = 5
#: Clients remembered at a time; the one that has been quiet for longest is forgotten first.
REMEMBERED = 10_000
#: Longest wait for the next part of a body.
BODY_S = 20.0
ID_HEADER = "X-Request-ID"
#: Longest part of a query that is logged.
LOGGED_QUERY = 1000
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
#: Methods that are counted by name; clients can send any word.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_WHOLE_URL = re.compile(r"https?://(?P<host>[^/?#]+)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
#: Id of the request that this task answers, for log lines anywhere.
request_id: ContextVar[str] = ContextVar("request_id", default="")


class RootPath:
    """Sets the root path under which clients see the service, for routes and links.

    A slash at the end of a path means nothing. Redirected, it would lead to whatever host the request names, and out of the
    root that a reverse proxy takes away. A request may name a whole URL, whose host then counts (RFC 9112, 3.2.2).
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self._app, self._root = app, root.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            scope = {**scope, "root_path": self._root or scope.get("root_path", "")}
            if whole := _WHOLE_URL.fullmatch(scope["path"]):
                scope["path"] = whole["path"] or "/"
                others = [(name, value) for name, value in scope["headers"] if name != b"host"]
                scope["headers"] = [(b"host", whole["host"].encode()), *others]
            if route_path(scope) != "/":
                scope["path"] = scope["path"].removesuffix("/")
        await self._app(scope, receive, send)


class RequestLog:
    """Gives every request an id, a line in the log and its place in the metrics."""

    def __init__(self, app: ASGIApp, instruments: ServiceInstruments) -> None:
        self._app, self._instruments = app, instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(ID_HEADER, "")
        known_as = sent if _ID.fullmatch(sent) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = known_as
        token = request_id.set(known_as)
        start, status, n_bytes = time.perf_counter(), 499, 0

        async def observed(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = known_as
            elif message["type"] == "http.response.body":
                n_bytes += len(message.get("body", b""))
            await send(message)

        self._instruments.in_progress.inc()
        try:
            await self._app(scope, receive, observed)
        finally:
            self._instruments.in_progress.dec()
            self._tell(scope, status, n_bytes, time.perf_counter() - start)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, n_bytes: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._instruments.requests.labels(route, method, str(status)).inc()
        self._instruments.seconds.labels(route).observe(seconds)
        self._instruments.sent_bytes.inc(n_bytes)
        who = scope["state"].get("viewer")
        access.info(
            "%s %s %d",
            scope["method"],
            # As it was sent: what it decodes to may be the end of a line, or orders to a terminal.
            quote(scope["path"], safe="/:@!$&'()*+,;=~"),
            status,
            extra={
                "request_id": scope["state"]["request_id"],
                "client": (scope.get("client") or ("", 0))[0],
                "viewer": getattr(who, "name", None),
                "query": scope.get("query_string", b"").decode("latin-1")[:LOGGED_QUERY],
                "route": route,
                "seconds": round(seconds, 4),
                "bytes": n_bytes,
            },
        )


class SecurityHeaders:
    """Adds :data:`HEADERS` to every answer; those that an answer sets itself stay."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.add_vary_header("Authorization, Cookie")
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Compression:
    """Compresses answers of the kinds in :data:`COMPRESSED` for clients that take gzip (RFC 9110, section 12.5.3)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_taken = _takes_gzip(Headers(scope=scope).get("accept-encoding", ""))
        held: Message | None = None

        async def compressed(message: Message) -> None:
            nonlocal held
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").partition(";")[0] in COMPRESSED:
                    headers.add_vary_header("Accept-Encoding")
                    if is_taken:
                        # How long it is shows with its body.
                        held = message
                        return
            elif held is not None:
                start, held = held, None
                body = message.get("body", b"")
                if not message.get("more_body", False) and len(body) >= LEAST_COMPRESSED:
                    # mtime=0: the same answer has the same bytes.
                    body = gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
                    headers = MutableHeaders(scope=start)
                    headers["Content-Encoding"] = "gzip"
                    headers["Content-Length"] = str(len(body))
                    message = {**message, "body": body}
                await send(start)
            await send(message)

        await self._app(scope, receive, compressed)


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip, by its ``Accept-Encoding``."""
    for coding in accepted.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "").rstrip("0.") != "q="
    return False


class ErrorsToAnswers:
    """Turns errors into answers in the form of their path; unforeseen ones are logged with their traceback."""

    def __init__(self, app: ASGIApp, forms: Forms) -> None:
        self._app, self._forms = app, forms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ServiceError as error:
            if begun:
                raise
            await self._forms.answer(Request(scope), error, scope["state"]["request_id"])(scope, receive, send)
        except Exception:
            known_as = scope["state"]["request_id"]
            logger.exception("request %s failed", known_as, extra={"request_id": known_as})
            if begun:
                raise
            unforeseen = ServiceError(f"Something went wrong here; the operator's log knows it as {known_as}.")
            await self._forms.answer(Request(scope), unforeseen, known_as)(scope, receive, send)


class AllowedHosts:
    """Refuses requests for another host: a page whose name was made to mean 127.0.0.1 could read everything."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], instruments: ServiceInstruments) -> None:
        self._app, self._hosts, self._instruments = app, hosts, instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if (
            scope["type"] == "http"
            and "*" not in self._hosts
            and host_name(Headers(scope=scope).get("host", "")) not in self._hosts
        ):
            self._instruments.refused.labels("host").inc()
            raise WrongHostError(
                "This server is not known by that name; its operator can allow it with http.hosts or http.base_url."
            )
        await self._app(scope, receive, send)


def allowed_hosts(http: HttpConfig) -> frozenset[str]:
    """Host names that requests may carry; '*' in it: any."""
    own = urlsplit(http.base_url).netloc if http.base_url else ""
    named = {host_name(host) for host in (*http.hosts, own) if host}
    # Elsewhere the network decides who reaches the server, and tokens who reads.
    return frozenset(named | ({*LOOPBACK_NAMES, host_name(http.host)} if is_loopback(http.host) else {"*"}))


class RateLimit:
    """Refuses requests of a client beyond its rate.

    Each client, by name or address, has a bucket that fills evenly and holds ``burst`` requests: a page of a hundred pictures
    empties a part of it, a loop without a pause finds its end.
    """

    def __init__(
        self,
        app: ASGIApp,
        per_minute: int,
        burst: int,
        instruments: ServiceInstruments,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._instruments, self._clock = app, instruments, clock
        self._per_second, self._burst = per_minute / 60.0, float(burst)
        #: Client → what is left in its bucket, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._per_second and not is_below(route_path(scope), "/static"):
            wait = self._wait(client_of(scope))
            if wait:
                self._instruments.refused.labels("rate").inc()
                raise TooManyRequestsError(f"Too many requests; try again in {wait} s.", {"Retry-After": str(wait)})
        await self._app(scope, receive, send)

    def _wait(self, client: str) -> int:
        """Seconds that a client has to wait; 0, and one request is counted, where it need not."""
        now = self._clock()
        left, since = self._left.pop(client, (self._burst, now))
        left = min(left + (now - since) * self._per_second, self._burst)
        allowed = left >= 1.0
        self._left[client] = (left - allowed, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        return 0 if allowed else max(math.ceil((1.0 - left) / self._per_second), 1)


def client_of(scope: Scope) -> str:
    """Who is counted as one client: the owner of a token, or an address."""
    who = scope.get("state", {}).get("viewer")
    if who is not None and who.is_named_by_token:
        return f"name {who.name}"
    address = (scope.get("client") or ("", 0))[0]
    with suppress(ValueError):
        # A client with one address of IPv6 has the 2⁶⁴ of its network.
        address = IPv6Network((address, 64), strict=False)
    return f"address {address}"


class SameSiteWrites:
    """Refuses requests that change something and come from another site's page."""

    def __init__(self, app: ASGIApp, readers: tuple[str, ...], base_url: str | None, instruments: ServiceInstruments) -> None:
        self._app, self._readers, self._instruments = app, readers, instruments
        self._own = urlsplit(base_url).netloc if base_url else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and self._is_foreign(scope):
            self._instruments.refused.labels("origin").inc()
            raise NotAllowedError("Pages of other sites may not write here.")
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is None:
            # No browser sends a write without one of the two; other programs send neither.
            return site in ("cross-site", "same-site")
        # What follows the scheme: nothing else is an origin of ours.
        if origin.partition("://")[2] in {headers.get("host"), self._own}:
            return False
        # A POST of the VO's protocols reads.
        return not (audience_of(route_path(scope)) == "vo" and ("*" in self._readers or origin in self._readers))


def reading_origins(config: ServiceConfig, *, is_guarded: bool) -> tuple[str, ...]:
    """Origins whose pages may read; where nothing guards reading and only this machine can ask, no page but our own may."""
    if config.http.cors is not None:
        return config.http.cors
    return ("*",) if is_guarded or not config.is_local else ()


class BodyLimit:
    """Refuses bodies that are too large, before they are in memory, and those that do not come."""

    def __init__(self, app: ASGIApp, max_bytes: int, instruments: ServiceInstruments, seconds: float = BODY_S) -> None:
        self._app, self._max, self._instruments, self._seconds = app, max_bytes, instruments, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        self._refuse(int(declared) if declared.isdigit() else 0)
        n_bytes, is_whole = 0, False

        async def counted() -> Message:
            nonlocal n_bytes, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(self._seconds):
                    message = await receive()
            except TimeoutError:
                raise TimeLimitError(f"No more of the request's body came for {self._seconds:g} s.") from None
            n_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            self._refuse(n_bytes)
            return message

        await self._app(scope, counted, send)

    def _refuse(self, n_bytes: int) -> None:
        if n_bytes > self._max:
            self._instruments.refused.labels("size").inc()
            raise TooLargeError(f"The request's body is larger than {self._max // 1000} kB.")
