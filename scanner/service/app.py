"""The service as one ASGI application.

In: settings and the folders to serve. Out: the application: its routes, and round them what every request goes through, from
the outside in: its id, log line and metrics; security headers; CORS; errors as answers; the name of the host; who asks; how
often; from which page; how much they send. Refused: what these refuse.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry, disable_created_metrics
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from threadpoolctl import threadpool_limits

from scanner import __version__
from scanner.errors import UsageError
from scanner.service.api import access, candidates, catalogues, embedding, grades, histogram, sky, watch
from scanner.service.collections import Collections
from scanner.service.context import Context
from scanner.service.cutouts.source import Cutouts
from scanner.service.errors import BadRequestError, ForbiddenError, Form, Forms, ServiceError, as_json
from scanner.service.grading.blind import Blindness
from scanner.service.grading.store import GradeStore
from scanner.service.instruments import ServiceInstruments
from scanner.service.pages import routes as pages
from scanner.service.pages.rendering import message
from scanner.service.paths import PROGRAM_ROOTS, VO_ROOTS, Rooted, route_path
from scanner.service.security.headers import SecurityHeaders
from scanner.service.security.limits import RateLimited, SmallBodies
from scanner.service.security.observed import ID_HEADER, METHODS, Answered, Observed
from scanner.service.security.origins import OwnHost, OwnWrites, allowed_hosts, reading_origins
from scanner.service.security.tokens import TokenBook
from scanner.service.security.viewer import Identified, viewer
from scanner.service.settings import ServiceConfig
from scanner.service.vo import cone_capabilities, cone_search, datalink, explanation, moc, soda, tap
from scanner.service.vo.errors import error_form
from scanner.service.work import Work

#: What makes the routes, in the order in which they are tried.
ROUTERS: tuple[Callable[[Context], APIRouter], ...] = (
    watch.router,
    access.router,
    catalogues.router,
    candidates.router,
    embedding.router,
    sky.router,
    histogram.router,
    grades.router,
    tap.router,
    cone_capabilities.router,
    cone_search.router,
    datalink.router,
    soda.router,
    moc.router,
    explanation.router,
    pages.router,
)


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
    collections, tokens = Collections(locations, config, metrics), TokenBook(config.access.tokens)
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
        tokens=tokens,
        work=Work(limits.workers, limits.queue, limits.seconds, metrics),
        metrics=metrics,
        grades=store,
        blindness=Blindness(store, on=config.grading.blind),
        cutouts=Cutouts(None if config.files.cache is None else Path(config.files.cache)),
    )


def forms() -> Forms:
    """How each part of the service says what it refuses."""
    programs: dict[str, Form] = dict.fromkeys((*PROGRAM_ROOTS, *VO_ROOTS, "/healthz", "/readyz"), as_json)
    votables = {"/scs": cone_search.error_form, "/datalink": cone_search.error_form, "/cutout": soda.error_form}
    votables["/tap"] = error_form
    return Forms({"/": message} | programs | votables)


def create_app(context: Context) -> FastAPI:
    """Make the application."""
    config, metrics = context.config, context.metrics

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        context.collections.start()
        # Requests are drawn beside one another: threads of each one's small matrices would only wait for the others'.
        with threadpool_limits(1, "blas"):
            yield
        context.collections.close()
        context.work.close()
        context.cutouts.close()

    app = FastAPI(
        title="scanner",
        summary="Candidates for strong gravitational lenses, and every object that was scored.",
        version=__version__,
        # Their pages load scripts from another server.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=running,
        dependencies=[Depends(_unveiled(context))],
    )
    for router in ROUTERS:
        app.include_router(router(context))
    readers = reading_origins(config, is_guarded=bool(context.tokens))
    answers = forms()
    _answer_errors(app, answers)
    if context.tokens:
        _describe_tokens(app)
    # The last one added is the first to see a request.
    app.add_middleware(SmallBodies, config.limits.body_kb * 1000, metrics)
    app.add_middleware(OwnWrites, readers, config.http.base_url, metrics)
    app.add_middleware(RateLimited, config.limits.requests_per_minute, config.limits.burst, metrics)
    app.add_middleware(Identified, context.tokens, config, metrics)
    app.add_middleware(OwnHost, allowed_hosts(config.http), metrics)
    app.add_middleware(Answered, answers)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=readers,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("Authorization", "Content-Type"),
        expose_headers=(ID_HEADER, "Retry-After", "Content-Disposition", "Location"),
        max_age=3600,
    )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Observed, metrics)
    app.add_middleware(Rooted, urlsplit(config.http.base_url or "").path)
    return app


def _unveiled(context: Context) -> Callable[[Request], Awaitable[None]]:
    """Refuses addresses that would tell graders what blind grading withholds."""

    async def unveiled(request: Request) -> None:
        if context.blindness.refuses(viewer(request), route_path(request.scope)):
            context.metrics.refused.labels("blind").inc()
            raise ForbiddenError("Blind grading: this would tell scores of what you have not graded.")

    return unveiled


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
    """Methods that an address takes: one address may have several routes, and the router tells those of the first."""
    scopes = {method: {**request.scope, "method": method} for method in METHODS}
    return [
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in app.router.routes)
    ]


_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method; the Allow header says which it takes.",
}
