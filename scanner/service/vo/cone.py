"""Simple Cone Search 1.1: ``/scs`` and ``/scs/{slug}``, with ``/scs/capabilities`` and ``/scs/availability`` (VOSI 1.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scanner.catalogue import columns
from scanner.errors import UsageError
from scanner.query.catalogue import CANDIDATE_ID_SQL
from scanner.query.region import Cone, all_of
from scanner.service.collections import Collection
from scanner.service.context import Context, Parameters, QueryParameter, Slug, add_routes, answers, is_whole_number
from scanner.service.errors import BadRequestError
from scanner.service.vo import vosi, votable
from scanner.service.vo.datalink import cutout_descriptor, links_descriptor
from scanner.service.vo.votable import DocumentHeading, Encoding, Field, Info

STANDARD = "ConeSearch"
#: Rows where MAXREC is not given.
DEFAULT_ROWS = 10_000
#: Longer answers are written in binary.
MOST_TEXT_ROWS = 2_000
_BATCH_ROWS = 4_096

#: UCD1+, as VOTable has it since 1.2; version 1.03 of the protocol says ID_MAIN, POS_EQ_RA_MAIN and POS_EQ_DEC_MAIN.
_IDENTIFIER = Field("candidate_id", pa.string(), ucd="meta.id;meta.main", description="run/tile_id/target_id")
_DISTANCE = Field("separation", pa.float64(), unit="arcsec", ucd="pos.angDistance", description="Distance from the centre")
_FEW = ("name", "ra", "dec", "rank", "p_calibrated", "is_candidate")
_INNER = {columns.HEALPIX_COLUMN.name, "x", "y", "offset_x", "offset_y", "tsne_x", "tsne_y", "cell_count"}


@dataclass(frozen=True)
class ConeSearch:
    """A cone search: cone, columns (``verbosity`` 1: few, 3: all), most rows, how they are written (None: by their number)."""

    cone: Cone
    verbosity: int
    max_rows: int
    encoding: Encoding | None


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Virtual Observatory"])
    since = datetime.now(UTC)

    async def capabilities(request: Request) -> Response:
        slugs = [collection.slug for collection in context.collections]
        return Response(capabilities_document(context.base_url(request), slugs), media_type=vosi.MEDIA_TYPE)

    async def availability(request: Request) -> Response:
        return Response(vosi.availability(context.collections.is_ready, since), media_type=vosi.MEDIA_TYPE)

    async def default_search(request: Request) -> Response:
        return await answer(request, context.collections.default)

    async def search(request: Request, slug: Slug) -> Response:
        return await answer(request, context.collections.get(slug))

    async def answer(request: Request, collection: Collection) -> Response:
        wanted = read_search(await Parameters.of(request), context.config.limits.rows)
        pieces = await context.work.stream(_document, collection, wanted, context.base_url(request))
        return StreamingResponse(pieces, media_type=votable.MEDIA_TYPE)

    # Before /scs/{slug}, which takes every name.
    for path, described, summary in (
        ("/scs/capabilities", capabilities, "What the cone search can do (VOSI)"),
        ("/scs/availability", availability, "Whether the cone search answers (VOSI)"),
    ):
        responses = answers(votable.ERROR_MEDIA_TYPE, vosi.MEDIA_TYPE)
        add_routes(routes, path, described, summary=summary, responses=responses, posted=False)
    for path, handler, whose in (("/scs", default_search, "the first collection"), ("/scs/{slug}", search, "one collection")):
        add_routes(
            routes,
            path,
            handler,
            *parameters_of(context.config.limits.rows),
            summary=f"Objects of {whose} round a position (Simple Cone Search)",
            responses=answers(votable.ERROR_MEDIA_TYPE, votable.MEDIA_TYPE),
        )
    return routes


def parameters_of(most_rows: int) -> tuple[QueryParameter, ...]:
    """The protocol's parameters; ``most_rows``: the service's own limit."""
    return (
        QueryParameter("RA", "Right ascension of the centre in degrees.", "number", required=True),
        QueryParameter("DEC", "Declination of the centre in degrees.", "number", required=True),
        QueryParameter("SR", "Radius in degrees; 0: the columns alone.", "number", required=True),
        QueryParameter("VERB", "1: few columns, 3: all [default: 2].", "integer", schema=(("enum", [1, 2, 3]),)),
        QueryParameter("MAXREC", f"Most rows, up to {most_rows} [default: {min(DEFAULT_ROWS, most_rows)}].", "integer"),
        QueryParameter("RESPONSEFORMAT", "votable; with ;serialization=tabledata or binary2."),
    )


def error_form(request: Request, status: int, message: str, request_id: str) -> Response:
    """A VOTable that says what was refused, as cone search ("Error") and DALI (QUERY_STATUS) want it."""
    content = votable.error_document(message, [Info("Error", message)])
    return Response(content, status, media_type=votable.ERROR_MEDIA_TYPE)


def read_search(parameters: Parameters, most_rows: int) -> ConeSearch:
    """Read the parameters (Simple Cone Search 1.1, section 2).

    Raises
    ------
    BadRequestError
        A parameter is missing, or its value makes no sense.
    """
    numbers = []
    for name in ("RA", "DEC", "SR"):
        value = parameters.one(name)
        if value is None:
            raise BadRequestError(f"{name} is missing; give RA, DEC and SR in degrees.")
        try:
            numbers.append(float(value))
        except ValueError:
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]):
            raise BadRequestError(f"{name}={value}: is no number of degrees.")
    try:
        cone = Cone(*numbers)
    except UsageError as error:
        raise BadRequestError(str(error)) from None
    verbosity = parameters.one("VERB") or "2"
    if verbosity not in ("1", "2", "3"):
        raise BadRequestError(f"VERB={verbosity}: is none of 1, 2, 3.")
    limit = parameters.one("MAXREC") or str(DEFAULT_ROWS)
    if not is_whole_number(limit, 19):
        raise BadRequestError(f"MAXREC={limit}: is no number of rows.")
    rows = 0 if cone.radius_deg == 0 else min(int(limit), most_rows)
    return ConeSearch(cone, int(verbosity), rows, _encoding(parameters.one("RESPONSEFORMAT")))


def _encoding(value: str | None) -> Encoding | None:
    if value is None:
        return None
    media_type, *options = (part.strip().lower() for part in value.split(";"))
    if media_type not in ("votable", "xml", "text/xml", "application/xml", votable.MEDIA_TYPE):
        raise BadRequestError(f"RESPONSEFORMAT={value}: a cone search answers with a VOTable; /tap has other formats.")
    written: dict[str, Encoding] = {"serialization=tabledata": "tabledata", "serialization=binary2": "binary2"}
    return next((written[option] for option in options if option in written), None)


def _fields(collection: Collection, verbosity: int) -> list[Field]:
    """The columns of an answer: object and distance, then the catalogue's."""
    names = [name for name in collection.catalogue.schema.names if verbosity == 3 or name not in _INNER]
    if verbosity == 1:
        names = [name for name in _FEW if name in names]
    fields = [Field.of(collection.catalogue.schema.field(name)) for name in names]
    # An object's id is unique in its tile only, and a table has one main identifier.
    fields = [replace(one, ucd="meta.id") if one.ucd == _IDENTIFIER.ucd else one for one in fields]
    return [_IDENTIFIER, _DISTANCE, *fields]


def _document(collection: Collection, wanted: ConeSearch, base_url: str) -> Iterator[bytes]:
    fields = _fields(collection, wanted.verbosity)
    cone = wanted.cone
    rows = _rows(collection, wanted, [field.name for field in fields[2:]]) if wanted.max_rows else None
    n_rows = 0 if rows is None else len(rows)
    heading = DocumentHeading(
        table=collection.slug,
        description=f"Objects of {collection.title} within {cone.radius_deg:g} degrees of {cone.ra:.6f} {cone.dec:+.6f}",
        infos=(
            Info("SERVICE_PROTOCOL", "1.1", "SCS"),
            Info("RA", f"{cone.ra!r}"),
            Info("DEC", f"{cone.dec!r}"),
            Info("SR", f"{cone.radius_deg!r}"),
        ),
        services=(links_descriptor(base_url), cutout_descriptor(base_url)),
    )
    return votable.document(
        fields,
        () if rows is None else rows.to_batches(max_chunksize=_BATCH_ROWS),
        heading,
        encoding=wanted.encoding or ("tabledata" if n_rows <= MOST_TEXT_ROWS else "binary2"),
        max_rows=wanted.max_rows,
    )


def _rows(collection: Collection, wanted: ConeSearch, names: list[str]) -> pa.Table:
    """The nearest rows, one more than are wanted."""
    source = collection.catalogue.source(wanted.cone.ranges())
    inside, separation = all_of((source.within, wanted.cone.condition())), wanted.cone.separation()
    shown = ", ".join(f'"{name}"' for name in names)
    sql = (
        f"SELECT {CANDIDATE_ID_SQL} AS candidate_id, {separation.sql} AS separation, {shown} "
        f"FROM {source.relation.sql} WHERE {inside.sql} ORDER BY separation, {', '.join(columns.BEST_OF_EQUALS)} LIMIT ?"
    )
    parameters = (*separation.parameters, *source.relation.parameters, *inside.parameters, wanted.max_rows + 1)
    return collection.database.query(sql, parameters)


def capabilities_document(base_url: str, slugs: Sequence[str]) -> bytes:
    """``/scs/capabilities``, with a capability for each collection; ``slugs``: their names."""
    scs = f"{base_url}/scs"
    return vosi.capabilities_document(
        *(vosi.capability(STANDARD, f"{url}?", 'role="std"', "base") for url in (scs, *(f"{scs}/{slug}" for slug in slugs))),
        vosi.capability("VOSI#capabilities", f"{scs}/capabilities"),
        vosi.capability("VOSI#availability", f"{scs}/availability"),
    )
