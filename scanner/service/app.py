"""The service as one ASGI application, what every request goes through, and the server that runs it."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, disable_created_metrics, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from threadpoolctl import threadpool_limits

from scanner import __version__
from scanner.errors import UsageError
from scanner.grading.campaign import Campaigns
from scanner.grading.grade import Viewer
from scanner.grading.store import Blindness, GradeStore
from scanner.query.processes import QueryProcesses
from scanner.records import Record
from scanner.service.api import candidates, grades
from scanner.service.collections import Collections, Cutouts
from scanner.service.context import Context, WorkThreads
from scanner.service.errors import (
    PROGRAM_ROOTS,
    VO_ROOTS,
    BadRequestError,
    BusyError,
    Form,
    Forms,
    NotAllowedError,
    ServiceError,
    as_json,
    of_grades,
    route_path,
)
from scanner.service.pages import routes as pages
from scanner.service.pages.routes import message
from scanner.service.security import (
    ID_HEADER,
    METHODS,
    AllowedHosts,
    BodyLimit,
    Compression,
    ErrorsToAnswers,
    IdentifyViewer,
    RateLimit,
    RequestLog,
    RootPath,
    SameSiteWrites,
    SecurityHeaders,
    ServiceInstruments,
    TokenBook,
    allowed_hosts,
    reading_origins,
    viewer,
)
from scanner.service.settings import ServiceConfig
from scanner.service.vo import cone, datalink, soda, tap, vosi
from scanner.service.vo.votable import error_form

#: Seconds that answers under way are given when the service is stopped.
GRACE_S = 5
#: Longest that a client may take for its next request, or take nothing of an answer, in seconds. Clients and proxies that keep
#: a connection give it up earlier (nginx after 60 s): one that the server closes first takes a request with it.
CLIENT_S = 75.0
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method; the Allow header says which it takes.",
}


class State(Record):
    """How the service is."""

    status: str


def health_router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["watch"])

    @routes.get("/healthz", summary="Whether the service runs")
    async def health() -> State:
        return State(status="ok")

    @routes.get("/readyz", summary="Whether every collection is open", responses={503: {"description": "Not yet"}})
    async def ready() -> State:
        if not context.is_ready:
            raise BusyError("Not every collection is open.", {"Retry-After": "2"})
        return State(status="ready")

    @routes.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(generate_latest(context.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return routes


#: What makes the routes, in the order in which they are tried.
ROUTERS: tuple[Callable[[Context], APIRouter], ...] = (
    health_router,
    candidates.collections_router,
    candidates.router,
    grades.router,
    grades.campaign_router,
    tap.router,
    cone.router,
    datalink.router,
    soda.router,
    vosi.moc_router,
    pages.router,
)
_ID = r"[^/]+/[^/]+/[^/]+"
#: Addresses that show no scores, or whose answers go through :meth:`~scanner.grading.store.Blindness.hide_scores`. All others
#: are closed to graders who are blind, so an address that was forgotten here shows nothing.
OPEN_TO_BLIND = re.compile(
    rf"/|/c/.*|/static/.*|/aladin|/favicon\.ico|/login|/logout|/healthz|/readyz|/metrics|/openapi\.json|/docs|/cutout(/.*)?|/soda.*|/moc.*"
    rf"|/campaigns(/.*)?|/api/v1/(grades|campaigns)(/.*)?|/api/v1/collections(/[^/]+(/candidates(/{_ID})?|/tiles|/sky)?)?"
)

#: Addresses that tell nothing of which objects a campaign asks for. All others are closed to the graders of a blind one: who
#: sees the catalogue finds there what is of the sky, and knows that the rest is painted.
OPEN_TO_CAMPAIGN = re.compile(
    r"/|/campaigns(/.*)?|/api/v1/campaigns(/.*)?|/api/v1/grades/me|/cutout/[^/]+/[^/]+|/static/.*|/favicon\.ico|/log(in|out)"
    r"|/(health|ready)z|/openapi\.json|/docs"
)


def is_closed(blindness: Blindness, who: Viewer, path: str) -> bool:
    """Whether an address is closed to somebody; ``path`` from the service's root on, without the query."""
    return blindness.holds_for(who) and OPEN_TO_BLIND.fullmatch(path) is None


def context_of(config: ServiceConfig, locations: Sequence[str]) -> Context:
    """What the routes share; the collections are still to be opened.

    Parameters
    ----------
    config
        The service's settings.
    locations
        Run and survey folders, the default one first.

    Raises
    ------
    ScannerError
        A folder is none of these, the tokens cannot be read, or nothing says that others than this machine may ask.
    """
    # Otherwise each counter has a second series with the time at which it was made.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics = ServiceInstruments(CollectorRegistry())
    limits = config.limits
    processes = QueryProcesses(limits.memory_mb_each)
    collections, tokens = Collections(locations, config, processes, metrics), TokenBook(config.access.tokens)
    salt = None
    if config.grading.salt:
        # Figures of its own: those of the service would name it.
        salt = Collections(config.grading.salt, config, processes, ServiceInstruments(CollectorRegistry()))
    if not (config.is_local or tokens or config.access.public):
        raise UsageError(
            f"{config.http.host}: everybody who can reach this machine could read; give --tokens FILE "
            "('scanner tokens add' makes it), or --public if that is what you want."
        )
    # Its file is made where there is none: not before all else is in order.
    store = GradeStore(config.grading.path)
    return Context(
        config=config,
        collections=collections,
        salt=salt,
        tokens=tokens,
        work=WorkThreads(limits, metrics),
        processes=processes,
        metrics=metrics,
        grades=store,
        campaigns=Campaigns(store),
        blindness=Blindness(store, on=config.grading.blind),
        cutouts=Cutouts(None if config.files.cache is None else Path(config.files.cache)),
    )


def forms() -> Forms:
    """How each part of the service says what it refuses."""
    programs: dict[str, Form] = dict.fromkeys((*PROGRAM_ROOTS, *VO_ROOTS, "/healthz", "/readyz"), as_json)
    votables = {"/scs": cone.error_form, "/datalink": cone.error_form, "/cutout": soda.error_form}
    votables["/tap"] = error_form
    return Forms({"/": message} | programs | votables)


def create_app(context: Context) -> FastAPI:
    """Make the application."""
    config, metrics = context.config, context.metrics

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        for one in context.opened:
            one.start()
        # Cutouts are drawn in parallel, so threads for each one's small matrices would only wait for the others'.
        with threadpool_limits(1, "blas"):
            yield
        context.close()

    app = FastAPI(
        title="scanner",
        summary="Candidates for strong gravitational lenses, and every object that was scored.",
        version=__version__,
        # FastAPI's pages load scripts from another server.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        lifespan=running,
        dependencies=[Depends(_refuse_closed(context))],
    )
    for router in ROUTERS:
        app.include_router(router(context))
    readers = reading_origins(config, is_guarded=bool(context.tokens))
    answers = forms()
    _answer_errors(app, answers)
    if context.tokens:
        _describe_tokens(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, config.limits.body_kb * 1000, metrics)
    app.add_middleware(SameSiteWrites, readers, config.http.base_url, metrics)
    app.add_middleware(RateLimit, config.limits.requests_per_minute, config.limits.burst, metrics)
    app.add_middleware(IdentifyViewer, context.tokens, config, metrics)
    app.add_middleware(AllowedHosts, allowed_hosts(config.http), metrics)
    app.add_middleware(ErrorsToAnswers, answers)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=readers,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Type"),
        expose_headers=(ID_HEADER, "Retry-After", "Content-Disposition", "Location"),
        max_age=3600,
    )
    app.add_middleware(Compression)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestLog, metrics)
    app.add_middleware(RootPath, urlsplit(config.http.base_url or "").path)
    return app


def _refuse_closed(context: Context) -> Callable[[Request], Awaitable[None]]:
    """Refuses addresses that would show graders what blind grading withholds."""

    async def refuse_closed(request: Request) -> None:
        who, path = viewer(request), route_path(request.scope)
        if is_closed(context.blindness, who, path):
            context.metrics.refused.labels("blind").inc()
            raise NotAllowedError("Blind grading: this would tell scores of what you have not graded.")
        if OPEN_TO_CAMPAIGN.fullmatch(path) is None and (name := of_grades(context.campaigns.closes_catalogue_to, who)):
            context.metrics.refused.labels("blind").inc()
            raise NotAllowedError(
                f"You grade blind in the campaign {name}, at /campaigns: the rest is closed to you until it is."
            )

    return refuse_closed


def _answer_errors(app: FastAPI, answers: Forms) -> None:
    """Answer what routes raise in the form of their path."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return answers.answer(request, error, request.state.request_id)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        known = ServiceError(_SENTENCES.get(error.status_code, str(error.detail)), error.headers)
        known.status = error.status_code
        if known.status == HTTPStatus.METHOD_NOT_ALLOWED:
            known.headers["Allow"] = ", ".join(_allowed(app, request))
        return await refused(request, known)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return await refused(request, BadRequestError(f"{where}: {first['msg']}."))

    app.add_exception_handler(ServiceError, refused)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)


def _describe_tokens(app: FastAPI) -> None:
    """Add to the description how a token is sent."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        description = described()
        schemes = {"bearer": {"type": "http", "scheme": "bearer"}, "password": {"type": "http", "scheme": "basic"}}
        description.setdefault("components", {})["securitySchemes"] = schemes
        description["security"] = [{name: []} for name in schemes]
        return description

    app.openapi = openapi  # type: ignore[method-assign]


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """Methods that an address takes; the router itself gives only those of the address's first route."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in app.router.routes)
    ]


class Server(uvicorn.Server):
    """Uvicorn's, which leaves a connection open if it was made while the server was stopping, or if its client does nothing."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        #: What each connection waits for, and since when.
        self._waiting: dict[Any, tuple[object, float]] = {}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; a second Ctrl-C does not leave out what closes, which takes no longer than the grace."""
        super().handle_exit(sig, frame)
        self.force_exit = False

    async def on_tick(self, counter: int) -> bool:
        """Do what uvicorn does ten times a second, and cut connections whose clients keep them waiting."""
        if counter % 10 == 0:
            now, before, self._waiting = asyncio.get_running_loop().time(), self._waiting, {}
            for connection in list(self.server_state.connections):
                wanted = _wanted(connection)
                if wanted is None:
                    continue
                known, since = before.get(connection, (None, now))
                self._waiting[connection] = wanted, since if known == wanted else now
                if now - self._waiting[connection][1] > CLIENT_S:
                    connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, and then cut what is left."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # The loop closes their sockets in its next turn, and must have one.
        await asyncio.sleep(0)


def _wanted(connection: Any) -> object:
    """What a connection waits for: its next request after the last one, or that so many bytes are taken; None: nothing."""
    cycle = connection.cycle
    if cycle is None or cycle.response_complete:
        return "request", id(cycle)
    n_bytes = connection.transport.get_write_buffer_size()
    return ("taken", id(cycle), n_bytes) if n_bytes else None


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
            timeout_keep_alive=int(CLIENT_S),
            timeout_graceful_shutdown=GRACE_S,
        )
    )
