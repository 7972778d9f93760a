"""Cutouts as SODA 1.0 asks for them, as FITS files or drawn as pictures: ``/cutout``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from scanner import __version__
from scanner.cutouts.framed import BandImage, Card, FramedCutout, fits_bytes
from scanner.errors import UsageError
from scanner.grading.grade import Viewer
from scanner.query.region import Cone
from scanner.records import BANDS, NISP_PIXEL_SCALE_ARCSEC, VIS_CUTOUT_PIXELS, VIS_PIXEL_SCALE_ARCSEC, Band
from scanner.report import colour, self_contained
from scanner.report.colour import BLACK_SIGMA, CURVES, SOFTENING_SIGMA, Curve, Stretch, UInt8
from scanner.service.context import (
    CampaignName,
    Context,
    HandoutId,
    Parameters,
    QueryParameter,
    add_routes,
    answers,
    conditional,
)
from scanner.service.errors import BadRequestError, NotFoundError, of_grades
from scanner.service.security import grader

CutoutFormat = Literal["fits", "png", "webp"]
Picture = Literal["VIS", "Y", "J", "H", "colour", "nisp", "all"]
#: Side of the whole cutout.
WHOLE_ARCSEC = VIS_CUTOUT_PIXELS * VIS_PIXEL_SCALE_ARCSEC
SMALLEST_ARCSEC = 1.0
LARGEST_ZOOM = 8
LARGEST_SIGMA = 1e6
LARGEST_SATURATION = 4.0
#: Wavelengths that the bands let through, in metres: where the response is half of its peak (Euclid Collaboration: Cropper et
#: al. 2024 for VIS, Schirmer et al. 2022, table 1, for NISP).
PASSBANDS_M: dict[Band, tuple[float, float]] = {
    "VIS": (5.3e-7, 9.2e-7),
    "Y": (9.496e-7, 1.2123e-6),
    "J": (1.1676e-6, 1.567e-6),
    "H": (1.5215e-6, 2.0214e-6),
}
CUTOUT_MEDIA_TYPES: dict[CutoutFormat, str] = {"fits": "application/fits", "png": "image/png", "webp": "image/webp"}
#: A run rarely changes under its name: only where it is made again from other files.
MAX_AGE_S = 86_400
_PICTURES: dict[str, Picture] = {name.lower(): name for name in get_args(Picture)}
_WORDS = {401: "AuthenticationError", 403: "AuthorizationError", 408: "ServiceUnavailable", 429: "ServiceUnavailable",
          503: "ServiceUnavailable"}  # fmt: skip
#: Of WebP, as on the contact sheet; what is drawn larger than pixel by pixel shows what the compression does.
_QUALITY, _LARGE_PIXELS_QUALITY = self_contained.QUALITIES[:1], self_contained.NISP_QUALITIES
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
    QueryParameter("DEFLECTOR", "0: a picture without the light of the galaxy in its middle [default: 1]."),
)


@dataclass(frozen=True)
class CutoutRequest:
    """One cutout, as it is wanted.

    ``bands``: those of a FITS file, None: those that ``picture`` stands for. ``picture``: what is drawn. ``circle``: only the
    part that holds it. ``size_arcsec``: side of the inner field that is wanted. ``zoom``: pixels of the picture along each side
    of one of the cutout. ``invert``: dark on white. ``deflector``: with the light of the galaxy in the middle of a picture.
    """

    format: CutoutFormat = "fits"
    picture: Picture = "all"
    bands: tuple[Band, ...] | None = None
    circle: Cone | None = None
    size_arcsec: float = WHOLE_ARCSEC
    stretch: Stretch = Stretch()
    saturation: float = 1.0
    zoom: int = 1
    invert: bool = False
    deflector: bool = True

    @property
    def fits_bands(self) -> tuple[Band, ...]:
        """The bands of a FITS file."""
        if self.bands is not None:
            return self.bands
        if self.picture == "nisp":
            return BANDS[1:]
        return tuple(band for band in BANDS if band == self.picture) or BANDS


@dataclass(frozen=True)
class Rendered:
    """An answer: its bytes and their media type."""

    content: bytes
    media_type: str


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
        rendered, name = await context.work.run(_rendered, context, identifier, wanted)
        if rendered is None:
            return Response(status_code=204)
        filename = f"{name.replace(' ', '_')}_{wanted.picture}.{wanted.format}"
        return conditional(request, rendered.content, rendered.media_type, max_age_s=MAX_AGE_S, filename=filename)

    @routes.get(
        "/cutout/{campaign}/{handout}",
        summary="Picture of what a campaign handed to me",
        response_class=Response,
        responses=answers("text/plain", CUTOUT_MEDIA_TYPES["webp"], CUTOUT_MEDIA_TYPES["png"], _304="You have it"),
    )
    async def handed(
        request: Request, campaign: CampaignName, handout: HandoutId, who: Annotated[Viewer, Depends(grader)]
    ) -> Response:
        try:
            wanted = read_request(await Parameters.of(request))
        except UsageError as error:
            raise BadRequestError(str(error)) from None
        # A file's header, or the sky's own coordinates, would say where it is.
        wanted = replace(wanted, format="png" if wanted.format == "png" else "webp", circle=None)

        def drawn() -> Rendered | None:
            subject = of_grades(context.campaigns.handout, campaign, who.name or "", handout).subject
            try:
                place = subject.place.candidate_id
                framed = context.cutouts.handed(handout, lambda: context.cutout_of(place, salted=subject.salted)[2])
            except NotFoundError:
                raise NotFoundError("There is no picture of this one.") from None
            return render(framed, wanted, {})

        rendered = await context.work.run(drawn)
        assert rendered is not None
        return conditional(request, rendered.content, rendered.media_type, max_age_s=MAX_AGE_S)

    add_routes(
        routes,
        "/cutout",
        cutout,
        *PARAMETERS,
        summary="Cutout of an object as FITS or as a picture",
        responses=answers("text/plain", *CUTOUT_MEDIA_TYPES.values(), _204="Nothing is left of it", _304="You have it"),
    )
    return routes


def error_form(request: Request, status: int, message: str, request_id: str) -> Response:
    """How SODA says what it refuses: a word of its vocabulary and one line."""
    word = _WORDS.get(status, "UsageError" if status < 500 else "Error")
    said = message if message.startswith("MultiValuedParamNotSupported") else f"{word}: {message}"
    return PlainTextResponse(f"{said}\n", status)


def _rendered(context: Context, identifier: str, wanted: CutoutRequest) -> tuple[Rendered | None, str]:
    _, rows, framed = context.cutout_of(identifier)
    row: dict[str, Any] = rows.to_pylist()[0]
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


def read_request(parameters: Parameters) -> CutoutRequest:
    """What is wanted of the cutout.

    Raises
    ------
    UsageError, BadRequestError
        A parameter makes no sense, or is given more often than it may.
    """

    def number(name: str, lowest: float, highest: float, default: float) -> float:
        value = parameters.one(name)
        return default if value is None else parse_number(name, value, lowest, highest)

    picture, bands = parse_band(parameters.one("BAND") or "all")
    formats = (*parameters.all("FORMAT"), *parameters.all("RESPONSEFORMAT"))
    drawn_only = picture == "colour"
    format_ = parse_format(formats) if formats or not drawn_only else "png"
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
        circle=parse_circle("CIRCLE", circle) if circle else parse_position(position) if position else None,
        size_arcsec=number("SIZE", SMALLEST_ARCSEC, WHOLE_ARCSEC, WHOLE_ARCSEC),
        stretch=Stretch(
            curve=parse_curve(parameters.one("STRETCH") or "asinh"),
            black_sigma=number("BLACK", -LARGEST_SIGMA, LARGEST_SIGMA, BLACK_SIGMA),
            white_sigma=None if white is None else parse_number("WHITE", white, -LARGEST_SIGMA, LARGEST_SIGMA),
            softening_sigma=number("SOFTENING", 1e-3, LARGEST_SIGMA, SOFTENING_SIGMA),
        ),
        saturation=number("SATURATION", 0, LARGEST_SATURATION, 1.0),
        zoom=parse_zoom(parameters.one("ZOOM") or "1"),
        invert=parse_switch("INVERT", parameters.one("INVERT") or "0"),
        deflector=parse_switch("DEFLECTOR", parameters.one("DEFLECTOR") or "1"),
    )


def parse_format(values: Sequence[str]) -> CutoutFormat:
    """``fits``, ``png`` or ``webp``, or one of their media types; the first value that is known."""
    for value in values:
        wanted = value.strip().lower().partition(";")[0]
        for name, media_type in CUTOUT_MEDIA_TYPES.items():
            if wanted in (name, media_type, f"image/{name}"):
                return name
    if values:
        raise UsageError(f"FORMAT={values[0]}: is none of {', '.join(CUTOUT_MEDIA_TYPES)}.")
    return "fits"


def parse_band(value: str) -> tuple[Picture, tuple[Band, ...] | None]:
    """A band's or picture's name, or an interval of wavelengths in metres (two numbers, or one).

    Returns
    -------
    tuple
        What is drawn, and the bands of a FITS file: those that let some of the wavelengths through, which may be none; None:
        those of the picture.
    """
    picture = _PICTURES.get(value.strip().lower())
    if picture is not None:
        return picture, None
    try:
        numbers = [float(part) for part in value.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or any(math.isnan(number) for number in numbers) or numbers[0] > numbers[-1]:
        raise UsageError(
            f"BAND={value}: is none of {', '.join(_PICTURES.values())}, and no interval of wavelengths in metres ('5e-7 9e-7')."
        )
    low, high = numbers[0], numbers[-1]
    bands = tuple(band for band in BANDS if PASSBANDS_M[band][0] <= high and PASSBANDS_M[band][1] >= low)
    if len(bands) == 1:
        return bands[0], bands
    return ("nisp" if bands and "VIS" not in bands else "all"), bands


def parse_circle(name: str, value: str) -> Cone:
    """A circle from "RA DEC RADIUS" in degrees."""
    try:
        ra, dec, radius = (float(part) for part in value.split())
    except ValueError:
        raise UsageError(f"{name}={value}: is no circle; give 'RA DEC RADIUS' in degrees.") from None
    if not (math.isfinite(ra) and 0 <= ra <= 360 and -90 <= dec <= 90 and 0 <= radius <= 180):
        raise UsageError(f"{name}={value}: RA is 0 to 360, DEC -90 to 90, RADIUS 0 to 180 degrees.")
    return Cone(ra, dec, radius)


def parse_position(value: str) -> Cone:
    """The circle of a SODA ``POS``: "CIRCLE RA DEC RADIUS"."""
    shape, _, rest = value.strip().partition(" ")
    if shape.upper() != "CIRCLE":
        raise UsageError(f"POS={value}: only CIRCLE is supported; give 'CIRCLE RA DEC RADIUS' in degrees.")
    return parse_circle("POS", rest)


def parse_number(name: str, value: str, lowest: float, highest: float) -> float:
    """A number between two others."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not lowest <= number <= highest:
        raise UsageError(f"{name}={value}: is no number from {lowest:g} to {highest:g}.")
    return number


def parse_zoom(value: str) -> int:
    """A whole number from 1 to :data:`LARGEST_ZOOM`."""
    number = parse_number("ZOOM", value, 1, LARGEST_ZOOM)
    if number != int(number):
        raise UsageError(f"ZOOM={value}: is no whole number from 1 to {LARGEST_ZOOM}.")
    return int(number)


def parse_curve(value: str) -> Curve:
    """The name of a stretch."""
    for curve in CURVES:
        if value.strip().lower() == curve:
            return curve
    raise UsageError(f"STRETCH={value}: is none of {', '.join(CURVES)}.")


def parse_switch(name: str, value: str) -> bool:
    """``1`` or ``true``, ``0`` or ``false``."""
    wanted = value.strip().lower()
    if wanted in ("1", "true"):
        return True
    if wanted in ("0", "false"):
        return False
    raise UsageError(f"{name}={value}: is neither 0 nor 1.")


def render(framed: FramedCutout, wanted: CutoutRequest, header: Mapping[str, Card]) -> Rendered | None:
    """Write or draw one cutout.

    Parameters
    ----------
    framed
        The cutout.
    wanted
        What is wanted of it.
    header
        Cards of a FITS file's primary header.
    """
    if wanted.format == "fits":
        content = _fits(framed, wanted, header)
    else:
        image = _picture(framed, wanted)
        if image is None:
            return None
        if wanted.invert:
            image = 255 - image
        content = self_contained.png(image) if wanted.format == "png" else _webp(image, wanted)
    return None if content is None else Rendered(content, CUTOUT_MEDIA_TYPES[wanted.format])


def _fits(framed: FramedCutout, wanted: CutoutRequest, header: Mapping[str, Card]) -> bytes | None:
    images = [
        image.part(*part)
        for image in framed.images
        if image.band in wanted.fits_bands and (part := _part(image, wanted)) is not None
    ]
    return fits_bytes(images, header) if images else None


def _picture(framed: FramedCutout, wanted: CutoutRequest) -> UInt8 | None:
    if wanted.bands == ():
        return None
    if not wanted.deflector:
        # Fitting takes a second to import.
        from scanner.modelling.deflector_light import without_deflector

        framed = replace(framed, cutout=without_deflector(framed.cutout))
    cutout, stretch = framed.cutout, wanted.stretch
    vis, nisp, sky, sigma = cutout.vis[0], cutout.nisp[0], cutout.sky[0], cutout.sigma[0]
    if wanted.picture == "all":
        return _all(framed, wanted)
    if wanted.picture == "VIS":
        drawn = colour.vis_image(vis, sky, sigma, stretch)
    elif wanted.picture == "colour":
        drawn = colour.colour_image(vis, nisp, sky, sigma, stretch, wanted.saturation)
    elif wanted.picture == "nisp":
        drawn = colour.nisp_image(nisp, sky, sigma, stretch, wanted.saturation)
    else:
        number = BANDS.index(wanted.picture)
        drawn = colour.nisp_band_image(nisp[number - 1], float(sky[number]), float(sigma[number]), stretch)
    # VIS has the pixels of the colour picture, Y those of all of NISP.
    grid: Band = "VIS" if wanted.picture in ("VIS", "colour") else "Y"
    part = _part(framed.images[BANDS.index(grid)], wanted)
    return None if part is None else colour.enlarged(drawn[part], wanted.zoom)


def _all(framed: FramedCutout, wanted: CutoutRequest) -> UInt8 | None:
    """The three panels, each cut down to the same part of the VIS pixels."""
    part = _part(framed.images[0], wanted)
    if part is None:
        return None
    drawn = colour.side_by_side(framed.cutout, 1, wanted.stretch, wanted.saturation)
    side = drawn.shape[0]
    each = [drawn[part[0], panel * side + part[1].start : panel * side + part[1].stop] for panel in range(3)]
    return colour.enlarged(np.concatenate(each, axis=1), wanted.zoom)


def _part(image: BandImage, wanted: CutoutRequest) -> tuple[slice, slice] | None:
    """Rows and columns of an image that are wanted: the inner field, and of it what holds the circle."""
    scale = VIS_PIXEL_SCALE_ARCSEC if image.band == "VIS" else NISP_PIXEL_SCALE_ARCSEC
    height, width = image.pixels.shape
    # Whole pixels on both sides, so that the centre stays.
    margin = 0 if wanted.size_arcsec >= WHOLE_ARCSEC else max(0, (height - max(2, round(wanted.size_arcsec / scale))) // 2)
    rows, columns = slice(margin, height - margin), slice(margin, width - margin)
    if wanted.circle is None:
        return rows, columns
    circle = image.around(wanted.circle.ra, wanted.circle.dec, wanted.circle.radius_deg)
    if circle is None:
        return None
    both = tuple(
        slice(max(one.start, other.start), min(one.stop, other.stop))
        for one, other in zip((rows, columns), circle, strict=True)
    )
    return (both[0], both[1]) if all(one.stop > one.start for one in both) else None


def _webp(image: UInt8, wanted: CutoutRequest) -> bytes:
    is_large = wanted.zoom > 1 or wanted.picture not in ("VIS", "colour")
    return self_contained.webp(image, _LARGE_PIXELS_QUALITY if is_large else _QUALITY)
