"""Web pages that are one file: templates, style and script of this folder, and images as PNG, WebP or ``data:`` URIs."""

from __future__ import annotations

import base64
import io
from functools import cache
from importlib import resources

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup
from PIL import Image

from scanner.report.colour import UInt8

#: WebP qualities to try in turn until a picture takes no more than :data:`MOST_BYTES`. Chosen by eye at three-fold
#: magnification: the noise hides what the compression does, at a third of the lossless size. Deep noise alone needs the lower.
QUALITIES = (55, 45, 35)
MOST_BYTES = 7_800
#: NISP is small and shown pixel by pixel, where compression shows soonest.
NISP_QUALITIES = (88,)
#: Of pictures with edges and flat colours, such as maps and bars.
PNG_QUALITY = 70


def template(name: str) -> Template:
    """The template ``<name>.html.jinja``."""
    return _environment().get_template(f"{name}.html.jinja")


def asset(name: str) -> Markup:
    """A style or a script, as it stands in a page."""
    return Markup(resources.files("scanner.report").joinpath("templates", name).read_text(encoding="utf-8"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("scanner.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def png(image: UInt8) -> bytes:
    """Encode one image (y, x) grey or (y, x, 3) red, green, blue, uint8, without loss."""
    stream = io.BytesIO()
    _upright(image).save(stream, "PNG")
    return stream.getvalue()


def webp(image: UInt8, qualities: tuple[int, ...] = QUALITIES) -> bytes:
    """Encode one image (y, x) grey or (y, x, 3) red, green, blue, uint8, at the first quality that makes it small enough."""
    picture = _upright(image)
    data = b""
    for quality in qualities:
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=quality)
        data = stream.getvalue()
        if len(data) <= MOST_BYTES:
            break
    return data


def data_uri(image: UInt8, qualities: tuple[int, ...] = QUALITIES) -> str:
    """Encode one image as a ``data:image/webp`` URI; see :func:`webp`."""
    return webp_uri(webp(image, qualities))


def webp_uri(content: bytes) -> str:
    """A WebP as a ``data:`` URI."""
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def png_uri(content: bytes) -> str:
    """A PNG as a ``data:`` URI, to the byte; see :func:`scanner.report.self_contained.png_as_webp_uri` for a small one."""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def png_as_webp_uri(content: bytes) -> str:
    """A PNG as a ``data:image/webp`` URI, a fifth of its size."""
    stream = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        image.convert("RGB").save(stream, "WEBP", quality=PNG_QUALITY)
    return webp_uri(stream.getvalue())


def _upright(image: UInt8) -> Image.Image:
    # Row 0 of an array is the lowest of the sky, and the highest of a screen.
    return Image.fromarray(np.ascontiguousarray(image[::-1]))
