"""Links from an object to all that there is of it, as DataLink 1.1 has them: ``/datalink``.

In: ID (``run/tile_id/target_id``), any number of times. Out: a VOTable with a row a link: cutouts as FITS and as pictures, the
cutout service, the page, the catalogue round it, the explanation where there is one. An unknown or misspelt ID has a row that
says so, beside the links of the others. Refused (400, a VOTable): other formats.

Source: DataLink 1.1, sections 2 and 3; terms of http://www.ivoa.net/rdf/datalink/core.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scanner.records import BANDS
from scanner.service.collections import CandidateId, Collection, UnknownCandidateError
from scanner.service.context import Context
from scanner.service.cutouts.request import MEDIA_TYPES, Format
from scanner.service.errors import BadRequestError
from scanner.service.vo import votable
from scanner.service.vo.descriptors import LINKS_MEDIA_TYPE, LINKS_STANDARD, SODA, cutout_descriptor
from scanner.service.vo.explanation import MEDIA_TYPES as EXPLANATION_TYPES
from scanner.service.vo.explanation import explanation_of
from scanner.service.vo.openapi import QueryParameter, add_routes, answers
from scanner.service.vo.parameters import Parameters
from scanner.service.vo.votable import Field, Heading, Info

#: More IDs than this are not looked up; the answer says so.
MOST_IDS = 200
#: Radius of the neighbourhood that is linked.
NEIGHBOURHOOD_DEG = 30 / 3600

_FIELDS = (
    Field("ID", pa.string(), ucd="meta.id;meta.main", description="The object: run/tile_id/target_id"),
    Field("access_url", pa.string(), ucd="meta.ref.url", description="Where it is"),
    Field("service_def", pa.string(), ucd="meta.ref", description="Descriptor of the service that makes it"),
    Field("error_message", pa.string(), ucd="meta.code.error", description="Why there is no link"),
    Field("description", pa.string(), ucd="meta.note", description="What it is"),
    Field("semantics", pa.string(), ucd="meta.code", description="What it is to the object", ascii=True),
    Field("content_type", pa.string(), ucd="meta.code.mime", description="Media type", ascii=True),
    Field("content_length", pa.int64(), unit="byte", ucd="phys.size;meta.file", description="Its length"),
    Field("content_qualifier", pa.string(), description="Kind of content", ascii=True),
    Field("local_semantics", pa.string(), ucd="meta.id.assoc", description="The same for every object of this service"),
    Field("link_auth", pa.string(), ucd="meta.code", description="Whether a token is needed", ascii=True),
    Field("link_authorized", pa.bool_(), ucd="meta.code", description="Whether you may follow it"),
)


@dataclass(frozen=True)
class Link:
    """One row of the answer; the names are the standard's."""

    ID: str
    access_url: str | None = None
    service_def: str | None = None
    error_message: str | None = None
    description: str | None = None
    semantics: str = "#this"
    content_type: str | None = None
    content_length: int | None = None
    content_qualifier: str | None = None
    local_semantics: str | None = None
    link_auth: str | None = None
    link_authorized: bool | None = None


def router(context: Context) -> APIRouter:
    """The route, for GET, HEAD and POST."""
    routes = APIRouter(tags=["Virtual Observatory"])

    async def links(request: Request) -> Response:
        parameters = await Parameters.of(request)
        wanted = parameters.one("RESPONSEFORMAT")
        if wanted is not None and wanted.lower().partition(";")[0].strip() not in ("votable", "text/xml", votable.MEDIA_TYPE):
            raise BadRequestError(f"RESPONSEFORMAT={wanted}: links come as a VOTable.")
        identifiers = tuple(dict.fromkeys(parameters.all("ID")))
        pieces = await context.stream(_document, context, identifiers, context.base_url(request))
        return StreamingResponse(pieces, media_type=LINKS_MEDIA_TYPE, headers={"Cache-Control": "private, no-cache"})

    add_routes(
        routes,
        "/datalink",
        links,
        QueryParameter("ID", "The object: run/tile_id/target_id; may be given several times."),
        QueryParameter("RESPONSEFORMAT", "votable."),
        summary="Links from an object to its cutouts, pictures and pages (DataLink)",
        responses=answers(votable.ERROR_MEDIA_TYPE, LINKS_MEDIA_TYPE),
    )
    return routes


def _document(context: Context, identifiers: tuple[str, ...], base_url: str) -> Iterator[bytes]:
    schema = pa.schema([pa.field(field.name, field.type) for field in _FIELDS])
    batches = [
        pa.RecordBatch.from_pylist([asdict(link) for link in links_of(context, identifier, base_url)], schema=schema)
        for identifier in identifiers[:MOST_IDS]
    ]
    left_out = identifiers[MOST_IDS:]
    if left_out:
        # One row more than is shown, so that the document says OVERFLOW.
        batches.append(pa.RecordBatch.from_pylist([asdict(Link(left_out[0]))], schema=schema))
    heading = Heading(
        table="links",
        description="What there is of each object",
        infos=(Info("standardID", LINKS_STANDARD), Info("SERVICE_PROTOCOL", "1.1", "DataLink")),
        services=(cutout_descriptor(base_url, "ID"),),
    )
    most = sum(batch.num_rows for batch in batches) - bool(left_out)
    return votable.document(_FIELDS, batches, heading, encoding="tabledata", max_rows=most)


def links_of(context: Context, identifier: str, base_url: str) -> Iterator[Link]:
    """The links of one object, or the one row that says that there is none."""
    wanted = CandidateId.parse(identifier)
    if wanted is None:
        yield Link(identifier, error_message="UsageFault: an ID is run/tile_id/target_id")
        return
    try:
        collection, rows = context.collections.find(identifier)
    except UnknownCandidateError:
        yield Link(identifier, error_message="NotFoundFault: there is no object of this ID")
        return
    row: dict[str, Any] = rows.to_pylist()[0]
    yield from _cutouts(identifier, base_url)
    yield Link(
        identifier,
        service_def=SODA,
        description="Any part of the cutout, any band, any stretch",
        semantics="#cutout",
        content_type=MEDIA_TYPES["fits"],
        local_semantics="cutout service",
    )
    yield Link(
        identifier,
        f"{base_url}/c/{quote(collection.slug)}/candidates/{quote(identifier)}",
        description="Its page: pictures, scores, neighbours in the t-SNE map, grades",
        semantics="#documentation",
        content_type="text/html",
        local_semantics="page",
    )
    yield _neighbourhood(identifier, collection, row, base_url)
    if explanation_of(context, wanted) is not None:
        yield from _explanations(identifier, base_url)


def _cutouts(identifier: str, base_url: str) -> Iterator[Link]:
    def link(format_: Format, band: str, semantics: str, description: str) -> Link:
        query = urlencode({"ID": identifier, "FORMAT": format_, "BAND": band})
        return Link(
            identifier,
            f"{base_url}/cutout?{query}",
            description=description,
            semantics=semantics,
            content_type=MEDIA_TYPES[format_],
            content_qualifier="#image",
            local_semantics=f"{band} {format_}",
        )

    yield link("fits", "all", "#this", 'VIS, Y, J and H, 20" wide, with their WCS')
    for band in BANDS:
        yield link("fits", band, "#derivation", f"{band} alone, with its WCS")
    yield link("png", "colour", "#preview", "VIS coloured by J and H")
    yield link("png", "all", "#preview-image", "VIS, VIS coloured by NISP, and NISP beside one another")
    yield link("webp", "VIS", "#thumbnail", "VIS, small")


def _neighbourhood(identifier: str, collection: Collection, row: dict[str, Any], base_url: str) -> Link:
    query = urlencode({"RA": repr(row["ra"]), "DEC": repr(row["dec"]), "SR": f"{NEIGHBOURHOOD_DEG:.6f}"})
    return Link(
        identifier,
        f"{base_url}/scs/{quote(collection.slug)}?{query}",
        description='Objects of the catalogue within 30"',
        semantics="#auxiliary",
        content_type=votable.MEDIA_TYPE,
        local_semantics="neighbourhood",
    )


def _explanations(identifier: str, base_url: str) -> Iterator[Link]:
    for format_, semantics, description in (
        ("png", "#preview-image", "What the networks look at"),
        ("json", "#auxiliary", "What the seven members say and how far they agree"),
    ):
        yield Link(
            identifier,
            f"{base_url}/explanation?{urlencode({'ID': identifier, 'FORMAT': format_})}",
            description=description,
            semantics=semantics,
            content_type=EXPLANATION_TYPES[format_],
            local_semantics=f"explanation {format_}",
        )
