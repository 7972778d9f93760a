"""Links from an object to all that there is of it (DataLink 1.1), and two of them: ``/explanation``, ``/lens-model``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, get_args
from urllib.parse import quote, urlencode

import pyarrow as pa
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from scanner.errors import ScannerError
from scanner.modelling import lens_model
from scanner.query.catalogue import CandidateId
from scanner.records import BANDS
from scanner.report import explanations
from scanner.report.colour import CURVES
from scanner.report.explanations import Explanation
from scanner.service.collections import Collection, UnknownCandidateError
from scanner.service.context import ERRORS, Context, Parameters, QueryParameter, add_routes, answers, conditional, found
from scanner.service.errors import BadRequestError, NotFoundError
from scanner.service.vo import votable
from scanner.service.vo.soda import CUTOUT_MEDIA_TYPES, CutoutFormat, Picture
from scanner.service.vo.votable import DocumentHeading, Field, Info, Parameter, ServiceDescriptor
from scanner.storage import Store
from scanner.survey.folder.ledger import RunFolder

LINKS_STANDARD = "ivo://ivoa.net/std/DataLink#links-1.1"
SODA_STANDARD = "ivo://ivoa.net/std/SODA#sync-1.0"
#: Identifiers of the descriptors in a document.
LINKS, SODA = "links", "soda"
EXPLANATION_MEDIA_TYPES = {"png": "image/png", "json": "application/json"}
MODEL_MEDIA_TYPES = {**EXPLANATION_MEDIA_TYPES, "fits": "application/fits"}
#: An object may be explained or modelled again while its page is open.
STAGE_MAX_AGE_S = 300
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
_log = logging.getLogger(__name__)
Made = TypeVar("Made")


@dataclass(frozen=True)
class LinkRow:
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
        pieces = await context.work.stream(_document, context, identifiers, context.base_url(request))
        return StreamingResponse(pieces, media_type=votable.LINKS_MEDIA_TYPE)

    add_routes(
        routes,
        "/datalink",
        links,
        QueryParameter("ID", "The object: run/tile_id/target_id; may be given several times."),
        QueryParameter("RESPONSEFORMAT", "votable."),
        summary="Links from an object to its cutouts, pictures and pages (DataLink)",
        responses=answers(votable.ERROR_MEDIA_TYPE, votable.LINKS_MEDIA_TYPE),
    )

    _add_product(
        routes, context, "explanation", _explanation, EXPLANATION_MEDIA_TYPES, "Why the networks say what they say of an object"
    )
    _add_product(
        routes, context, "lens-model", _model, MODEL_MEDIA_TYPES, "The lens model of an object: panels, record or images"
    )
    return routes


def _add_product(
    routes: APIRouter,
    context: Context,
    name: str,
    content_of: Callable[[Context, CandidateId | None, str], bytes],
    media_types: Mapping[str, str],
    summary: str,
) -> None:
    """Add the route of what a stage has made of an object."""

    async def product(request: Request) -> Response:
        parameters = await Parameters.of(request)
        identifier, wanted = parameters.one("ID"), (parameters.one("FORMAT") or "png").lower()
        if identifier is None:
            raise BadRequestError("Name an object: ID=run/tile_id/target_id.")
        if wanted not in media_types:
            raise BadRequestError(f"FORMAT={wanted}: is none of {', '.join(media_types)}.")
        content = await context.work.run(content_of, context, CandidateId.parse(identifier), wanted)
        return conditional(request, content, media_types[wanted], max_age_s=STAGE_MAX_AGE_S, filename=f"{name}.{wanted}")

    add_routes(
        routes,
        f"/{name}",
        product,
        QueryParameter("ID", "The object: run/tile_id/target_id.", required=True),
        QueryParameter("FORMAT", f"One of {', '.join(media_types)} [default: png]."),
        summary=summary,
        responses=ERRORS | found(*media_types.values(), _304="You have it"),
        posted=False,
    )


def _document(context: Context, identifiers: tuple[str, ...], base_url: str) -> Iterator[bytes]:
    schema = pa.schema([pa.field(field.name, field.type) for field in _FIELDS])
    batches = [
        pa.RecordBatch.from_pylist([asdict(link) for link in links_of(context, identifier, base_url)], schema=schema)
        for identifier in identifiers[:MOST_IDS]
    ]
    left_out = identifiers[MOST_IDS:]
    if left_out:
        # One row more than is shown, so that the document says OVERFLOW.
        batches.append(pa.RecordBatch.from_pylist([asdict(LinkRow(left_out[0]))], schema=schema))
    heading = DocumentHeading(
        table="links",
        description="What there is of each object",
        infos=(Info("standardID", LINKS_STANDARD), Info("SERVICE_PROTOCOL", "1.1", "DataLink")),
        services=(cutout_descriptor(base_url, "ID"),),
    )
    most = sum(batch.num_rows for batch in batches) - bool(left_out)
    return votable.document(_FIELDS, batches, heading, encoding="tabledata", max_rows=most)


def links_of(context: Context, identifier: str, base_url: str) -> Iterator[LinkRow]:
    """The links of one object, or one row with the error."""
    wanted = CandidateId.parse(identifier)
    if wanted is None:
        yield LinkRow(identifier, error_message="UsageFault: an ID is run/tile_id/target_id")
        return
    try:
        collection, rows = context.collections.find(identifier)
    except UnknownCandidateError:
        yield LinkRow(identifier, error_message="NotFoundFault: there is no object of this ID")
        return
    row: dict[str, Any] = rows.to_pylist()[0]
    yield from _cutouts(identifier, base_url)
    yield LinkRow(
        identifier,
        service_def=SODA,
        description="Any part of the cutout, any band, any stretch",
        semantics="#cutout",
        content_type=CUTOUT_MEDIA_TYPES["fits"],
        local_semantics="cutout service",
    )
    yield LinkRow(
        identifier,
        f"{base_url}/c/{quote(collection.slug)}/candidates/{quote(identifier)}",
        description="Its page: pictures, scores, neighbours in the t-SNE map, grades",
        semantics="#documentation",
        content_type="text/html",
        local_semantics="page",
    )
    yield _neighbourhood(identifier, collection, row, base_url)
    if explanation_of(context, wanted) is not None:
        yield from _products(identifier, base_url, "explanation", EXPLANATION_MEDIA_TYPES, _EXPLANATION_LINKS)
    if row.get("theta_e") is not None and math.isfinite(row["theta_e"]):
        yield from _products(identifier, base_url, "lens-model", MODEL_MEDIA_TYPES, _MODEL_LINKS)


def _cutouts(identifier: str, base_url: str) -> Iterator[LinkRow]:
    def link(format_: CutoutFormat, band: str, semantics: str, description: str) -> LinkRow:
        query = urlencode({"ID": identifier, "FORMAT": format_, "BAND": band})
        return LinkRow(
            identifier,
            f"{base_url}/cutout?{query}",
            description=description,
            semantics=semantics,
            content_type=CUTOUT_MEDIA_TYPES[format_],
            content_qualifier="#image",
            local_semantics=f"{band} {format_}",
        )

    yield link("fits", "all", "#this", 'VIS, Y, J and H, 20" wide, with their WCS')
    for band in BANDS:
        yield link("fits", band, "#derivation", f"{band} alone, with its WCS")
    yield link("png", "colour", "#preview", "VIS coloured by J and H")
    yield link("png", "all", "#preview-image", "VIS, VIS coloured by NISP, and NISP beside one another")
    yield link("webp", "VIS", "#thumbnail", "VIS, small")


def _neighbourhood(identifier: str, collection: Collection, row: dict[str, Any], base_url: str) -> LinkRow:
    query = urlencode({"RA": repr(row["ra"]), "DEC": repr(row["dec"]), "SR": f"{NEIGHBOURHOOD_DEG:.6f}"})
    return LinkRow(
        identifier,
        f"{base_url}/scs/{quote(collection.slug)}?{query}",
        description='Objects of the catalogue within 30"',
        semantics="#auxiliary",
        content_type=votable.MEDIA_TYPE,
        local_semantics="neighbourhood",
    )


#: Format, semantics and description of each link to what a stage has made of an object.
_EXPLANATION_LINKS = (
    ("png", "#preview-image", "What the networks look at"),
    ("json", "#auxiliary", "What the seven members say and how far they agree"),
)
_MODEL_LINKS = (
    ("png", "#preview-image", "Its lens model: data, deflector removed, model, residual, source"),
    ("json", "#auxiliary", "Its lens model: mass, galaxies, evidence"),
    ("fits", "#derivation", "Its lens model: images of each band, noise and PSF"),
)


def _products(
    identifier: str, base_url: str, name: str, media_types: Mapping[str, str], links: Iterable[tuple[str, str, str]]
) -> Iterator[LinkRow]:
    for format_, semantics, description in links:
        yield LinkRow(
            identifier,
            f"{base_url}/{name}?{urlencode({'ID': identifier, 'FORMAT': format_})}",
            description=description,
            semantics=semantics,
            content_type=media_types[format_],
            local_semantics=f"{name} {format_}",
        )


def explanation_of(context: Context, wanted: CandidateId) -> tuple[RunFolder, Explanation] | None:
    """An object's explanation and the run folder that it lies in; None where there is none, or it is damaged. Blocks."""
    return _of_stage(context, wanted, explanations.read)


def _of_stage(
    context: Context, wanted: CandidateId, read: Callable[[Store, str, int], Made | None]
) -> tuple[RunFolder, Made] | None:
    """What a stage has made of an object, and the run folder that it lies in."""
    for collection in context.collections:
        folder = collection.published.run_folders.get(wanted.run)
        if folder is None:
            continue
        try:
            known = read(folder.store, wanted.tile_id, wanted.target_id)
        except ScannerError as error:
            _log.warning("cannot be read: %s", error)
            known = None
        if known is not None:
            return folder, known
    return None


def _explanation(context: Context, identifier: CandidateId | None, wanted: str) -> bytes:
    known = None if identifier is None else explanation_of(context, identifier)
    if known is None:
        raise NotFoundError("There is no explanation of an object of this id (run/tile_id/target_id).")
    folder, explanation = known
    if wanted == "json":
        return explanation.model_dump_json(indent=2, exclude={"place"}).encode()
    try:
        return explanations.strip(folder.store, explanation)
    except ScannerError as error:
        _log.warning("no strip of %s: %s", identifier, error)
        raise NotFoundError("The explanation of this object is damaged; explain it again.") from None


def _model(context: Context, identifier: CandidateId | None, wanted: str) -> bytes:
    known = None if identifier is None else _of_stage(context, identifier, lens_model.read)
    if known is None:
        raise NotFoundError("There is no lens model of an object of this id (run/tile_id/target_id).")
    folder, model = known
    if wanted == "json":
        return model.model_dump_json(indent=2, exclude={"place"}).encode()
    if model.status == "refused":
        raise NotFoundError(f"This object could not be modelled: {model.reason}.")
    try:
        return lens_model.read_file(folder.store, model, lens_model.PICTURE if wanted == "png" else lens_model.IMAGES)
    except ScannerError as error:
        _log.warning("no lens model of %s: %s", identifier, error)
        raise NotFoundError("The lens model of this object is damaged; model it again.") from None


def links_descriptor(base_url: str, column: str = "candidate_id") -> ServiceDescriptor:
    """The links of each row's object: cutouts, pictures, its page.

    Parameters
    ----------
    base_url
        The service's root as clients reach it, without a slash at its end.
    column
        Name of the answer's column that names the objects.
    """
    return ServiceDescriptor(
        identifier=LINKS,
        access_url=f"{base_url}/datalink",
        standard_id=LINKS_STANDARD,
        inputs=(Parameter("ID", column=column, ucd="meta.id;meta.main"),),
        description="Cutouts, pictures and pages of each object",
        content_type=votable.LINKS_MEDIA_TYPE,
    )


def cutout_descriptor(base_url: str, column: str = "candidate_id") -> ServiceDescriptor:
    """The cutout of each row's object; the parameters are those of :func:`links_descriptor`."""
    return ServiceDescriptor(
        identifier=SODA,
        access_url=f"{base_url}/cutout",
        standard_id=SODA_STANDARD,
        inputs=(
            Parameter("ID", column=column, ucd="meta.ref.url;meta.curation"),
            Parameter(
                "CIRCLE", ucd="pos.outline;obs", datatype="double", arraysize="3", unit="deg", xtype="circle",
                description="Only the part that holds this circle",
            ),
            Parameter("BAND", ucd="instr.bandpass", options=get_args(Picture), description="What is cut out or drawn"),
            Parameter("FORMAT", ucd="meta.code.mime", options=tuple(CUTOUT_MEDIA_TYPES), description="Pixels or a picture"),
            Parameter("STRETCH", ucd="meta.code", options=CURVES, description="From pixels to brightness"),
        ),
        description="Cutouts of each object",
    )  # fmt: skip
