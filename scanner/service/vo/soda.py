"""Cutouts of objects, as SODA 1.0 asks for them and with controls of how they are drawn: ``/cutout``.

In: ID (``run/tile_id/target_id``), FORMAT, BAND, CIRCLE or POS, SIZE, and of pictures STRETCH, BLACK, WHITE, SOFTENING,
SATURATION, ZOOM, INVERT. Out: a FITS file with a WCS for every band, or a picture; 204 where nothing is left of it. Refused,
in one line of text as SODA has it: unknown objects and cutouts that are not to be had (404), parameters that make no sense
(400).

Source: Server-side Operations for Data Access 1.0, sections 3 and 4.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from scanner import __version__
from scanner.cutouts.framed import Card
from scanner.errors import UsageError
from scanner.report.colour import BLACK_SIGMA, CURVES, SOFTENING_SIGMA, Stretch
from scanner.service.conditional import conditional
from scanner.service.context import Context
from scanner.service.cutouts import request as asked
from scanner.service.cutouts.render import Rendered, render
from scanner.service.cutouts.request import LARGEST_SATURATION, LARGEST_SIGMA, LARGEST_ZOOM, WHOLE_ARCSEC, CutoutRequest
from scanner.service.cutouts.source import NoCutoutError
from scanner.service.errors import BadRequestError, NotFoundError
from scanner.service.vo.openapi import QueryParameter, add_routes, answers
from scanner.service.vo.parameters import Parameters

#: A run is not changed under its name, but for one that is made anew from other files: asked about again after a day.
MAX_AGE_S = 86_400
_WORDS = {401: "AuthenticationError", 403: "AuthorizationError", 408: "ServiceUnavailable", 429: "ServiceUnavailable",
          503: "ServiceUnavailable"}  # fmt: skip

PARAMETERS = (
    QueryParameter("ID", "The object: run/tile_id/target_id.", required=True),
    QueryParameter("FORMAT", "fits, png or webp [default: fits; png of colour pictures]."),
    QueryParameter("BAND", "VIS, Y, J, H, colour, nisp or all, or wavelengths in metres ('5e-7 9e-7') [default: all]."),
    QueryParameter("CIRCLE", "Only the part that holds this circle: 'RA DEC RADIUS' in degrees."),
    QueryParameter("POS", "The same as 'CIRCLE RA DEC RADIUS'."),
    QueryParameter("SIZE", f"Side of the inner field in arc seconds [default: {WHOLE_ARCSEC:g}, all]."),
    QueryParameter("STRETCH", f"{', '.join(CURVES)} [default: asinh]."),
    QueryParameter("BLACK", f"Significance drawn black, in sigma of the sky [default: {BLACK_SIGMA:g}]."),
    QueryParameter("WHITE", "Significance drawn white [default: from the picture's centre]."),
    QueryParameter("SOFTENING", f"Where the asinh turns logarithmic, in sigma [default: {SOFTENING_SIGMA:g}]."),
    QueryParameter("SATURATION", "Of colours: 0 grey, 1 as they are, up to 4 [default: 1]."),
    QueryParameter("ZOOM", f"Pixels of the picture along each side of one of the cutout, 1 to {LARGEST_ZOOM} [default: 1]."),
    QueryParameter("INVERT", "1: dark on white [default: 0]."),
)


def router(context: Context) -> APIRouter:
    """The route, for GET, HEAD and POST."""
    routes = APIRouter(tags=["Virtual Observatory"])

    async def cutout(request: Request) -> Response:
        parameters = await Parameters.of(request)
        identifier = parameters.one("ID")
        if identifier is None:
            raise BadRequestError("Name an object: ID=run/tile_id/target_id.")
        try:
            wanted = read_request(parameters)
        except UsageError as error:
            raise BadRequestError(str(error)) from None
        rendered, name = await context.run(_rendered, context, identifier, wanted)
        if rendered is None:
            return Response(status_code=204)
        filename = f"{name.replace(' ', '_')}_{wanted.picture}.{wanted.format}"
        return conditional(request, rendered.content, rendered.media_type, max_age_s=MAX_AGE_S, filename=filename)

    add_routes(
        routes,
        "/cutout",
        cutout,
        *PARAMETERS,
        summary="Cutout of an object as FITS or as a picture",
        responses=answers("text/plain", *asked.MEDIA_TYPES.values(), _204="Nothing is left of it", _304="You have it"),
    )
    return routes


def error_form(request: Request, status: int, message: str, request_id: str) -> Response:
    """How SODA says what it refuses: a word of its vocabulary and one line."""
    word = _WORDS.get(status, "UsageError" if status < 500 else "Error")
    said = message if message.startswith("MultiValuedParamNotSupported") else f"{word}: {message}"
    return PlainTextResponse(f"{said}\n", status)


def read_request(parameters: Parameters) -> CutoutRequest:
    """What is wanted of the cutout.

    Raises
    ------
    UsageError, BadRequestError
        A parameter makes no sense, or is given more often than it may.
    """

    def number(name: str, lowest: float, highest: float, default: float) -> float:
        value = parameters.one(name)
        return default if value is None else asked.parse_number(name, value, lowest, highest)

    picture, bands = asked.parse_band(parameters.one("BAND") or "all")
    formats = (*parameters.all("FORMAT"), *parameters.all("RESPONSEFORMAT"))
    drawn_only = picture == "colour"
    format_ = asked.parse_format(formats) if formats or not drawn_only else "png"
    if format_ == "fits" and drawn_only:
        raise UsageError(f"BAND={picture}: is a picture; ask for FORMAT=png or webp, or for a band.")
    circle, position = parameters.one("CIRCLE"), parameters.one("POS")
    if circle is not None and position is not None:
        raise UsageError("CIRCLE and POS: give one of them.")
    white = parameters.one("WHITE")
    return CutoutRequest(
        format=format_,
        picture=picture,
        bands=bands,
        circle=asked.parse_circle("CIRCLE", circle) if circle else asked.parse_position(position) if position else None,
        size_arcsec=number("SIZE", asked.SMALLEST_ARCSEC, WHOLE_ARCSEC, WHOLE_ARCSEC),
        stretch=Stretch(
            curve=asked.parse_curve(parameters.one("STRETCH") or "asinh"),
            black_sigma=number("BLACK", -LARGEST_SIGMA, LARGEST_SIGMA, BLACK_SIGMA),
            white_sigma=None if white is None else asked.parse_number("WHITE", white, -LARGEST_SIGMA, LARGEST_SIGMA),
            softening_sigma=number("SOFTENING", 1e-3, LARGEST_SIGMA, SOFTENING_SIGMA),
        ),
        saturation=number("SATURATION", 0, LARGEST_SATURATION, 1.0),
        zoom=asked.parse_zoom(parameters.one("ZOOM") or "1"),
        invert=asked.parse_switch("INVERT", parameters.one("INVERT") or "0"),
    )


def _rendered(context: Context, identifier: str, wanted: CutoutRequest) -> tuple[Rendered | None, str]:
    collection, rows = context.collections.find(identifier)
    row: dict[str, Any] = rows.to_pylist()[0]
    folder = collection.published.run_folders.get(row["run"])
    if folder is None:
        raise NotFoundError(f"The run {row['run']} is not at hand any more, and with it its cutouts.")
    try:
        framed = context.cutouts.find(folder, rows)
    except NoCutoutError as error:
        raise NotFoundError(str(error)) from None
    header: dict[str, Card] = {
        "OBJECT": row["name"],
        "RUN": row["run"],
        "TILE": row["tile_id"],
        "TARGET": str(row["target_id"]),
        "BUNDLE": row["bundle"],
        "CREATOR": f"scanner {__version__}",
        "RA": (row["ra"], "[deg] of the object, ICRS"),
        "DEC": (row["dec"], "[deg] of the object, ICRS"),
        "X0": (int(framed.cutout.x0[0]), "first column, of the VIS mosaic"),
        "Y0": (int(framed.cutout.y0[0]), "first row, of the VIS mosaic, from 0"),
    }
    return render(framed, wanted, header), row["name"]
