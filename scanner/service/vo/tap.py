"""Table Access Protocol 1.1: ``/tap/sync``, and what the service says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI
from fastapi import Path as PathParameter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from scanner.query.adql.tree import AdqlError
from scanner.service.context import Context, bounded
from scanner.service.errors import BadRequestError, NotFoundError
from scanner.service.routing import Parameters, QueryParameter, add_routes, answers
from scanner.service.vo import uws, vosi, votable
from scanner.service.vo.tap_query import FORMATS, TapQuery, TapService, kept, read_query
from scanner.service.vo.uws import JobBook
from scanner.service.vo.vosi import TapLimits
from scanner.service.vo.votable import text

DEFAULT_ROWS = 20_000
EXAMPLES_MEDIA_TYPE = "application/xhtml+xml"
#: Identifier, title, query; every one is answered by any collection.
EXAMPLES: tuple[tuple[str, str, str], ...] = (
    ("best", "The hundred best candidates", "SELECT TOP 100 * FROM candidates ORDER BY rank"),
    (
        "cone",
        "Objects within 5 arcminutes of a position, nearest first",
        "SELECT candidate_id, ra, dec, p_calibrated,\n"
        "  DISTANCE(POINT('ICRS', ra, dec), POINT('ICRS', 267.78, 65.53)) * 3600 AS separation\n"
        "FROM objects\n"
        "WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 267.78, 65.53, 5/60.0))\n"
        "ORDER BY separation",
    ),
    (
        "density",
        "Objects and candidates in every HEALPix cell of order 8",
        "SELECT ivo_healpix_index(8, ra, dec) AS cell, COUNT(*) AS n, MAX(p_calibrated) AS best\n"
        "FROM objects\nGROUP BY cell\nORDER BY n DESC",
    ),
    (
        "unknown",
        "Probable lenses that nobody knew",
        "SELECT name, ra, dec, p_calibrated FROM candidates\n"
        "WHERE known_name = '' AND p_calibrated > 0.5\nORDER BY p_calibrated DESC",
    ),
    ("failed", "Tiles that could not be scanned, and why", "SELECT tile_id, reason FROM tiles WHERE state = 'failed'"),
)
TableName = Annotated[
    str, PathParameter(max_length=200, description="Name of the table with its schema, as /tap/tables lists it")
]


def router(context: Context) -> APIRouter:
    """The routes."""
    limits = tap_limits(context)
    jobs = JobBook(
        at_a_time=context.config.jobs.at_a_time,
        duration_s=limits.most_job_seconds,
        retention=timedelta(seconds=limits.retention_seconds),
        max_jobs=context.config.jobs.number,
        max_each=context.config.jobs.each,
    )
    since = datetime.now(UTC)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    routes = APIRouter(tags=["Virtual Observatory"], lifespan=running)

    def service(base_url: str) -> TapService:
        return TapService(tuple(context.collections), base_url)

    async def sync(request: Request) -> Response:
        values = kept(await Parameters.of(request))
        query = read_query(values, limits.default_rows, limits.most_rows)
        pieces = await context.work.stream(_pieces, service(context.base_url(request)), query)
        return StreamingResponse(pieces, media_type=query.format.media_type)

    async def write(values: Mapping[str, str], base_url: str, path: Path, seconds: float) -> str:
        query = read_query(values, limits.default_rows, limits.most_rows)
        most_bytes = context.config.limits.answer_mb * 1_000_000
        await context.work.run(_write, service(base_url), query, path, most_bytes, seconds=seconds)
        return query.format.media_type

    async def base(request: Request) -> Response:
        return RedirectResponse(f"{context.base_url(request)}/tap/capabilities", 303)

    async def capabilities(request: Request) -> Response:
        return Response(vosi.capabilities(context.base_url(request), limits), media_type=vosi.MEDIA_TYPE)

    async def availability(request: Request) -> Response:
        return Response(vosi.availability(context.collections.is_ready, since), media_type=vosi.MEDIA_TYPE)

    async def tables(request: Request) -> Response:
        own = service(context.base_url(request))
        columns = (await Parameters.of(request)).one("DETAIL") != "min"
        return Response(vosi.tableset(own.schemas, own.tables, columns=columns), media_type=vosi.MEDIA_TYPE)

    async def table(request: Request, name: TableName) -> Response:
        found = next((one for one in service(context.base_url(request)).tables if one.name == name.lower()), None)
        if found is None:
            raise NotFoundError("There is no table of this name; /tap/tables lists them.")
        return Response(vosi.single_table(found), media_type=vosi.MEDIA_TYPE)

    async def examples(request: Request) -> Response:
        return Response(examples_document(), media_type=EXAMPLES_MEDIA_TYPE)

    add_routes(
        routes,
        "/tap/sync",
        sync,
        *parameters_of(limits),
        summary="Rows of a table (TAP, ADQL)",
        responses=answers(votable.MEDIA_TYPE, *(one.media_type for one in FORMATS)),
    )
    for path, handler, media_type, summary in (
        ("/tap/capabilities", capabilities, vosi.MEDIA_TYPE, "What the TAP service can do (VOSI)"),
        ("/tap/availability", availability, vosi.MEDIA_TYPE, "Whether the TAP service answers (VOSI)"),
        ("/tap/tables", tables, vosi.MEDIA_TYPE, "Tables and columns of the TAP service (VOSI)"),
        ("/tap/tables/{name}", table, vosi.MEDIA_TYPE, "Columns of one table of the TAP service (VOSI)"),
        ("/tap/examples", examples, EXAMPLES_MEDIA_TYPE, "Queries to begin with (DALI)"),
    ):
        add_routes(routes, path, handler, summary=summary, responses=answers(votable.MEDIA_TYPE, media_type), posted=False)
    routes.add_api_route("/tap", base, methods=["GET", "HEAD"], include_in_schema=False)
    uws.add_job_routes(routes, context, jobs, write)
    return routes


def tap_limits(context: Context) -> TapLimits:
    """What the service's settings allow."""
    most, jobs = context.config.limits.rows, context.config.jobs
    return TapLimits(min(DEFAULT_ROWS, most), most, jobs.seconds, jobs.seconds, jobs.hours * 3600, jobs.hours * 3600)


def parameters_of(limits: TapLimits) -> tuple[QueryParameter, ...]:
    """The protocol's parameters."""
    return (
        QueryParameter("QUERY", "A query in ADQL.", required=True),
        QueryParameter("LANG", "ADQL [default]."),
        QueryParameter("MAXREC", f"Most rows, up to {limits.most_rows} [default: {limits.default_rows}].", "integer"),
        QueryParameter("RESPONSEFORMAT", "votable [default], votable/td, csv, tsv or a media type."),
    )


def _pieces(service: TapService, query: TapQuery) -> Iterator[bytes]:
    try:
        yield from service.answered(query)
    except AdqlError as error:
        raise BadRequestError(str(error)) from None


def _write(service: TapService, query: TapQuery, path: Path, most_bytes: int) -> None:
    """Write an answer to a file, whole or not at all."""
    try:
        with path.open("wb") as file:
            file.writelines(bounded(service.answered(query, reports_errors=False), most_bytes))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def examples_document() -> bytes:
    """The page."""
    parts = [
        f'<div id="{identifier}" resource="#{identifier}" typeof="example"><h2 property="name">{text(title)}</h2>'
        f'<pre property="query">{text(query)}</pre></div>'
        for identifier, title, query in EXAMPLES
    ]
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml">\n'
        "<head><title>Examples of queries</title></head>\n"
        f'<body vocab="http://www.ivoa.net/rdf/examples#">\n<h1>Examples of queries</h1>\n{"".join(parts)}\n</body>\n</html>\n'
    ).encode()
